//! How many records to ask for: few at first, more as long as the service serves them, fewer when it does not. A `take`
//! stays at the first size: a lost answer loses the whole page.

use anyhow::Result;
use log::info;

use super::http_error::HttpError;
use super::{Count, Marked, Overlap, Queue};
use crate::record::{Delivered, Page, Peeked};

/// A queue whose pages grow and shrink.
#[derive(Debug)]
pub struct PageSize<Q> {
    queue: Q,
    /// A size that the service is known to serve.
    first: usize,
    /// What to ask for next.
    size: usize,
    /// What to ask for at most, once the service has refused more.
    limit: usize,
    /// The largest size that was asked for and answered.
    served: usize,
    /// The most records that an answer has held. The service may cap pages there silently.
    largest: usize,
    shrinks_on: ShrinksOn,
}

/// The failures after which a size that never worked is halved at once. Any other failure is left to the retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShrinksOn {
    /// The service refuses the size.
    Refusal,
    /// The service refuses the size, or fails in a way that the size may explain.
    Failure,
}

impl<Q> PageSize<Q> {
    /// Begins with pages of `first` records, which the service is known to serve.
    pub fn new(queue: Q, first: usize, shrinks_on: ShrinksOn) -> PageSize<Q> {
        PageSize { queue, first, size: first, limit: usize::MAX, served: first, largest: first, shrinks_on }
    }

    /// Learns from a page of `shown` records where `asked` were asked for, `max` at most. Returns whether the service may have
    /// capped the page.
    fn learn(&mut self, asked: usize, shown: usize, max: usize) -> bool {
        self.served = self.served.max(asked);
        self.largest = self.largest.max(shown);
        if shown >= asked {
            self.size = (2 * asked).min(max).min(self.limit).max(self.size);
        }
        shown >= self.largest
    }

    /// Learns from a page that a peek has shown.
    fn learn_from(&mut self, asked: usize, mut page: Peeked, max: usize) -> Peeked {
        if self.learn(asked, page.len(), max) {
            page.suspect_cap();
        }
        page
    }

    /// Learns from a failure. Returns whether a smaller page may work where this one did not: sizes that were served before
    /// fail for another reason.
    fn shrink(&mut self, asked: usize, error: &anyhow::Error) -> bool {
        if asked <= self.served || !self.shrinks_on.includes(error) {
            return false;
        }
        self.limit = self.served.max(asked / 2);
        self.size = self.limit;
        info!("{asked} records are too many for one request, {} are asked for from now on: {error:#}", self.size);
        true
    }
}

impl ShrinksOn {
    fn includes(self, error: &anyhow::Error) -> bool {
        error.downcast_ref().is_some_and(|error: &HttpError| {
            matches!(error.status(), Some(400 | 413 | 422))
                || self == ShrinksOn::Failure && error.may_have_been_applied()
        })
    }
}

impl<Q: Queue> Queue for PageSize<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        let Count::UpTo(max) = count else {
            let page = self.queue.peek(count)?;
            self.served = self.served.max(count.max());
            return Ok(page);
        };
        loop {
            let asked = self.size.min(max);
            match self.queue.peek(Count::Exactly(asked)) {
                Ok(page) => return Ok(self.learn_from(asked, page, max)),
                Err(error) if self.shrink(asked, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        self.queue.mark(delivered)
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        self.queue.take(count.min(self.first))
    }

    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page> {
        self.queue.since(timestamp, count.min(self.served))
    }
}

impl<Q: Overlap> Overlap for PageSize<Q> {
    fn mark_and_peek(&mut self, delivered: Delivered, count: Count) -> (Result<Marked>, Option<Result<Peeked>>) {
        let asked = match count {
            Count::Exactly(_) => return self.queue.mark_and_peek(delivered, count),
            Count::UpTo(max) => self.size.min(max),
        };
        let (marked, peeked) = self.queue.mark_and_peek(delivered, Count::Exactly(asked));
        let peeked = peeked.map(|peeked| match peeked {
            Ok(page) => Ok(self.learn_from(asked, page, count.max())),
            Err(error) => {
                // If the mark has failed as well, the size does not explain it.
                if marked.is_ok() {
                    self.shrink(asked, &error);
                }
                Err(error)
            }
        });
        (marked, peeked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for while the service serves up to `cap` of `records`, until the last page.
    fn asked(max: usize, cap: usize, mut records: usize) -> Vec<usize> {
        let mut pages = PageSize::new((), 3, ShrinksOn::Failure);
        let mut all_asked = Vec::new();
        loop {
            let asked = pages.size.min(max);
            let shown = records.min(asked).min(cap);
            records -= shown;
            all_asked.push(asked);
            if !pages.learn(asked, shown, max) && shown < asked {
                return all_asked;
            }
        }
    }

    #[test]
    fn pages_double_up_to_the_maximum() {
        assert_eq!(asked(30, usize::MAX, 150), [3, 6, 12, 24, 30, 30, 30, 30]);
        assert_eq!(asked(2, usize::MAX, 5), [2, 2, 2]);
        assert_eq!(asked(100_000, usize::MAX, 2), [3]);
    }

    #[test]
    fn a_stream_is_drained_although_the_service_caps_pages_silently() {
        assert_eq!(asked(30, 3, 14), [3, 6, 6, 6, 6]);
        assert_eq!(asked(30, 5, 22), [3, 6, 6, 6, 6]);
        assert_eq!(asked(30, 3, 9), [3, 6, 6, 6]);
    }

    #[test]
    fn a_size_that_fails_is_halved_but_not_below_what_worked() {
        let too_many = HttpError::Status { host: "h".to_owned(), status: 413, retry_after: None, text: String::new() };
        let too_many = anyhow::Error::new(too_many);
        let mut pages = PageSize::new((), 3, ShrinksOn::Failure);
        assert!(!pages.shrink(3, &too_many));
        pages.learn(3, 3, 1000);
        pages.learn(6, 6, 1000);
        assert_eq!(pages.size, 12);
        assert!(pages.shrink(12, &too_many));
        assert_eq!(pages.size, 6);
        assert!(!pages.shrink(6, &too_many));
        pages.learn(6, 6, 1000);
        assert_eq!(pages.size, 6);
    }
}
