//! How many records to ask for next, learnt from what became of the requests before.
//!
//! A size doubles as long as answers are full, small and quick. It is halved, down to 1, if a
//! request fails in a way that its size may explain; a size that worked before may be too large
//! now. After that it grows again only after some full pages, so that a limit of the service costs
//! few requests.

use std::time::Duration;

use super::http_error::{Failure, HttpError};
use super::service::Count;
use crate::config::settings::MAX_RECORDS;
use crate::metrics::records;
use crate::record::Page;

/// How many full pages of the largest size come before more is tried.
const PATIENCE: usize = 8;

/// A page that is at least as large may be capped by its bytes, so that more records may follow
/// although it is short.
const MAY_BE_CAPPED: usize = 256 * 1024;

/// What is known of the sizes that the service can serve.
#[derive(Debug)]
pub struct Growth {
    /// About how many bytes an answer may take, so that memory stays within a few answers.
    pub max_bytes: usize,
    /// About how long an answer may take from its first byte to its last.
    pub max_transfer: Duration,
    /// `requestTimeoutSeconds`
    pub timeout: Duration,
    /// Whether an outage halves a size that was never served at once, and not at its second time.
    pub doubts_new_sizes: bool,
    /// What to ask for next.
    next: usize,
    /// The largest size that was asked for and answered.
    served: usize,
    /// The most unread records that an answer has held. The service may cap pages there silently.
    largest: usize,
    /// How many records of the last peeked page arrived well before the time-out.
    in_good_time: usize,
    /// Requests for more than this have failed.
    ceiling: usize,
    /// How many full pages of that size there were since.
    full_pages: usize,
    /// Outages in a row, of requests that mark nothing.
    failed_reads: usize,
    /// Outages of marks since one was last answered.
    pub failed_marks: usize,
}

impl Growth {
    /// Begins with `first` records, which the service is known to serve. There is no limit yet.
    pub fn new(first: usize) -> Growth {
        Growth {
            max_bytes: usize::MAX,
            max_transfer: Duration::MAX,
            timeout: Duration::MAX,
            doubts_new_sizes: true,
            next: first,
            served: first,
            largest: first,
            in_good_time: usize::MAX,
            ceiling: usize::MAX,
            full_pages: 0,
            failed_reads: 0,
            failed_marks: 0,
        }
    }

    /// How many records to ask for.
    pub fn asked(&self, count: Count) -> usize {
        match count {
            Count::AtOnce(count) => count.min(self.max_asked()),
            Count::UpTo(max) => max.min(self.next).min(MAX_RECORDS),
        }
    }

    fn max_asked(&self) -> usize {
        if self.full_pages < PATIENCE { self.ceiling } else { self.ceiling.saturating_mul(2) }
    }

    /// How many records to mark at once: no more than arrived in good time when they were peeked.
    pub fn max_marked(&self) -> usize {
        self.in_good_time.min(self.ceiling)
    }

    /// Learns from the answer to a request for `asked` records that marks nothing. Only a size that
    /// was chosen ([`Count::UpTo`]) grows.
    pub fn learn(&mut self, asked: usize, count: Count, page: &Page) {
        self.failed_reads = 0;
        self.served = self.served.max(asked);
        if page.len() >= asked {
            if asked > self.ceiling {
                self.ceiling = usize::MAX;
            } else if asked == self.ceiling {
                self.full_pages += 1;
            }
            if let Count::UpTo(max) = count {
                let larger = asked.saturating_mul(2).min(max).min(self.max_asked());
                self.next = self.next.max(larger);
            }
        }
        if !page.is_empty() {
            self.next = self.next.min(self.fitting(page));
        }
    }

    /// Learns from a page of unread records how many the service shows at once, and how many of
    /// them may be marked at once.
    pub fn learn_from_peek(&mut self, page: &Page) {
        self.largest = self.largest.max(page.len());
        self.in_good_time = page.len_within(bytes_in(self.good_time(page), page)).max(1);
    }

    /// Whether the service may have capped a page, so that more records may follow although it is
    /// short.
    pub fn may_be_capped(&self, page: &Page) -> bool {
        page.len() >= self.largest || page.bytes() >= MAY_BE_CAPPED
    }

    /// Learns that a request for `asked` records, which marks nothing, has failed. The failure says
    /// so if fewer are asked for from now on.
    pub fn read_failed(&mut self, asked: usize, failure: Failure) -> Failure {
        self.failed_reads += usize::from(is_outage(&failure));
        self.halve(asked, failure, self.failed_reads)
    }

    /// Learns that a mark of `count` records has failed. A mark whose answer was lost counts as a
    /// failure, whatever its size.
    pub fn mark_failed(&mut self, count: usize, failure: Failure) -> Failure {
        self.failed_marks += usize::from(is_outage(&failure));
        match self.halve(count, failure, self.failed_marks) {
            Failure::Changed { error, .. } if error.may_have_been_applied() => *error,
            failure => failure,
        }
    }

    /// Halves the size if that may help. One outage in a row does not explain that.
    fn halve(&mut self, asked: usize, failure: Failure, outages: usize) -> Failure {
        let is_new = asked > self.served;
        let is_about_size = failure.http_error().is_some_and(HttpError::is_about_size);
        let is_doubted = is_new && self.doubts_new_sizes;
        let may_help = is_about_size || is_outage(&failure) && (is_doubted || outages > 1);
        if asked <= 1 || !may_help {
            return failure;
        }
        self.ceiling = if is_new { self.served.max(asked / 2) } else { asked / 2 };
        self.full_pages = 0;
        self.next = self.ceiling;
        let change = format!("asking for {} instead of {asked}", records(self.next));
        Failure::Changed { error: Box::new(failure), change, pause: !is_about_size && !is_doubted }
    }

    /// How long an answer may take after its first byte: half of the time that is left then.
    fn good_time(&self, page: &Page) -> Duration {
        self.timeout.saturating_sub(page.timing.first_byte) / 2
    }

    /// How many records like those of the page make an answer within the limits.
    fn fitting(&self, page: &Page) -> usize {
        let time = self.max_transfer.min(self.good_time(page));
        let bytes = self.max_bytes.min(bytes_in(time, page)) as u128;
        let records = page.len() as u128 * bytes / (page.bytes() as u128).max(1);
        usize::try_from(records).unwrap_or(usize::MAX).max(1)
    }
}

/// Whether there was no answer, or a server error, or a refusal for a while: the size may be the
/// reason, or not.
fn is_outage(failure: &Failure) -> bool {
    failure.http_error().filter(|error| error.is_transient() && !error.is_about_size()).is_some_and(|error| {
        error.may_have_been_applied() || matches!(error, HttpError::Status { status: 400 | 422, .. })
    })
}

/// How many bytes arrive in this time, as fast as those of the page did.
fn bytes_in(time: Duration, page: &Page) -> usize {
    let bytes = (page.bytes() as u128).saturating_mul(time.as_nanos()) / page.timing.transfer.as_nanos().max(1);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::*;
    use crate::record::Timing;
    use crate::shutdown::Stopped;

    const SECOND: Duration = Duration::from_secs(1);

    fn growth(first: usize) -> Growth {
        let mut growth = Growth::new(first);
        growth.max_bytes = 10_000;
        growth.max_transfer = 3 * SECOND;
        growth.timeout = SECOND;
        growth
    }

    /// Whether fewer records are asked for from now on.
    fn is_halved(failure: &Failure) -> bool {
        matches!(failure, Failure::Changed { .. })
    }

    /// A page of `count` records that take 100 bytes each, and arrive at once.
    fn page(count: usize) -> Page {
        page_of(count, 100)
    }

    fn page_of(count: usize, bytes: usize) -> Page {
        let record = format!("\"{}\"", "x".repeat(bytes - 3));
        Page::parse(format!("[{}]", vec![record; count].join(",")).into(), count).unwrap()
    }

    fn slow_page(count: usize, first_byte: Duration, transfer: Duration) -> Page {
        let mut page = page(count);
        page.timing = Timing { first_byte, transfer, ..Timing::default() };
        page
    }

    /// A full page, and how many are asked for after it.
    fn after(growth: &mut Growth, page: impl Fn(usize) -> Page) -> usize {
        let count = Count::UpTo(1_000_000);
        let asked = growth.asked(count);
        let page = page(asked);
        growth.learn(asked, count, &page);
        growth.learn_from_peek(&page);
        growth.asked(count)
    }

    fn status(status: u16) -> Failure {
        HttpError::Status { host: "h".to_owned(), status, retry_after: None, is_page: false, text: String::new() }
            .into()
    }

    fn timed_out(has_begun: bool) -> Failure {
        HttpError::TimedOut { host: "h".to_owned(), timeout: SECOND, has_begun }.into()
    }

    /// What is asked for while the service serves up to `cap` of `records`, until the last page.
    fn asked(max: usize, cap: usize, mut records: usize) -> Vec<usize> {
        let mut growth = growth(3);
        let mut all_asked = Vec::new();
        loop {
            let asked = growth.asked(Count::UpTo(max));
            let shown = records.min(asked).min(cap);
            records -= shown;
            all_asked.push(asked);
            let page = page(shown);
            growth.learn(asked, Count::UpTo(max), &page);
            growth.learn_from_peek(&page);
            if !growth.may_be_capped(&page) && shown < asked {
                return all_asked;
            }
        }
    }

    #[test]
    fn pages_double_up_to_the_maximum() {
        assert_eq!(asked(30, usize::MAX, 150), [3, 6, 12, 24, 30, 30, 30, 30]);
        assert_eq!(asked(2, usize::MAX, 5), [2, 2, 2]);
        assert_eq!(asked(100_000, usize::MAX, 2), [3]);
    }

    #[test]
    fn no_request_asks_for_more_than_the_settings_allow() {
        assert_eq!(growth(MAX_RECORDS + 1).asked(Count::UpTo(1_000_000)), MAX_RECORDS);
    }

    #[test]
    fn a_stream_is_drained_although_the_service_caps_pages_silently() {
        assert_eq!(asked(30, 3, 14), [3, 6, 6, 6, 6]);
        assert_eq!(asked(30, 5, 22), [3, 6, 6, 6, 6]);
        assert_eq!(asked(30, 3, 9), [3, 6, 6, 6]);
    }

    #[test]
    fn a_large_page_may_be_capped_by_its_bytes() {
        assert!(growth(100).may_be_capped(&page_of(3, 100_000)));
        assert!(!growth(100).may_be_capped(&page_of(3, 1_000)));
    }

    #[test]
    fn pages_stay_near_the_limit_in_bytes_whatever_a_record_weighs() {
        let mut growth = growth(50);
        assert_eq!(after(&mut growth, page), 99);
        assert_eq!(after(&mut growth, |count| page_of(count, 1_000)), 9);
        assert_eq!(after(&mut growth, |count| page_of(count, 50_000)), 1);
        assert_eq!(after(&mut growth, |count| page_of(count, 50_000)), 1);
        assert_eq!(after(&mut growth, page), 2);
        assert_eq!(after(&mut growth, page), 4);
    }

    #[test]
    fn a_page_takes_half_of_the_time_that_is_left_after_its_first_byte() {
        let mut growth = growth(64);
        assert_eq!(after(&mut growth, |count| slow_page(count, SECOND / 2, SECOND / 4)), 64);
        assert_eq!(after(&mut growth, |count| slow_page(count, SECOND / 2, SECOND / 2)), 31);
        let mut growth = self::growth(64);
        growth.timeout = 60 * SECOND;
        assert_eq!(after(&mut growth, |count| slow_page(count, SECOND, 12 * SECOND)), 15);
    }

    #[test]
    fn a_mark_is_no_larger_than_what_was_peeked_in_good_time() {
        let mut growth = growth(64);
        assert_eq!(growth.max_marked(), usize::MAX);
        after(&mut growth, page);
        assert_eq!(growth.max_marked(), 64);
        after(&mut growth, |count| slow_page(count, Duration::ZERO, SECOND));
        assert_eq!(growth.max_marked(), 49, "of 99");
        let lost = growth.mark_failed(49, timed_out(true));
        assert_eq!(lost.to_string(), "the answer of h did not arrive within 1 s");
        assert_eq!(growth.max_marked(), 24);
    }

    #[test]
    fn what_the_size_may_explain_halves_it_down_to_1() {
        let not_json = || HttpError::InvalidBody("not JSON".to_owned()).into();
        let too_large = || HttpError::TooLarge("h".to_owned(), 1).into();
        type Make = fn() -> Failure;
        // How often it has to happen before another try with fewer records makes sense.
        let failures: [(Make, usize); 8] = [
            (|| status(400), 1),
            (|| status(413), 1),
            (|| status(422), 1),
            (|| timed_out(true), 1),
            (too_large, 1),
            (|| timed_out(false), 2),
            (|| status(503), 2),
            (not_json, 2),
        ];
        for (failure, times) in failures {
            let mut growth = growth(8);
            for _ in 1..times {
                assert!(!is_halved(&growth.read_failed(8, failure())), "{}", failure());
            }
            let mut sizes = Vec::new();
            while is_halved(&growth.read_failed(growth.asked(Count::UpTo(8)), failure())) {
                sizes.push(growth.asked(Count::UpTo(8)));
            }
            assert_eq!(sizes, [4, 2, 1], "{}", failure());
        }
    }

    #[test]
    fn a_failure_says_that_fewer_records_are_asked_for() {
        let failure = growth(8).read_failed(8, status(413));
        assert_eq!(failure.to_string(), "asking for 4 records instead of 8: h answers 413");
    }

    #[test]
    fn what_is_no_outage_does_not_make_the_next_failure_one_of_many() {
        type Make = fn() -> Failure;
        let failures: [Make; 5] = [
            || status(429),
            || status(404),
            || status(501),
            || anyhow!("disk full").into(),
            || Stopped { signal: 15 }.into(),
        ];
        for failure in failures {
            let mut growth = growth(8);
            for _ in 0..3 {
                assert!(!is_halved(&growth.read_failed(8, failure())), "{}", failure());
                assert!(!is_halved(&growth.mark_failed(8, failure())), "{}", failure());
            }
            assert!(!is_halved(&growth.read_failed(8, status(503))), "the first outage, after {}", failure());
            assert_eq!(growth.asked(Count::UpTo(8)), 8);
            growth.mark_failed(8, status(503));
            assert_eq!(growth.max_marked(), usize::MAX, "the first outage of a mark");
        }
    }

    #[test]
    fn a_size_that_was_never_served_is_halved_at_its_first_failure_if_it_is_doubted() {
        for (doubts_new_sizes, times) in [(true, 1), (false, 2)] {
            let mut growth = growth(8);
            growth.doubts_new_sizes = doubts_new_sizes;
            assert_eq!(after(&mut growth, page), 16);
            let failures = (1..).find(|_| is_halved(&growth.read_failed(16, status(503))));
            assert_eq!((failures, growth.asked(Count::UpTo(99))), (Some(times), 8));
        }
    }

    #[test]
    fn a_larger_size_is_tried_again_after_a_fixed_number_of_full_pages() {
        let mut growth = growth(8);
        assert_eq!(after(&mut growth, page), 16);
        for _ in 0..3 {
            assert!(is_halved(&growth.read_failed(16, status(413))));
            let pages = (1..).take_while(|_| after(&mut growth, page) == 8).count();
            assert_eq!(pages + 1, PATIENCE);
        }
        let sizes: Vec<_> = (0..3).map(|_| after(&mut growth, page)).collect();
        assert_eq!(sizes, [32, 64, 99], "once it is served");
    }
}
