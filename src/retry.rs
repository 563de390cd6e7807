//! Which failures pass by themselves, and how long to wait for that.

use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use log::warn;

use crate::http::HttpError;
use crate::shutdown::Shutdown;

/// The first pause; each further one is twice as long, and jitter makes it up to twice as long again. (None in unit tests.)
const FIRST_DELAY: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

/// The longest pause, before jitter.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that is waited for. A service that is away for longer is better left to the next run.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// The failure, if another try may succeed where this one failed.
pub fn transient(error: &Error) -> Option<&HttpError> {
    error.downcast_ref().filter(|error| match error {
        HttpError::Unreachable { .. }
        | HttpError::TimedOut { .. }
        | HttpError::CutOff { .. }
        | HttpError::Unreadable(_) => true,
        HttpError::Status { status, .. } => is_transient_status(*status),
    })
}

/// Request Timeout, Too Early, Too Many Requests, and what a server or gateway in trouble answers (RFC 9110, 8470, 6585).
fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Failures of one request in a row: how many there were, and how long to wait after the next.
#[derive(Debug)]
pub struct Retry {
    most: usize,
    failures: usize,
    delays: ExponentialBackoff,
}

impl Retry {
    /// Forgives `most` failures in a row (`maxRetries`).
    pub fn new(most: usize) -> Retry {
        let delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .with_jitter()
            .without_max_times()
            .build();
        Retry { most, failures: 0, delays }
    }

    /// Forgets the failures: the request has succeeded.
    pub fn reset(&mut self) {
        if self.failures > 0 {
            *self = Retry::new(self.most);
        }
    }

    /// Waits until another try of `what` makes sense.
    ///
    /// # Errors
    /// The error itself, when it is none that passes by itself or when it came once too often; then it is final, and
    /// nobody further out takes it for one that passes. [`crate::shutdown::Stopped`] when a stop is asked for.
    pub fn wait(&mut self, what: &str, error: Error, stop: &Shutdown) -> Result<()> {
        let Some(cause) = transient(&error) else { return Err(error) };
        self.failures += 1;
        if self.failures > self.most {
            return Err(match self.most {
                0 => anyhow!("{error:#}"),
                most => anyhow!("{error:#} (still so after {most} retries: `maxRetries`)"),
            });
        }
        let delay = match cause {
            HttpError::Status { retry_after: Some(asked), .. } if *asked > LONGEST_RETRY_AFTER => {
                return Err(anyhow!("{error:#} (it asks to come back in {} s: run again then)", asked.as_secs()));
            }
            HttpError::Status { retry_after: Some(asked), .. } => *asked,
            _ => self.delays.next().unwrap_or(LONGEST_DELAY),
        };
        let (failure, most, pause) = (self.failures, self.most, delay.as_secs_f64());
        warn!("{what}: {error:#}; trying again in {pause:.1} s ({failure} of {most})");
        Ok(stop.sleep(delay)?)
    }
}

/// Tries until it works, fails for good or fails more than `most` times in a row.
///
/// # Errors
/// The last error.
pub fn retrying<T>(most: usize, what: &str, stop: &Shutdown, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut retry = Retry::new(most);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => retry.wait(what, error, stop)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

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
        let value = retrying(2, "peek", &Shutdown::default(), || outcomes.pop().unwrap()).unwrap();
        assert_eq!(value, 7);
    }

    #[test]
    fn one_failure_too_many_is_final() {
        let mut tries = 0;
        let error = retrying(2, "peek", &Shutdown::default(), || -> Result<()> {
            tries += 1;
            Err(status(503, Some(0))).context("read records")
        })
        .unwrap_err();
        assert_eq!(tries, 3);
        assert_eq!(format!("{error:#}"), "read records: h answers 503 (still so after 2 retries: `maxRetries`)");
        assert!(Retry::new(9).wait("token", error, &Shutdown::default()).is_err());
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let mut tries = 0;
        let error = retrying(2, "peek", &Shutdown::default(), || -> Result<()> {
            tries += 1;
            Err(status(404, None))
        })
        .unwrap_err();
        assert_eq!((tries, format!("{error:#}").as_str()), (1, "h answers 404"));
    }

    #[test]
    fn a_service_that_is_away_for_long_is_left_to_the_next_run() {
        let error = Retry::new(5).wait("peek", status(503, Some(3600)), &Shutdown::default()).unwrap_err();
        assert_eq!(format!("{error:#}"), "h answers 503 (it asks to come back in 3600 s: run again then)");
    }
}
