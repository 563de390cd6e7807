//! Peeks at the next page while one is marked, if the way to the service is long.
//!
//! A peek that is sent beside a mark may be served before it, and show what the mark then marks. So
//! the mark gets a head start, and a page that was peeked ahead counts only if the mark's answer is
//! exactly what was to be marked, and the page begins with the fence: the first record that was
//! left unmarked. Without a fence, it must show none of the marked records.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::http_error::Failure;
use super::queue::{Count, Queue};
use crate::record::{Delivered, Fingerprint, Page, Peeked, Timing};

/// The shortest time until the first byte of an answer that counts as a long way.
const LONG_WAY: Duration = Duration::from_millis(15);

/// How many answers it takes to judge the way, and how many of the last ones count.
const MIN_ANSWERS: usize = 3;
const MAX_ANSWERS: usize = 16;

/// The head start at the beginning, and the shortest. Without jitter it is enough.
const MIN_HEAD_START: Duration = Duration::from_millis(1);

/// The longest head start.
const MAX_HEAD_START: Duration = Duration::from_secs(1);

/// How much of itself the head start loses with each page that was kept.
const HEAD_START_DECAY: u32 = 64;

/// A queue that has the next page at hand, if it can, when one is marked.
#[derive(Debug)]
pub struct Prefetch<Q> {
    queue: Q,
    /// What the last peek asked for: the next one will ask for the same.
    count: Count,
    ahead: Option<Peeked>,
    /// How long a peek waits after the mark that is sent with it.
    head_start: Duration,
    /// How long the last answers took, newest first.
    answers: VecDeque<Timing>,
}

impl<Q> Prefetch<Q> {
    /// Prefetches from this queue.
    pub fn new(queue: Q) -> Prefetch<Q> {
        Prefetch { queue, count: Count::UpTo(1), ahead: None, head_start: MIN_HEAD_START, answers: VecDeque::new() }
    }

    /// Learns from an answer how far away the service is.
    fn learn(&mut self, timing: Timing) {
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

    /// Keeps the page that was peeked ahead, if the answer to the mark allows it. Learns from it
    /// how much of a head start the mark needs.
    fn keep(&mut self, page: Peeked, to_mark: &[Fingerprint], fence: Option<Fingerprint>, answer: &Page) {
        let marked: HashSet<_> = to_mark.iter().copied().collect();
        let is_overtaken = page.fingerprints().any(|record| marked.contains(&record));
        if is_overtaken {
            self.head_start = (2 * self.head_start).min(MAX_HEAD_START);
        }
        let begins_right = match fence {
            Some(fence) => page.fingerprints().next() == Some(fence),
            None => !is_overtaken,
        };
        if begins_right && answer.fingerprints().eq(to_mark.iter().copied()) {
            self.shorten_head_start();
            self.ahead = Some(page);
        }
    }

    fn shorten_head_start(&mut self) {
        self.head_start = (self.head_start - self.head_start / HEAD_START_DECAY).max(MIN_HEAD_START);
    }
}

impl<Q: Queue> Queue for Prefetch<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked, Failure> {
        if let Some(page) = self.ahead.take()
            && count == self.count
        {
            return Ok(page);
        }
        self.count = count;
        let page = self.queue.peek(count)?;
        self.learn(page.timing);
        Ok(page)
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Page, Failure> {
        self.ahead = None;
        if delivered.page().is_last() || !self.pays() {
            // The way may be too short for this head start.
            self.shorten_head_start();
            let answer = self.queue.mark(delivered)?;
            self.learn(answer.timing);
            return Ok(answer);
        }
        let to_mark: Vec<_> = delivered.to_mark().collect();
        let fence = delivered.fence();
        let (answer, ahead) = self.queue.mark_and_peek(delivered, self.count, self.head_start);
        let answer = answer?;
        self.learn(answer.timing);
        // Ignore a failure of the peek: the next one is sent anew, with retries.
        if let Some(Ok(page)) = ahead {
            self.keep(page, &to_mark, fence, &answer);
        }
        Ok(answer)
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page, Failure> {
        self.queue.since(timestamp, count)
    }

    fn max_marked(&self) -> usize {
        self.queue.max_marked()
    }

    fn marks_by_id(&self) -> bool {
        self.queue.marks_by_id()
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

    /// Keeps, or not, what was peeked beside a mark of a and b.
    fn meet(prefetch: &mut Prefetch<()>, ahead: &[&str], fence: Option<&str>, answer: &[&str]) {
        let to_mark: Vec<_> = page(&["a", "b"]).fingerprints().collect();
        let fence = fence.and_then(|id| page(&[id]).fingerprints().next());
        prefetch.keep(Peeked::new(page(ahead)).unwrap(), &to_mark, fence, &page(answer));
    }

    #[test]
    fn a_page_counts_only_after_an_exact_answer_and_if_it_begins_with_the_fence() {
        for (ahead, fence, answer, counts) in [
            (&["c", "d"][..], Some("c"), &["a", "b"][..], true),
            (&["z", "c"], Some("c"), &["a", "b"], false),
            (&["b", "c"], Some("c"), &["a", "b"], false),
            (&["d"], Some("c"), &["a", "b"], false),
            (&[], Some("c"), &["a", "b"], false),
            (&["c", "d"], Some("c"), &["a"], false),
            (&["c", "d"], Some("c"), &["b", "a"], false),
            (&["c", "d"], Some("c"), &["a", "b", "z"], false),
            (&["c", "d"], Some("c"), &[], false),
            (&["c", "d"], None, &["a", "b"], true),
            (&[], None, &["a", "b"], true),
            (&["c", "b"], None, &["a", "b"], false),
        ] {
            let mut prefetch = Prefetch::new(());
            meet(&mut prefetch, ahead, fence, answer);
            assert_eq!(prefetch.ahead.is_some(), counts, "{ahead:?} {fence:?} {answer:?}");
        }
    }

    #[test]
    fn the_head_start_doubles_with_each_overtaking_and_shrinks_slowly() {
        let mut prefetch = Prefetch::new(());
        let mut head_start = |ahead: &[&str], times: usize| {
            (0..times).for_each(|_| meet(&mut prefetch, ahead, Some("c"), &["a", "b"]));
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
        let mut prefetch = Prefetch::new(());
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
            let mut prefetch = Prefetch::new(());
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
