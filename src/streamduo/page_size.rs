//! Chooses how many records a request asks for: see [`Growth`].

use std::time::Duration;

use super::growth::Growth;
use super::http_error::Failure;
use super::queue::{Count, Queue};
use crate::record::{Delivered, Page, Peeked};

/// A queue whose pages grow and shrink.
#[derive(Debug)]
pub struct PageSize<Q> {
    queue: Q,
    growth: Growth,
}

impl<Q> PageSize<Q> {
    /// Asks this queue for as many records as `growth` says.
    pub fn new(queue: Q, growth: Growth) -> PageSize<Q> {
        PageSize { queue, growth }
    }

    fn learn_from_peek(
        &mut self,
        asked: usize,
        count: Count,
        answer: Result<Peeked, Failure>,
    ) -> Result<Peeked, Failure> {
        let mut page = answer.map_err(|failure| self.growth.read_failed(asked, failure))?;
        self.growth.learn(asked, count, &page);
        self.growth.learn_from_peek(&page);
        if self.growth.may_be_capped(&page) {
            page.suspect_cap();
        }
        Ok(page)
    }

    fn learn_from_mark(&mut self, count: usize, answer: Result<Page, Failure>) -> Result<Page, Failure> {
        let page = answer.map_err(|failure| self.growth.mark_failed(count, failure))?;
        self.growth.mark_answered();
        Ok(page)
    }
}

impl<Q: Queue> Queue for PageSize<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked, Failure> {
        let asked = self.growth.asked(count);
        let answer = self.queue.peek(Count::AtOnce(asked));
        self.learn_from_peek(asked, count, answer)
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Page, Failure> {
        // By id each request is for one record.
        if self.queue.marks_by_id() {
            return self.queue.mark(delivered);
        }
        let count = delivered.count();
        let answer = self.queue.mark(delivered);
        self.learn_from_mark(count, answer)
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page, Failure> {
        let asked = self.growth.asked(count);
        let answer = self.queue.since(timestamp, Count::AtOnce(asked));
        let mut page = answer.map_err(|failure| self.growth.read_failed(asked, failure))?;
        self.growth.learn(asked, count, &page);
        if self.growth.may_be_capped(&page) {
            page.suspect_cap();
        }
        Ok(page)
    }

    fn mark_and_peek(
        &mut self,
        delivered: Delivered,
        count: Count,
        head_start: Duration,
    ) -> (Result<Page, Failure>, Option<Result<Peeked, Failure>>) {
        let to_mark = delivered.count();
        let asked = self.growth.asked(count);
        let (marked, peeked) = self.queue.mark_and_peek(delivered, Count::AtOnce(asked), head_start);
        let marked = self.learn_from_mark(to_mark, marked);
        let peeked = peeked.map(|peeked| match peeked {
            // If the mark has failed as well, the size does not explain it.
            Err(failure) if marked.is_err() => Err(failure),
            peeked => self.learn_from_peek(asked, count, peeked),
        });
        (marked, peeked)
    }

    fn max_marked(&self) -> usize {
        let max = self.queue.max_marked();
        if self.queue.marks_by_id() { max } else { max.min(self.growth.max_marked()) }
    }

    fn marks_by_id(&self) -> bool {
        self.queue.marks_by_id()
    }
}
