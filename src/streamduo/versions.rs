//! The versions of one id: which of them were delivered, and what the answers to requests for them have shown.
//!
//! A request for an id returns, and marks, its *last* n versions. If the producer has written the id again meanwhile, those are not
//! the delivered ones: the delivered ones are reached by a larger n, and the others are marked unseen.
//!
//! Whether an answer shows a record's read status from before the request or from after it is not known of the service. The
//! sandbox shows the one from before.

use crate::record::{Fingerprint, Fingerprints, Page, Record};

/// The versions of one id.
#[derive(Debug, Default)]
pub struct Versions {
    /// The delivered ones.
    delivered: Fingerprints,
    /// How many versions the next request is to mark; 0 if none.
    pub to_mark: usize,
    /// The answers to requests that have marked, and whether each was sent more than once.
    answers: Vec<(Page, bool)>,
}

impl Versions {
    /// Adds a version that was delivered, and is to be marked.
    pub fn add(&mut self, record: Fingerprint) {
        self.delivered.add(record);
        self.to_mark += 1;
    }

    /// Learns from the answer to a request that has marked.
    pub fn learn(&mut self, answer: Page, was_repeated: bool) {
        self.to_mark = 0;
        self.answers.push((answer, was_repeated));
    }

    /// The most copies of each version that an answer has shown.
    fn shown(&self) -> Fingerprints {
        let mut shown = Fingerprints::default();
        self.answers.iter().for_each(|(answer, _)| shown.fill_up_to(answer.fingerprints().collect()));
        shown
    }

    /// The versions that answers have shown as unread. They were marked just then, if statuses are those from before.
    fn shown_unread(&self) -> Fingerprints {
        let records = self.answers.iter().flat_map(|(answer, _)| answer.records());
        records.filter(|record| !record.is_read).map(|record| record.fingerprint).collect()
    }

    /// The delivered versions, as long as answers have not shown all of them.
    pub fn wanted(&self) -> Fingerprints {
        if self.missing().is_empty() { Fingerprints::default() } else { self.delivered.clone() }
    }

    /// The delivered versions that no answer has shown.
    fn missing(&self) -> Fingerprints {
        minus(&self.delivered, &self.shown())
    }

    /// The delivered versions that answers have shown, but only as read. Either they were read before, such as by another
    /// consumer. Or they are there more than once, and the request has hit a copy that was read.
    pub fn shown_read(&self) -> Fingerprints {
        minus(&minus(&self.delivered, &self.missing()), &self.shown_unread())
    }

    /// The delivered versions that are marked.
    pub fn marked(&self) -> Fingerprints {
        minus(&self.delivered, &self.missing())
    }

    /// The texts of the versions that were marked and not delivered. `is_status_before` says whether answers show the status from
    /// before the request. If they do not, or a request was repeated, all that answers have shown may have been unread.
    pub fn unseen(&self, is_status_before: bool) -> Vec<&[u8]> {
        let mut newly_marked = self.shown_unread();
        if !is_status_before || self.answers.iter().any(|(_, was_repeated)| *was_repeated) {
            newly_marked.fill_up_to(self.shown());
        }
        let mut unseen = minus(&newly_marked, &self.delivered);
        let mut texts = Vec::new();
        for record in self.answers.iter().flat_map(|(answer, _)| answer.records()) {
            texts.extend(std::iter::repeat_n(record.text, unseen.count(record.fingerprint)));
            unseen.remove_all(record.fingerprint);
        }
        texts
    }
}

/// How many of the last versions hold the wanted ones, of those that count; and whether all of the wanted ones are there.
pub fn reach(versions: &Page, wanted: &Fingerprints, counts: impl Fn(&Record<'_>) -> bool) -> (usize, bool) {
    let (mut left, mut reach) = (wanted.clone(), 0);
    let records: Vec<_> = versions.records().collect();
    for (before, record) in records.iter().rev().enumerate() {
        if counts(record) && left.remove(record.fingerprint) {
            reach = before + 1;
        }
    }
    (reach, left.is_empty())
}

fn minus(all: &Fingerprints, some: &Fingerprints) -> Fingerprints {
    let mut rest = all.clone();
    for (record, copies) in some.iter() {
        for _ in 0..copies {
            rest.remove(record);
        }
    }
    rest
}
