//! The unread records of a stream, as the loop gets them: in pages of a size that the service can
//! serve ([`Growth`]), the next one ahead if that pays ([`Prefetch`]), marked by position or by id
//! ([`MarkById`]), with retries.

use anyhow::Result;

use super::growth::Growth;
use super::http_error::Failure;
use super::mark_by_id::MarkById;
use super::prefetch::Prefetch;
use super::retry::{Retry, retrying};
use super::service::Service;
use crate::config::{Config, MarkBy};
use crate::record::{Delivered, Fingerprint, Page, Peeked};
use crate::shutdown::{Shutdown, Stopped};

pub use super::service::Count;

/// What is known of a mark.
#[derive(Debug)]
pub enum Marked {
    /// The service has marked these records. They may be others than those that were delivered.
    Answered(Page),
    /// Nobody knows whether the mark was applied, or will be. With an error if that has happened
    /// too often in a row.
    Unknown(Option<anyhow::Error>),
    /// The mark was not applied, and another one makes sense.
    Refused,
}

/// The service, with what a loop needs: page sizes, prefetch, marks by id, and retries.
pub struct Queue {
    service: Box<dyn Service>,
    growth: Growth,
    /// A mode may turn it on.
    pub prefetch: Prefetch,
    by_id: MarkById,
    /// Whether `deadLetterFile` takes records without an identity.
    takes_odd_records: bool,
    /// How often a request is repeated. It counts the marks in a row that failed.
    pub policy: Retry,
    stop: Shutdown,
}

impl Queue {
    /// The records of a service. None are peeked ahead.
    pub fn new(config: &Config, policy: Retry, service: Box<dyn Service>, growth: Growth, stop: &Shutdown) -> Queue {
        Queue {
            service,
            growth,
            prefetch: Prefetch::default(),
            by_id: MarkById::new(config.mark_by == MarkBy::Id),
            takes_odd_records: config.dead_letter_file.is_some(),
            policy,
            stop: stop.clone(),
        }
    }

    /// Shows the oldest unread records. Changes nothing.
    ///
    /// # Errors
    /// Also when a record has no identity, and no `deadLetterFile` takes it.
    pub fn peek(&mut self, count: Count) -> Result<Peeked> {
        let stop = self.stop.clone();
        let page = retrying(self.policy, "peek", &stop, || {
            if let Some(page) = self.prefetch.take(count) {
                return Ok(page);
            }
            let asked = self.growth.asked(count);
            let answer = self.service.peek(asked);
            let page = self.judge_size(asked, count, answer)?;
            self.growth.learn_from_peek(&page);
            self.prefetch.learn(page.timing);
            self.by_id.learn(&page);
            Ok(page)
        })?;
        if self.takes_odd_records { Ok(Peeked::with_odd_records(page)) } else { Ok(Peeked::new(page)?) }
    }

    /// Shows the oldest records after a time stamp, read or not. Changes nothing.
    pub fn since(&mut self, timestamp: &str, count: Count) -> Result<Page> {
        let stop = self.stop.clone();
        let page = retrying(self.policy, "read since", &stop, || {
            let asked = self.growth.asked(count);
            let answer = self.service.since(timestamp, asked);
            self.judge_size(asked, count, answer)
        });
        Ok(page?)
    }

    /// Marks as many of the oldest unread records as were delivered, whichever they are at that
    /// moment; by id, those that were delivered. It sends this once: if the answer is lost, the mark
    /// may have been applied, and repeated it would mark the next records, which nobody has seen.
    /// After a failure it waits until another peek makes sense.
    ///
    /// # Errors
    /// When the mark was not applied, and no other try makes sense; [`crate::shutdown::Stopped`].
    pub fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        match self.mark_once(delivered) {
            Ok(answer) => {
                self.policy.failures = 0;
                Ok(Marked::Answered(answer))
            }
            Err(failure) if failure.may_have_been_applied() => {
                let end = self.policy.count("mark", &failure, &self.stop).err().map(anyhow::Error::from);
                // First the loop has to learn that the mark may have been applied.
                Ok(Marked::Unknown(end.filter(|error| !error.is::<Stopped>())))
            }
            Err(failure) => {
                self.policy.wait("mark", failure, &self.stop)?;
                Ok(Marked::Refused)
            }
        }
    }

    /// The most that may be marked at once.
    pub fn max_marked(&self) -> usize {
        let max = self.by_id.max_marked();
        if self.marks_by_id() { max } else { max.min(self.growth.max_marked()) }
    }

    /// Whether the next mark goes by id.
    pub fn marks_by_id(&self) -> bool {
        self.by_id.is_next()
    }

    fn mark_once(&mut self, delivered: Delivered) -> Result<Page, Failure> {
        if self.marks_by_id() {
            return self.by_id.mark(delivered, &mut *self.service);
        }
        let count = delivered.count();
        let answer = match self.prefetch.fence_if_it_pays(&delivered) {
            Some(fence) => self.mark_and_peek(delivered, fence),
            None => self.service.mark(delivered),
        };
        let page = answer.map_err(|failure| self.growth.mark_failed(count, failure))?;
        self.growth.failed_marks = 0;
        self.prefetch.learn(page.timing);
        Ok(page)
    }

    /// Marks, and peeks at the next page meanwhile.
    fn mark_and_peek(&mut self, delivered: Delivered, fence: Fingerprint) -> Result<Page, Failure> {
        let to_mark: Vec<_> = delivered.to_mark().collect();
        let count = self.prefetch.count;
        let asked = self.growth.asked(count);
        let (marked, peeked) = self.service.mark_and_peek(delivered, asked, self.prefetch.head_start);
        // If the mark has failed as well, the size does not explain why the peek has.
        let marked = marked?;
        // Ignore a failure of the peek: the next one is sent anew, with retries.
        if let Ok(page) = self.judge_size(asked, count, peeked) {
            self.growth.learn_from_peek(&page);
            self.prefetch.keep(page, &to_mark, fence, &marked);
        }
        Ok(marked)
    }

    /// Learns from what became of a request for so many records.
    fn judge_size(&mut self, asked: usize, count: Count, answer: Result<Page, Failure>) -> Result<Page, Failure> {
        let mut page = answer.map_err(|failure| self.growth.read_failed(asked, failure))?;
        self.growth.learn(asked, count, &page);
        page.is_last &= !self.growth.may_be_capped(&page);
        Ok(page)
    }
}
