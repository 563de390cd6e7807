//! What a run remembers of the records that it has written.

use super::identity::{Fingerprint, Fingerprints};
use super::page::Page;
use super::proof::Committed;

/// The fewest records that are remembered: a look back may show that many again.
const MIN_REMEMBERED: usize = 1_000;

/// The records that a run has written and flushed, as long as the service may show them again. Two
/// generations, so that a long run does not grow: once the younger one is large, the older one is
/// forgotten.
#[derive(Debug, Default)]
pub struct Ledger {
    young: Fingerprints,
    old: Fingerprints,
}

impl Ledger {
    /// Whether this run has written the record, as far as it remembers.
    pub fn contains(&self, record: Fingerprint) -> bool {
        self.young.contains(&record) || self.old.contains(&record)
    }

    /// Adds records that are written and flushed.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Fingerprint>) {
        self.young.extend(records);
    }

    /// Forgets records that a target has failed with: they are to be written again.
    pub fn take_back(&mut self, records: &[Fingerprint]) {
        for record in records {
            self.young.remove(record);
            self.old.remove(record);
        }
    }

    /// Adds records that a target has committed in an earlier run.
    pub fn adopt(&mut self, committed: &Committed) {
        self.young.extend(&committed.left);
    }

    /// Remembers for longer what a page still shows.
    pub fn recall(&mut self, page: &Page) {
        let Ledger { young, old } = self;
        young.extend(page.fingerprints().filter(|record| old.contains(record)));
    }

    /// Forgets the older generation if the younger one holds more than so many.
    pub fn forget(&mut self, enough: usize) {
        if self.young.len() > MIN_REMEMBERED.max(enough) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }
}
