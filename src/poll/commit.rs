//! `acknowledge: commit`: marks what the STATE of an earlier run proves to be committed, and writes
//! what is unread.
//!
//! Nothing that this run writes is marked. Each STATE says what is out; the next run gets it back,
//! and marks that.

use anyhow::Result;
use log::info;
use serde_json::{Value, json};

use super::marker::Marker;
use super::run::{Mode, Run};
use crate::metrics::records;
use crate::record::{Bookmark, ReturnedBookmark};
use crate::streamduo::queue::Count;

/// Marks what is committed, then writes a growing window of unread records.
pub struct CommitMode {
    /// `maxPending`
    pub max_pending: usize,
    /// The target has committed what this bookmark covers.
    pub returned: Option<ReturnedBookmark>,
    pub marker: Marker,
}

impl CommitMode {
    /// Marks the records that the bookmark covers, and no others. Returns whether to go on: not
    /// while a mark may still be applied.
    fn mark_committed(&mut self, returned: &ReturnedBookmark, run: &mut Run) -> Result<bool> {
        let mut page = self.marker.peek(Count::AtOnce(returned.get().count), run)?;
        if !run.out.ledger.prove(&page, returned) {
            let covered = records(returned.get().count);
            info!(
                "the state covers {covered}, but it does not match what is unread now: marking nothing, \
                 delivering again"
            );
            return Ok(true);
        }
        while let Some(delivered) = run.out.ledger.delivered(page) {
            run.stop.check()?;
            self.marker.mark(delivered, run)?;
            run.out.ledger.note_read(self.marker.take_found().read);
            let left = run.out.ledger.committed();
            if left == 0 {
                break;
            }
            // One more, which is the fence.
            page = self.marker.peek(Count::AtOnce(left + 1), run)?;
            run.out.ledger.note_read(self.marker.take_found().read);
            if self.marker.may_be_applied() {
                // It hits what is committed, unless another mark has marked that already.
                info!(
                    "the answer to a mark was lost, and the mark may still be applied: the next run marks \
                     what is left"
                );
                self.marker.look_once(run);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a growing window of unread records, and after each growth the STATE that covers it.
    fn write_windows(&mut self, run: &mut Run) -> Result<()> {
        let mut out = 0;
        loop {
            let page = self.marker.peek(Count::UpTo(self.max_pending), run)?;
            let shown = page.len();
            let is_short = page.is_short;
            // A window that has shrunk covers less than the last STATE.
            if shown >= out || is_short {
                let bookmark = Bookmark::of(&page);
                // The proof is not used: only a STATE that comes back shows that the target has
                // committed the records.
                let _ = run.out.deliver(page)?;
                run.out.state.cover(json!(bookmark));
                run.out.write_state()?;
            }
            if shown == self.max_pending || shown <= out && !is_short {
                let is_full = shown == self.max_pending;
                let why = if is_full { " (`maxPending`)" } else { ", and the service shows no more at once" };
                let out = records(out.max(shown));
                info!("{out} are out{why}: if there are more, they follow in the next run");
                return Ok(());
            }
            if is_short {
                return Ok(());
            }
            out = shown;
        }
    }

    fn mark_and_write(&mut self, run: &mut Run) -> Result<()> {
        if let Some(returned) = self.returned.take() {
            if !self.mark_committed(&returned, run)? {
                return Ok(());
            }
            run.out.state.cover(Value::Null);
        }
        self.write_windows(run)?;
        if run.out.has_written() {
            info!("the next run marks what the target has committed, by its STATE");
        }
        Ok(())
    }
}

impl Mode for CommitMode {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        let end = self.mark_and_write(run);
        if end.is_err() {
            self.marker.end_early(run);
        }
        end
    }

    fn left_by_stop(&self, run: &Run) -> &'static str {
        if run.out.has_written() {
            "the next run marks what the target has committed, by its STATE, and writes the rest again"
        } else {
            "no record was written"
        }
    }
}
