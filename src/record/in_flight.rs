//! What a target was given, and what proves that it has committed it.
//!
//! The loop writes a STATE with a [`Checkpoint`] after each batch. A target prints it once it has
//! committed everything before it.

use std::collections::VecDeque;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

/// Which STATE of which run it is. A STATE that a target has kept from another run differs in
/// `run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Drawn at random for each run, in hexadecimal.
    run: String,
    /// Counts the checkpoints of the run from 1.
    number: u64,
}

/// A checkpoint that a target has printed: it has committed everything before it.
pub type ReturnedCheckpoint = Returned<Checkpoint>;

/// What a STATE holds that a target has printed, or that an earlier run has got back: the target
/// has committed what it covers. It can only be deserialized; do that only from such a STATE.
#[derive(Debug, Deserialize)]
pub struct Returned<T>(T);

impl<T> Returned<T> {
    /// What it holds.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// A batch that the target has committed. Only [`InFlight`] makes one.
#[derive(Debug)]
pub struct Proven<T>(T);

impl<T> Proven<T> {
    /// What is committed, to look at.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What is committed.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// The batches that a target was given and has not acknowledged, oldest first.
#[derive(Debug)]
pub struct InFlight<T> {
    last: Checkpoint,
    batches: VecDeque<(u64, T)>,
}

impl<T> Default for InFlight<T> {
    fn default() -> InFlight<T> {
        let last = Checkpoint { run: format!("{:016x}", fastrand::u64(..)), number: 0 };
        InFlight { last, batches: VecDeque::new() }
    }
}

impl<T> InFlight<T> {
    /// Adds a batch that was written. Returns the checkpoint to write after it.
    pub fn add(&mut self, batch: T) -> Checkpoint {
        self.last.number += 1;
        self.batches.push_back((self.last.number, batch));
        self.last.clone()
    }

    /// Takes the batches before a checkpoint that was returned: they are committed. None if it
    /// proves nothing new.
    pub fn acknowledge(&mut self, returned: &ReturnedCheckpoint) -> Vec<Proven<T>> {
        let returned = returned.get();
        let is_own = returned.run == self.last.run && returned.number <= self.last.number;
        let count = self.batches.partition_point(|(number, _)| is_own && *number <= returned.number);
        self.batches.drain(..count).map(|(_, batch)| Proven(batch)).collect()
    }

    /// Takes all batches of a target that has read its whole input and ended with exit code 0: they
    /// are committed. None of any other target.
    pub fn acknowledge_all(&mut self, status: ExitStatus, has_read_all: bool) -> Vec<Proven<T>> {
        let count = if status.success() && has_read_all { self.batches.len() } else { 0 };
        self.batches.drain(..count).map(|(_, batch)| Proven(batch)).collect()
    }

    /// Takes all batches of a target that has ended: whether they are committed is not known.
    pub fn abandon(&mut self) -> Vec<T> {
        self.batches.drain(..).map(|(_, batch)| batch).collect()
    }

    /// The batches, oldest first.
    pub fn batches(&self) -> impl Iterator<Item = &T> {
        self.batches.iter().map(|(_, batch)| batch)
    }

    /// The batch that was added last, if it is not acknowledged.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.batches.back_mut().map(|(_, batch)| batch)
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returned(checkpoint: &Checkpoint) -> ReturnedCheckpoint {
        Returned(checkpoint.clone())
    }

    /// A batch for each letter.
    fn in_flight(letters: &str) -> (InFlight<char>, Vec<Checkpoint>) {
        let mut in_flight = InFlight::default();
        let checkpoints = letters.chars().map(|letter| in_flight.add(letter)).collect();
        (in_flight, checkpoints)
    }

    fn acknowledged(in_flight: &mut InFlight<char>, checkpoint: &Checkpoint) -> String {
        in_flight.acknowledge(&returned(checkpoint)).into_iter().map(Proven::into_inner).collect()
    }

    #[test]
    fn a_checkpoint_proves_what_came_before_it_and_nothing_else() {
        let (mut in_flight, checkpoints) = in_flight("abc");
        assert_eq!(acknowledged(&mut in_flight, &checkpoints[1]), "ab");
        // Late and twice: nothing new.
        for again in [0, 1] {
            assert_eq!(acknowledged(&mut in_flight, &checkpoints[again]), "");
        }
        assert!(!in_flight.is_empty());
        assert_eq!(acknowledged(&mut in_flight, &checkpoints[2]), "c");
        assert!(in_flight.is_empty());
    }

    #[test]
    fn a_checkpoint_of_another_run_proves_nothing() {
        let (mut one, _) = in_flight("abc");
        let (_, others) = in_flight("abc");
        assert_eq!(acknowledged(&mut one, &others[2]), "");
        assert_eq!(one.abandon(), ['a', 'b', 'c']);
    }

    #[test]
    fn a_checkpoint_from_an_earlier_target_does_not_cover_what_a_later_one_gets() {
        let (mut in_flight, checkpoints) = in_flight("ab");
        in_flight.abandon();
        in_flight.add('a');
        assert_eq!(acknowledged(&mut in_flight, &checkpoints[1]), "");
    }
}
