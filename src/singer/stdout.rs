//! The only way to stdout for messages and commands. Everything else goes to stderr. (clap prints
//! help and version.)

use std::fs::File;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use same_file::Handle;

/// Says what a failed write to stdout means, and what to do about it.
pub fn explain_write(error: io::Error) -> anyhow::Error {
    let problem = match error.kind() {
        ErrorKind::BrokenPipe => "the target has ended: look at its own error",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "the disk behind stdout is full: make room"
        }
        ErrorKind::InvalidData => "a record cannot be written as the settings ask",
        _ => "cannot write to stdout",
    };
    anyhow::Error::new(error).context(format!("{problem}; what was not delivered stays unread for the next run"))
}

/// The process's stdout, as a file of its own: `std::io::stdout` counts a write to a closed
/// descriptor as done.
#[derive(Debug)]
pub struct Stdout {
    file: File,
    /// Whether the file ends with a part of a line: the disk was full, or a run was killed.
    is_cut: bool,
    /// Whether a flush waits for the disk.
    syncs: bool,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.is_cut) {
            self.file.write_all(b"\n")?;
        }
        loop {
            match self.file.write(bytes) {
                // Another process that has the pipe open has set O_NONBLOCK.
                #[cfg(unix)]
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait_until_writable(&self.file)?,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }
}

#[cfg(unix)]
fn wait_until_writable(file: &File) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(file, PollFlags::OUT)], None))?;
    Ok(())
}

/// Opens stdout. With `syncs`, a flush waits until a regular file is on the disk.
///
/// # Errors
/// When there is no stdout to write to.
pub fn open(syncs: bool) -> Result<Stdout> {
    let file = Handle::stdout().and_then(|stdout| stdout.as_file().try_clone()).context("open stdout")?;
    #[cfg(unix)]
    anyhow::ensure!(
        !is_stand_in(&file),
        "stdout is closed, or is /dev/null opened to read and write: records written there would be \
         lost; give the tap a stdout, as in `tap-streamduo -c config.json | target-x`"
    );
    let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let is_cut = is_regular && ends_within_line(&file).unwrap_or_default();
    Ok(Stdout { file, is_cut, syncs: is_regular && syncs })
}

/// Whether a part of a line is before the place in the file behind stdout that is written to next.
/// The file is open to write, and so read by name.
#[cfg(unix)]
fn ends_within_line(mut file: &File) -> io::Result<bool> {
    use super::files::is_cut;
    use rustix::fs::{OFlags, fcntl_getfl};
    use std::io::Seek;
    let appends = fcntl_getfl(file)?.contains(OFlags::APPEND);
    let end = if appends { file.metadata()?.len() } else { file.stream_position()? };
    is_cut(&mut File::open("/dev/stdout")?, end)
}

#[cfg(not(unix))]
fn ends_within_line(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether this is what Rust's runtime puts in place of a closed descriptor before `main`:
/// /dev/null, opened to read and write. A shell's `> /dev/null` is open to write only, and is the
/// user's own wish.
#[cfg(unix)]
fn is_stand_in(file: &File) -> bool {
    use super::files::is_behind;
    use rustix::fs::{OFlags, fcntl_getfl};
    let both_ways = fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::RDWR));
    both_ways && is_behind(Handle::stdout(), "/dev/null".as_ref())
}

/// Writes a line or a text of its own to stdout, such as the catalog.
///
/// # Errors
/// When it cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = open(false)?;
    writeln!(out, "{text}").context("write to stdout")
}
