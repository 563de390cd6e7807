//! Chooses how many records a request asks for: see [`Growth`]. A `take` never asks for more than the first size, because a lost
//! answer loses the whole page.

use std::time::Duration;

use anyhow::Result;

use super::growth::{Growth, Halved, Limits};
use super::http_error::HttpError;
use super::{Count, Marked, Overlap, Queue};
use crate::record::{Delivered, Page, Peeked};

/// A queue whose pages grow and shrink.
#[derive(Debug)]
pub struct PageSize<Q> {
    queue: Q,
    /// A size that the service is known to serve.
    first: usize,
    growth: Growth,
}

impl<Q> PageSize<Q> {
    /// Begins with pages of `first` records, which the service is known to serve.
    pub fn new(queue: Q, first: usize, limits: Limits) -> PageSize<Q> {
        PageSize { queue, first, growth: Growth::new(first, limits) }
    }

    fn learn_from_peek(&mut self, asked: usize, count: Count, answer: Result<Peeked>) -> Result<Peeked> {
        match answer {
            Ok(mut page) => {
                self.growth.learn_to_mark(&page);
                if self.growth.learn(asked, count, &page) {
                    page.suspect_cap();
                }
                Ok(page)
            }
            Err(error) => Err(explain(self.growth.read_failed(asked, &error), error)),
        }
    }

    fn learn_from_page(&mut self, asked: usize, count: Count, answer: Result<Page>) -> Result<Page> {
        match answer {
            Ok(page) => {
                self.growth.learn(asked, count, &page);
                Ok(page)
            }
            Err(error) => Err(explain(self.growth.read_failed(asked, &error), error)),
        }
    }

    fn learn_from_mark(&mut self, count: usize, answer: Result<Marked>) -> Result<Marked> {
        match answer {
            Ok(marked) => {
                self.growth.mark_answered();
                Ok(marked)
            }
            Err(error) => {
                let halved = self.growth.mark_failed(count, &error);
                let is_lost = error.downcast_ref().is_some_and(HttpError::may_have_been_applied);
                // A lost mark counts, whatever its size: only so many are forgiven.
                Err(if is_lost { error } else { explain(halved, error) })
            }
        }
    }
}

/// Adds to an error that fewer records are asked for from now on, if so.
fn explain(halved: Option<Halved>, error: anyhow::Error) -> anyhow::Error {
    match halved {
        Some(halved) => error.context(halved),
        None => error,
    }
}

impl<Q: Queue> Queue for PageSize<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        let asked = self.growth.asked(count);
        let answer = self.queue.peek(Count::AtOnce(asked));
        self.learn_from_peek(asked, count, answer)
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        let delivered = delivered.at_most(self.growth.max_marked());
        let count = delivered.count();
        let answer = self.queue.mark(delivered);
        self.learn_from_mark(count, answer)
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        let count = Count::UpTo(count.min(self.first));
        let asked = self.growth.asked(count);
        let answer = self.queue.take(asked);
        self.learn_from_page(asked, count, answer)
    }

    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page> {
        let asked = self.growth.asked(Count::UpTo(count));
        let answer = self.queue.since(timestamp, asked);
        self.learn_from_page(asked, Count::AtOnce(count), answer)
    }
}

impl<Q: Overlap> Overlap for PageSize<Q> {
    fn mark_and_peek(
        &mut self,
        delivered: Delivered,
        count: Count,
        head_start: Duration,
    ) -> (Result<Marked>, Option<Result<Peeked>>) {
        if delivered.count() > self.growth.max_marked() {
            // What is left of the page comes first.
            return (self.mark(delivered), None);
        }
        let (marks, asked) = (delivered.count(), self.growth.asked(count));
        let (marked, peeked) = self.queue.mark_and_peek(delivered, Count::AtOnce(asked), head_start);
        let marked = self.learn_from_mark(marks, marked);
        let peeked = peeked.map(|peeked| match peeked {
            // If the mark has failed as well, the size does not explain it.
            Err(error) if marked.is_err() => Err(error),
            peeked => self.learn_from_peek(asked, count, peeked),
        });
        (marked, peeked)
    }
}
