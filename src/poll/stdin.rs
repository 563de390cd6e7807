//! A target's stdin: what is written to it, and how far the target has read it.

use std::io::{self, PipeWriter, Write};

use crossbeam_channel::{Receiver, Sender};

use super::target::Event;

/// How often the tap looks whether the target has read the rest of its input.
#[cfg(target_os = "linux")]
const LOOK: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Hands chunks of text to the thread that writes them to a target's stdin. An empty chunk stands
/// for a flush.
#[derive(Debug)]
pub struct Input(pub Sender<Vec<u8>>);

impl Write for Input {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        // Ignore that the target has ended: `Event::Ended` says so, and nothing acknowledges what
        // it does not get.
        let _ = self.0.send(chunk.to_vec());
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.send(Vec::new());
        Ok(())
    }
}

/// Writes chunks to a target's stdin. Says when no more can come, and again when the target has
/// read it all; only then ends the input. Returns whether it came so far: not if the target stops
/// reading.
pub fn write_stdin(
    mut stdin: PipeWriter,
    chunks: &Receiver<Vec<u8>>,
    events: &Sender<Event>,
    complete: Sender<()>,
) -> bool {
    for chunk in chunks {
        if stdin.write_all(&chunk).is_err() {
            return false;
        }
        // Ignore that nobody listens any more: the target still gets what was written.
        if chunk.is_empty() && chunks.is_empty() {
            let _ = events.send(Event::Taken);
        }
    }
    let _ = complete.send(());
    is_read_to_its_end(&stdin) && complete.send(()).is_ok()
}

/// Whether a pipe holds nothing.
#[cfg(unix)]
pub fn is_empty(pipe: &impl std::os::fd::AsFd) -> bool {
    rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes == 0)
}

/// Whether a pipe holds nothing. That is not known here: a target has to read its whole input
/// before it ends well.
#[cfg(not(unix))]
pub fn is_empty(_pipe: &std::io::PipeReader) -> bool {
    true
}

/// Waits until a pipe holds nothing. Returns whether the target has read it all, and not closed it.
#[cfg(target_os = "linux")]
fn is_read_to_its_end(stdin: &PipeWriter) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut is_open = true;
    while !is_empty(stdin) {
        if !is_open {
            return false;
        }
        // Ends at once when nobody can read any more.
        is_open = poll(&mut [PollFd::new(stdin, PollFlags::empty())], Some(&LOOK)) != Ok(1);
    }
    true
}

/// Here the tap cannot see that a target closes its stdin: see where the target is started.
#[cfg(not(target_os = "linux"))]
fn is_read_to_its_end(_stdin: &PipeWriter) -> bool {
    true
}
