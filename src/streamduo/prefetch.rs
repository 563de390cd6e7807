//! Peeks at the next page while one is marked, if the way to the service is long.
//!
//! A peek that is sent beside a mark may be served before it, and show what the mark then marks. So
//! the mark gets a head start, and a page that was peeked ahead counts only if the mark's answer is
//! exactly what was to be marked, and the page begins with the fence: the first record that was
//! left unmarked. Without a fence, there is no peek beside the mark.

use std::collections::VecDeque;
use std::time::Duration;

use super::service::Count;
use crate::record::{Delivered, Fingerprint, Page, Timing};

/// The shortest time until the first byte of an answer that counts as a long way.
const LONG_WAY: Duration = Duration::from_millis(15);

/// How many answers it takes to judge the way, and how many of the last ones count.
const MIN_ANSWERS: usize = 3;
const MAX_ANSWERS: usize = 16;

/// The head start at the beginning, and the shortest. Without jitter it is enough.
const MIN_HEAD_START: Duration = Duration::from_millis(1);

/// How much of itself the head start loses with each page that was kept.
const HEAD_START_DECAY: u32 = 64;

/// The page that was peeked ahead, and what tells whether that saves time.
#[derive(Debug)]
pub struct Prefetch {
    /// Whether the mode asks for the same count again and again, and marks by position.
    pub is_on: bool,
    /// What the last peek asked for: the next one will ask for the same.
    pub count: Count,
    ahead: Option<Page>,
    /// How long a peek waits after the mark that is sent with it.
    pub head_start: Duration,
    /// How long the last answers took, newest first.
    answers: VecDeque<Timing>,
}

/// It is off, and nothing is known of the way to the service yet.
impl Default for Prefetch {
    fn default() -> Prefetch {
        Prefetch {
            is_on: false,
            count: Count::UpTo(1),
            ahead: None,
            head_start: MIN_HEAD_START,
            answers: VecDeque::new(),
        }
    }
}

impl Prefetch {
    /// Learns from an answer how far away the service is.
    pub fn learn(&mut self, timing: Timing) {
        self.answers.push_front(timing);
        self.answers.truncate(MAX_ANSWERS);
    }

    /// Whether a peek beside a mark saves time. It does not on a thin link, which both would share,
    /// nor if the head start takes most of the time. The shortest of the last times counts: a busy
    /// machine makes each of them longer.
    fn pays(&self) -> bool {
        let way = self.answers.iter().map(|answer| answer.first_byte).min().unwrap_or_default();
        let is_thin = self.answers.front().is_some_and(|last| last.transfer > way);
        self.answers.len() >= MIN_ANSWERS && way >= LONG_WAY && !is_thin && self.head_start <= way / 2
    }

    /// The page that a peek for so many records would show, if it is at hand.
    pub fn take(&mut self, count: Count) -> Option<Page> {
        let is_same = std::mem::replace(&mut self.count, count) == count;
        self.ahead.take().filter(|_| is_same)
    }

    /// What the next page has to begin with, if it is to be peeked at while this one is marked.
    pub fn fence_if_it_pays(&mut self, delivered: &Delivered) -> Option<Fingerprint> {
        let fence = delivered.fence().filter(|_| self.is_on && self.pays());
        if fence.is_none() {
            // The way may be too short for this head start.
            self.shorten_head_start();
        }
        fence
    }

    /// Keeps the page that was peeked ahead, if the answer to the mark allows it. Learns from it
    /// how much of a head start the mark needs.
    pub fn keep(&mut self, page: Page, to_mark: &[Fingerprint], fence: Fingerprint, answer: &Page) {
        let first = page.fingerprints().next();
        if first.is_some_and(|first| to_mark.contains(&first)) {
            // Beyond half of the way it does not pay, and grows no more.
            self.head_start *= 2;
        }
        if first == Some(fence) && answer.fingerprints().eq(to_mark.iter().copied()) {
            self.shorten_head_start();
            self.ahead = Some(page);
        }
    }

    fn shorten_head_start(&mut self) {
        self.head_start = (self.head_start - self.head_start / HEAD_START_DECAY).max(MIN_HEAD_START);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: &[&str]) -> Page {
        let record = |id: &&str| format!(r#"{{"recordId":"{id}","recordTimeStampISO":"t"}}"#);
        let records: Vec<_> = ids.iter().map(record).collect();
        Page::parse(format!("[{}]", records.join(",")).into(), ids.len()).unwrap()
    }

    /// Keeps, or not, what was peeked beside a mark of a and b, which c is the fence of.
    fn meet(prefetch: &mut Prefetch, ahead: &[&str], answer: &[&str]) {
        let to_mark: Vec<_> = page(&["a", "b"]).fingerprints().collect();
        let fence = page(&["c"]).fingerprints().next().unwrap();
        prefetch.keep(page(ahead), &to_mark, fence, &page(answer));
    }

    #[test]
    fn a_page_counts_only_after_an_exact_answer_and_if_it_begins_with_the_fence() {
        for (ahead, answer, counts) in [
            (&["c", "d"][..], &["a", "b"][..], true),
            (&["z", "c"], &["a", "b"], false),
            (&["b", "c"], &["a", "b"], false),
            (&["d"], &["a", "b"], false),
            (&[], &["a", "b"], false),
            (&["c", "d"], &["a"], false),
            (&["c", "d"], &["b", "a"], false),
            (&["c", "d"], &["a", "b", "z"], false),
            (&["c", "d"], &[], false),
        ] {
            let mut prefetch = Prefetch { is_on: true, ..Prefetch::default() };
            meet(&mut prefetch, ahead, answer);
            assert_eq!(prefetch.ahead.is_some(), counts, "{ahead:?} {answer:?}");
        }
    }

    #[test]
    fn a_page_counts_only_for_the_next_peek_and_if_that_asks_for_as_much() {
        let mut prefetch = Prefetch { is_on: true, ..Prefetch::default() };
        let mut next = |is_met: bool, asked| {
            if is_met {
                meet(&mut prefetch, &["c", "d"], &["a", "b"]);
            }
            prefetch.take(Count::UpTo(asked)).is_some()
        };
        assert!(!next(false, 2));
        assert!(next(true, 2));
        assert!(!next(false, 2));
        assert!(!next(true, 3));
    }

    #[test]
    fn the_head_start_doubles_with_each_overtaking_and_shrinks_slowly() {
        let mut prefetch = Prefetch { is_on: true, ..Prefetch::default() };
        let mut head_start = |ahead: &[&str], times: usize| {
            (0..times).for_each(|_| meet(&mut prefetch, ahead, &["a", "b"]));
            prefetch.head_start.as_secs_f64() * 1e3
        };
        assert_eq!(head_start(&["a", "b"], 3), 8.0);
        assert_eq!(head_start(&["c", "d"], 1), 7.875);
        assert!(head_start(&["c", "d"], 40) > 4.0);
        assert_eq!(head_start(&["c", "d"], 200), 1.0);
        assert_eq!(head_start(&["b", "c"], 1), 2.0);
    }

    fn millis(first_byte: u64, transfer: u64) -> Timing {
        Timing {
            first_byte: Duration::from_millis(first_byte),
            transfer: Duration::from_millis(transfer),
            ..Timing::default()
        }
    }

    #[test]
    fn one_quick_answer_counts_only_for_a_while() {
        let mut prefetch = Prefetch { is_on: true, ..Prefetch::default() };
        (0..MIN_ANSWERS).for_each(|_| prefetch.learn(millis(25, 0)));
        assert!(prefetch.pays());
        prefetch.learn(millis(1, 0));
        for _ in 1..MAX_ANSWERS {
            assert!(!prefetch.pays());
            prefetch.learn(millis(25, 0));
        }
        prefetch.learn(millis(25, 0));
        assert!(prefetch.pays());
    }

    #[test]
    fn it_pays_if_the_first_byte_takes_long() {
        let pays = |first_byte, transfer, head_start| {
            let mut prefetch = Prefetch { is_on: true, ..Prefetch::default() };
            prefetch.head_start = Duration::from_millis(head_start);
            for _ in 0..MIN_ANSWERS {
                assert!(!prefetch.pays(), "too few answers");
                prefetch.learn(millis(first_byte, transfer));
            }
            prefetch.pays()
        };
        assert!(pays(25, 1, 1));
        assert!(!pays(5, 0, 1), "a short way");
        assert!(!pays(25, 2000, 1), "a thin link");
        assert!(!pays(25, 1, 20), "much jitter");
    }
}
