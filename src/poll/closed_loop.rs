//! The tap runs the target: what the target proves to have committed is marked in the same run.
//!
//! After each window the loop writes a STATE. The target prints it once it has committed everything before it. If it does not print it
//! by itself, the loop ends its input: every target then commits, prints its last STATE and ends. If there is more, the target is
//! started again.
//!
//! A mark hits the oldest unread records at that moment, so the loop peeks before each mark. While a lost mark may still be applied, the
//! loop marks nothing until the target has ended. If the service applies both marks then, they hit committed records, or records that
//! nobody has seen: a look back delivers those.

use anyhow::Result;
use log::warn;

use super::load::{Load, final_error, log_failure};
use super::lost_mark::LostMarks;
use super::target::{Target, TargetFailed};
use super::{Mode, Run};
use crate::config::Config;
use crate::record::{Page, Peeked};
use crate::shutdown::Stopped;
use crate::streamduo::{Count, Marked, Tuning};

/// Loads windows of unread records, and marks them once they are committed.
pub struct ClosedLoop {
    /// `maxPending`
    max_pending: usize,
    /// `pageSize`, if that is less: how many records a target gets at a time that acknowledges at once.
    page_size: usize,
    max_remembered: usize,
    load: Load,
    lost_marks: LostMarks,
}

impl ClosedLoop {
    /// Loads into this target.
    pub fn new(config: &Config, tuning: Tuning, target: Box<dyn Target>) -> ClosedLoop {
        ClosedLoop {
            max_pending: config.max_pending,
            page_size: config.page_size.min(config.max_pending),
            max_remembered: 4 * config.max_pending.max(tuning.first_page),
            load: Load::new(target, config.target_proof),
            lost_marks: LostMarks::default(),
        }
    }

    /// Loads until the stream is drained.
    fn load_all(&mut self, run: &mut Run) -> Result<()> {
        loop {
            let page = self.peek_window(run)?;
            if page.is_empty() && !self.load.is_running() {
                return Ok(());
            }
            let is_last = self.fill(page, run)?;
            self.settle(run)?;
            if is_last && run.out.ledger.unmarked() == 0 && self.lost_marks.is_empty() {
                return Ok(());
            }
        }
    }

    /// Gives the target what is unread, until all of it is out, the window is full or the target takes no more. Returns whether the
    /// stream ends there.
    fn fill(&mut self, mut page: Peeked, run: &mut Run) -> Result<bool> {
        loop {
            let (is_short, is_last) = (page.is_short(), page.is_last());
            let is_new = self.write(page, run)?;
            while self.load.is_taking() {
                if self.load.wait(&run.stop)? {
                    self.mark_committed(run)?;
                }
            }
            if is_new && !is_short {
                self.load.wait_a_moment(&run.stop)?;
            }
            let is_full = !is_short && !is_new && !self.load.wait_for_acknowledgement(&run.stop)?;
            if is_short || is_full || !self.load.is_open() {
                return Ok(is_last);
            }
            self.mark_committed(run)?;
            page = self.peek_window(run)?;
        }
    }

    /// Writes the records of a page that are not out yet, and the STATE that covers them. Returns whether there are any.
    fn write(&mut self, page: Peeked, run: &mut Run) -> Result<bool> {
        let new = page.undelivered_fingerprints(|record| run.out.ledger.unmarked_copies(record));
        if new.is_empty() {
            return Ok(false);
        }
        // The proof is not used: only the target shows that it has committed the records.
        let _ = run.out.deliver(page)?;
        self.load.cover(new, Vec::new(), &mut run.out)?;
        Ok(true)
    }

    /// Peeks at a window of unread records, and forgets what is not unread any more.
    fn peek_window(&mut self, run: &mut Run) -> Result<Peeked> {
        let max = if self.load.acknowledges_at_once() { self.page_size } else { self.max_pending };
        let page = self.peek(Count::UpTo(max), run)?;
        self.forget_marked(&page, run);
        Ok(page)
    }

    /// Forgets what the service does not show as unread any more: see [`Output::trim_ledger`](super::output::Output::trim_ledger).
    fn forget_marked(&mut self, page: &Page, run: &mut Run) {
        // Both together: what is committed is in the ledger.
        if page.is_last() || run.out.ledger.unmarked() > self.max_remembered {
            self.load.committed.keep_shown(page);
        }
        run.out.trim_ledger(page, self.max_remembered);
    }

    /// Peeks, and delivers what lost marks have hit.
    fn peek(&mut self, count: Count, run: &mut Run) -> Result<Peeked> {
        loop {
            run.stop.check()?;
            let page = run.queue.peek(count)?;
            let found = self.lost_marks.look_back(&page, run)?;
            self.load.committed.note_marked(found.marked);
            let is_outdated = !found.written.is_empty();
            self.load.cover(Vec::new(), found.written, &mut run.out)?;
            if !is_outdated && run.is_up_to_date(&page)? {
                return Ok(page);
            }
        }
    }

    /// Marks what is committed and comes first among the unread records.
    fn mark_committed(&mut self, run: &mut Run) -> Result<()> {
        while !self.load.committed.is_empty() {
            let page = self.peek(Count::AtOnce(self.load.committed.len().min(self.max_pending)), run)?;
            if self.lost_marks.may_be_applied(&page) && self.load.is_in_flight() {
                return Ok(());
            }
            let Some(start) = page.start() else { return Ok(()) };
            let Some(delivered) = self.load.committed.delivered(page) else { return Ok(()) };
            let count = delivered.count();
            match run.queue.mark(delivered)? {
                Marked::Answered(answer) => {
                    self.note_marked(&answer, run)?;
                    self.lost_marks.move_to(start, count);
                }
                Marked::Unknown => self.lost_marks.add(start, count),
                // Nothing was applied: the next iteration peeks again, and marks what the service then accepts.
                Marked::Refused => {}
            }
        }
        Ok(())
    }

    /// Notes the answer to a mark, and delivers the records that slipped in.
    fn note_marked(&mut self, answer: &Page, run: &mut Run) -> Result<()> {
        let slipped_in = run.deliver_answer(answer, None)?;
        self.load.cover(Vec::new(), slipped_in, &mut run.out)?;
        let has_news = run.out.ledger.note_marked(answer);
        self.load.committed.note_marked(answer.fingerprints());
        run.judge_mark(has_news)
    }

    /// Ends the target, and marks what it has committed. What slips in meanwhile is loaded as well.
    fn settle(&mut self, run: &mut Run) -> Result<()> {
        let mut failure = Ok(());
        loop {
            let ended = self.load.close_and_wait(&mut run.out, &run.stop);
            match ended {
                Err(error) if error.is::<TargetFailed>() => failure = failure.and(Err(error)),
                ended => ended?,
            }
            if let Err(error) = self.mark_committed(run) {
                log_failure(failure);
                return Err(error);
            }
            if !self.load.is_running() {
                return failure;
            }
        }
    }
}

impl Mode for ClosedLoop {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        let Err(error) = self.load_all(run) else { return Ok(()) };
        // Whatever has ended the run: the target commits what it has, and that is marked.
        run.stop.defer();
        if self.load.is_running() && !error.is::<Stopped>() {
            warn!("{error:#}; the target still commits what it has");
        }
        let settled = self.settle(run);
        self.lost_marks.warn();
        Err(final_error(error, settled))
    }

    fn finish(&mut self, _run: &mut Run) -> Result<()> {
        Ok(())
    }

    fn left_by_stop(&self, run: &Run) -> &'static str {
        match (run.out.has_unmarked(), run.out.has_written()) {
            (false, false) => "no record was written",
            (false, true) => "all that was written is committed and marked as read",
            _ if self.load.committed.is_empty() => {
                "what the target has committed is marked as read, and the rest stays unread"
            }
            _ => "what the target has committed last may not be marked as read yet, and comes again",
        }
    }
}
