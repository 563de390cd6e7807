//! The target that the tap runs: a child process with a pipe on its stdin and on its stdout.
//!
//! The target starts with the first message that it is to get, and again with the first one after
//! its end. Three threads serve it: one writes to its stdin, one reads its stdout, one waits for
//! its end. So the loop never blocks in a write: it waits for an [`Event`], or for a stop.
//!
//! On Unix the target has a process group of its own, so that Ctrl-C reaches the tap alone. On
//! Windows Ctrl-C reaches both: what the target has not committed then comes again.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::Result;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, unbounded};
use log::info;

use super::stdin::{Input, is_empty, write_stdin};
use crate::config::Invalid;
use crate::config::settings::ENV_PREFIX;
use crate::record::{MessageWriter, ReturnedCheckpoint};
use crate::shutdown::Shutdown;
use crate::singer::state::returned_checkpoint;
use crate::singer::{Stream, Writer};

/// A longer line of the target's output is read in pieces, in bytes. Checkpoints are shorter.
const MAX_LINE: u64 = 64 * 1024;

/// How many events may wait before the target has to.
const MAX_EVENTS: usize = 1024;

/// How long the target's output is read on once the target has ended. Another process may hold it
/// open.
const OUTPUT_AFTER_END: Duration = Duration::from_secs(5);

/// How long after a target's end the next one is started. Many name their files by the second, and
/// overwrite those that they find.
const BETWEEN_TARGETS: Duration = Duration::from_secs(1);

/// How much of the end of a target's stderr is kept, in bytes.
const MAX_LAST_WORDS: usize = 2_000;

/// How long a target that has closed its stdin may take to end. Most have ended already.
const AFTER_LAST_READ: Duration = Duration::from_secs(1);

/// What a target does.
#[derive(Debug)]
pub enum Event {
    /// Everything that was written is on its way to it.
    Taken,
    /// It has printed a checkpoint.
    Acknowledged(ReturnedCheckpoint),
    /// It has ended. Everything that it has printed came before this.
    Ended {
        /// Its exit code, or the signal that has ended it. An error says what is known instead.
        status: io::Result<ExitStatus>,
        /// Whether its input was ended, and it has read all of it.
        has_read_all: bool,
    },
}

/// A target that the tap has started has not committed everything, or has not ended well: exit code
/// 3. What it has committed is marked, the rest stays unread.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TargetFailed(pub(super) String);

/// The target, as the loop hears of it. Messages go to it through a [`Writer`].
pub trait Target {
    /// What it is called in log lines.
    fn name(&self) -> &str;

    /// Whether one was started, and has not reported its end.
    fn is_running(&self) -> bool;

    /// Keeps the last lines of the next target's stderr, or does not.
    fn keep_stderr(&mut self, keeps: bool);

    /// The lines that were kept.
    fn last_words(&mut self) -> String;

    /// Waits for the next event of the target that was started last, but no longer than this.
    /// `None` if there is none.
    ///
    /// # Errors
    /// [`Stopped`](crate::shutdown::Stopped) when a stop is asked for.
    fn next_event(&mut self, limit: Duration, stop: &Shutdown) -> Result<Option<Event>>;
}

/// A target's program and its arguments.
#[derive(Debug, Clone)]
pub struct TargetCommand {
    /// The program as the user has named it, without its folder.
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl TargetCommand {
    /// Finds the program, as a shell would.
    ///
    /// # Errors
    /// [`Invalid`] when there is none, or it is not executable.
    pub fn find(words: &[OsString]) -> Result<TargetCommand, Invalid> {
        let (program, arguments) = words.split_first().ok_or_else(|| Invalid::new("there is no target after --"))?;
        let path = which::which(program).map_err(|_| {
            let program = program.to_string_lossy();
            let place = if program.contains(std::path::is_separator) { "at that path" } else { "on the PATH" };
            Invalid::new(format!(
                "cannot run the target {program}: there is no such program {place}, or it is not executable; install it, or \
                 name its path"
            ))
        })?;
        let name = path.file_name().unwrap_or(program).to_string_lossy().into_owned();
        Ok(TargetCommand { name, program: path, arguments: arguments.to_vec() })
    }

    /// The error of a start. If it was the first one, the command line is wrong.
    fn cannot_run(&self, error: io::Error, is_restart: bool) -> io::Error {
        let problem = format!("cannot run the target {}: {error}; try to run it alone", self.program.display());
        let kind = error.kind();
        if is_restart {
            io::Error::new(kind, TargetFailed(problem))
        } else {
            io::Error::new(kind, Invalid::new(problem))
        }
    }

    fn spawn(&self, stdin: PipeReader, keeps_stderr: bool) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(stdin).stdout(Stdio::piped());
        if keeps_stderr {
            command.stderr(Stdio::piped());
        }
        for (name, _) in env::vars_os() {
            // On Windows the case of a name does not matter.
            if name.to_string_lossy().to_ascii_uppercase().starts_with(ENV_PREFIX) {
                command.env_remove(name);
            }
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn()
    }
}

/// Where messages go, and the target behind it, if the tap runs one.
pub type Ends = (Box<dyn MessageWriter>, Option<Box<dyn Target>>);

/// Makes the way into a target, and the way out. Nothing is started yet.
pub fn connect(command: TargetCommand, stream: Stream) -> Ends {
    let (started, starts) = unbounded();
    let stderr = Arc::default();
    let process = TargetProcess { name: command.name.clone(), starts, events: None, stderr: Arc::clone(&stderr) };
    let stream_name = stream.name.clone();
    let mut starter = Starter { command, stream_name, started, is_restart: false, ended: Arc::default(), stderr };
    (Box::new(Writer::new(move || starter.start_next(), stream)), Some(Box::new(process)))
}

/// Starts targets, one after the other.
#[derive(Debug)]
struct Starter {
    command: TargetCommand,
    stream_name: String,
    /// Where the events of each target that is started go to.
    started: Sender<Receiver<Event>>,
    /// Whether a start was tried before.
    is_restart: bool,
    /// When the last one has ended.
    ended: Arc<Mutex<Option<Instant>>>,
    /// The end of the target's stderr, if it is to be kept.
    stderr: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Starter {
    /// Starts the next target. Returns the way into it, which ends its input when it is dropped.
    fn start_next(&mut self) -> io::Result<Input> {
        let input = self.start().map_err(|error| self.command.cannot_run(error, self.is_restart));
        self.is_restart = true;
        input
    }

    /// Starts a target, but not within a second of the last one's end.
    fn start(&self) -> io::Result<Input> {
        let ended = *lock(&self.ended);
        thread::sleep(ended.map_or(Duration::ZERO, |ended| BETWEEN_TARGETS.saturating_sub(ended.elapsed())));
        let name = &self.command.name;
        let (stdin, input) = io::pipe()?;
        // On Linux the writing end shows what is not read yet. While the tap keeps the reading end
        // open, it does not see that the target has closed it.
        let kept = if cfg!(target_os = "linux") { None } else { Some(stdin.try_clone()?) };
        let mut child = self.command.spawn(stdin, lock(&self.stderr).is_some())?;
        info!("{name} is started");
        let (events_sender, events) = bounded(MAX_EVENTS);
        let (chunks_sender, chunks) = unbounded();
        let (complete, completed) = bounded(2);
        let (output_open, output_ended) = bounded::<()>(0);
        let (running, has_ended) = bounded::<()>(0);
        let sender = events_sender.clone();
        start_thread("target's stdin", move || {
            if !write_stdin(input, &chunks, &sender, complete)
                && has_ended.recv_timeout(AFTER_LAST_READ) == Err(RecvTimeoutError::Timeout)
            {
                let error = io::Error::other("has stopped reading its input, and is still running");
                let _ = sender.send(Event::Ended { status: Err(error), has_read_all: false });
            }
        })?;
        if let Some(stderr) = child.stderr.take() {
            let kept = Arc::clone(&self.stderr);
            let open = output_open.clone();
            start_thread("target's stderr", move || {
                pass_on(stderr, &kept);
                drop(open);
            })?;
        }
        if let Some(stdout) = child.stdout.take() {
            let name = name.clone();
            let stream = self.stream_name.clone();
            let sender = events_sender.clone();
            start_thread("target's stdout", move || {
                read_stdout(stdout, &name, &stream, &sender);
                drop(output_open);
            })?;
        }
        let ended = Arc::clone(&self.ended);
        start_thread("target's end", move || {
            let status = child.wait();
            *lock(&ended) = Some(Instant::now());
            drop(running);
            let status =
                status.map_err(|error| io::Error::other(format!("has ended, and it is not known how: {error}")));
            let is_complete = completed.try_recv().is_ok() && completed.recv_timeout(OUTPUT_AFTER_END).is_ok();
            let has_read_all = is_complete && kept.as_ref().is_none_or(is_empty);
            // Nothing reads any more what is left, so that the thread that writes it ends.
            drop(kept);
            // Nothing is ever sent: the wait ends with the output, or with the time.
            let _ = output_ended.recv_timeout(OUTPUT_AFTER_END);
            let _ = events_sender.send(Event::Ended { status, has_read_all });
        })?;
        // Ignore the error: nobody listens any more, and the run is ending.
        let _ = self.started.send(events);
        Ok(Input(chunks_sender))
    }
}

/// Passes a target's stderr on, and keeps the end of it.
fn pass_on(mut stderr: ChildStderr, kept: &Mutex<Option<Vec<u8>>>) {
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut chunk) {
        // Ignore that nobody listens any more: the target must not be blocked by what it prints.
        let _ = io::stderr().write_all(&chunk[..length]);
        if let Some(kept) = &mut *lock(kept) {
            kept.extend_from_slice(&chunk[..length]);
            let surplus = kept.len().saturating_sub(MAX_LAST_WORDS);
            kept.drain(..surplus);
        }
    }
}

/// What a mutex holds. No thread panics while it holds one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

/// Reads a target's stdout to its end. Whatever is not a checkpoint goes to the log.
fn read_stdout(stdout: ChildStdout, name: &str, stream: &str, events: &Sender<Event>) {
    let mut output = BufReader::new(stdout);
    let mut line = Vec::new();
    let mut is_line = true;
    while output.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line);
        match returned_checkpoint(&text, stream).filter(|_| is_line) {
            // Ignore that nobody listens any more: the target must not be blocked by what it
            // prints.
            Some(checkpoint) => drop(events.send(Event::Acknowledged(checkpoint))),
            None if text.trim().is_empty() => {}
            None => info!("{name}: {}", text.trim_end()),
        }
        is_line = line.ends_with(b"\n");
        line.clear();
    }
}

/// What the loop hears of a target.
#[derive(Debug)]
pub struct TargetProcess {
    name: String,
    /// The events of each target that was started.
    starts: Receiver<Receiver<Event>>,
    events: Option<Receiver<Event>>,
    /// The end of the target's stderr, if it is to be kept.
    stderr: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Target for TargetProcess {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_running(&self) -> bool {
        self.events.is_some() || !self.starts.is_empty()
    }

    fn keep_stderr(&mut self, keeps: bool) {
        *lock(&self.stderr) = keeps.then(Vec::new);
    }

    fn last_words(&mut self) -> String {
        let kept = lock(&self.stderr).take().unwrap_or_default();
        String::from_utf8_lossy(&kept).trim().to_owned()
    }

    fn next_event(&mut self, limit: Duration, stop: &Shutdown) -> Result<Option<Event>> {
        stop.check()?;
        self.events = self.starts.try_iter().last().or(self.events.take());
        let Some(events) = &self.events else { return Ok(None) };
        let event = select! {
            recv(events) -> event => event.ok(),
            recv(stop.requested()) -> _ => {
                stop.check()?;
                None
            }
            default(limit) => None,
        };
        if matches!(event, Some(Event::Ended { .. })) {
            self.events = None;
        }
        Ok(event)
    }
}
