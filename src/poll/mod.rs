//! The loop that keeps the promise: a record is marked as read only after it has been delivered (but with `acknowledge: read`).
//!
//! There is a mode, and a file, for each value of `acknowledge`, and one for a target that the tap runs (`closed_loop.rs`, over `load.rs`
//! and `target.rs`). To add one:
//!
//! 1. Write `src/poll/<mode>.rs` with a type that implements `Mode`. `read.rs` is the shortest one.
//! 2. Add a variant to [`Acknowledge`] in `src/config/mod.rs`. Its word in a config file follows from its name, its meaning in
//!    the table of settings from its comment.
//! 3. Add `mod <mode>;`, a `use` of the type, and an arm of `fn mode` below.
//! 4. `cargo test --workspace` then names the documents to change. By hand: `meltano.yml`, the README's guarantees, and a
//!    property in `src/poll/tests.rs`.
//!
//! Only `write` prefetches (`streamduo::queue`), and only `commit` reads the bookmark of a STATE (`singer::state`).

mod closed_loop;
mod commit;
mod load;
mod lost_mark;
mod output;
mod read;
pub mod target;
mod twins;
mod write;

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Result;
use log::info;

use crate::config::{Acknowledge, Config};
use crate::metrics::{RunMetrics, records};
use crate::record::{Committed, MessageWriter, Page, ReturnedBookmark};
use crate::shutdown::{Shutdown, Stopped};
use crate::singer::state::State;
use crate::streamduo::http_error::HttpError;
use crate::streamduo::retry::Retry;
use crate::streamduo::{self, Overlap, Queue, Tuning};

use closed_loop::ClosedLoop;
use commit::CommitMode;
use output::Output;
use read::ReadMode;
use target::Target;
use write::WriteMode;

/// One way to deliver the unread records of a stream.
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
}

/// The mode that `acknowledge` names, or the one that runs a target.
fn mode(
    config: &Config,
    returned: Option<ReturnedBookmark>,
    tuning: Tuning,
    target: Option<Box<dyn Target>>,
) -> Box<dyn Mode> {
    if let Some(target) = target {
        return Box::new(ClosedLoop::new(config, tuning, target));
    }
    match config.acknowledge {
        Acknowledge::Write => Box::new(WriteMode::new(config.page_size, tuning)),
        Acknowledge::Commit => Box::new(CommitMode { max_pending: config.max_pending, returned }),
        Acknowledge::Read => Box::new(ReadMode { page_size: config.page_size }),
    }
}

/// What every mode works with.
struct Run {
    queue: Box<dyn Queue>,
    out: Output,
    /// Marks in a row that were answered and came to nothing.
    ineffective_marks: Retry,
    stop: Shutdown,
}

impl Run {
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
        loop {
            mode.drain(self)?;
            mode.finish(self)?;
            match pause {
                None => return Ok(self.stop.check()?),
                Some(pause) => self.stop.sleep(pause)?,
            }
        }
    }
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
/// When the service or stdout fails; [`Stopped`] when a stop was asked for. No undelivered record is marked as read, except
/// with `acknowledge: read`.
pub fn run(
    config: &Config,
    tuning: Tuning,
    endpoints: Endpoints<impl Overlap + 'static>,
    pause: Option<Duration>,
    stop: Shutdown,
) -> Result<()> {
    let Endpoints { service, writer, stream, state, target } = endpoints;
    let (state, returned) = state.of_stream(&stream, config);
    let mut run = Run {
        queue: streamduo::queue(config, tuning, service, &stop),
        out: Output::new(writer, state, RunMetrics::start(&stream), stop.clone()),
        ineffective_marks: Retry::new(tuning.retries),
        stop,
    };
    let mut mode = mode(config, returned, tuning, target);
    let end = run.poll(&mut *mode, pause);
    let is_stopped = end.as_ref().err().is_some_and(|error| error.is::<Stopped>());
    if is_stopped {
        // A stop is an orderly end. Ignore the error: the target may be gone.
        let _ = mode.finish(&mut run);
    }
    run.out.metrics.finish(end.is_ok() || is_stopped);
    end
}
