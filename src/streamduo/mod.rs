//! The service: what the poll loop asks of it ([`Queue`]), and how a request gets there.
//!
//! [`api::Api`] sends each request once. Decorators, each a [`Queue`] over another, add the rest:
//!
//! ```text
//! Retrying -> Prefetch (acknowledge `write`) -> PageSize (Growth) -> Api -> Http, TokenSource
//! ```
//!
//! With `markBy` `id`, it is `Retrying -> PageSize -> MarkById -> Api`.

pub mod api;
pub mod auth;
mod certificate;
mod distance;
pub mod growth;
pub mod http;
pub mod http_error;
pub mod limits;
pub mod mark_by_id;
pub mod page_size;
pub mod payload;
pub mod prefetch;
mod proxy;
mod redact;
pub mod request;
pub mod retry;
pub mod singles;
pub mod versions;

use std::time::Duration;

use anyhow::Result;

use crate::config::{Acknowledge, Config, MarkBy};
use crate::record::{Delivered, Page, Peeked};
use crate::shutdown::Shutdown;

use growth::{Growth, NewSize};
use limits::Limits;
use mark_by_id::MarkById;
use page_size::PageSize;
use prefetch::Prefetch;
use retry::{RetryPolicy, Retrying};
use singles::ById;

/// The page size that the service is known to serve: the vendor's tap always asked for it.
const KNOWN_PAGE: usize = 100;

const PAGE_BYTES: usize = 2 * 1024 * 1024;
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
const TARGET_WINDOW_BYTES: usize = 3 * 1024 * 1024;

/// About how long a page may take from its first byte to its last.
const PAGE_TRANSFER: Duration = Duration::from_secs(3);

/// The records of a stream, oldest first, in five calls.
pub trait Queue {
    /// Shows the oldest unread records. Changes nothing.
    ///
    /// # Errors
    /// When the service fails or refuses.
    fn peek(&mut self, count: Count) -> Result<Peeked>;

    /// Marks as many of the oldest unread records as were delivered, or fewer, whichever they are at that moment. Never
    /// repeated. With `markBy` `id`: marks those that were delivered.
    ///
    /// # Errors
    /// When the service fails or refuses.
    fn mark(&mut self, delivered: Delivered) -> Result<Marked>;

    /// Marks up to `count` of the oldest unread records and returns them, in one request. If the answer is lost, so are they.
    ///
    /// # Errors
    /// When the service fails or refuses. The error of a request that may have been applied is final: repeated, the request would
    /// lose the next records, too.
    fn take(&mut self, count: usize) -> Result<Page>;

    /// Shows the oldest records after a time stamp, read or not. Changes nothing.
    ///
    /// # Errors
    /// When the service fails or refuses.
    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page>;

    /// Shows the last `count` versions of a record, read or not, unless the service has failed to show so many at once. Changes
    /// nothing.
    ///
    /// # Errors
    /// When the service fails or refuses.
    fn versions(&mut self, record_id: &str, count: usize) -> Result<Page>;
}

/// A queue that can show the next records while it marks others.
pub trait Overlap: Queue {
    /// Marks, and peeks meanwhile on a second connection, where that pays: the way to the service is long enough, and the mark
    /// leaves nothing of the page. The mark gets a head start, but the peek may still overtake it, and show records that the mark
    /// then marks.
    fn mark_and_peek(
        &mut self,
        delivered: Delivered,
        count: Count,
        head_start: Duration,
    ) -> (Result<Marked>, Option<Result<Peeked>>);
}

/// How many records to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// As many as this, even if that is more than fits the limits of a page, unless the service has failed to show so many at
    /// once.
    AtOnce(usize),
    /// As many as [`PageSize`] chooses, up to this.
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
    /// The mark failed in a way that may pass: it was applied, or may yet be, or never will. The next peek shows.
    Unknown,
    /// The mark was refused, or did not reach the service. It was not applied, and another one makes sense, which may be smaller.
    Refused,
}

/// What a run begins with, and the sizes that it aims at. Tests take smaller ones.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The size of the first page, in records.
    pub first_page: usize,
    /// About the size of a page, in bytes.
    pub page_bytes: usize,
    /// About the size of a window, in bytes: one peek has to show all that is out.
    pub window_bytes: usize,
    /// How often and how soon requests are repeated.
    pub retries: RetryPolicy,
}

impl Tuning {
    /// What a run with these settings begins with.
    pub fn new(config: &Config) -> Tuning {
        Tuning {
            first_page: KNOWN_PAGE,
            page_bytes: PAGE_BYTES,
            window_bytes: WINDOW_BYTES,
            retries: RetryPolicy::new(config.max_retries),
        }
    }

    /// The same for a run that starts the target: its window moves on in the run, so a small one is enough.
    pub fn for_target(config: &Config) -> Tuning {
        Tuning { window_bytes: TARGET_WINDOW_BYTES, ..Tuning::new(config) }
    }
}

/// The queue that the settings ask for, over one that sends each request once.
pub fn queue(
    config: &Config,
    tuning: Tuning,
    service: impl Overlap + ById + 'static,
    stop: &Shutdown,
) -> Box<dyn Queue> {
    if config.mark_by == MarkBy::Id {
        let by_id = MarkById::new(service, tuning.retries, stop);
        return match config.acknowledge {
            Acknowledge::Commit => windows(config, tuning, by_id, stop),
            _ => Box::new(Retrying::new(pages(config, tuning, by_id), tuning.retries, stop)),
        };
    }
    match config.acknowledge {
        Acknowledge::Write => {
            Box::new(Retrying::new(Prefetch::new(pages(config, tuning, service)), tuning.retries, stop))
        }
        Acknowledge::Commit => windows(config, tuning, service, stop),
        Acknowledge::Read | Acknowledge::Never => {
            Box::new(Retrying::new(pages(config, tuning, service), tuning.retries, stop))
        }
    }
}

/// A queue whose pages are sized by bytes and time.
fn pages<Q>(config: &Config, tuning: Tuning, queue: Q) -> PageSize<Q> {
    let limits = limits(config, tuning.page_bytes, PAGE_TRANSFER);
    PageSize::new(queue, tuning.first_page, Growth::new(tuning.first_page, limits, NewSize::HalvedAtOnce))
}

/// A queue that shows growing windows of unread records, over one that sends each request once.
pub fn windows(config: &Config, tuning: Tuning, service: impl Queue + 'static, stop: &Shutdown) -> Box<dyn Queue> {
    let limits = limits(config, tuning.window_bytes, Duration::MAX);
    // A window that does not grow ends a run, so only what lasts keeps it from growing.
    let growth = Growth::new(tuning.first_page, limits, NewSize::TriedAgain);
    Box::new(Retrying::new(PageSize::new(service, tuning.first_page, growth), tuning.retries, stop))
}

/// The limits of an answer of about so many bytes.
fn limits(config: &Config, bytes: usize, transfer: Duration) -> Limits {
    // The next page may hold larger records, so one is far from the bound on answers.
    Limits { bytes: bytes.min(config.max_answer / 2), transfer, timeout: config.request_timeout }
}
