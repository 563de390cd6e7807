//! How long to wait for a failure to pass, and which requests are then repeated.

use std::time::Duration;

use anyhow::{Result, anyhow};
use backon::{BackoffBuilder, ExponentialBuilder};
use log::{info, warn};

use super::http_error::{Failure, HttpError};
use crate::metrics::plural;
use crate::shutdown::Shutdown;

/// The longest pause, before jitter.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that is waited for, unless a run follows.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How often and how soon a request is repeated, and how often it has failed.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// `maxRetries`: how many failures in a row are forgiven.
    pub max_retries: usize,
    /// The first pause. Each further one is twice as long, and jitter makes it up to twice as long
    /// again.
    pub first_delay: Duration,
    /// The longest `Retry-After` that is waited for: if the service is away for longer, the next
    /// run finds it.
    pub max_retry_after: Duration,
    /// How many failures in a row there were.
    pub failures: usize,
}

impl Retry {
    /// Forgives `max_retries` failures in a row; the first pause is half a second.
    pub fn new(max_retries: usize) -> Retry {
        let first_delay = Duration::from_millis(500);
        Retry { max_retries, first_delay, max_retry_after: MAX_RETRY_AFTER, failures: 0 }
    }

    /// Waits until another try of `what` makes sense. A failure after which the request is changed
    /// is not counted.
    ///
    /// # Errors
    /// The failure itself if it is not transient; a final one if it came once too often, or when a
    /// stop is asked for.
    pub fn wait(&mut self, what: &str, failure: Failure, stop: &Shutdown) -> Result<(), Failure> {
        match &failure {
            Failure::Changed { pause, .. } => {
                info!("{what}: {failure}");
                let pause = if *pause { self.first_delay } else { Duration::ZERO };
                Ok(stop.sleep(self.pause(&failure, pause)?)?)
            }
            Failure::Http(error, _) if error.is_transient() => self.count(what, &failure, stop),
            _ => Err(failure),
        }
    }

    /// Counts a failure, and waits until another try of `what` makes sense.
    ///
    /// # Errors
    /// When it came once too often; [`crate::shutdown::Stopped`].
    pub fn count(&mut self, what: &str, failure: &Failure, stop: &Shutdown) -> Result<(), Failure> {
        self.failures += 1;
        let max = self.max_retries;
        if self.failures > max {
            let retries = plural(max, "retry", "retries");
            let end = if max == 0 { "" } else { &format!(" (still failing after {max} {retries}: `maxRetries`)") };
            return Err(anyhow!("{failure}{end}").into());
        }
        let delays = ExponentialBuilder::default().with_min_delay(self.first_delay).with_max_delay(MAX_DELAY);
        let backoff = delays.with_jitter().without_max_times().build().nth(self.failures - 1);
        let delay = self.pause(failure, backoff.unwrap_or(MAX_DELAY))?;
        let seconds = delay.as_secs_f64();
        warn!("{what}: {failure}; trying again in {seconds:.1} s ({} of {max})", self.failures);
        Ok(stop.sleep(delay)?)
    }

    /// The pause to make: `Retry-After` can only make it longer.
    fn pause(&self, failure: &Failure, backoff: Duration) -> Result<Duration, Failure> {
        let asked = match failure.http_error() {
            Some(HttpError::Status { retry_after: Some(asked), .. }) => *asked,
            _ => Duration::ZERO,
        };
        if asked > self.max_retry_after {
            let seconds = asked.as_secs();
            return Err(anyhow!("{failure} (it asks to come back in {seconds} s: run again then)").into());
        }
        Ok(backoff.max(asked))
    }
}

/// Tries until it works, fails for good, or fails too often in a row.
pub fn retrying<T>(
    retry: Retry,
    what: &str,
    stop: &Shutdown,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut retry = Retry { failures: 0, ..retry };
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => retry.wait(what, failure, stop)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forgives `max_retries` failures, without a pause.
    fn at_once(max_retries: usize) -> Retry {
        Retry { first_delay: Duration::ZERO, ..Retry::new(max_retries) }
    }

    fn status(status: u16, retry_after: Option<u64>) -> Failure {
        let retry_after = retry_after.map(Duration::from_secs);
        HttpError::Status { host: "h".to_owned(), status, retry_after, is_page: false, text: String::new() }.into()
    }

    /// How often this failure is met, and what the last error says.
    fn tries(failure: impl Fn() -> Failure) -> (usize, String) {
        let mut tries = 0;
        let end = retrying(at_once(2), "peek", &Shutdown::default(), || -> Result<(), Failure> {
            tries += 1;
            Err(failure())
        });
        (tries, end.unwrap_err().to_string())
    }

    #[test]
    fn an_attempt_is_repeated_until_it_works_and_counted_in_a_row() {
        let mut outcomes = vec![Ok(7), Err(status(429, Some(0))), Err(status(503, Some(0)))];
        let value = retrying(at_once(2), "peek", &Shutdown::default(), || outcomes.pop().unwrap()).unwrap();
        assert_eq!(value, 7);
    }

    #[test]
    fn one_failure_too_many_is_final() {
        let failure = || status(503, None).with_remedy(|_| "read records".to_owned());
        let text = "read records: h answers 503 (still failing after 2 retries: `maxRetries`)";
        assert_eq!(tries(failure), (3, text.to_owned()));
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        assert_eq!(tries(|| status(404, None)), (1, "h answers 404".to_owned()));
        assert_eq!(tries(|| anyhow!("disk full").into()), (1, "disk full".to_owned()));
    }

    #[test]
    fn a_service_that_is_away_for_long_is_left_to_the_next_run() {
        let text = "h answers 503 (it asks to come back in 3600 s: run again then)";
        assert_eq!(tries(|| status(503, Some(3600))), (1, text.to_owned()));
        let following = Retry { max_retry_after: Duration::MAX, ..at_once(5) };
        let hour = Duration::from_secs(3600);
        assert_eq!(following.pause(&status(503, Some(3600)), Duration::ZERO).unwrap(), hour);
    }

    #[test]
    fn retry_after_makes_a_pause_longer_and_never_shorter() {
        let retry = at_once(5);
        let seconds = Duration::from_secs;
        for (asked, pause) in [(Some(1), 4), (Some(9), 9), (None, 4)] {
            assert_eq!(retry.pause(&status(503, asked), seconds(4)).unwrap(), seconds(pause));
        }
    }
}
