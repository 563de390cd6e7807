//! What the loop asks of the service. [`super::api::Api`] sends each request once; the other
//! queues wrap one, and add to it.

use std::time::Duration;

use super::http_error::Failure;
use crate::record::{Delivered, Fingerprint, Page, Peeked};

/// The answers to a mark and to the peek beside it; `None` if there was none.
pub type MarkedAndPeeked = (Result<Page, Failure>, Option<Result<Peeked, Failure>>);

/// The records of a stream, oldest first.
pub trait Queue {
    /// Shows the oldest unread records. Changes nothing.
    fn peek(&mut self, count: Count) -> Result<Peeked, Failure>;

    /// Marks as many of the oldest unread records as were delivered, whichever they are at that
    /// moment; by id, those that were delivered. Returns what the answer shows.
    fn mark(&mut self, delivered: Delivered) -> Result<Page, Failure>;

    /// Shows the oldest records after a time stamp, read or not. Changes nothing.
    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page, Failure>;

    /// Marks, and peeks meanwhile on a second connection, if the queue can do that. The mark gets a
    /// head start, but the peek may still overtake it, and show records that the mark then marks.
    fn mark_and_peek(&mut self, delivered: Delivered, _count: Count, _head_start: Duration) -> MarkedAndPeeked {
        (self.mark(delivered), None)
    }

    /// Marks single records by id, with a request for each, sent once. Returns the answers with the
    /// indices of their records, in order. Sends no more after an answer that is not exactly the
    /// record.
    fn mark_singles(&mut self, _records: &[(String, Fingerprint)]) -> Vec<(usize, Result<Page, Failure>)> {
        Vec::new()
    }

    /// The most that may be marked at once.
    fn max_marked(&self) -> usize {
        usize::MAX
    }

    /// Whether the next mark goes by id.
    fn marks_by_id(&self) -> bool {
        false
    }
}

/// How many records to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// As many as this, even if that is more than fits the limits of a page, unless the service has
    /// failed to show so many at once.
    AtOnce(usize),
    /// As many as the page size allows, up to this. The size grows only towards the `UpTo` of the
    /// last requests, and no request may ask for more than the settings allow (`MAX_RECORDS`).
    UpTo(usize),
}

impl Count {
    /// The number of records that may be asked for.
    pub fn max(self) -> usize {
        match self {
            Count::AtOnce(count) | Count::UpTo(count) => count,
        }
    }
}

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
