//! `acknowledge: write`: peeks a page, writes it, flushes, and marks it.

use anyhow::Result;

use super::marker::Marker;
use super::run::{Mode, Run};
use crate::streamduo::queue::Count;

/// Delivers pages of unread records.
pub struct WriteMode {
    /// `pageSize`
    pub page_size: usize,
    pub marker: Marker,
}

impl WriteMode {
    /// Delivers and marks the next page. Returns whether there may be more.
    fn deliver_next(&mut self, run: &mut Run) -> Result<bool> {
        // One record alone would leave no fence.
        let page = self.marker.peek(Count::UpTo(self.page_size.max(2)), run)?;
        if page.is_empty() {
            return Ok(false);
        }
        let is_last = page.is_last;
        let delivered = run.out.deliver(page)?;
        // After a stop the target may be gone; a duplicate is better than a loss.
        run.stop.check()?;
        let is_marked = self.marker.mark(delivered, run)?;
        Ok(!is_last || !is_marked)
    }
}

impl Mode for WriteMode {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        loop {
            match self.deliver_next(run) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.marker.end_early(run);
                    return Err(error);
                }
            }
        }
    }
}
