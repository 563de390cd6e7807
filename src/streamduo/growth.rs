//! How many records to ask for next, learnt from what became of the requests before.
//!
//! A size grows as long as answers are full, small and quick. It is halved, down to 1, when a request fails in a way that its
//! size may explain; a size that worked before may be too large now. After a failure it grows again only with patience, so that a
//! limit of the service costs few requests, and a bad spell does not slow down the rest of a long run.

use std::fmt;

use anyhow::Error;

use super::Count;
use super::http_error::HttpError;
use super::limits::Limits;
use crate::metrics::records;
use crate::record::Page;

/// Many full pages at a ceiling before more is tried, if the service has refused more, or never served it.
const LONG_PATIENCE: usize = 16;

/// The same, if it has served more before.
const SHORT_PATIENCE: usize = 2;

/// The most full pages at a ceiling.
const MAX_PATIENCE: usize = 256;

/// A page that is at least as large may be capped by its bytes, so that more records may follow although it is short.
const MAY_BE_CAPPED: usize = 256 * 1024;

/// When a size that was never served is halved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSize {
    /// At its first failure, whatever that is.
    HalvedAtOnce,
    /// As any other size: if the failure may be an outage, at the second one in a row.
    TriedAgain,
}

/// What is known of the sizes that the service can serve.
#[derive(Debug)]
pub struct Growth {
    limits: Limits,
    new_size: NewSize,
    /// What to ask for next.
    next: usize,
    /// The largest size that was asked for and answered.
    served: usize,
    /// The most unread records that an answer has held. The service may cap pages there silently.
    largest: usize,
    /// How many records of the last peeked page arrived well before the time-out.
    in_good_time: usize,
    ceiling: Option<Ceiling>,
    /// Failures in a row that may be outages, of requests that mark nothing and of marks.
    failed_reads: usize,
    failed_marks: usize,
}

/// A size above which requests have failed.
#[derive(Debug)]
struct Ceiling {
    size: usize,
    /// How many full pages of this size come before more is tried.
    patience: usize,
    full_pages: usize,
}

/// Why a request failed, if its size may explain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The service refuses it.
    Refusal,
    /// The answer has begun, and is too long or too slow.
    Transfer,
    /// There was no answer, or one of the server's own trouble.
    Outage,
}

/// The context of an error: fewer records are asked for from now on, so that another try makes sense.
#[derive(Debug)]
pub struct Halved {
    from: usize,
    to: usize,
    /// Whether the failure may as well be an outage, so that a pause makes sense.
    pub may_be_outage: bool,
}

impl fmt::Display for Halved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asking for {} instead of {}", records(self.to), self.from)
    }
}

impl Cause {
    fn of(error: &Error) -> Option<Cause> {
        match error.downcast_ref::<HttpError>()? {
            error if error.is_refusal() => Some(Cause::Refusal),
            HttpError::TimedOut { has_begun: true, .. }
            | HttpError::CutOff { has_begun: true, .. }
            | HttpError::TooLarge { .. } => Some(Cause::Transfer),
            error if error.may_have_been_applied() => Some(Cause::Outage),
            _ => None,
        }
    }
}

/// Whether a request has failed because of its size rather than in an outage.
pub fn is_about_size(error: &Error) -> bool {
    matches!(Cause::of(error), Some(Cause::Refusal | Cause::Transfer))
}

impl Growth {
    /// Begins with `first` records, which the service is known to serve.
    pub fn new(first: usize, limits: Limits, new_size: NewSize) -> Growth {
        Growth {
            limits,
            new_size,
            next: first,
            served: first,
            largest: first,
            in_good_time: usize::MAX,
            ceiling: None,
            failed_reads: 0,
            failed_marks: 0,
        }
    }

    /// How many records to ask for.
    pub fn asked(&self, count: Count) -> usize {
        match count {
            Count::AtOnce(count) => count.min(self.max_asked()),
            Count::UpTo(max) => max.min(self.next),
        }
    }

    /// The most that may be asked for: a ceiling, or twice that once patience is over.
    fn max_asked(&self) -> usize {
        match &self.ceiling {
            None => usize::MAX,
            Some(Ceiling { size, patience, full_pages }) if full_pages > patience => size.saturating_mul(2),
            Some(ceiling) => ceiling.size,
        }
    }

    /// How many records to mark at once: no more than arrived in good time when they were peeked.
    pub fn max_marked(&self) -> usize {
        self.in_good_time.min(self.ceiling.as_ref().map_or(usize::MAX, |ceiling| ceiling.size))
    }

    /// Learns from the answer to a request for `asked` records. Only a size that was chosen ([`Count::UpTo`]) grows.
    pub fn learn(&mut self, asked: usize, count: Count, page: &Page) {
        self.failed_reads = 0;
        self.served = self.served.max(asked);
        if page.len() >= asked {
            self.test_ceiling(asked);
            if let Count::UpTo(max) = count {
                let larger = asked.saturating_mul(2).min(max).min(self.max_asked());
                self.next = self.next.max(larger);
            }
        }
        if !page.is_empty() {
            self.next = self.next.min(self.limits.fitting(page));
        }
    }

    /// Learns from a page of unread records how many the service shows at once.
    pub fn learn_cap(&mut self, page: &Page) {
        self.largest = self.largest.max(page.len());
    }

    /// Whether the service may have capped a page, so that more records may follow although it is short.
    pub fn may_be_capped(&self, page: &Page) -> bool {
        page.len() >= self.largest || page.bytes() >= MAY_BE_CAPPED
    }

    /// Learns from a peeked page how many of its records may be marked at once.
    pub fn learn_to_mark(&mut self, page: &Page) {
        self.in_good_time = self.limits.in_good_time(page);
    }

    /// Counts a full page at the ceiling. One above it shows that there is none.
    fn test_ceiling(&mut self, asked: usize) {
        match &mut self.ceiling {
            Some(ceiling) if asked > ceiling.size => self.ceiling = None,
            Some(ceiling) if asked == ceiling.size => ceiling.full_pages += 1,
            _ => {}
        }
    }

    /// Learns that a request for `asked` records has failed that marks nothing. Returns the new size if another try with it makes
    /// sense.
    pub fn read_failed(&mut self, asked: usize, error: &Error) -> Option<Halved> {
        let cause = Cause::of(error)?;
        self.failed_reads += usize::from(cause == Cause::Outage);
        self.halve(asked, cause, self.failed_reads)
    }

    /// Learns that a mark of `count` records has failed. Returns the new size if another try with it makes sense.
    pub fn mark_failed(&mut self, count: usize, error: &Error) -> Option<Halved> {
        let cause = Cause::of(error)?;
        self.failed_marks += usize::from(cause == Cause::Outage);
        self.halve(count, cause, self.failed_marks)
    }

    /// Learns that a mark was answered.
    pub fn mark_answered(&mut self) {
        self.failed_marks = 0;
    }

    /// Halves the size. One failure in a row that may be an outage does not explain that.
    fn halve(&mut self, asked: usize, cause: Cause, outages: usize) -> Option<Halved> {
        let is_new = asked > self.served;
        let may_be_outage = cause == Cause::Outage && !(is_new && self.new_size == NewSize::HalvedAtOnce);
        if asked <= 1 || may_be_outage && outages == 1 {
            return None;
        }
        let size = if is_new { self.served.max(asked / 2) } else { asked / 2 };
        let patience = match &self.ceiling {
            Some(ceiling) if asked > ceiling.size => (4 * ceiling.patience).min(MAX_PATIENCE),
            _ if is_new || cause == Cause::Refusal => LONG_PATIENCE,
            _ => SHORT_PATIENCE,
        };
        self.ceiling = Some(Ceiling { size, patience, full_pages: 0 });
        self.next = size;
        Some(Halved { from: asked, to: size, may_be_outage })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::*;
    use crate::record::Timing;
    use crate::shutdown::Stopped;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits { bytes: 10_000, transfer: Duration::from_secs(3), timeout: SECOND };

    fn growth(first: usize) -> Growth {
        Growth::new(first, LIMITS, NewSize::HalvedAtOnce)
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
        page(count).timed(Timing { first_byte, transfer })
    }

    /// A full page, and how many are asked for after it.
    fn after(growth: &mut Growth, page: impl Fn(usize) -> Page) -> usize {
        let count = Count::UpTo(1_000_000);
        let asked = growth.asked(count);
        let page = page(asked);
        growth.learn(asked, count, &page);
        growth.learn_to_mark(&page);
        growth.asked(count)
    }

    fn status(status: u16) -> Error {
        HttpError::Status { host: "h".to_owned(), status, retry_after: None, text: String::new() }.into()
    }

    fn timed_out(has_begun: bool) -> Error {
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
            growth.learn_cap(&page);
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
        let patient = Limits { timeout: 60 * SECOND, ..LIMITS };
        let mut growth = Growth::new(64, patient, NewSize::HalvedAtOnce);
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
        assert!(growth.mark_failed(49, &timed_out(true)).is_some());
        assert_eq!(growth.max_marked(), 24);
    }

    #[test]
    fn what_the_size_may_explain_halves_it_down_to_1() {
        let not_json = HttpError::InvalidBody("not JSON".to_owned()).into();
        let too_large = HttpError::TooLarge { host: "h".to_owned(), max: 1 }.into();
        // How often it has to happen before another try with fewer records makes sense.
        for (error, times) in [
            (status(400), 1),
            (status(413), 1),
            (status(422), 1),
            (timed_out(true), 1),
            (too_large, 1),
            (timed_out(false), 2),
            (status(503), 2),
            (not_json, 2),
        ] {
            let mut growth = growth(8);
            for _ in 1..times {
                assert!(growth.read_failed(8, &error).is_none(), "{error}");
            }
            let mut sizes = Vec::new();
            while growth.read_failed(growth.asked(Count::UpTo(8)), &error).is_some() {
                sizes.push(growth.asked(Count::UpTo(8)));
            }
            assert_eq!(sizes, [4, 2, 1], "{error}");
        }
    }

    #[test]
    fn what_is_no_outage_does_not_make_the_next_failure_one_of_many() {
        for error in [status(429), status(404), status(401), anyhow!("disk full"), Stopped { signal: 15 }.into()] {
            let mut growth = growth(8);
            assert!((0..3).all(|_| growth.read_failed(8, &error).is_none()), "{error}");
            assert!((0..3).all(|_| growth.mark_failed(8, &error).is_none()), "{error}");
            assert!(growth.read_failed(8, &status(503)).is_none(), "the first outage, after {error}");
            assert!(growth.mark_failed(8, &status(503)).is_none(), "the first outage, after {error}");
        }
    }

    #[test]
    fn a_size_that_was_never_served_is_halved_at_its_first_failure() {
        for (new_size, times) in [(NewSize::HalvedAtOnce, 1), (NewSize::TriedAgain, 2)] {
            let mut growth = Growth::new(8, LIMITS, new_size);
            assert_eq!(after(&mut growth, page), 16);
            let failures = (1..).find(|_| growth.read_failed(16, &status(503)).is_some());
            assert_eq!((failures, growth.asked(Count::UpTo(99))), (Some(times), 8));
        }
    }

    #[test]
    fn a_refused_size_is_tried_again_ever_more_seldom() {
        let mut growth = growth(8);
        assert_eq!(after(&mut growth, page), 16);
        for patience in [16, 64, 256, 256] {
            assert!(growth.read_failed(16, &status(413)).is_some());
            let pages = (0..).take_while(|_| after(&mut growth, page) == 8).count();
            assert_eq!(pages, patience);
        }
    }

    #[test]
    fn pages_grow_again_after_an_outage() {
        let mut growth = growth(8);
        for _ in 0..5 {
            growth.read_failed(growth.asked(Count::UpTo(8)), &status(503));
        }
        let sizes: Vec<_> = (0..7).map(|_| after(&mut growth, page)).collect();
        assert_eq!(sizes, [1, 1, 2, 4, 8, 16, 32]);
    }
}
