//! `acknowledge: commit`: marks what the STATE of an earlier run proves to be committed, and writes what is unread.
//!
//! Nothing that this run writes is marked. Each STATE says what is out; the next run gets it back, and marks that.

use anyhow::Result;
use log::info;

use super::lost_mark::deliver_read_since;
use super::{Mode, Run};
use crate::metrics::records;
use crate::record::{Bookmark, Committed, ReturnedBookmark};
use crate::streamduo::{Count, Marked};

/// Marks what is committed, then writes a growing window of unread records.
#[derive(Debug)]
pub struct CommitMode {
    /// `maxPending`
    pub max_pending: usize,
    /// The target has committed what this bookmark covers.
    pub returned: Option<ReturnedBookmark>,
}

impl CommitMode {
    /// Marks the records that the bookmark covers, and no others. Returns whether to go on: not while a mark may still be
    /// applied.
    fn mark_committed(returned: &ReturnedBookmark, run: &mut Run) -> Result<bool> {
        let count = returned.count;
        let mut page = run.queue.peek(Count::AtOnce(count))?;
        let Some(mut committed) = Committed::prove(&page, returned) else {
            let covered = records(count);
            info!(
                "the state covers {covered}, but it does not match what is unread now: marking nothing, delivering again"
            );
            return Ok(true);
        };
        while let Some(start) = page.start() {
            let Some(delivered) = committed.delivered(page) else { break };
            run.stop.check()?;
            let marked = delivered.count();
            match run.queue.mark(delivered)? {
                Marked::Answered(answer) => {
                    run.deliver_answer(&answer, Some(&committed))?;
                    run.judge_mark(committed.note_marked(answer.fingerprints()))?;
                    if committed.is_empty() {
                        break;
                    }
                    page = run.queue.peek(Count::AtOnce(committed.len()))?;
                }
                Marked::Unknown => {
                    page = run.queue.peek(Count::AtOnce(committed.len()))?;
                    // Its time stamp may be that of a later record, which this page need not show.
                    if page.start().is_some_and(|now| now.record == start.record) {
                        // The mark may still be applied. It hits what is committed, unless another mark has marked that already.
                        info!(
                            "the answer to a mark was lost, and it is not applied yet: the next run marks what is left"
                        );
                        return Ok(false);
                    }
                    let found = deliver_read_since(run, &start, 2 * marked, Some(&committed))?;
                    committed.note_marked(found.read);
                }
                Marked::Refused => page = run.queue.peek(Count::AtOnce(committed.len()))?,
            }
        }
        Ok(true)
    }

    /// Writes a growing window of unread records, and after each growth the STATE that covers it.
    fn write_windows(&self, run: &mut Run) -> Result<()> {
        let mut out = 0;
        loop {
            run.stop.check()?;
            let page = run.queue.peek(Count::UpTo(self.max_pending))?;
            let (shown, is_short, bookmark) = (page.len(), page.is_short(), Bookmark::of(&page));
            if shown < out && !is_short {
                let out = records(out);
                info!(
                    "{out} are out, and the service shows no more at once: if there are more, they follow in the next run"
                );
                return Ok(());
            }
            // The proof is not used: only a STATE that comes back shows that the target has committed the records.
            let _ = run.out.deliver(page)?;
            run.out.set_bookmark(Some(bookmark));
            run.out.write_state()?;
            if shown == self.max_pending {
                let out = records(shown);
                info!("{out} are out (`maxPending`): if there are more, they follow in the next run");
                return Ok(());
            }
            if is_short {
                return Ok(());
            }
            if shown == out {
                let out = records(out);
                info!("{out} are out, and no more are shown: if there are, they follow in the next run");
                return Ok(());
            }
            out = shown;
        }
    }
}

impl Mode for CommitMode {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        if let Some(returned) = self.returned.take() {
            if !CommitMode::mark_committed(&returned, run)? {
                return Ok(());
            }
            run.out.set_bookmark(None);
        }
        self.write_windows(run)
    }

    fn remark(&self) -> &'static str {
        "; the next run marks what the target has committed, by its STATE"
    }

    fn left_by_stop(&self, run: &Run) -> &'static str {
        if run.out.has_written() {
            "the next run marks what the target has committed, by its STATE, and writes the rest again"
        } else {
            "no record was written"
        }
    }
}
