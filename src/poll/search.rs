//! The search for a record that makes the target fail.
//!
//! After a failure the next target gets one record alone, which shows whether it loads any. The ones
//! after it get half of what has failed, down to one record. A record that fails alone is held back.
//! Once a target has loaded another one, it is tried again alone. If it fails twice, it is the one.
//! So a target that crashes at random, or whose database is away, is not taken for a bad record.

use crate::record::{Batch, Fingerprint};

/// How many records a run may put aside, or hold back without seeing that another one loads. If there
/// are more, the target or its schema is the problem.
pub const MAX_BAD: usize = 10;

/// What is known of the records that a target has failed with.
#[derive(Debug, Default)]
pub struct Search {
    /// How the first target has failed, and what was in flight to it. `None` if there is no search.
    first: Option<(String, Vec<Batch>)>,
    /// How many of the oldest records have failed together. Those that are held back do not count.
    suspects: usize,
    /// Whether a target has got some of them since.
    is_narrowed: bool,
    /// Those that have failed alone.
    held: Vec<Fingerprint>,
    /// Whether a target has loaded a record since the first failure.
    has_loaded: bool,
    /// Whether the oldest one that is held back is tried again.
    tries_again: bool,
    /// Whether it has failed so once.
    has_failed_again: bool,
    /// Whether another one has to load after one has failed alone, before that is tried again: what is
    /// found is put aside. If not, it ends the run, and what has loaded before is enough.
    is_strict: bool,
}

impl Search {
    /// Nothing has failed.
    pub fn new(is_strict: bool) -> Search {
        Search { is_strict, ..Search::default() }
    }

    /// Whether a search is on.
    pub fn is_on(&self) -> bool {
        self.first.is_some()
    }

    /// The most records that the next target gets.
    pub fn max(&self) -> usize {
        match &self.first {
            None => usize::MAX,
            Some(_) if self.is_narrowed && self.held.is_empty() => (self.suspects / 2).max(1),
            Some(_) => 1,
        }
    }

    /// Whether the next target may get a record.
    pub fn wants(&self, record: Fingerprint) -> bool {
        if self.tries_again { self.held.first() == Some(&record) } else { !self.held.contains(&record) }
    }

    /// How many records are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// A target has loaded a batch.
    pub fn loaded(&mut self, batch: &Batch) {
        // Of records that are put aside at once it gets none.
        let is_proof = batch.written > 0;
        self.is_narrowed = true;
        self.suspects = self.suspects.saturating_sub(batch.records.len());
        if self.is_tried_again(&batch.records) {
            self.drop_tried();
        } else {
            self.tries_again |= is_proof && !self.held.is_empty();
        }
        self.has_loaded |= is_proof;
        self.end();
    }

    /// Whether these are the record that is tried again.
    pub fn is_tried_again(&self, records: &[Fingerprint]) -> bool {
        self.tries_again && *records == self.held[..1]
    }

    /// A target has failed with the record that is tried again. Returns whether it is the one.
    pub fn failed_again(&mut self) -> bool {
        std::mem::replace(&mut self.has_failed_again, true) && self.has_loaded
    }

    /// A target has failed with these, and nothing else.
    pub fn failed(&mut self, problem: &str, left: Vec<Batch>) {
        let records: Vec<_> = left.iter().flat_map(|batch| &batch.records).copied().collect();
        self.is_narrowed = self.is_on();
        self.first.get_or_insert_with(|| (problem.to_owned(), left));
        if let [record] = records[..] {
            self.held.push(record);
            self.suspects = self.suspects.saturating_sub(1);
            self.tries_again = self.has_loaded && !self.is_strict;
        } else {
            self.suspects = records.len();
        }
    }

    /// Whether to give up: no record loads.
    pub fn is_hopeless(&self) -> bool {
        let max = if self.is_strict { MAX_BAD } else { 0 };
        let has_failed = if self.tries_again { self.has_failed_again } else { self.held.len() > max };
        has_failed && !self.has_loaded || self.held.len() > MAX_BAD
    }

    /// There is nothing else to try: what is held back is tried again.
    pub fn at_end(&mut self, is_shown: impl Fn(&Fingerprint) -> bool) {
        if self.tries_again {
            // Somebody else has read it.
            self.drop_tried();
        } else {
            self.suspects = 0;
            self.held.retain(is_shown);
            self.tries_again = !self.held.is_empty();
        }
        self.end();
    }

    /// Forgets the record that was tried again.
    pub fn drop_tried(&mut self) {
        self.held.remove(0);
        self.tries_again &= !self.held.is_empty();
        self.has_failed_again = false;
    }

    /// The record that makes the target fail is put aside.
    pub fn found(&mut self) {
        self.drop_tried();
        self.suspects = 0;
        self.end();
    }

    fn end(&mut self) {
        if self.suspects == 0 && self.held.is_empty() {
            *self = Search::new(self.is_strict);
        }
    }

    /// The first failure, if nothing has loaded since.
    pub fn first_failure(&mut self) -> Option<(String, Vec<Batch>)> {
        self.first.take_if(|_| !self.has_loaded)
    }
}
