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
    /// Whether this run has written the record.
    pub fn has(&self, record: Fingerprint) -> bool {
        self.records.contains(&record)
    }

    /// Adds records, and forgets those before `from`.
    pub fn add(&mut self, records: impl Iterator<Item = (Timestamp, Fingerprint)>, from: Timestamp) {
        for (at, record) in records.filter(|(at, _)| *at >= from) {
            if self.records.insert(record) {
                self.in_order.push_back((at, record));
            }
        }
        while let Some((_, record)) = self.in_order.pop_front_if(|(at, _)| *at < from) {
            self.records.remove(&record);
        }
    }
}
