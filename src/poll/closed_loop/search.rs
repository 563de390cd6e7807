//! The search for a record that makes the target fail.
//!
//! After a failure the next target gets one record alone, which shows whether it loads any. The
//! ones after it get half of what has failed, down to one record. A record that fails alone is held
//! back. Once a target has loaded another one, it is tried again alone. If it fails twice, it is
//! the one. So a target that crashes at random, or whose database is away, is not taken for a bad
//! record.

use anyhow::Result;
use log::{info, warn};

use super::ClosedLoop;
use crate::metrics::records;
use crate::poll::run::Run;
use crate::poll::target::TargetFailed;
use crate::record::{Batch, Fingerprint, Fingerprints, Page};

/// How many records a run may put aside, or hold back without seeing that another one loads. If
/// there are more, the target or its schema is the problem.
const MAX_BAD: usize = 10;

/// What is known of the records that a target has failed with.
#[derive(Debug, Default)]
pub struct Search {
    /// How the first target has failed, and what was in flight to it. `None` if there is no search.
    first: Option<(String, Vec<Batch>)>,
    /// How many of the oldest records have failed together. Those that are held back do not count.
    suspects: usize,
    /// Whether a target has got some of them since.
    is_narrowed: bool,
    /// Whether the first target has ended well: perhaps it has only held back its STATE, so once one
    /// record is loaded, the next target gets all the others.
    has_ended_well: bool,
    /// Those that have failed alone.
    held: Vec<Fingerprint>,
    /// Those of them that are still unread, as far as was seen.
    shown: Fingerprints,
    /// Whether a target has loaded a record since the first failure.
    has_loaded: bool,
    /// Whether the oldest one that is held back is tried again.
    tries_again: bool,
    /// Whether it has failed so once.
    has_failed_again: bool,
    /// Whether another one has to load after one has failed alone, before that is tried again: what
    /// is found is put aside. If not, it ends the run, and what has loaded before is enough.
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
            Some(_) if self.is_narrowed && self.held.is_empty() => {
                let parts = if self.has_ended_well { 1 } else { 2 };
                (self.suspects / parts).max(1)
            }
            Some(_) => 1,
        }
    }

    /// Whether the next target may get a record.
    pub fn wants(&self, record: Fingerprint) -> bool {
        if self.tries_again { self.held.first() == Some(&record) } else { !self.held.contains(&record) }
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
    fn is_tried_again(&self, records: &[Fingerprint]) -> bool {
        self.tries_again && *records == self.held[..1]
    }

    /// A target has failed with the record that is tried again. Returns whether it is the one.
    fn failed_again(&mut self) -> bool {
        std::mem::replace(&mut self.has_failed_again, true) && self.has_loaded
    }

    /// A target has failed with these, and nothing else.
    fn failed(&mut self, problem: &str, has_ended_well: bool, left: Vec<Batch>) {
        let records: Vec<_> = left.iter().flat_map(|batch| &batch.records).copied().collect();
        self.is_narrowed = self.is_on();
        self.has_ended_well = has_ended_well && !self.is_on();
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
    fn is_hopeless(&self) -> bool {
        let max = if self.is_strict { MAX_BAD } else { 0 };
        let has_failed = if self.tries_again { self.has_failed_again } else { self.held.len() > max };
        has_failed && !self.has_loaded || self.held.len() > MAX_BAD
    }

    /// Notes what a page shows of those that are held back.
    pub fn note_shown(&mut self, page: &Page) {
        self.shown.extend(page.fingerprints().filter(|record| self.held.contains(record)));
    }

    /// There is nothing else to try: what is held back is tried again.
    pub fn at_end(&mut self) {
        let shown = std::mem::take(&mut self.shown);
        if self.tries_again {
            // Somebody else has read it.
            self.drop_tried();
        } else {
            self.suspects = 0;
            self.held.retain(|record| shown.contains(record));
            self.tries_again = !self.held.is_empty();
        }
        self.end();
    }

    /// Forgets the record that was tried again.
    fn drop_tried(&mut self) {
        self.held.remove(0);
        self.tries_again &= !self.held.is_empty();
        self.has_failed_again = false;
    }

    /// The record that makes the target fail is put aside.
    fn found(&mut self) {
        self.drop_tried();
        self.suspects = 0;
        self.end();
    }

    fn end(&mut self) {
        if self.suspects == 0 && self.held.is_empty() {
            *self = Search::new(self.is_strict);
        }
    }
}

impl ClosedLoop {
    /// Judges a failure: whether to go on with fewer records, or behind one that was put aside.
    pub fn judge(&mut self, problem: String, left: Vec<Batch>, run: &mut Run) -> Result<()> {
        let may_go_on = |batch: &Batch| !batch.slipped_in && run.out.ledger.are_unread(&batch.records);
        let is_ending = run.stop.is_deferred() || self.session.is_lost() || left.is_empty();
        if is_ending || !left.iter().all(may_go_on) {
            return Err(self.failure(problem, "", left, run));
        }
        let alone = match &left[..] {
            [Batch { records, ids, .. }] if records.len() == 1 => {
                format!("; it fails with recordId {} alone, too (see `deadLetterFile`)", ids[0])
            }
            _ => String::new(),
        };
        left.iter().for_each(|batch| run.out.take_back(batch));
        if self.session.has_held_back() {
            let name = self.session.target().name();
            let count = records(left.iter().map(|batch| batch.records.len()).sum());
            info!("{name} has ended well, and has acknowledged all but {count}: loading those again");
            return Ok(());
        }
        match &left[..] {
            [Batch { records, ids, .. }] if self.search.is_tried_again(records) => {
                if self.search.failed_again() {
                    return self.put_aside(records[0], &ids[0], problem, run);
                }
            }
            _ => self.search.failed(&problem, self.session.has_ended_well(), left),
        }
        if self.search.is_hopeless() {
            let held = records(self.search.held.len());
            let problem = format!("{problem}; given one at a time, it loads none of {held}");
            return Err(self.failure(problem, &alone, Vec::new(), run));
        }
        warn!("{problem}; trying again with {}", records(self.search.max()));
        Ok(())
    }

    /// Puts a record aside that makes the target fail, and marks it.
    fn put_aside(&mut self, record: Fingerprint, id: &str, problem: String, run: &mut Run) -> Result<()> {
        let alone = format!("{problem}: it fails with recordId {id} alone, and loads others");
        if !self.has_dead_letters {
            let remedy = "set `deadLetterFile` to put such records aside and go on, set `payloadFormat` to `string`, \
                          or fix the target";
            return Err(TargetFailed(format!("{alone}; what comes before it is loaded: {remedy}")).into());
        }
        if self.put_aside == MAX_BAD {
            let remedy = "so the target or its schema is the problem";
            return Err(TargetFailed(format!("{alone}; {MAX_BAD} such records are put aside, {remedy}")).into());
        }
        let Some(page) = self.tried.take() else { return Ok(()) };
        let said = self.session.target().last_words();
        let reason = if said.is_empty() { problem } else { format!("{problem}: {said}") };
        run.out.put_aside(&page, record, &reason)?;
        self.put_aside += 1;
        self.search.found();
        self.mark_committed(run)
    }

    /// The failure that the run ends with: the first one, if nothing has loaded since; and which
    /// record fails `alone`. What slipped in later is marked, and so named with it.
    fn failure(&mut self, mut problem: String, alone: &str, mut left: Vec<Batch>, run: &mut Run) -> anyhow::Error {
        self.has_failed = true;
        if let Some((first, batches)) = self.search.first.take_if(|_| !self.search.has_loaded) {
            problem = first;
            left.retain(|batch| batch.slipped_in);
            left.extend(batches);
        }
        let left = self.what_is_left(&left, run);
        TargetFailed(format!("{problem}{alone}{left}")).into()
    }
}
