//! The live line: one line below the log that shows what a run has done so far. It is for somebody
//! who watches a terminal, in place of lines that scroll by.
//!
//! It is drawn if stderr is a terminal that can move its cursor, at the level INFO: at a higher
//! level nobody wants to hear of progress, at DEBUG somebody reads the lines. A thread draws the
//! line a few times a second while the run works. While a run that follows waits, there is no such
//! thread: nothing wakes up.
//!
//! Log lines go above it, through [`Screen`]. A target that shares the terminal knows nothing of
//! it: what it prints starts on a line of its own, and leaves a copy of the live line above. Only
//! if it has not ended a line may the live line be drawn over that.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use log::{Level, LevelFilter, log_enabled};

/// The time between two drawings of the line, while the run works.
const INTERVAL: Duration = Duration::from_millis(200);

/// How often a second the line is drawn at most. A log line, a pause and the end draw it
/// in any case.
const MAX_RATE: u8 = 10;

/// Whether stderr is a terminal that the log is written to for a person.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// Holds the line, while there is one. Log lines have to find it, as they find the logger.
static LINES: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(MAX_RATE)));

/// Whether the log goes to a terminal, in lines for a person.
pub fn is_watched() -> bool {
    IS_WATCHED.load(Ordering::Relaxed)
}

/// Notes whether stderr is a terminal: then somebody watches. Returns that.
pub fn watch() -> bool {
    IS_WATCHED.store(io::stderr().is_terminal(), Ordering::Relaxed);
    is_watched()
}

/// Whether stderr shows colours, and no variable says that it must not: see <https://no-color.org>.
pub fn has_colors() -> bool {
    // A console of Windows has to be told; elsewhere there is nothing to tell.
    let is_able = || anstyle_query::windows::enable_ansi_colors().unwrap_or(true);
    !anstyle_query::no_color()
        && anstyle_query::clicolor() != Some(false)
        && anstyle_query::term_supports_color()
        && is_able()
}

/// stderr. What is written to it appears above the live line, if there is one.
#[derive(Debug)]
pub struct Screen;

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        LINES.suspend(|| io::stderr().lock().write_all(text))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The live line of a run. It is cleared when this is dropped.
#[derive(Debug)]
pub struct LiveLine {
    line: ProgressBar,
    /// Whether a thread draws it.
    is_ticking: bool,
}

impl LiveLine {
    /// A line without a text; `None` if nobody is to see one.
    pub fn start() -> Option<LiveLine> {
        let is_wanted = log_enabled!(Level::Info) && log::max_level() == LevelFilter::Info;
        // It is hidden at a terminal without a cursor that can be moved.
        if !is_watched() || !is_wanted || LINES.is_hidden() {
            return None;
        }
        Some(LiveLine { line: LINES.add(ProgressBar::no_length()), is_ticking: false })
    }

    /// Shows what the run has done: its counts in words, and how many records it has written.
    pub fn show(&mut self, counts: String, written: usize) {
        if counts == self.line.message() {
            return;
        }
        if !self.is_ticking {
            self.set_style("{msg}, {rate} a second, {elapsed_precise}");
        }
        self.line.set_message(counts);
        self.line.set_position(written as u64);
        if !std::mem::replace(&mut self.is_ticking, true) {
            self.line.enable_steady_tick(INTERVAL);
        }
    }

    /// Shows that the run waits. The line stands still until there is more to show.
    pub fn wait(&mut self) {
        if std::mem::take(&mut self.is_ticking) {
            self.line.disable_steady_tick();
            self.set_style("{msg}; waiting for more");
            self.line.force_draw();
        }
    }

    fn set_style(&self, template: &str) {
        // Ignore the error: the templates are those above.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.line.set_style(style.with_key("rate", rate));
        }
    }
}

/// Records a second.
fn rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // In the first moment it is not a number: `max` makes it 0. Ignore the error: it is written to
    // memory.
    let _ = write!(out, "{:.0}", state.per_sec().max(0.0));
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.line.finish_and_clear();
        LINES.remove(&self.line);
    }
}
