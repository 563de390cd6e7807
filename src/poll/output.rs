//! What a run writes, and what it remembers of it: messages, ledger, metrics, STATE.

use std::borrow::Cow;
use std::io;

use anyhow::{Result, anyhow};

use super::target::TargetFailed;
use crate::config::Invalid;
use crate::metrics::{RunMetrics, records};
use crate::record::{
    Bookmark, Checkpoint, Committed, Delivered, Fingerprint, Fingerprints, Ledger, MessageWriter, Page, Peeked,
};
use crate::shutdown::Shutdown;
use crate::singer::dead_letters::CannotPutAside;
use crate::singer::state::StreamState;
use crate::singer::stdout;

/// How many ids of lost records an error names.
const MAX_NAMED: usize = 10;

/// Where a mode delivers records.
pub struct Output {
    writer: Box<dyn MessageWriter>,
    /// What this run has written and the service may show again.
    pub ledger: Ledger,
    /// The counts of this run.
    pub metrics: RunMetrics,
    state: StreamState,
    /// Whether the last message on stdout is the current STATE.
    state_is_written: bool,
    /// Whether a page is perhaps written in part.
    is_cut: bool,
    stop: Shutdown,
}

impl Output {
    /// Writes to `writer`.
    pub fn new(writer: Box<dyn MessageWriter>, state: StreamState, metrics: RunMetrics, stop: Shutdown) -> Output {
        Output { writer, ledger: Ledger::default(), metrics, state, state_is_written: false, is_cut: false, stop }
    }

    /// Writes the records of a page that are not in the ledger yet.
    ///
    /// # Errors
    /// When they cannot be written. Nothing may be marked then.
    pub fn deliver(&mut self, page: Peeked) -> Result<Delivered> {
        let delivered = page.deliver(&mut self.ledger, &mut *self.writer);
        self.is_cut |= delivered.is_err();
        let delivered = delivered.map_err(|error| self.failure(error))?;
        self.count(delivered.written());
        Ok(delivered)
    }

    /// Writes the records of an answer to a mark that are neither in the ledger nor committed: they are marked, and exist nowhere
    /// else. Returns their ids.
    ///
    /// # Errors
    /// When they cannot be written. The error names the records that are lost.
    pub fn deliver_marked(&mut self, answer: &Page, committed: Option<&Committed>) -> Result<Vec<String>> {
        self.deliver_unknown(answer, |ledger, record| waiting_copies(ledger, committed, record))
    }

    /// Writes the records of a look back that the service shows as read and that are neither written nor committed. `found` holds
    /// what this look back has shown before. Returns their ids.
    ///
    /// # Errors
    /// When they cannot be written. The error names the records that are lost.
    pub fn deliver_read(
        &mut self,
        page: &Page,
        committed: Option<&Committed>,
        found: &Fingerprints,
    ) -> Result<Vec<String>> {
        self.deliver_unknown(page, |ledger, record| {
            let known = waiting_copies(ledger, committed, record) + ledger.read_copies(record);
            known.max(found.count(record))
        })
    }

    /// Writes the records of a page that are marked already, but for as many copies of each as are known. Returns the
    /// ids of those that it has written.
    fn deliver_unknown(&mut self, page: &Page, known: impl Fn(&Ledger, Fingerprint) -> usize) -> Result<Vec<String>> {
        let known = |record| known(&self.ledger, record);
        let written = page.write(known, &mut *self.writer);
        let ids = page.undelivered_ids(known);
        let written = written.map_err(|error| self.failure_of_marked(error, &ids))?;
        self.count(written);
        Ok(ids.into_iter().map(Cow::into_owned).collect())
    }

    /// Writes the records of a page that are not known, and that nobody is to mark. `known` says how many copies of a record are.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, page: &Page, known: impl Fn(Fingerprint) -> usize) -> Result<()> {
        let written = page.write(known, &mut *self.writer).map_err(|error| self.failure(error))?;
        self.count(written);
        Ok(())
    }

    /// Forgets records in the ledger that the service does not show as unread any more.
    ///
    /// Only the last page proves that they are marked. A record that another page does not show may be marked, or records that
    /// appeared before it have pushed it past the end of the page: it is remembered while no more than `max_remembered` are.
    pub fn trim_ledger(&mut self, page: &Page, max_remembered: usize) {
        if page.is_last() {
            let marked = self.ledger.keep_shown(page);
            self.metrics.count_marked(marked);
        } else if self.ledger.unmarked() > max_remembered {
            self.ledger.keep_shown(page);
        }
    }

    /// Whether this run has written anything, be it a part of a page.
    pub fn has_written(&self) -> bool {
        self.is_cut || self.metrics.written() + self.metrics.put_aside() > 0
    }

    /// Whether it has written anything that is not known to be marked.
    pub fn has_unmarked(&self) -> bool {
        self.is_cut || self.ledger.unmarked() > 0
    }

    /// Counts records that the writer has taken.
    fn count(&mut self, taken: usize) {
        let put_aside = self.count_put_aside();
        self.metrics.count_written(taken - put_aside);
        self.state_is_written &= taken == 0;
    }

    /// Counts the records that the writer has put aside since this was done last. Returns how many.
    fn count_put_aside(&mut self) -> usize {
        let put_aside = self.writer.put_aside() - self.metrics.put_aside();
        self.metrics.count_put_aside(put_aside);
        put_aside
    }

    /// Sets what the next STATE covers.
    pub fn set_bookmark(&mut self, bookmark: Option<Bookmark>) {
        self.state.set_bookmark(bookmark);
        self.state_is_written = false;
    }

    /// Sets which checkpoint the next STATE is.
    pub fn set_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.state.set_checkpoint(checkpoint);
        self.state_is_written = false;
    }

    /// Sets up to which time stamp the next STATE covers everything, if that is known and has changed.
    pub fn set_time_bookmark(&mut self, timestamp: Option<&str>) {
        if let Some(timestamp) = timestamp.filter(|timestamp| self.state.time_bookmark() != Some(timestamp)) {
            self.state.set_time_bookmark(timestamp);
            self.state_is_written = false;
        }
    }

    /// Writes the STATE that covers everything up to a time stamp, if that is known and has changed, to the file that `--state` names.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_time_bookmark(&mut self, timestamp: Option<&str>) -> Result<()> {
        if timestamp.is_none() || self.state.time_bookmark() == timestamp {
            return Ok(());
        }
        self.set_time_bookmark(timestamp);
        self.state.save()
    }

    /// Ends the input of the target that the tap runs.
    pub fn close(&mut self) {
        self.writer.close();
    }

    /// Writes the STATE, unless it is the last message already.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_state(&mut self) -> Result<()> {
        if !self.state_is_written {
            self.writer.state(&self.state.value()?).map_err(|error| self.failure(error))?;
            self.state_is_written = true;
        }
        Ok(())
    }

    /// Explains a failed write. After a stop it is the stop that counts: the target is often stopped too.
    fn failure(&mut self, error: io::Error) -> anyhow::Error {
        // Those of the page that has failed are put aside all the same.
        self.count_put_aside();
        match self.stop.check() {
            Ok(()) => explain(error),
            Err(stopped) => stopped.into(),
        }
    }

    /// Explains a failed write of records that are marked already.
    fn failure_of_marked(&mut self, error: io::Error, ids: &[Cow<'_, str>]) -> anyhow::Error {
        let error = match error.downcast::<CannotPutAside>() {
            // The others are written.
            Ok(error) => {
                let (are, records) = (if error.count == 1 { "is" } else { "are" }, records(error.count));
                return anyhow!("{records} {are} marked as read and could not be written: {error}");
            }
            Err(error) => error,
        };
        let count = ids.len();
        if count == 0 {
            return self.failure(error);
        }
        self.count_put_aside();
        let (are, records) = (if count == 1 { "is" } else { "are" }, records(count));
        let named = named(ids);
        anyhow!("{records} {are} marked as read and could not be written to stdout ({error}): recordId {named}")
    }
}

/// The first ids of records, for an error.
pub fn named(ids: &[impl AsRef<str>]) -> String {
    let first: Vec<_> = ids.iter().take(MAX_NAMED).map(AsRef::as_ref).collect();
    first.join(", ") + if ids.len() > MAX_NAMED { ", …" } else { "" }
}

/// The error of a target that cannot be started, or of a stdout or a file that cannot be written.
fn explain(error: io::Error) -> anyhow::Error {
    let error = error.downcast::<Invalid>().map(Into::into);
    let error = error.or_else(|error| error.downcast::<TargetFailed>().map(Into::into));
    let error = error.or_else(|error| {
        let remedy = "what was not delivered stays unread, so mend that and run again";
        error.downcast::<CannotPutAside>().map(|error| anyhow!("{error}; {remedy}"))
    });
    error.unwrap_or_else(stdout::explain_write)
}

/// How many copies of a record are delivered, and not known to be marked.
fn waiting_copies(ledger: &Ledger, committed: Option<&Committed>, record: Fingerprint) -> usize {
    ledger.unmarked_copies(record).max(committed.map_or(0, |committed| committed.copies(record)))
}
