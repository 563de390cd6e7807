//! A run: what every mode works with, and the loop around a mode.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use log::info;

use super::output::Output;
use crate::shutdown::{Shutdown, Stopped};
use crate::streamduo::queue::Queue;

/// One way to deliver the records of a stream.
pub trait Mode {
    /// Delivers what is unread. Returns once the stream is drained, or the mode wants to write no
    /// more for now.
    ///
    /// A peek shows the same records until they are marked, so a mode that marks nothing has to see
    /// for itself that it gets no further.
    fn drain(&mut self, run: &mut Run) -> Result<()>;

    /// Writes what is left to write once the stream is drained, or a stop was asked for: the STATE.
    fn finish(&mut self, run: &mut Run) -> Result<()> {
        run.out.write_state()
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

/// What every mode works with.
pub struct Run {
    /// The service.
    pub queue: Queue,
    /// Where records go, and what is remembered of them.
    pub out: Output,
    /// Says when to stop.
    pub stop: Shutdown,
}

impl Run {
    /// Drains the stream once, or again and again with a pause, and logs the summary.
    pub fn finish(mut self, mode: &mut dyn Mode, pause: Option<Duration>) -> Result<()> {
        let mut is_drained = false;
        // With `--follow` the SCHEMA waits for the first records, whose fields become columns, and
        // so does the STATE.
        self.out.state.is_written = pause.is_some();
        let mut end = self.poll(mode, pause, &mut is_drained);
        if end.as_ref().is_err_and(|error| error.is::<Stopped>()) {
            self.out.state.is_written &= self.out.has_written();
            // A stop is an orderly end. Ignore the error: the target may be gone.
            let _ = mode.finish(&mut self);
            end = end.map_err(|error| error.context(LeftByStop(mode.left_by_stop(&self))));
        }
        // As singer-python has it, an interrupted job has failed; but not one that was waiting for
        // more to do.
        self.out.metrics.finish(end.is_ok() || is_drained);
        end
    }

    /// Polls until the stream is drained; with a pause to make between polls, until a stop is asked
    /// for. Notes whether the last poll has done all that there was to do.
    fn poll(&mut self, mode: &mut dyn Mode, pause: Option<Duration>, is_drained: &mut bool) -> Result<()> {
        let mut is_told = false;
        loop {
            *is_drained = false;
            mode.drain(self)?;
            mode.finish(self)?;
            *is_drained = true;
            let Some(pause) = pause else { return Ok(self.stop.check()?) };
            if !std::mem::replace(&mut is_told, true) {
                let often = if pause.is_zero() { "at once".to_owned() } else { format!("every {} s", pause.as_secs()) };
                info!("the stream is drained: looking again {often} (`pollIntervalSeconds`)");
            }
            if !pause.is_zero() {
                self.out.metrics.wait();
            }
            self.stop.sleep(pause)?;
        }
    }
}
