//! What a target was given, and what proves that it has committed it.
//!
//! The loop writes a STATE with a [`Checkpoint`] after each window. A target prints it once it has committed everything before it.

use std::collections::VecDeque;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use super::identity::Fingerprint;
use super::proof::Committed;

/// Which STATE of which run it is. A STATE that a target has kept from another run differs in `run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Drawn at random for each run, in hexadecimal.
    run: String,
    /// Counts the checkpoints of the run from 1.
    number: u64,
}

/// A checkpoint that a target has printed: it has committed everything before it. It can only be deserialized, and is to be
/// deserialized only from what a target prints.
#[derive(Debug, Deserialize)]
pub struct ReturnedCheckpoint(Checkpoint);

/// A target has read its whole input and ended with exit code 0.
#[derive(Debug)]
pub struct GoodExit(());

impl GoodExit {
    /// The proof, if the target succeeded.
    pub fn of(status: ExitStatus, has_read_all: bool) -> Option<GoodExit> {
        (status.success() && has_read_all).then_some(GoodExit(()))
    }
}

/// The records that a target was given and has not acknowledged.
#[derive(Debug)]
pub struct InFlight {
    last: Checkpoint,
    windows: VecDeque<Window>,
}

/// The records before a checkpoint, and after the one before.
#[derive(Debug)]
struct Window {
    number: u64,
    unread: Vec<Fingerprint>,
    /// The ids of those that are marked already: they slipped in before a mark.
    marked: Vec<String>,
}

/// What a target was given and has not committed by its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// How many records stay unread.
    pub unread: usize,
    /// The ids of the records that are marked already.
    pub marked: Vec<String>,
}

impl Default for InFlight {
    fn default() -> InFlight {
        let last = Checkpoint { run: format!("{:016x}", fastrand::u64(..)), number: 0 };
        InFlight { last, windows: VecDeque::new() }
    }
}

impl InFlight {
    /// Adds records that were written: unread ones, and the ids of others that are marked already. Returns the checkpoint to write
    /// after them.
    pub fn add(&mut self, unread: Vec<Fingerprint>, marked: Vec<String>) -> Checkpoint {
        self.last.number += 1;
        self.windows.push_back(Window { number: self.last.number, unread, marked });
        self.last.clone()
    }

    /// Moves the records before a checkpoint that was returned to the committed ones. Returns whether it proves anything new.
    pub fn acknowledge(&mut self, returned: &ReturnedCheckpoint, committed: &mut Committed) -> bool {
        let ReturnedCheckpoint(Checkpoint { run, number }) = returned;
        if *run != self.last.run || *number > self.last.number {
            return false;
        }
        let before = self.windows.len();
        while let Some(window) = self.windows.pop_front_if(|window| window.number <= *number) {
            committed.extend(window.unread);
        }
        self.windows.len() < before
    }

    /// Moves all records to the committed ones.
    pub fn acknowledge_all(&mut self, _proof: GoodExit, committed: &mut Committed) {
        for window in self.windows.drain(..) {
            committed.extend(window.unread);
        }
    }

    /// Forgets all records, whose target has ended.
    pub fn abandon(&mut self) -> Abandoned {
        let mut abandoned = Abandoned { unread: 0, marked: Vec::new() };
        for window in self.windows.drain(..) {
            abandoned.unread += window.unread.len();
            abandoned.marked.extend(window.marked);
        }
        abandoned
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Fingerprint {
        Fingerprint::of(id, "t", Some("1"))
    }

    fn returned(checkpoint: &Checkpoint) -> ReturnedCheckpoint {
        ReturnedCheckpoint(checkpoint.clone())
    }

    /// A window for each letter, with one record.
    fn in_flight(records: &str) -> (InFlight, Vec<Checkpoint>) {
        let mut in_flight = InFlight::default();
        let checkpoints = records.chars().map(|id| in_flight.add(vec![record(&id.to_string())], Vec::new())).collect();
        (in_flight, checkpoints)
    }

    #[test]
    fn a_checkpoint_proves_what_came_before_it_and_nothing_else() {
        let (mut in_flight, checkpoints) = in_flight("abc");
        let mut committed = Committed::default();
        assert!(in_flight.acknowledge(&returned(&checkpoints[1]), &mut committed));
        assert_eq!(["a", "b", "c"].map(|id| committed.copies(record(id))), [1, 1, 0]);
        // Late and twice: nothing new.
        for again in [0, 1] {
            assert!(!in_flight.acknowledge(&returned(&checkpoints[again]), &mut committed));
        }
        assert_eq!((committed.len(), in_flight.is_empty()), (2, false));
        assert!(in_flight.acknowledge(&returned(&checkpoints[2]), &mut committed));
        assert_eq!((committed.len(), in_flight.is_empty()), (3, true));
    }

    #[test]
    fn equal_records_are_committed_as_often_as_they_were_given() {
        let (mut in_flight, checkpoints) = in_flight("aba");
        let mut committed = Committed::default();
        for (checkpoint, copies) in checkpoints.iter().zip([1, 1, 2]) {
            assert!(in_flight.acknowledge(&returned(checkpoint), &mut committed));
            assert_eq!(committed.copies(record("a")), copies);
        }
    }

    #[test]
    fn a_checkpoint_of_another_run_proves_nothing() {
        let (mut one, _) = in_flight("abc");
        let (_, others) = in_flight("abc");
        let mut committed = Committed::default();
        assert!(!one.acknowledge(&returned(&others[2]), &mut committed));
        assert_eq!((committed.len(), one.abandon()), (0, Abandoned { unread: 3, marked: vec![] }));
    }

    #[test]
    fn only_what_is_not_acknowledged_is_abandoned() {
        let mut in_flight = InFlight::default();
        let first = in_flight.add(vec![record("a")], vec!["x".to_owned()]);
        in_flight.add(vec![record("b"), record("c")], vec!["y".to_owned()]);
        in_flight.acknowledge(&returned(&first), &mut Committed::default());
        assert_eq!(in_flight.abandon(), Abandoned { unread: 2, marked: vec!["y".to_owned()] });
    }

    #[test]
    fn a_checkpoint_from_an_earlier_target_does_not_cover_what_a_later_one_gets() {
        let (mut in_flight, checkpoints) = in_flight("ab");
        in_flight.abandon();
        in_flight.add(vec![record("a")], Vec::new());
        let mut committed = Committed::default();
        assert!(!in_flight.acknowledge(&returned(&checkpoints[1]), &mut committed));
        assert!(committed.is_empty());
    }
}
