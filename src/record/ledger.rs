//! What a run remembers of the records that it has written: which stage each of them has reached.

use std::collections::HashMap;
use std::io;

use foldhash::fast::RandomState;

use super::MessageWriter;
use super::identity::{Fingerprint, Fingerprints};
use super::in_flight::Proven;
use super::page::Page;
use super::proof::{Batch, Bookmark, Delivered, Peeked, ReturnedBookmark};

/// The fewest records that are remembered: a look back may show that many again.
const MIN_REMEMBERED: usize = 10_000;

/// How far a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Written and flushed, and no target has to prove anything.
    Written,
    /// A target has got it.
    InFlight,
    /// The same, and somebody else or a mark that came late has marked it.
    ReadInFlight,
    /// A target has committed it.
    Committed,
    /// It is committed, and marked as far as is known. If a page shows it as unread after all, it
    /// is marked again.
    Marked,
}

type Stages = HashMap<Fingerprint, Stage, RandomState>;

/// The records that a run has written and flushed, as long as the service may show them again.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Those that wait for a proof or a mark.
    waiting: Stages,
    /// How many of them are committed.
    committed: usize,
    /// The others, in two generations, so that a long run does not grow: once the younger one is
    /// large, the older one is forgotten.
    young: Stages,
    old: Stages,
}

impl Ledger {
    /// Whether this run has written the record, as far as it remembers.
    pub fn contains(&self, record: Fingerprint) -> bool {
        self.stage(record).is_some()
    }

    /// Adds records that are written and flushed.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Fingerprint>) {
        self.young.extend(records.into_iter().map(|record| (record, Stage::Written)));
    }

    /// A target has to prove that it has committed these, which were written.
    pub fn send(&mut self, records: &[Fingerprint]) {
        records.iter().for_each(|record| self.set(*record, Stage::InFlight));
    }

    /// Forgets records that a target has failed with: they are to be written again.
    pub fn take_back(&mut self, records: &[Fingerprint]) {
        records.iter().for_each(|record| self.remove(*record));
    }

    /// A target has committed these.
    pub fn commit(&mut self, batch: Proven<Batch>) {
        for record in batch.into_inner().records {
            let is_read = self.stage(record) == Some(Stage::ReadInFlight);
            self.set(record, if is_read { Stage::Marked } else { Stage::Committed });
        }
    }

    /// The records of a page are committed, if they are the ones that the bookmark covers. Returns
    /// whether they are.
    pub fn prove(&mut self, page: &Peeked, returned: &ReturnedBookmark) -> bool {
        let is_proven = Bookmark::of(page) == *returned.get();
        if is_proven {
            page.fingerprints().for_each(|record| self.set(record, Stage::Committed));
        }
        is_proven
    }

    /// Puts a record of a page aside that no target loads. Then it is delivered as a committed one
    /// is.
    pub fn put_aside(
        &mut self,
        page: &Page,
        record: Fingerprint,
        reason: &str,
        out: &mut dyn MessageWriter,
    ) -> io::Result<()> {
        let before = out.dead_letters();
        page.write_odd(record, reason, out)?;
        if out.dead_letters() > before {
            self.set(record, Stage::Committed);
        }
        Ok(())
    }

    /// The committed records at the beginning of a page, if there are any.
    pub fn delivered(&mut self, page: Peeked) -> Option<Delivered> {
        let is_committed = |record| matches!(self.stage(record), Some(Stage::Committed | Stage::Marked));
        let count = page.fingerprints().take_while(|record| is_committed(*record)).count();
        page.fingerprints().take(count).for_each(|record| self.set(record, Stage::Committed));
        Delivered::committed(page, count)
    }

    /// Notes records that the service has as read, or that a mark has hit.
    pub fn note_read(&mut self, records: impl IntoIterator<Item = Fingerprint>) {
        for record in records {
            match self.stage(record) {
                Some(Stage::InFlight) => self.set(record, Stage::ReadInFlight),
                Some(Stage::Committed) => self.set(record, Stage::Marked),
                _ => {}
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
    }

    /// Notes that a page shows records as unread: those that are committed are left to mark. If the
    /// stream ends with the page, those that it does not show are marked.
    pub fn note_unread(&mut self, page: &Page) {
        for record in page.fingerprints() {
            if self.stage(record) == Some(Stage::Marked) {
                self.set(record, Stage::Committed);
            }
        }
        if page.is_last && self.committed > 0 {
            let shown: Fingerprints = page.fingerprints().collect();
            let committed = self.waiting.iter().filter(|(_, stage)| **stage == Stage::Committed);
            let gone: Vec<_> = committed.map(|(record, _)| *record).filter(|record| !shown.contains(record)).collect();
            self.note_read(gone);
        }
    }

    /// Whether none of these, which are in flight, is known to be read.
    pub fn are_unread(&self, records: &[Fingerprint]) -> bool {
        records.iter().all(|record| self.stage(*record) != Some(Stage::ReadInFlight))
    }

    /// How many records wait for a proof or a mark.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many of them are committed, and left to mark.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// Remembers for longer what a page still shows.
    pub fn recall(&mut self, page: &Page) {
        let Ledger { young, old, .. } = self;
        young.extend(page.fingerprints().filter_map(|record| old.remove_entry(&record)));
    }

    /// Forgets what no page has shown for long, if it remembers more than so many. What waits is
    /// never forgotten: so a mode that writes more than a peek shows again has to `send` it.
    pub fn forget(&mut self, enough: usize) {
        if self.young.len() > MIN_REMEMBERED.max(enough) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }

    fn stage(&self, record: Fingerprint) -> Option<Stage> {
        [&self.waiting, &self.young, &self.old].into_iter().find_map(|stages| stages.get(&record)).copied()
    }

    fn set(&mut self, record: Fingerprint, stage: Stage) {
        if stage == Stage::Marked {
            self.remove(record);
            self.young.insert(record, stage);
            return;
        }
        self.young.remove(&record);
        self.old.remove(&record);
        // In place: a table grows if many are removed and inserted again.
        let before = self.waiting.insert(record, stage);
        self.committed += usize::from(stage == Stage::Committed);
        self.committed -= usize::from(before == Some(Stage::Committed));
    }

    fn remove(&mut self, record: Fingerprint) {
        let before = self.waiting.remove(&record);
        self.committed -= usize::from(before == Some(Stage::Committed));
        self.young.remove(&record);
        self.old.remove(&record);
    }
}
