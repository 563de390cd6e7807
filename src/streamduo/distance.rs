//! How far away the service is: whether a peek on a second connection, beside a mark, saves more than it costs.

use std::time::Duration;

use crate::record::Timing;

/// From how long a way on it does.
const LONG_WAY: Duration = Duration::from_millis(15);

/// How many answers tell how long the way is. The shortest counts: a busy machine makes each of them longer.
const MIN_ANSWERS: usize = 3;

/// The way to the service, as its answers have shown it.
#[derive(Debug)]
pub struct Distance {
    answers: usize,
    /// The shortest time until the first byte of an answer.
    way: Duration,
    /// How long the last answer took from its first byte to its last.
    transfer: Duration,
}

impl Distance {
    /// Nothing is known yet.
    pub fn new() -> Distance {
        Distance { answers: 0, way: Duration::MAX, transfer: Duration::ZERO }
    }

    /// Learns from an answer.
    pub fn learn(&mut self, timing: Timing) {
        self.answers += 1;
        self.way = self.way.min(timing.first_byte);
        self.transfer = timing.transfer;
    }

    /// Whether a peek saves time beside a mark that gets this head start. Not where a thin link makes the time: mark and peek
    /// would share it, and the mark's answer would come later.
    pub fn is_long_for(&self, head_start: Duration) -> bool {
        self.answers >= MIN_ANSWERS && self.way >= LONG_WAY && self.transfer <= self.way && head_start <= self.way / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
