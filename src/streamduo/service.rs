//! The service as [`super::Queue`] uses it. [`super::api::Api`] is the real one.

use std::time::Duration;

use super::http_error::Failure;
use crate::record::{Delivered, Fingerprint, Page};

/// The answers to a mark and to the peek beside it.
pub type MarkedAndPeeked = (Result<Page, Failure>, Result<Page, Failure>);

/// The records of a stream, oldest first. Each request is sent once.
pub trait Service {
    /// Shows the oldest unread records. Changes nothing.
    fn peek(&mut self, count: usize) -> Result<Page, Failure>;

    /// Marks as many of the oldest unread records as were delivered, whichever they are at that
    /// moment. Returns what the answer shows.
    fn mark(&mut self, delivered: Delivered) -> Result<Page, Failure>;

    /// Shows the oldest records after a time stamp, read or not. Changes nothing.
    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page, Failure>;

    /// Marks, and peeks meanwhile on a second connection. The mark gets a head start, but the peek
    /// may still overtake it, and show records that the mark then marks.
    fn mark_and_peek(&mut self, delivered: Delivered, count: usize, head_start: Duration) -> MarkedAndPeeked;

    /// Marks single records by id, with a request for each, sent once. Returns the answers with the
    /// indices of their records, in order. Sends no more after an answer that is not exactly the
    /// record.
    fn mark_singles(&mut self, records: &[(String, Fingerprint)]) -> Vec<(usize, Result<Page, Failure>)>;
}

/// How many records to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// As many as this, even if that is more than fits the limits of a page or than the settings
    /// allow, unless the service has failed to show so many at once.
    AtOnce(usize),
    /// As many as the page size that was learnt, up to this, and to what the settings allow
    /// (`MAX_RECORDS`). The size grows after a full page, no further than the `UpTo` of that
    /// request: so the first request with a larger one asks for the old size once more.
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
