//! What a run that reads by time remembers, so that it does not write again what it reads again.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::record::{Fingerprint, Fingerprints};

/// The records that this run has written and that the service may show again.
#[derive(Debug, Default)]
pub struct Recent {
    records: Fingerprints,
    in_order: VecDeque<(Timestamp, Fingerprint)>,
}

impl Recent {
    /// How many copies of the record this run has written.
    pub fn copies(&self, record: Fingerprint) -> usize {
        self.records.count(record)
    }

    /// Adds the records of a page, which shows all copies of each, and forgets those before `from`.
    pub fn add(&mut self, records: impl Iterator<Item = (Timestamp, Fingerprint)>, from: Timestamp) {
        let mut shown = Fingerprints::default();
        for (at, record) in records.filter(|(at, _)| *at >= from) {
            if shown.add(record) > self.records.count(record) {
                self.records.add(record);
                self.in_order.push_back((at, record));
            }
        }
        while let Some((_, record)) = self.in_order.pop_front_if(|(at, _)| *at < from) {
            self.records.remove(record);
        }
    }
}
