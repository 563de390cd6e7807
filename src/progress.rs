//! The live line: one line below the log that shows what a run has done so far. It is for somebody who watches a terminal, in place of
//! lines that scroll by.
//!
//! It is drawn where stderr is a terminal that can move its cursor, at the level INFO: at a higher level nobody wants to hear of
//! progress, at DEBUG somebody reads the lines. For each page the run takes a lock or two. A thread draws the line a few times a second
//! while the run works. While a run that follows waits, there is no such thread: nothing wakes up.
//!
//! Log lines go above it, through [`Screen`]. A target that shares the terminal knows nothing of it: what it prints starts on a line of
//! its own, and leaves a copy of the live line above. Only where it has not ended a line may the live line be drawn over that.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use log::{Level, LevelFilter, log_enabled};

/// The time between two drawings of the line, while the run works.
const INTERVAL: Duration = Duration::from_millis(200);

/// How many times a second the line is drawn at the most. A log line, a pause and the end draw it in any case.
const MAX_RATE: u8 = 10;

/// Whether there is a [`Screen`].
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// The line, while there is one. Log lines have to find it, as they find the logger.
static LINE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Whether the log goes to a terminal, in lines for a person.
pub fn is_watched() -> bool {
    IS_WATCHED.load(Ordering::Relaxed)
}

/// A terminal on stderr. What is written to it appears above the live line.
#[derive(Debug)]
pub struct Screen(());

impl Screen {
    /// The terminal on stderr, if it is one.
    pub fn open() -> Option<Screen> {
        let is_terminal = io::stderr().is_terminal();
        IS_WATCHED.store(is_terminal, Ordering::Relaxed);
        is_terminal.then_some(Screen(()))
    }

    /// Whether it shows colours, and nobody minds: see <https://no-color.org>.
    pub fn has_colors(&self) -> bool {
        // A console of Windows has to be told; elsewhere there is nothing to tell.
        let is_able = || anstyle_query::windows::enable_ansi_colors().unwrap_or(true);
        !anstyle_query::no_color()
            && anstyle_query::clicolor() != Some(false)
            && anstyle_query::term_supports_color()
            && is_able()
    }
}

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = LINE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || io::stderr().lock().write_all(text);
        line.map_or_else(write, |line| line.suspend(write))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// How many records a run has written, put aside and marked as read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Written to stdout, or to the target that the tap runs.
    pub written: usize,
    /// Appended to the file that `deadLetterFile` names.
    pub put_aside: usize,
    /// Marked by the service.
    pub marked: usize,
}

/// Puts counts into words.
type Describe = fn(Counts) -> String;

/// What the line shows.
#[derive(Debug, Default)]
struct Shown {
    counts: Mutex<Counts>,
    is_waiting: AtomicBool,
}

impl Shown {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, describe: Describe, state: &ProgressState) -> String {
        let counts = describe(*self.counts());
        if self.is_waiting.load(Ordering::Relaxed) {
            return format!("{counts}; waiting for more");
        }
        // In the first moment it is not a number: this makes it 0.
        let rate = state.per_sec().max(0.0);
        format!("{counts}, {rate:.0} a second, {}", FormattedDuration(state.elapsed()))
    }
}

/// The live line of a run. It is cleared when this is dropped.
#[derive(Debug)]
pub struct LiveLine {
    line: ProgressBar,
    shown: Arc<Shown>,
    ticker: Option<Ticker>,
}

impl LiveLine {
    /// Starts the live line; `None` where there is to be none.
    pub fn start(describe: Describe) -> Option<LiveLine> {
        let is_wanted = log_enabled!(Level::Info) && log::max_level() == LevelFilter::Info;
        if !is_watched() || !is_wanted {
            return None;
        }
        let shown = Arc::new(Shown::default());
        let drawn = Arc::clone(&shown);
        let text = move |state: &ProgressState, out: &mut dyn fmt::Write| {
            // Ignore the error: it is written to memory.
            let _ = out.write_str(&drawn.text(describe, state));
        };
        let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(MAX_RATE))
            .with_style(ProgressStyle::with_template("{text}").ok()?.with_key("text", text));
        // A terminal without a cursor that can be moved.
        if line.is_hidden() {
            return None;
        }
        *LINE.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
        let mut live = LiveLine { line, shown, ticker: None };
        live.work();
        Some(live)
    }

    /// Shows what the run has done.
    pub fn show(&mut self, counts: Counts) {
        let before = std::mem::replace(&mut *self.shown.counts(), counts);
        if before != counts {
            self.work();
        }
    }

    /// Shows that the run waits. The line stands still until there is more to show.
    pub fn wait(&mut self) {
        self.ticker = None;
        self.shown.is_waiting.store(true, Ordering::Relaxed);
        self.line.force_draw();
    }

    fn work(&mut self) {
        if self.ticker.is_none() {
            self.shown.is_waiting.store(false, Ordering::Relaxed);
            // Without a thread the line stands still.
            self.ticker = Ticker::start(self.line.clone(), Arc::clone(&self.shown)).ok();
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.ticker = None;
        self.line.finish_and_clear();
        LINE.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The thread that draws the line. It ends when this is dropped.
#[derive(Debug)]
struct Ticker {
    /// Nothing is ever sent. Dropped, it ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(line: ProgressBar, shown: Arc<Shown>) -> io::Result<Ticker> {
        let (end, ended) = bounded(0);
        let thread = thread::Builder::new().name("live line".to_owned()).spawn(move || draw(&line, &shown, &ended))?;
        Ok(Ticker { end: Some(end), thread: Some(thread) })
    }
}

fn draw(line: &ProgressBar, shown: &Shown, ended: &Receiver<()>) {
    loop {
        // This draws it, too.
        line.update(|state| state.set_pos(shown.counts().written as u64));
        if ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.end = None;
        // Ignore a panic: it has nothing to do with the run.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
