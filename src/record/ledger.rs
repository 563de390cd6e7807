//! What a run has written.

use super::identity::{Fingerprint, Fingerprints};
use super::page::Page;

/// The records that a run has written and flushed, as long as the service may show them again.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Not known to be marked.
    unmarked: Fingerprints,
    /// Marked, by the last answer to a mark.
    marked: Fingerprints,
    /// Shown as read by the last look back.
    looked_back: Fingerprints,
}

impl Ledger {
    /// Whether this run has written the record.
    pub fn has(&self, record: Fingerprint) -> bool {
        [&self.unmarked, &self.marked, &self.looked_back].iter().any(|records| records.contains(&record))
    }

    /// How many records may still be unread for the service.
    pub fn unmarked(&self) -> usize {
        self.unmarked.len()
    }

    /// Adds the records of a page that is written and flushed. Returns how many of them are not known to be marked.
    pub(super) fn add(&mut self, page: &Page) -> usize {
        let unmarked: Vec<_> = page.fingerprints().filter(|record| !self.marked.contains(record)).collect();
        let count = unmarked.len();
        self.unmarked.extend(unmarked);
        count
    }

    /// Notes the answer to a mark: its records are marked. They are remembered until the next answer, because a peek may
    /// still show them. Returns whether the answer shows a record that the last one did not.
    pub fn note_marked(&mut self, answer: &Page) -> bool {
        let has_news = answer.fingerprints().any(|record| !self.marked.contains(&record));
        self.marked.clear();
        for record in answer.fingerprints() {
            self.unmarked.remove(&record);
            self.marked.insert(record);
        }
        has_news
    }

    /// Notes the records that a look back has shown, all of them written now: the next one may show them again.
    pub fn look_back(&mut self, records: Fingerprints) {
        self.looked_back = records;
    }

    /// Whether the page shows a record that the last answer to a mark has shown as well.
    pub fn shows_marked(&self, page: &Page) -> bool {
        page.fingerprints().any(|record| self.marked.contains(&record))
    }

    /// Forgets the unmarked records that the page does not show. Returns how many.
    pub fn keep_shown(&mut self, page: &Page) -> usize {
        let shown: Fingerprints = page.fingerprints().collect();
        let before = self.unmarked.len();
        self.unmarked.retain(|record| shown.contains(record));
        before - self.unmarked.len()
    }
}
