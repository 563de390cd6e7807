//! What one answer may take, and how many records fit into that.

use std::time::Duration;

use crate::record::Page;

/// What an answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// About how many bytes, so that memory stays within a few answers.
    pub bytes: usize,
    /// About how long from its first byte to its last.
    pub transfer: Duration,
    /// `requestTimeoutSeconds`
    pub timeout: Duration,
}

impl Limits {
    /// No limit.
    pub const NONE: Limits = Limits { bytes: usize::MAX, transfer: Duration::MAX, timeout: Duration::MAX };

    /// How long an answer may take after its first byte: half of the time that is left then.
    fn good_time(&self, page: &Page) -> Duration {
        self.timeout.saturating_sub(page.timing().first_byte) / 2
    }

    /// How many records like those of the page make an answer within the limits.
    pub fn fitting(&self, page: &Page) -> usize {
        let time = self.transfer.min(self.good_time(page));
        let bytes = self.bytes.min(bytes_in(time, page)) as u128;
        let records = page.len() as u128 * bytes / (page.bytes() as u128).max(1);
        usize::try_from(records).unwrap_or(usize::MAX).max(1)
    }

    /// How many records of the page have arrived in good time.
    pub fn in_good_time(&self, page: &Page) -> usize {
        page.len_within(bytes_in(self.good_time(page), page)).max(1)
    }
}

/// How many bytes arrive in this time, as fast as those of the page did.
fn bytes_in(time: Duration, page: &Page) -> usize {
    let bytes = (page.bytes() as u128).saturating_mul(time.as_nanos()) / page.timing().transfer.as_nanos().max(1);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
