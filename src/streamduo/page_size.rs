//! Chooses how many records a request asks for: see [`Growth`].
//!
//! A lost answer to a `take` loses the whole page. So a `take` never asks for more than the first size, nor for more than a peek has
//! shown before.

use std::time::Duration;

use anyhow::Result;

use super::growth::{Growth, Halved};
use super::http_error::may_have_been_applied;
use super::{Count, Marked, Overlap, Queue};
use crate::record::{Delivered, InvalidBody, Page, Peeked};

/// A queue whose pages grow and shrink.
#[derive(Debug)]
pub struct PageSize<Q> {
    queue: Q,
    /// The most that a `take` asks for.
    max_taken: usize,
    /// The most that a peek could ask for: `pageSize` or `maxPending`. A look back does not grow beyond it. `None` before the
    /// first peek.
    max_peeked: Option<usize>,
    /// The largest size that a peek before a `take` was answered with.
    shown: usize,
    growth: Growth,
}

impl<Q> PageSize<Q> {
    /// Takes no more than `max_taken` records at once.
    pub fn new(queue: Q, max_taken: usize, growth: Growth) -> PageSize<Q> {
        PageSize { queue, max_taken, max_peeked: None, shown: 0, growth }
    }

    /// Learns from the answer to a peek, a `take` or a look back that asked for so many records.
    fn learn<P: AsRef<Page>>(&mut self, asked: usize, count: Count, answer: Result<P>) -> Result<P> {
        match answer {
            Ok(page) => {
                self.growth.learn(asked, count, page.as_ref());
                Ok(page)
            }
            Err(error) => Err(explain(self.growth.read_failed(asked, &error), error)),
        }
    }

    fn learn_from_peek(&mut self, asked: usize, count: Count, answer: Result<Peeked>) -> Result<Peeked> {
        let mut page = self.learn(asked, count, answer)?;
        self.growth.learn_cap(&page);
        self.growth.learn_to_mark(&page);
        if self.growth.may_be_capped(&page) {
            page.suspect_cap();
        }
        Ok(page)
    }

    fn learn_from_mark(&mut self, count: usize, answer: Result<Marked>) -> Result<Marked> {
        match answer {
            Ok(marked) => {
                self.growth.mark_answered();
                Ok(marked)
            }
            Err(error) => {
                let halved = self.growth.mark_failed(count, &error);
                // A lost mark counts, whatever its size: only so many are forgiven.
                Err(if may_have_been_applied(&error) { error } else { explain(halved, error) })
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

impl<Q: Queue> PageSize<Q> {
    /// Peeks at as many records as the next `take` would ask for, so that a size that fails is halved before it can lose records.
    fn peek_before_take(&mut self, count: Count) -> Result<()> {
        let asked = self.growth.asked(count);
        match self.peek(count) {
            Ok(_) => {}
            // The answer has arrived, and a `take` needs no identities.
            Err(error) if matches!(error.downcast_ref(), Some(InvalidBody::NoIdentity(..))) => {}
            Err(error) => return Err(error),
        }
        self.shown = asked;
        Ok(())
    }
}

impl<Q: Queue> Queue for PageSize<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        self.max_peeked = self.max_peeked.max(Some(count.max()));
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
        let count = Count::UpTo(count.min(self.max_taken));
        if self.growth.asked(count) > self.shown {
            self.peek_before_take(count)?;
        }
        let asked = self.growth.asked(count).min(self.shown);
        let answer = self.queue.take(asked);
        let mut page = self.learn(asked, count, answer)?;
        self.growth.learn_cap(&page);
        if self.growth.may_be_capped(&page) {
            page.suspect_cap();
        }
        Ok(page)
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page> {
        let count = match count {
            Count::UpTo(max) => Count::UpTo(max.min(self.max_peeked.unwrap_or(max))),
            at_once @ Count::AtOnce(_) => at_once,
        };
        let asked = self.growth.asked(count);
        let answer = self.queue.since(timestamp, Count::AtOnce(asked));
        let mut page = self.learn(asked, count, answer)?;
        if self.growth.may_be_capped(&page) {
            page.suspect_cap();
        }
        Ok(page)
    }

    fn versions(&mut self, record_id: &str, count: usize) -> Result<Page> {
        let count = Count::AtOnce(count);
        let asked = self.growth.asked(count);
        let answer = self.queue.versions(record_id, asked);
        self.learn(asked, count, answer)
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
