//! `acknowledge: read`: records are marked as they are read, as the vendor's tap does. A lost answer or a crash loses a page, and
//! ends the run.

use anyhow::Result;

use super::{Mode, Run};

/// Takes pages of unread records.
#[derive(Debug)]
pub struct ReadMode {
    /// `pageSize`
    pub page_size: usize,
}

impl Mode for ReadMode {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        loop {
            run.stop.check()?;
            let page = run.queue.take(self.page_size)?;
            run.out.metrics.count_marked(page.len());
            run.out.deliver_marked(&page, None)?;
            if page.is_last() {
                return Ok(());
            }
        }
    }
}
