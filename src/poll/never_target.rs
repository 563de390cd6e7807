//! `acknowledge: never` into a target that the tap runs. Nothing is marked, so no service keeps the
//! position: the tap writes it to the file that `--state` names, each time that the target has
//! committed more.

use anyhow::Result;

use super::by_time::ByTime;
use super::run::{Mode, Run};
use super::session::{TargetSession, final_error};
use super::target::{Target, TargetFailed};
use crate::config::Config;
use crate::metrics::records;
use crate::singer::state::TimeBookmark;

/// What the target was given between two STATEs: how many records, and the bookmark after them.
type Batch = (usize, TimeBookmark);

/// Loads pages, and keeps the bookmark of what is committed.
pub struct NeverTarget {
    /// `maxPending`
    max_pending: usize,
    reader: ByTime,
    session: TargetSession<Batch>,
}

impl NeverTarget {
    /// Loads into this target.
    pub fn new(config: &Config, reader: ByTime, target: Box<dyn Target>) -> NeverTarget {
        let session = TargetSession::new(target, config.target_proof);
        NeverTarget { max_pending: config.max_pending, reader, session }
    }

    /// Loads until the stream is drained.
    fn load_all(&mut self, run: &mut Run) -> Result<()> {
        self.reader.begin()?;
        loop {
            self.feed(run)?;
            while self.session.is_taking() {
                self.session.wait(&run.stop)?;
                self.keep_committed(run)?;
            }
            while self.is_full() && self.session.wait_when_full(&run.stop)? {
                self.keep_committed(run)?;
            }
            let is_at_end = self.reader.is_at_end();
            if is_at_end || self.is_full() || self.session.is_running() && !self.session.is_open() {
                self.settle(run)?;
            }
            if is_at_end {
                return Ok(());
            }
        }
    }

    /// Gives the target the next page, and the STATE that covers it.
    fn feed(&mut self, run: &mut Run) -> Result<()> {
        let new = self.reader.write_next(run)?;
        let bookmark = self.reader.bookmark().clone();
        if new > 0 {
            self.session.send((new, bookmark), &mut run.out)
        } else if let Some((_, covered)) = self.session.in_flight().last_mut() {
            *covered = bookmark;
            Ok(())
        } else {
            run.out.state.save(&bookmark)
        }
    }

    fn is_full(&mut self) -> bool {
        self.session.in_flight().batches().map(|(records, _)| records).sum::<usize>() >= self.max_pending
    }

    /// Keeps the bookmark of what the target has committed.
    fn keep_committed(&mut self, run: &mut Run) -> Result<()> {
        let Some(batch) = self.session.take_proven().pop() else { return Ok(()) };
        run.out.state.save(&batch.into_inner().1)
    }

    /// Ends the target, and keeps the bookmark of what it has committed.
    fn settle(&mut self, run: &mut Run) -> Result<()> {
        let closed = self.session.close(&mut run.out, &run.stop);
        self.keep_committed(run)?;
        let Some((problem, left)) = closed? else { return Ok(()) };
        let left: usize = left.iter().map(|(records, _)| records).sum();
        let left = match left {
            0 => String::new(),
            count => format!("; it has not committed {}, which the next run reads again", records(count)),
        };
        Err(TargetFailed(problem + &left).into())
    }
}

impl Mode for NeverTarget {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        let Err(error) = self.load_all(run) else { return Ok(()) };
        // Whatever has ended the run: the target commits what it has, and that is kept.
        run.stop.defer();
        Err(final_error(error, self.settle(run)))
    }

    fn finish(&mut self, _run: &mut Run) -> Result<()> {
        Ok(())
    }

    fn left_by_stop(&self, _run: &Run) -> &'static str {
        "nothing is marked as read, and the next run goes on where the state says"
    }
}
