//! What a run writes, and what it remembers of it: messages, ledger, metrics, STATE.

use std::io;

use anyhow::{Result, anyhow};
use log::info;

use super::target::TargetFailed;
use crate::config::Invalid;
use crate::metrics::{RunMetrics, plural, records};
use crate::record::{Batch, Delivered, Fingerprint, Ledger, MessageWriter, Page, Peeked};
use crate::shutdown::Shutdown;
use crate::singer::dead_letters::CannotPutAside;
use crate::singer::state::StreamState;
use crate::singer::stdout;

/// How many ids a log line or an error names.
pub const MAX_NAMED: usize = 10;

/// How many an error names of records that are marked and lost.
pub const MAX_LOST: usize = 100;

/// Where a mode delivers records.
pub struct Output {
    writer: Box<dyn MessageWriter>,
    /// What this run has written and the service may show again.
    pub ledger: Ledger,
    /// The counts of this run.
    pub metrics: RunMetrics,
    /// What the next STATE covers.
    pub state: StreamState,
    /// Whether a page is perhaps written in part.
    is_cut: bool,
    stop: Shutdown,
}

impl Output {
    /// Writes to `writer`.
    pub fn new(writer: Box<dyn MessageWriter>, state: StreamState, metrics: RunMetrics, stop: Shutdown) -> Output {
        Output { writer, ledger: Ledger::default(), metrics, state, is_cut: false, stop }
    }

    /// Writes the records of a page that are not in the ledger yet.
    ///
    /// # Errors
    /// When they cannot be written. Nothing may be marked then.
    pub fn deliver(&mut self, page: Peeked) -> Result<Delivered> {
        let delivered = page.deliver(&mut self.ledger, &mut *self.writer);
        self.count(delivered, Delivered::written)
    }

    /// Writes the records of a page that are not known, and that nobody is to mark: the ledger does
    /// not get them. Returns how many.
    pub fn write(&mut self, page: &Page, is_known: impl Fn(Fingerprint) -> bool) -> Result<usize> {
        let written = page.write_unknown(is_known, &mut *self.writer);
        self.count(written, |written| *written)
    }

    /// Writes some of the records of a page, whose delivery a target has to prove. Returns how many
    /// of them are not put aside.
    pub fn write_some(&mut self, page: &Page, records: &[Fingerprint]) -> Result<usize> {
        let before = self.metrics.written;
        let written = page.write(records, &mut self.ledger, &mut *self.writer);
        self.count(written, |written| *written)?;
        Ok(self.metrics.written - before)
    }

    /// Forgets that a batch was written: a target has failed with it.
    pub fn take_back(&mut self, batch: &Batch) {
        self.ledger.take_back(&batch.records);
        self.metrics.take_back(batch.written);
    }

    /// Puts a record of a page aside that makes the target fail, so that it counts as committed.
    pub fn put_aside(&mut self, page: &Page, record: Fingerprint, reason: &str) -> Result<()> {
        let put_aside = self.ledger.put_aside(page, record, reason, &mut *self.writer);
        put_aside.map_err(|error| self.failure(error))?;
        self.count_dead_letters();
        Ok(())
    }

    /// Writes the records of a page that are marked already, and not in the ledger: they exist
    /// nowhere else. So a log line names the first of them before, with what has marked them.
    /// Returns them and their ids.
    ///
    /// # Errors
    /// When they cannot be written. The error names the records that are lost.
    pub fn deliver_marked(&mut self, page: &Page, what_marked: &str) -> Result<(Vec<Fingerprint>, Vec<String>)> {
        let unknown = page.unknown(|record| self.ledger.contains(record));
        let (unseen, ids): (Vec<_>, Vec<_>) = unknown.map(|(record, id)| (record, id.into_owned())).unzip();
        if !ids.is_empty() {
            let are = plural(ids.len(), "is", "are");
            info!(
                "{} that {what_marked} {are} written now: recordId {}",
                records(ids.len()),
                named(&ids, MAX_NAMED, ids.len())
            );
            let written = page.write(&unseen, &mut self.ledger, &mut *self.writer);
            let written = written.map_err(|error| self.failure_of_marked(error, &ids));
            self.count_taken(written?);
        }
        Ok((unseen, ids))
    }

    /// Whether this run has written anything, even a part of a page.
    pub fn has_written(&self) -> bool {
        self.is_cut || self.taken() > 0
    }

    /// Whether it has written more than is known to be marked.
    pub fn has_unmarked(&self) -> bool {
        self.is_cut || self.taken() > self.metrics.marked
    }

    /// How many records were written, or are dead letters.
    fn taken(&self) -> usize {
        self.metrics.written + self.metrics.put_aside
    }

    /// Counts what the writer has taken, or explains why it has failed.
    fn count<T>(&mut self, written: io::Result<T>, taken: impl Fn(&T) -> usize) -> Result<T> {
        self.is_cut |= written.is_err();
        let written = written.map_err(|error| self.failure(error))?;
        self.count_taken(taken(&written));
        Ok(written)
    }

    fn count_taken(&mut self, taken: usize) {
        let dead_letters = self.count_dead_letters();
        self.metrics.with_rest = self.writer.with_rest();
        self.metrics.count_written(taken - dead_letters);
        self.state.is_written &= taken == 0;
    }

    /// Counts the dead letters since this was done last. Returns how many.
    fn count_dead_letters(&mut self) -> usize {
        let before = std::mem::replace(&mut self.metrics.put_aside, self.writer.dead_letters());
        self.metrics.show();
        self.metrics.put_aside - before
    }

    /// Ends the input of the target that the tap runs.
    pub fn close(&mut self) {
        self.writer.close();
    }

    /// Writes the STATE, unless it is the last message already.
    pub fn write_state(&mut self) -> Result<()> {
        if !self.state.is_written {
            self.writer.state(&self.state.value()?).map_err(|error| self.failure(error))?;
            self.state.is_written = true;
        }
        Ok(())
    }

    /// Explains a failed write. After a stop it is the stop that counts: the target is often
    /// stopped too.
    fn failure(&mut self, error: io::Error) -> anyhow::Error {
        // The dead letters of the page that has failed are in the file.
        self.count_dead_letters();
        match self.stop.check() {
            Ok(()) => explain(error),
            Err(stopped) => stopped.into(),
        }
    }

    /// Explains a failed write of records that are marked already.
    fn failure_of_marked(&mut self, error: io::Error, ids: &[String]) -> anyhow::Error {
        // If only the dead letters could not be written, the others are.
        let (count, problem) = match error.downcast::<CannotPutAside>() {
            Ok(error) => (error.count, format!(": {error}")),
            Err(error) => {
                self.count_dead_letters();
                (ids.len(), format!(" ({error}): recordId {}", named(ids, MAX_LOST, ids.len())))
            }
        };
        let are = plural(count, "is", "are");
        let remedy = "; a replay (`acknowledge` `never`) reads what is lost";
        anyhow!("{} {are} marked as read and could not be written{problem}{remedy}", records(count))
    }
}

/// The first ids of `count` records, up to `max`.
pub fn named(ids: &[impl AsRef<str>], max: usize, count: usize) -> String {
    let first: Vec<_> = ids.iter().take(max).map(AsRef::as_ref).collect();
    first.join(", ") + if count > first.len() { ", …" } else { "" }
}

/// The error of a target that cannot be started, or of a stdout or a file that cannot be written.
fn explain(error: io::Error) -> anyhow::Error {
    let error = error.downcast::<Invalid>().map(Into::into);
    let error = error.or_else(|error| error.downcast::<TargetFailed>().map(Into::into));
    let error = error.or_else(|error| {
        let remedy = "what was not delivered stays unread: fix that and run again";
        error.downcast::<CannotPutAside>().map(|error| anyhow!("{error}; {remedy}"))
    });
    error.unwrap_or_else(stdout::explain_write)
}
