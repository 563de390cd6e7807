//! Peeks at the next page while one is marked.
//!
//! A peek that is sent beside a mark may be served before it, and show what the mark then marks. So a page that was peeked ahead
//! counts only if the mark's answer is exactly the page that was to be marked, and the page ahead shows none of its records.

use anyhow::Result;

use super::{Count, Marked, Overlap, Queue};
use crate::record::{Delivered, Fingerprint, Fingerprints, Page, Peeked};

/// How many pages in a row may be thrown away before prefetching is given up for the run.
const MAX_DISCARDED: usize = 3;

/// A queue that has the next page at hand, if it can, when one is marked.
#[derive(Debug)]
pub struct Prefetch<Q> {
    queue: Q,
    /// What the last peek asked for: the next one will ask for the same.
    count: Count,
    ahead: Option<Peeked>,
    /// How many pages in a row were thrown away.
    discarded: usize,
}

impl<Q> Prefetch<Q> {
    /// Prefetches from this queue.
    pub fn new(queue: Q) -> Prefetch<Q> {
        Prefetch { queue, count: Count::UpTo(1), ahead: None, discarded: 0 }
    }

    /// Keeps the page ahead if the answer to the mark lets it count.
    fn keep(&mut self, page: Peeked, delivered: &[Fingerprint], answer: &Page) {
        let marked: Fingerprints = answer.fingerprints().collect();
        let is_overtaken = page.fingerprints().any(|record| marked.contains(&record));
        if !is_overtaken && answer.fingerprints().eq(delivered.iter().copied()) {
            (self.ahead, self.discarded) = (Some(page), 0);
        } else {
            self.discarded += 1;
        }
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
        if delivered.page().is_last() || self.discarded >= MAX_DISCARDED {
            return self.queue.mark(delivered);
        }
        let page: Vec<_> = delivered.page().fingerprints().collect();
        let (marked, ahead) = self.queue.mark_and_peek(delivered, self.count);
        // Ignore a failed peek: the next one is sent anew, with retries.
        if let (Ok(Marked::Answered(answer)), Some(Ok(ahead))) = (&marked, ahead) {
            self.keep(ahead, &page, answer);
        }
        marked
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        self.queue.take(count)
    }

    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page> {
        self.queue.since(timestamp, count)
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
}
