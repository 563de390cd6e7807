//! Peeks at the next page while one is marked.
//!
//! A peek that is sent beside a mark may be served before it, and show what the mark then marks. So a page that was peeked ahead
//! counts only if the mark's answer is exactly the page that was to be marked, and the page ahead shows none of its records, nor a
//! record that is equal to one of them in everything.

use std::time::Duration;

use anyhow::Result;

use super::{Count, Marked, Overlap, Queue};
use crate::record::{Delivered, Fingerprint, Fingerprints, Page, Peeked};

/// The head start at the beginning, and the shortest. Without jitter it is enough.
const MIN_HEAD_START: Duration = Duration::from_millis(1);

/// The longest head start. Where it is needed, peeking ahead saves little.
const MAX_HEAD_START: Duration = Duration::from_secs(1);

/// How much of itself the head start loses with each page that was kept.
const HEAD_START_DECAY: u32 = 64;

/// Prefetching pauses after so many pages in a row that were thrown away.
const MAX_DISCARDED: usize = 4;

/// How many pages are marked without prefetching then.
const PAUSE: usize = 32;

/// A queue that has the next page at hand, if it can, when one is marked.
#[derive(Debug)]
pub struct Prefetch<Q> {
    queue: Q,
    /// What the last peek asked for: the next one will ask for the same.
    count: Count,
    ahead: Option<Peeked>,
    /// How far a peek lets the mark go ahead that is sent with it.
    head_start: Duration,
    /// How many pages in a row were thrown away.
    discarded: usize,
    /// How many more pages are marked without prefetching.
    pause: usize,
}

impl<Q> Prefetch<Q> {
    /// Prefetches from this queue.
    pub fn new(queue: Q) -> Prefetch<Q> {
        Prefetch { queue, count: Count::UpTo(1), ahead: None, head_start: MIN_HEAD_START, discarded: 0, pause: 0 }
    }

    /// Keeps the page ahead if the answer to the mark lets it count. Learns from it how much of a head start the mark needs.
    fn keep(&mut self, page: Peeked, delivered: &[Fingerprint], answer: &Page) {
        let marked: Fingerprints = answer.fingerprints().collect();
        let is_overtaken = page.fingerprints().any(|record| marked.count(record) > 0);
        if is_overtaken {
            self.head_start = (2 * self.head_start).min(MAX_HEAD_START);
        }
        if !is_overtaken && answer.fingerprints().eq(delivered.iter().copied()) {
            self.shorten_head_start();
            (self.ahead, self.discarded) = (Some(page), 0);
        } else {
            self.discarded += 1;
            self.pause = if self.discarded < MAX_DISCARDED { 0 } else { PAUSE };
        }
    }

    fn shorten_head_start(&mut self) {
        self.head_start = (self.head_start - self.head_start / HEAD_START_DECAY).max(MIN_HEAD_START);
    }
}

impl<Q: Overlap> Queue for Prefetch<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        match self.ahead.take() {
            Some(page) if count == self.count => Ok(page),
            _ => {
                self.count = count;
                self.queue.peek(count)
            }
        }
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        self.ahead = None;
        if delivered.page().is_last() {
            return self.queue.mark(delivered);
        }
        if self.pause > 0 {
            self.pause -= 1;
            return self.queue.mark(delivered);
        }
        let page: Vec<_> = delivered.page().fingerprints().collect();
        let (marked, ahead) = self.queue.mark_and_peek(delivered, self.count, self.head_start);
        match (&marked, ahead) {
            (Ok(Marked::Answered(answer)), Some(Ok(ahead))) => self.keep(ahead, &page, answer),
            // No peek went along: the way may be too short for this head start.
            (_, None) => self.shorten_head_start(),
            // Ignore the failure: the next peek is sent anew, with retries.
            _ => {}
        }
        marked
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        self.queue.take(count)
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page> {
        self.queue.since(timestamp, count)
    }

    fn versions(&mut self, record_id: &str, count: usize) -> Result<Page> {
        self.queue.versions(record_id, count)
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

    #[test]
    fn a_page_counts_only_after_an_answer_that_is_exactly_the_delivered_page() {
        for (ahead, answer, counts) in [
            (["c", "d"], &["a", "b"][..], true),
            (["b", "c"], &["a", "b"], false),
            (["c", "d"], &["a"], false),
            (["c", "d"], &["b", "a"], false),
            (["c", "d"], &["a", "b", "z"], false),
            (["c", "d"], &[], false),
        ] {
            let mut prefetch = Prefetch::new(());
            let delivered: Vec<_> = page(&["a", "b"]).fingerprints().collect();
            prefetch.keep(Peeked::new(page(&ahead)).unwrap(), &delivered, &page(answer));
            assert_eq!((prefetch.ahead.is_some(), prefetch.discarded), (counts, usize::from(!counts)), "{answer:?}");
        }
    }

    #[test]
    fn the_head_start_doubles_with_each_overtaking_and_shrinks_slowly() {
        let mut prefetch = Prefetch::new(());
        let mut meet = |ahead: &[&str], times: usize| {
            let delivered = page(&["a", "b"]);
            for _ in 0..times {
                let records: Vec<_> = delivered.fingerprints().collect();
                prefetch.keep(Peeked::new(page(ahead)).unwrap(), &records, &delivered);
            }
            prefetch.head_start.as_secs_f64() * 1e3
        };
        assert_eq!(meet(&["a", "b"], 3), 8.0);
        assert_eq!(meet(&["c", "d"], 1), 7.875);
        assert!(meet(&["c", "d"], 40) > 4.0);
        assert_eq!(meet(&["c", "d"], 200), 1.0);
        assert_eq!(meet(&["b", "c"], 1), 2.0);
    }
}
