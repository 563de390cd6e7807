//! `acknowledge: never` into a target that the tap runs. Nothing is marked, so no service keeps the position: the tap writes it to
//! the file that `--state` names, each time that the target has committed more.

use std::collections::VecDeque;

use anyhow::Result;

use super::by_time::ByTime;
use super::load::{Load, final_error};
use super::target::Target;
use super::{Mode, Run};
use crate::config::Config;
use crate::record::{Committed, Fingerprint};

/// What the target was given between two STATEs.
#[derive(Debug)]
struct Window {
    /// How many records.
    records: usize,
    /// The last of them: if it is committed, all are.
    last: Fingerprint,
    /// Everything up to this time stamp was given by then.
    bookmark: Option<String>,
}

/// Loads pages, and keeps the bookmark of what is committed.
pub struct NeverTarget {
    /// `maxPending`
    max_pending: usize,
    reader: ByTime,
    load: Load,
    /// What the target was given and has not committed.
    windows: VecDeque<Window>,
}

impl NeverTarget {
    /// Loads into this target.
    pub fn new(config: &Config, reader: ByTime, target: Box<dyn Target>) -> NeverTarget {
        NeverTarget {
            max_pending: config.max_pending,
            reader,
            load: Load::new(target, config.target_proof),
            windows: VecDeque::new(),
        }
    }

    /// Loads until the stream is drained.
    fn load_all(&mut self, run: &mut Run) -> Result<()> {
        self.reader.begin()?;
        loop {
            let is_last = self.feed(run)?;
            while self.load.is_taking() {
                if self.load.wait(&run.stop)? {
                    self.keep_committed(run)?;
                }
            }
            while self.is_full() && self.load.wait_for_acknowledgement(&run.stop)? {
                self.keep_committed(run)?;
            }
            if is_last || self.is_full() || self.load.is_running() && !self.load.is_open() {
                self.settle(run)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Gives the target the next page, and the STATE that covers it. Returns whether the stream ends there.
    fn feed(&mut self, run: &mut Run) -> Result<bool> {
        let written = self.reader.write_next(run)?;
        let bookmark = self.reader.bookmark().map(str::to_owned);
        match (written.new.last(), self.windows.back_mut()) {
            (Some(last), _) => {
                self.windows.push_back(Window { records: written.new.len(), last: *last, bookmark });
                self.load.cover(written.new, Vec::new(), &mut run.out)?;
            }
            (None, Some(window)) => window.bookmark = bookmark,
            (None, None) => run.out.save_time_bookmark(bookmark.as_deref())?,
        }
        Ok(written.is_last)
    }

    fn is_full(&self) -> bool {
        self.windows.iter().map(|window| window.records).sum::<usize>() >= self.max_pending
    }

    /// Keeps the bookmark of what the target has committed.
    fn keep_committed(&mut self, run: &mut Run) -> Result<()> {
        let mut committed = None;
        while let Some(window) = self.windows.pop_front_if(|window| self.load.committed.copies(window.last) > 0) {
            committed = window.bookmark.or(committed);
        }
        self.load.committed = Committed::default();
        run.out.save_time_bookmark(committed.as_deref())
    }

    /// Ends the target, and keeps the bookmark of what it has committed.
    fn settle(&mut self, run: &mut Run) -> Result<()> {
        let ended = self.load.close_and_wait(&mut run.out, &run.stop);
        self.keep_committed(run)?;
        ended
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
