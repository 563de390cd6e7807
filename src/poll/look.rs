//! Looking: the oldest unread records are shown, and nothing is marked. That is for `--peek`, and for a stdout that is a terminal.
//!
//! No STATE is written either: a STATE that a later run gets back could only mark what no target has committed.

use std::io;

use anyhow::Result;
use log::{info, warn};

use super::{Mode, Run};
use crate::metrics::records;
use crate::streamduo::Count;

/// How many records to show, and why nothing is marked.
#[derive(Debug, Clone, Copy)]
pub enum Look {
    /// `--peek`: this many.
    Peek(usize),
    /// stdout is a terminal: as many as `maxPending`.
    Terminal(usize),
}

/// Shows a growing window of unread records.
#[derive(Debug)]
pub struct LookMode {
    look: Look,
    /// Why there may be more unread records than are shown, to follow their number; empty if that is not known.
    more: &'static str,
    /// Whether the log says how many records are shown, and what happens to them.
    is_told: bool,
}

impl LookMode {
    /// Shows what `look` asks for.
    pub fn new(look: Look) -> LookMode {
        LookMode { look, more: "", is_told: false }
    }

    fn show(&mut self, run: &mut Run) -> Result<()> {
        let (Look::Peek(max) | Look::Terminal(max)) = self.look;
        let mut shown_before = 0;
        loop {
            run.stop.check()?;
            let page = run.queue.peek(Count::UpTo(max))?;
            // A run that follows forgets what others have marked, so that it remembers a window or two.
            if page.is_last() || run.out.ledger.unmarked() > 2 * max {
                run.out.ledger.keep_shown(&page);
            }
            let (shown, is_short) = (page.len(), page.is_short());
            // The proof is not used: a look marks nothing.
            let _ = run.out.deliver(page)?;
            self.more = match self.look {
                _ if is_short => "",
                Look::Peek(_) if shown == max => "",
                Look::Terminal(_) if shown == max => " (`maxPending`: there may be more)",
                _ => " (there may be more: no more fit into one answer)",
            };
            if is_short || shown == max || shown <= shown_before {
                return Ok(());
            }
            shown_before = shown;
        }
    }
}

impl Mode for LookMode {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        match self.show(run) {
            // As `head` does. Nothing is lost by that.
            Err(error) if is_broken_pipe(&error) => {
                info!("whoever reads stdout has seen enough: nothing is marked as read");
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
        let shown = match run.out.metrics.written() {
            0 if run.out.metrics.put_aside() > 0 => format!("no unread record can be shown{more}"),
            0 => "there is no unread record".to_owned(),
            1 => format!("1 record is shown and stays unread{more}"),
            count => format!("{} are shown and stay unread{more}", records(count)),
        };
        match self.look {
            Look::Peek(_) => info!("{shown}"),
            Look::Terminal(_) => warn!(
                "stdout is a terminal, so nothing is marked as read: {shown}; to deliver what is unread, let the tap run a \
                 target (`tap-streamduo -c config.json -- target-x`) or pipe into one (`… | target-x`)"
            ),
        }
        Ok(())
    }

    fn done_before_pause(&self) -> &'static str {
        "the oldest unread records are shown"
    }

    fn left_by_stop(&self, _run: &Run) -> &'static str {
        "nothing is marked as read"
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
