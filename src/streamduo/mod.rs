//! The service: what the poll loop asks of it ([`Queue`]), and how a request gets there.
//!
//! [`api::Api`] sends each request once. Other queues, each over another, add the rest, and
//! [`Retrying`] on top of them is what the loop talks to:
//!
//! ```text
//! Retrying -> Prefetch (mode `write`) -> PageSize (Growth) -> Api -> Http
//! ```
//!
//! With `markBy` `id`, it is `Retrying -> PageSize -> MarkById -> Api`. This file only puts them
//! together; `queue` and `http_error` are at the bottom.

pub mod api;
pub mod auth;
mod certificate;
mod diagnose;
pub mod growth;
mod gzip;
pub mod http;
pub mod http_error;
pub mod mark_by_id;
pub mod page_size;
pub mod payload;
pub mod prefetch;
mod proxy;
pub mod queue;
pub mod request;
pub mod retry;

use std::time::Duration;

use crate::config::{Config, MarkBy};
use crate::shutdown::Shutdown;

use growth::Growth;
use mark_by_id::MarkById;
use page_size::PageSize;
use prefetch::Prefetch;

pub use http_error::{Failure, HttpError};
pub use queue::{Count, Marked, Queue};
pub use retry::{Retry, Retrying};

/// The page size that the service is known to serve: the vendor's tap always asked for it.
const KNOWN_PAGE: usize = 100;

const PAGE_BYTES: usize = 2 * 1024 * 1024;
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// About how long a page may take from its first byte to its last.
const PAGE_TRANSFER: Duration = Duration::from_secs(3);

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
    pub retries: Retry,
}

impl Tuning {
    /// What a run begins with.
    pub fn new(retries: Retry) -> Tuning {
        Tuning { first_page: KNOWN_PAGE, page_bytes: PAGE_BYTES, window_bytes: WINDOW_BYTES, retries }
    }
}

/// A queue whose pages are sized by bytes and time, over one that sends each request once. With
/// `prefetch`, the next page is peeked while one is marked, if it is marked by position.
pub fn pages(
    config: &Config,
    tuning: Tuning,
    service: impl Queue + 'static,
    prefetch: bool,
    stop: &Shutdown,
) -> Retrying {
    let mut growth = growth(config, tuning, tuning.page_bytes);
    growth.max_transfer = PAGE_TRANSFER;
    let queue = match config.mark_by {
        MarkBy::Position if prefetch => Box::new(Prefetch::new(PageSize::new(service, growth))),
        _ => sized(config, service, growth),
    };
    Retrying::new(queue, tuning.retries, stop)
}

/// A queue for a mode that has to see all that is out with one peek, over one that sends each
/// request once: a window may take long, and is larger than a page.
pub fn windows(config: &Config, tuning: Tuning, service: impl Queue + 'static, stop: &Shutdown) -> Retrying {
    let mut growth = growth(config, tuning, tuning.window_bytes);
    // A window that does not grow ends a run, so only what lasts keeps it from growing.
    growth.doubts_new_sizes = false;
    Retrying::new(sized(config, service, growth), tuning.retries, stop)
}

fn sized(config: &Config, service: impl Queue + 'static, growth: Growth) -> Box<dyn Queue> {
    match config.mark_by {
        MarkBy::Position => Box::new(PageSize::new(service, growth)),
        MarkBy::Id => Box::new(PageSize::new(MarkById::new(service), growth)),
    }
}

/// What is known at the beginning, for answers of about so many bytes.
fn growth(config: &Config, tuning: Tuning, bytes: usize) -> Growth {
    let mut growth = Growth::new(tuning.first_page);
    // The next page may hold larger records, so one is far from the bound on answers.
    growth.max_bytes = bytes.min(config.max_answer / 2);
    growth.timeout = config.request_timeout;
    growth
}
