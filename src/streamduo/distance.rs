//! How far away the service is: whether a peek on a second connection, beside a mark, saves more than it costs.

use std::collections::VecDeque;
use std::time::Duration;

use crate::record::Timing;

/// The shortest time until the first byte of an answer that counts as a long way.
const LONG_WAY: Duration = Duration::from_millis(15);

/// How many answers it takes to judge the way.
const MIN_ANSWERS: usize = 3;

/// How many of the last answers count. The way may change in a long run.
const MAX_ANSWERS: usize = 16;

/// The way to the service, as its answers have shown it.
#[derive(Debug)]
pub struct Distance {
    /// The times until the first byte of the last answers, newest last.
    first_bytes: VecDeque<Duration>,
    /// How long the last answer took from its first byte to its last.
    transfer: Duration,
}

impl Distance {
    /// Nothing is known yet.
    pub fn new() -> Distance {
        Distance { first_bytes: VecDeque::with_capacity(MAX_ANSWERS), transfer: Duration::ZERO }
    }

    /// Learns from an answer.
    pub fn learn(&mut self, timing: Timing) {
        if self.first_bytes.len() == MAX_ANSWERS {
            self.first_bytes.pop_front();
        }
        self.first_bytes.push_back(timing.first_byte);
        self.transfer = timing.transfer;
    }

    /// The shortest of the last times until a first byte: a busy machine makes each of them longer. `None` for too few answers.
    fn way(&self) -> Option<Duration> {
        self.first_bytes.iter().min().copied().filter(|_| self.first_bytes.len() >= MIN_ANSWERS)
    }

    /// Whether a peek saves time beside a mark that gets this head start. Not where a thin link makes the time: mark and peek
    /// would share it, and the mark's answer would come later.
    pub fn is_long_for(&self, head_start: Duration) -> bool {
        self.way().is_some_and(|way| way >= LONG_WAY && self.transfer <= way && head_start <= way / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_quick_answer_counts_only_for_a_while() {
        let millis = |first_byte| Timing { first_byte: Duration::from_millis(first_byte), transfer: Duration::ZERO };
        let mut distance = Distance::new();
        (0..MIN_ANSWERS).for_each(|_| distance.learn(millis(25)));
        assert!(distance.is_long_for(Duration::ZERO));
        distance.learn(millis(1));
        for _ in 1..MAX_ANSWERS {
            assert!(!distance.is_long_for(Duration::ZERO));
            distance.learn(millis(25));
        }
        distance.learn(millis(25));
        assert!(distance.is_long_for(Duration::ZERO));
    }

    #[test]
    fn a_long_way_is_one_where_the_first_byte_takes_long() {
        let long = |first_byte, transfer, head_start| {
            let mut distance = Distance::new();
            for _ in 0..MIN_ANSWERS {
                assert!(!distance.is_long_for(Duration::ZERO), "too few answers");
                let millis = Duration::from_millis;
                distance.learn(Timing { first_byte: millis(first_byte), transfer: millis(transfer) });
            }
            distance.is_long_for(Duration::from_millis(head_start))
        };
        assert!(long(25, 1, 1));
        assert!(!long(5, 0, 1), "a short way");
        assert!(!long(25, 2000, 1), "a thin link");
        assert!(!long(25, 1, 20), "much jitter");
    }
}
