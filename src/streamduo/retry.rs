//! Which failures are transient, how long to wait for them to pass, and which requests are then repeated.

use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use log::{info, warn};

use super::growth::Halved;
use super::http_error::{HttpError, may_have_been_applied};
use super::{Count, Marked, Queue};
use crate::record::{Delivered, Page, Peeked};
use crate::shutdown::{Shutdown, Stopped};

/// The longest pause, before jitter.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that is waited for. If the service is away for longer, the next run finds it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How often and how soon a request is repeated.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// `maxRetries`: how many failures in a row are forgiven.
    pub max_retries: usize,
    /// The first pause. Each further one is twice as long, and jitter makes it up to twice as long again.
    pub first_delay: Duration,
}

impl RetryPolicy {
    /// Forgives `max_retries` failures in a row; the first pause is half a second.
    pub fn new(max_retries: usize) -> RetryPolicy {
        RetryPolicy { max_retries, first_delay: Duration::from_millis(500) }
    }
}

/// Whether another try may succeed where this one failed.
fn is_transient(error: &Error) -> bool {
    error.downcast_ref().is_some_and(|error| match error {
        HttpError::Unreachable { .. }
        | HttpError::TimedOut { .. }
        | HttpError::CutOff { .. }
        | HttpError::InvalidBody(_) => true,
        // The same request brings the same answer. One for fewer records is another request (`Halved`).
        HttpError::TooLarge { .. } | HttpError::Rejected(_) => false,
        HttpError::Status { status, .. } => is_transient_status(*status),
    })
}

/// Request Timeout, Too Early, Too Many Requests, and what a server or gateway in trouble answers (RFC 9110, 8470, 6585).
pub(super) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Failures of one request in a row: how many there were, and how long to wait after the next.
#[derive(Debug)]
pub struct Retry {
    policy: RetryPolicy,
    failures: usize,
    delays: ExponentialBackoff,
}

impl Retry {
    /// No failures so far.
    pub fn new(policy: RetryPolicy) -> Retry {
        let delays = ExponentialBuilder::new()
            .with_min_delay(policy.first_delay)
            .with_max_delay(MAX_DELAY)
            .with_jitter()
            .without_max_times()
            .build();
        Retry { policy, failures: 0, delays }
    }

    /// Forgets the failures: the request has succeeded.
    pub fn reset(&mut self) {
        if self.failures > 0 {
            *self = Retry::new(self.policy);
        }
    }

    /// Waits until another try of `what` makes sense. A failure after which fewer records are asked for is not counted.
    ///
    /// # Errors
    /// The error itself, when it is not transient, or came once too often. It is final then: no outer retry takes it for
    /// transient. [`crate::shutdown::Stopped`] when a stop is asked for.
    pub fn wait(&mut self, what: &str, error: Error, stop: &Shutdown) -> Result<()> {
        if let Some(halved) = error.downcast_ref::<Halved>() {
            info!("{what}: {error:#}");
            let pause = if halved.may_be_outage { self.policy.first_delay } else { Duration::ZERO };
            return Ok(stop.sleep(asked_delay(&error)?.unwrap_or(pause))?);
        }
        if !is_transient(&error) {
            return Err(error);
        }
        self.count(what, error, stop)
    }

    /// Counts a failure, and waits.
    fn count(&mut self, what: &str, error: Error, stop: &Shutdown) -> Result<()> {
        self.failures += 1;
        let max = self.policy.max_retries;
        if self.failures > max {
            return Err(match max {
                0 => anyhow!("{error:#}"),
                1 => anyhow!("{error:#} (still so after 1 retry: `maxRetries`)"),
                _ => anyhow!("{error:#} (still so after {max} retries: `maxRetries`)"),
            });
        }
        let delay = asked_delay(&error)?.or_else(|| self.delays.next()).unwrap_or(MAX_DELAY);
        let (failure, pause) = (self.failures, delay.as_secs_f64());
        warn!("{what}: {error:#}; trying again in {pause:.1} s ({failure} of {max})");
        Ok(stop.sleep(delay)?)
    }
}

/// How long `Retry-After` asks to wait.
fn asked_delay(error: &Error) -> Result<Option<Duration>> {
    match error.downcast_ref() {
        Some(HttpError::Status { retry_after: Some(asked), .. }) if *asked > MAX_RETRY_AFTER => {
            Err(anyhow!("{error:#} (it asks to come back in {} s: run again then)", asked.as_secs()))
        }
        Some(HttpError::Status { retry_after, .. }) => Ok(*retry_after),
        _ => Ok(None),
    }
}

/// Tries until it works, fails for good, or fails too often in a row.
///
/// # Errors
/// The last error.
pub fn retrying<T>(
    policy: RetryPolicy,
    what: &str,
    stop: &Shutdown,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut retry = Retry::new(policy);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => retry.wait(what, error, stop)?,
        }
    }
}

/// A queue that repeats the requests that mark nothing. If the answer to a mark is lost, the mark may have been applied; repeated, it
/// would mark the next records, which nobody has seen. So it waits, and leaves it to the loop to peek again.
#[derive(Debug)]
pub struct Retrying<Q> {
    queue: Q,
    policy: RetryPolicy,
    /// The marks in a row that failed.
    failed_marks: Retry,
    /// Why the last mark is given up, although it may have been applied. The next request returns it.
    failure: Option<Error>,
    stop: Shutdown,
}

impl<Q> Retrying<Q> {
    /// Repeats requests to this queue.
    pub fn new(queue: Q, policy: RetryPolicy, stop: &Shutdown) -> Retrying<Q> {
        Retrying { queue, policy, failed_marks: Retry::new(policy), failure: None, stop: stop.clone() }
    }

    /// Goes on, unless the last mark is given up.
    fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl<Q: Queue> Queue for Retrying<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        self.check()?;
        retrying(self.policy, "peek", &self.stop, || self.queue.peek(count))
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        self.check()?;
        match self.queue.mark(delivered) {
            Ok(marked) => {
                self.failed_marks.reset();
                Ok(marked)
            }
            Err(error) if may_have_been_applied(&error) => {
                // First the loop has to learn that the mark may have been applied. A stop ends the next request by itself.
                let counted = self.failed_marks.count("mark", error, &self.stop);
                self.failure = counted.err().filter(|error| !error.is::<Stopped>());
                Ok(Marked::Unknown)
            }
            Err(error) => {
                self.failed_marks.wait("mark", error, &self.stop)?;
                Ok(Marked::Refused)
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        retrying(self.policy, "take", &self.stop, || self.queue.take(count))
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page> {
        self.check()?;
        retrying(self.policy, "read since", &self.stop, || self.queue.since(timestamp, count))
    }

    fn versions(&mut self, record_id: &str, count: usize) -> Result<Page> {
        self.check()?;
        retrying(self.policy, "look up", &self.stop, || self.queue.versions(record_id, count))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    /// Forgives `max_retries` failures, without a pause.
    fn at_once(max_retries: usize) -> RetryPolicy {
        RetryPolicy { first_delay: Duration::ZERO, ..RetryPolicy::new(max_retries) }
    }

    fn status(status: u16, retry_after: Option<u64>) -> Error {
        let retry_after = retry_after.map(Duration::from_secs);
        HttpError::Status { host: "h".to_owned(), status, retry_after, text: String::new() }.into()
    }

    #[test]
    fn these_statuses_pass_by_themselves() {
        let transient: Vec<u16> = (100..600).filter(|status| is_transient_status(*status)).collect();
        assert_eq!(transient, [408, 425, 429, 500, 502, 503, 504]);
    }

    #[test]
    fn an_attempt_is_repeated_until_it_works_and_counted_in_a_row() {
        let mut outcomes = vec![Ok(7), Err(status(429, Some(0))), Err(status(503, Some(0)))];
        let value = retrying(at_once(2), "peek", &Shutdown::default(), || outcomes.pop().unwrap()).unwrap();
        assert_eq!(value, 7);
    }

    #[test]
    fn one_failure_too_many_is_final() {
        let mut tries = 0;
        let error = retrying(at_once(2), "peek", &Shutdown::default(), || -> Result<()> {
            tries += 1;
            Err(status(503, Some(0))).context("read records")
        })
        .unwrap_err();
        assert_eq!(tries, 3);
        assert_eq!(format!("{error:#}"), "read records: h answers 503 (still so after 2 retries: `maxRetries`)");
        assert!(Retry::new(at_once(9)).wait("token", error, &Shutdown::default()).is_err());
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let mut tries = 0;
        let error = retrying(at_once(2), "peek", &Shutdown::default(), || -> Result<()> {
            tries += 1;
            Err(status(404, None))
        })
        .unwrap_err();
        assert_eq!((tries, format!("{error:#}").as_str()), (1, "h answers 404"));
    }

    #[test]
    fn a_service_that_is_away_for_long_is_left_to_the_next_run() {
        let error = Retry::new(at_once(5)).wait("peek", status(503, Some(3600)), &Shutdown::default()).unwrap_err();
        assert_eq!(format!("{error:#}"), "h answers 503 (it asks to come back in 3600 s: run again then)");
    }
}
