//! `acknowledge: write`: peeks a page, writes it, flushes, and marks it.
//!
//! A mark hits the oldest unread records at that moment. So the loop keeps every record that it has written in the ledger until
//! an answer shows that it is marked; it writes at once what an answer shows that was never written; and after a lost answer it
//! peeks again instead of repeating the mark.

use anyhow::Result;

use super::lost_mark::LostMarks;
use super::{Mode, Run};
use crate::shutdown::Stopped;
use crate::streamduo::{Count, Marked, Tuning};

/// Delivers pages of unread records.
#[derive(Debug)]
pub struct WriteMode {
    page_size: usize,
    max_remembered: usize,
    lost_marks: LostMarks,
}

impl WriteMode {
    /// Asks for pages of up to `page_size` records, and remembers a few pages of records that are not known to be marked.
    pub fn new(page_size: usize, tuning: Tuning) -> WriteMode {
        WriteMode { page_size, max_remembered: 4 * page_size.max(tuning.first_page), lost_marks: LostMarks::default() }
    }

    /// Delivers and marks the next page. Returns whether there may be more.
    fn deliver_next(&mut self, run: &mut Run) -> Result<bool> {
        run.stop.check()?;
        let page = run.queue.peek(Count::UpTo(self.page_size))?;
        if !self.lost_marks.look_back(&page, run)?.written.is_empty() {
            return Ok(true);
        }
        if !run.is_up_to_date(&page)? {
            return Ok(true);
        }
        run.out.trim_ledger(&page, self.max_remembered);
        let Some(start) = page.start() else { return Ok(false) };
        let (count, is_last) = (page.len(), page.is_last());
        let delivered = run.out.deliver(page)?;
        // After a stop the target may be gone; a duplicate is better than a loss.
        run.stop.check()?;
        match run.queue.mark(delivered)? {
            Marked::Answered(answer) => {
                run.deliver_answer(&answer, None)?;
                let has_news = run.out.ledger.note_marked(&answer);
                run.judge_mark(has_news)?;
                self.lost_marks.move_to(start, count);
                Ok(!is_last || run.out.ledger.unmarked() > 0 || !self.lost_marks.is_empty())
            }
            Marked::Unknown => {
                self.lost_marks.add(start, count);
                Ok(true)
            }
            // Nothing was applied: the next iteration peeks again, and marks what the service then accepts.
            Marked::Refused => Ok(true),
        }
    }
}

impl Mode for WriteMode {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        loop {
            match self.deliver_next(run) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    if !error.is::<Stopped>() {
                        self.lost_marks.warn();
                    }
                    return Err(error);
                }
            }
        }
    }
}
