//! The service: what the poll loop asks of it ([`Queue`]), and how a request gets there.
//!
//! ```text
//! Queue -> Api -> Http
//! ```
//!
//! [`api::Api`] sends each request once. [`Queue`] decides how many records to ask for and how to
//! mark them, and repeats what may be repeated. This file only puts them together.

pub mod api;
pub mod auth;
mod certificate;
mod diagnose;
pub mod growth;
mod gzip;
pub mod http;
pub mod http_error;
pub mod mark_by_id;
pub mod payload;
pub mod prefetch;
mod proxy;
pub mod queue;
pub mod request;
pub mod retry;
pub mod service;

use std::time::Duration;

use crate::config::Config;
use crate::shutdown::Shutdown;

use growth::Growth;

pub use http_error::{Failure, HttpError};
pub use queue::{Marked, Queue};
pub use retry::Retry;
pub use service::{Count, Service};

/// About how long a page may take from its first byte to its last.
const PAGE_TRANSFER: Duration = Duration::from_secs(3);

/// What a run begins with, and the sizes that it aims at. Tests take smaller ones.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The size of the first page, in records. The service is known to serve as many as the
    /// vendor's tap always asked for.
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
        Tuning { first_page: 100, page_bytes: 2 * 1024 * 1024, window_bytes: 16 * 1024 * 1024, retries }
    }
}

/// The queue of a mode that goes page by page.
pub fn pages(config: &Config, tuning: Tuning, service: impl Service + 'static, stop: &Shutdown) -> Queue {
    let mut growth = growth(config, tuning, tuning.page_bytes);
    growth.max_transfer = PAGE_TRANSFER;
    Queue::new(config, tuning.retries, Box::new(service), growth, stop)
}

/// The queue of a mode that has to see all that is out with one peek: a window may take long, and
/// is larger than a page.
pub fn windows(config: &Config, tuning: Tuning, service: impl Service + 'static, stop: &Shutdown) -> Queue {
    let mut growth = growth(config, tuning, tuning.window_bytes);
    // A window that does not grow ends a run, so only what lasts keeps it from growing.
    growth.doubts_new_sizes = false;
    Queue::new(config, tuning.retries, Box::new(service), growth, stop)
}

/// What is known at the beginning, for answers of about so many bytes.
fn growth(config: &Config, tuning: Tuning, bytes: usize) -> Growth {
    let mut growth = Growth::new(tuning.first_page);
    // The next page may hold larger records, so one is far from the bound on answers.
    growth.max_bytes = bytes.min(config.max_answer / 2);
    growth.timeout = config.request_timeout;
    growth
}
