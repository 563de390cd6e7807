//! Looking: the oldest unread records are shown, and nothing is marked. That is for `--peek`, and
//! for a stdout that is a terminal.
//!
//! No STATE is written either: a STATE that a later run gets back could only mark what no target
//! has committed.

use std::io;

use anyhow::Result;
use log::{info, warn};

use super::run::{Mode, Run};
use crate::metrics::records;
use crate::streamduo::queue::Count;

/// Shows a growing window of unread records, and marks nothing.
#[derive(Debug)]
pub struct Look {
    /// How many records to show.
    max: usize,
    /// Whether stdout is a terminal, and `--peek` was not given.
    is_terminal: bool,
    /// Why there may be more unread records than are shown, to follow their number; empty if that
    /// is not known.
    more: &'static str,
    /// Whether the log says how many records are shown, and what happens to them.
    is_told: bool,
}

impl Look {
    /// `--peek`: shows this many.
    pub fn peek(max: usize) -> Look {
        Look { max, is_terminal: false, more: "", is_told: false }
    }

    /// stdout is a terminal: shows as many as `maxPending`.
    pub fn terminal(max_pending: usize) -> Look {
        Look { is_terminal: true, ..Look::peek(max_pending) }
    }

    fn show(&mut self, run: &mut Run) -> Result<()> {
        let max = self.max;
        let mut shown_before = 0;
        loop {
            run.stop.check()?;
            let page = run.queue.peek(Count::UpTo(max))?;
            // A run that follows forgets what others have marked.
            run.out.ledger.recall(&page);
            run.out.ledger.forget(page.len());
            let shown = page.len();
            let is_short = page.is_short;
            // The proof is not used: a look marks nothing.
            let _ = run.out.deliver(page)?;
            let is_all = is_short || shown == max;
            self.more = match is_all {
                false => " (there may be more: no more fit into one answer)",
                true if self.is_terminal && !is_short => " (`maxPending`: there may be more)",
                true => "",
            };
            if is_all || shown <= shown_before {
                return Ok(());
            }
            shown_before = shown;
        }
    }
}

impl Mode for Look {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        match self.show(run) {
            // As `head` does. Nothing is lost by that.
            Err(error) if is_broken_pipe(&error) => {
                info!("the reader closed stdout: nothing is marked as read");
                self.is_told = true;
                Ok(())
            }
            shown => shown,
        }
    }

    fn finish(&mut self, run: &mut Run) -> Result<()> {
        if std::mem::replace(&mut self.is_told, true) {
            return Ok(());
        }
        let more = self.more;
        let shown = match run.out.metrics.written {
            0 if run.out.metrics.put_aside > 0 => format!("no unread record can be shown{more}"),
            0 => "there is no unread record".to_owned(),
            1 => format!("1 record is shown and stays unread{more}"),
            count => format!("{} are shown and stay unread{more}", records(count)),
        };
        if self.is_terminal {
            warn!(
                "stdout is a terminal, so nothing is marked as read: {shown}; to deliver what is unread, let the tap \
                 run a target (`tap-streamduo -c config.json -- target-x`) or pipe into one (`… | target-x`)"
            );
        } else {
            info!("{shown}");
        }
        Ok(())
    }

    fn left_by_stop(&self, _run: &Run) -> &'static str {
        "nothing is marked as read"
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
