//! The loop that keeps the promise: a record is marked as read only after it has been delivered (but with `acknowledge: read`).
//!
//! There is a mode, and a file, for each value of `acknowledge`, one for a target that the tap runs (`closed_loop.rs`, over `load.rs`
//! and `target.rs`), and one that only shows records (`look.rs`). To add one for `acknowledge`:
//!
//! 1. Write `src/poll/<mode>.rs` with a type that implements `Mode`. `read.rs` is the shortest one.
//! 2. Add a variant to [`Acknowledge`] in `src/config/mod.rs`. Its word in a config file follows from its name, its meaning in
//!    the table of settings from its comment.
//! 3. Add `mod <mode>;`, a `use` of the type, and an arm of `fn mode` below.
//! 4. `cargo test --workspace` then names the documents to change. By hand: `meltano.yml`, the README's guarantees, and a
//!    property in `src/poll/tests.rs`.
//!
//! Only `write` prefetches (`streamduo::queue`), and only `commit` and `never` read the bookmark of a STATE (`singer::state`).

mod by_time;
mod closed_loop;
mod commit;
mod load;
mod look;
mod lost_mark;
mod never;
mod never_target;
mod output;
mod read;
mod recent;
pub mod target;
mod ties;
mod twins;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::{Context, Result};
use log::info;

use crate::config::{Acknowledge, Config};
use crate::metrics::{RunMetrics, records};
use crate::record::{Committed, MessageWriter, Page, ReturnedBookmark};
use crate::shutdown::{Shutdown, Stopped};
use crate::singer::state::State;
use crate::streamduo::http_error::HttpError;
use crate::streamduo::retry::Retry;
use crate::streamduo::singles::ById;
use crate::streamduo::{self, Overlap, Queue, Tuning};

pub use look::Look;

use by_time::ByTime;
use closed_loop::ClosedLoop;
use commit::CommitMode;
use look::LookMode;
use never::NeverMode;
use never_target::NeverTarget;
use output::Output;
use read::ReadMode;
use target::Target;
use write::WriteMode;

/// One way to deliver the records of a stream.
trait Mode {
    /// Delivers what is unread. Returns once the stream is drained, or the mode wants to write no more for now.
    ///
    /// A peek shows the same records until they are marked, so a mode that marks nothing has to see for itself that it gets no
    /// further.
    ///
    /// # Errors
    /// When the service or stdout fails; [`Stopped`] when a stop is asked for.
    fn drain(&mut self, run: &mut Run) -> Result<()>;

    /// Writes what is left to write once the stream is drained, or a stop was asked for: the STATE.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finish(&mut self, run: &mut Run) -> Result<()> {
        run.out.write_state()
    }

    /// What a run that follows has done once it pauses for the first time, for the log.
    fn done_before_pause(&self) -> &'static str {
        "the stream is drained"
    }

    /// What the summary of the run says of the records that it has written, to follow their number.
    fn remark(&self) -> &'static str {
        ""
    }

    /// What a stop leaves behind, to follow the signal's name in the log.
    fn left_by_stop(&self, run: &Run) -> &'static str {
        match (run.out.has_unmarked(), run.out.has_written()) {
            (true, _) => "what was written last may not be marked as read yet, and comes again",
            (false, true) => "all that was written is marked as read",
            (false, false) => "no record was written",
        }
    }
}

/// The context of a [`Stopped`] that has ended a run: what it leaves behind.
#[derive(Debug)]
pub struct LeftByStop(&'static str);

impl fmt::Display for LeftByStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The mode that `acknowledge` names, or the one that runs a target.
fn mode(
    config: &Config,
    returned: Option<ReturnedBookmark>,
    time_bookmark: Option<&str>,
    tuning: Tuning,
    target: Option<Box<dyn Target>>,
) -> Box<dyn Mode> {
    let by_time = || ByTime::new(config, time_bookmark);
    match (target, config.acknowledge) {
        (Some(target), Acknowledge::Never) => Box::new(NeverTarget::new(config, by_time(), target)),
        (Some(target), _) => Box::new(ClosedLoop::new(config, tuning, target)),
        (None, Acknowledge::Never) => Box::new(NeverMode { reader: by_time() }),
        (None, Acknowledge::Write) => Box::new(WriteMode::new(config.page_size, tuning)),
        (None, Acknowledge::Commit) => Box::new(CommitMode { max_pending: config.max_pending, returned }),
        (None, Acknowledge::Read) => Box::new(ReadMode { page_size: config.page_size }),
    }
}

/// What every mode works with.
struct Run {
    queue: Box<dyn Queue>,
    out: Output,
    /// Marks in a row that were answered and came to nothing.
    ineffective_marks: Retry,
    /// Whether the last poll has done all that there was to do.
    is_drained: bool,
    stop: Shutdown,
}

impl Run {
    fn new(queue: Box<dyn Queue>, out: Output, tuning: Tuning, stop: Shutdown) -> Run {
        Run { queue, out, ineffective_marks: Retry::new(tuning.retries), is_drained: false, stop }
    }

    /// Counts what a mark's answer shows as marked, and delivers its records that are neither written nor committed: they slipped
    /// in between peek and mark. Returns their ids.
    fn deliver_answer(&mut self, answer: &Page, committed: Option<&Committed>) -> Result<Vec<String>> {
        self.out.metrics.count_marked(answer.len());
        let ids = self.out.deliver_marked(answer, committed)?;
        if !ids.is_empty() {
            let (records, were) = (records(ids.len()), if ids.len() == 1 { "was" } else { "were" });
            info!("{records} slipped in between peek and mark, and {were} written at once");
        }
        Ok(ids)
    }

    /// Whether a peeked page shows no record that was answered to be marked. If it does, waits until another peek makes sense.
    fn is_up_to_date(&mut self, page: &Page) -> Result<bool> {
        if !twins::shows_marked(page, self)? {
            return Ok(true);
        }
        self.wait_to_mark("the service shows records as unread that it has answered to be marked as read")?;
        Ok(false)
    }

    /// Goes on after a mark that was answered; after one that had no effect, see [`Run::wait_to_mark`].
    fn judge_mark(&mut self, had_effect: bool) -> Result<()> {
        if had_effect {
            self.ineffective_marks.reset();
            return Ok(());
        }
        self.wait_to_mark("the service has marked no record")
    }

    /// Waits until another mark makes sense after one that was answered and came to nothing, or gives up.
    fn wait_to_mark(&mut self, problem: &str) -> Result<()> {
        let error = HttpError::InvalidBody(problem.to_owned()).into();
        self.ineffective_marks.wait("mark", error, &self.stop)
    }

    /// Drains the stream once, or again and again with a pause, and writes the STATE at the end of each poll.
    fn poll(&mut self, mode: &mut dyn Mode, pause: Option<Duration>) -> Result<()> {
        let mut is_told = false;
        loop {
            self.is_drained = false;
            mode.drain(self)?;
            mode.finish(self)?;
            self.is_drained = true;
            let Some(pause) = pause else { return Ok(self.stop.check()?) };
            if !std::mem::replace(&mut is_told, true) {
                info!("{}: looking again {} (`pollIntervalSeconds`)", mode.done_before_pause(), every(pause));
            }
            if !pause.is_zero() {
                self.out.metrics.wait();
            }
            self.stop.sleep(pause)?;
        }
    }

    /// Runs to the end, and logs the summary.
    fn finish(mut self, mode: &mut dyn Mode, pause: Option<Duration>) -> Result<()> {
        let mut end = self.poll(mode, pause);
        if end.as_ref().is_err_and(|error| error.is::<Stopped>()) {
            // A stop is an orderly end. Ignore the error: the target may be gone.
            let _ = mode.finish(&mut self);
            end = end.context(LeftByStop(mode.left_by_stop(&self)));
        }
        // As singer-python has it, an interrupted job has failed; but not one that was waiting for more to do.
        self.out.metrics.finish(end.is_ok() || self.is_drained, mode.remark());
        end
    }
}

/// How often a run that follows looks for new records.
fn every(pause: Duration) -> String {
    if pause.is_zero() { "at once".to_owned() } else { format!("every {} s", pause.as_secs()) }
}

/// What a run reads from and writes to.
pub struct Endpoints<Q> {
    /// The service. It sends each request once.
    pub service: Q,
    /// Where messages go.
    pub writer: Box<dyn MessageWriter>,
    /// The name of the Singer stream.
    pub stream: String,
    /// The state of an earlier run.
    pub state: State,
    /// The target behind `writer`, if the tap runs it.
    pub target: Option<Box<dyn Target>>,
}

/// Reads the stream until it is drained; with a pause to make between polls, until a stop is asked for.
///
/// # Errors
/// When the service or stdout fails; [`Stopped`] when a stop was asked for, with [`LeftByStop`]. No undelivered record is marked as
/// read, except with `acknowledge: read`.
pub fn run(
    config: &Config,
    tuning: Tuning,
    endpoints: Endpoints<impl Overlap + ById + 'static>,
    pause: Option<Duration>,
    stop: Shutdown,
) -> Result<()> {
    let Endpoints { service, writer, stream, state, target } = endpoints;
    // A live line would tear them.
    let shows_records = target.is_none() && io::stdout().is_terminal();
    let (state, returned) = state.of_stream(&stream, config);
    let mut mode = mode(config, returned, state.time_bookmark(), tuning, target);
    let queue = streamduo::queue(config, tuning, service, &stop);
    let metrics = RunMetrics::start(&stream);
    let metrics = if shows_records { metrics } else { metrics.live() };
    let out = Output::new(writer, state, metrics, stop.clone());
    Run::new(queue, out, tuning, stop).finish(&mut *mode, pause)
}

/// Shows unread records, and marks nothing, whatever `acknowledge` is. With a pause to make between polls, shows what is new
/// until a stop is asked for.
///
/// # Errors
/// When the service or stdout fails; [`Stopped`] when a stop was asked for, with [`LeftByStop`].
pub fn look(
    look: Look,
    config: &Config,
    tuning: Tuning,
    endpoints: Endpoints<impl Queue + 'static>,
    pause: Option<Duration>,
    stop: Shutdown,
) -> Result<()> {
    let Endpoints { service, writer, stream, state, .. } = endpoints;
    let (state, _) = state.of_stream(&stream, config);
    let queue = streamduo::windows(config, tuning, service, &stop);
    let out = Output::new(writer, state, RunMetrics::start(&stream).leaving_out(), stop.clone());
    Run::new(queue, out, tuning, stop).finish(&mut LookMode::new(look), pause)
}
