//! What a run has written.

use std::borrow::Cow;

use super::fingerprints::Fingerprints;
use super::identity::Fingerprint;
use super::page::{Page, Position, Record};

/// The records that a run has written and flushed, as long as the service may show them again.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Not known to be marked.
    unmarked: Fingerprints,
    /// Marked, by the last answer to a mark.
    marked: Fingerprints,
    /// Shown as read by the last look back, or by one before it that began at the same place.
    looked_back: Fingerprints,
    /// Where that look back began.
    looked_back_from: Option<Position>,
    /// The records that pages have shown again, and how often, as long as each page shows them.
    in_a_row: Fingerprints,
}

/// A record that a peek shows again although the last answer to a mark has shown it as marked.
#[derive(Debug)]
pub struct ShownAgain {
    /// `recordId`, if it has one
    pub record_id: Option<String>,
    /// The record.
    pub record: Fingerprint,
    /// How many copies of it the peek shows.
    pub shown: usize,
    /// How many copies of it the answer has shown.
    pub marked: usize,
}

impl Ledger {
    /// How many copies of the record this run has written and does not know to be marked.
    pub fn unmarked_copies(&self, record: Fingerprint) -> usize {
        self.unmarked.count(record)
    }

    /// How many copies of the record this run knows to be read by now.
    pub fn read_copies(&self, record: Fingerprint) -> usize {
        self.marked.count(record).max(self.looked_back.count(record))
    }

    /// How many records may still be unread for the service.
    pub fn unmarked(&self) -> usize {
        self.unmarked.len()
    }

    /// Adds the records of a page that is written and flushed.
    pub(super) fn add(&mut self, page: &Page) {
        self.unmarked.fill_up_to(page.fingerprints().collect());
    }

    /// Notes the answer to a mark: its records are marked. They are remembered until the next answer, because a peek may
    /// still show them. Returns whether the answer shows a record that was not known to be marked, or one with an identity that the
    /// last answer did not show.
    pub fn note_marked(&mut self, answer: &Page) -> bool {
        let marked: Fingerprints = answer.fingerprints().collect();
        let mut has_news = false;
        for record in answer.fingerprints() {
            has_news |= self.unmarked.remove(record);
        }
        let is_new = |record: &Record<'_>| marked.count(record.fingerprint) > self.marked.count(record.fingerprint);
        has_news = has_news || answer.records().any(|record| record.has_identity() && is_new(&record));
        self.marked = marked;
        has_news
    }

    /// Notes the records that a look back from `start` has shown as read, all of them written now: the next one may show them again,
    /// or fewer of them. Returns those that this run did not know to be marked before.
    pub fn look_back(&mut self, start: &Position, read: Fingerprints) -> Vec<Fingerprint> {
        let mut marked = Vec::new();
        for (record, copies) in read.iter() {
            for _ in self.read_copies(record)..copies {
                if self.unmarked.remove(record) {
                    marked.push(record);
                }
            }
        }
        if self.looked_back_from.as_ref() == Some(start) {
            self.looked_back.fill_up_to(read);
        } else {
            (self.looked_back, self.looked_back_from) = (read, Some(start.clone()));
        }
        marked
    }

    /// The records that the page shows although the last answer to a mark has shown them as marked: more copies of each than are
    /// not known to be marked.
    pub fn shown_again(&self, page: &Page) -> Vec<ShownAgain> {
        if page.fingerprints().all(|record| self.marked.count(record) == 0) {
            return Vec::new();
        }
        let shown: Fingerprints = page.fingerprints().collect();
        let (mut again, mut seen) = (Vec::new(), Fingerprints::default());
        for record in page.records() {
            let fingerprint = record.fingerprint;
            let (shown, marked) = (shown.count(fingerprint), self.marked.count(fingerprint));
            if marked > 0 && shown > self.unmarked.count(fingerprint) && seen.add(fingerprint) == 1 {
                again.push(ShownAgain {
                    record_id: record.record_id.map(Cow::into_owned),
                    record: fingerprint,
                    shown,
                    marked,
                });
            }
        }
        again
    }

    /// Counts the records that a page shows again, and forgets those that it does not show.
    pub fn count_copies(&mut self, page: &Page, again: &[ShownAgain]) {
        if !self.in_a_row.is_empty() {
            let shown: Fingerprints = page.fingerprints().collect();
            self.in_a_row.keep_records_of(&shown);
        }
        for shown in again {
            self.in_a_row.add(shown.record);
        }
    }

    /// How often in a row a record was shown again.
    pub fn copies_in_a_row(&self, record: Fingerprint) -> usize {
        self.in_a_row.count(record)
    }

    /// Forgets that a record is marked: what is shown of it are other copies.
    pub fn forget_marked(&mut self, record: Fingerprint) {
        self.marked.remove_all(record);
    }

    /// Forgets the unmarked records that the page does not show. Returns how many.
    pub fn keep_shown(&mut self, page: &Page) -> usize {
        self.unmarked.cut_down_to(&page.fingerprints().collect())
    }
}
