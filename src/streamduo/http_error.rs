//! Why a request brought no usable answer, and what follows from that.

use std::fmt;
use std::time::Duration;

use crate::shutdown::Stopped;

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection to a host, and what the operating system or the TLS library says.
    #[error("cannot reach {0}: {1}")]
    Unreachable(String, String),
    /// A certificate or a proxy stands in the way: what is wrong, and the remedy.
    #[error("{0}")]
    Rejected(String),
    /// The answer did not come within `requestTimeoutSeconds`.
    #[error("{}{host} did not {} within {} s", if *has_begun { "the answer of " } else { "" },
        if *has_begun { "arrive" } else { "answer" }, timeout.as_secs())]
    TimedOut {
        /// The host and port of the URL.
        host: String,
        /// The limit that was set.
        timeout: Duration,
        /// Whether the answer had begun.
        has_begun: bool,
    },
    /// The connection ended before the answer did, or the answer cannot be decoded.
    #[error("the answer of {host} was cut off: {reason}")]
    CutOff {
        /// The host and port of the URL.
        host: String,
        /// What the HTTP library says.
        reason: String,
        /// Whether the answer had begun.
        has_begun: bool,
    },
    /// The answer of a host is larger than `maxAnswerMegabytes`, in bytes.
    #[error("the answer of {0} is larger than {1} bytes")]
    TooLarge(String, usize),
    /// The answer is complete, but its body is not what was asked for.
    #[error("{0}")]
    InvalidBody(String),
    /// An answer other than success (RFC 9110 section 15).
    #[error("{host} answers {status}{}{text}", if *is_page { " (text/html)" } else { "" })]
    Status {
        /// The host and port of the URL.
        host: String,
        /// The status code.
        status: u16,
        /// What `Retry-After` asks for (RFC 9110 section 10.2.3); 0 if only the text asks to wait.
        retry_after: Option<Duration>,
        /// Whether it is a web page: it comes from something in front of the service.
        is_page: bool,
        /// Where it points to and what it says, shortened, without secrets.
        text: String,
    },
}

impl HttpError {
    /// Whether another try may succeed. A token that is refused may be valid a little later,
    /// because clocks differ. An answer that asks to come back later reports a limit, whatever its
    /// status.
    pub fn is_transient(&self) -> bool {
        match self {
            HttpError::Rejected(_) | HttpError::TooLarge(..) => false,
            HttpError::Status { status, retry_after: None, .. } => {
                matches!(status, 401 | 403 | 408 | 425 | 429 | 500..=599) && !matches!(status, 501 | 505)
            }
            _ => true,
        }
    }

    /// Whether the service may have applied the request.
    pub fn may_have_been_applied(&self) -> bool {
        match self {
            HttpError::Unreachable(..) | HttpError::Rejected(_) => false,
            HttpError::Status { status, .. } => *status >= 500,
            _ => true,
        }
    }

    /// Whether a request for fewer records may succeed, and an outage is not the cause.
    pub fn is_about_size(&self) -> bool {
        match self {
            HttpError::TimedOut { has_begun, .. } | HttpError::CutOff { has_begun, .. } => *has_begun,
            HttpError::TooLarge(..) | HttpError::Status { status: 413, .. } => true,
            // The service refuses the request as it is.
            HttpError::Status { status, retry_after, .. } => matches!(status, 400 | 422) && retry_after.is_none(),
            _ => false,
        }
    }
}

/// Why a request failed. [`super::Queue`] makes an [`anyhow::Error`] of it.
#[derive(Debug)]
pub enum Failure {
    /// A request failed, and what to do about it. Whether another try makes sense is for
    /// [`HttpError::is_transient`] to say.
    Http(HttpError, Option<String>),
    /// A request failed, and the next one will be another: for fewer records, or by position.
    Changed {
        /// Why the request failed.
        error: Box<Failure>,
        /// How the next one differs.
        change: String,
        /// Whether to wait first, because the cause may be an outage.
        pause: bool,
    },
    /// No other try makes sense, or a stop was asked for ([`Stopped`]).
    Final(anyhow::Error),
}

impl Failure {
    /// The failed request, unless it is final.
    pub fn http_error(&self) -> Option<&HttpError> {
        match self {
            Failure::Http(error, _) => Some(error),
            Failure::Changed { error, .. } => error.http_error(),
            Failure::Final(_) => None,
        }
    }

    /// Whether the service may have applied the request.
    pub fn may_have_been_applied(&self) -> bool {
        self.http_error().is_some_and(HttpError::may_have_been_applied)
    }

    /// The same with what to do about it, if an HTTP request has failed.
    pub fn with_remedy(mut self, remedy: impl FnOnce(&HttpError) -> String) -> Failure {
        if let Failure::Http(error, known) = &mut self {
            *known = Some(remedy(error));
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Http(error, None) => write!(f, "{error}"),
            Failure::Http(error, Some(remedy)) => write!(f, "{remedy}: {error}"),
            Failure::Changed { error, change, .. } => write!(f, "{change}: {error}"),
            Failure::Final(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Failure {
        Failure::Http(error, None)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Final(error)
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Failure {
        Failure::Final(stopped.into())
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> anyhow::Error {
        match failure {
            Failure::Final(error) => error,
            failure => anyhow::anyhow!("{failure}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> HttpError {
        HttpError::Status { host: "h".to_owned(), status, retry_after: None, is_page: false, text: String::new() }
    }

    #[test]
    fn these_statuses_pass_by_themselves() {
        let transient: Vec<u16> = (100..600).filter(|code| status(*code).is_transient()).collect();
        let server: Vec<u16> = (500..600).filter(|code| *code != 501 && *code != 505).collect();
        assert_eq!(transient, [&[401, 403, 408, 425, 429], &server[..]].concat());
    }

    #[test]
    fn a_failure_says_the_change_and_the_remedy_first() {
        let failure = Failure::from(status(503)).with_remedy(|_| "check it".to_owned());
        assert_eq!(failure.to_string(), "check it: h answers 503");
        let failure = Failure::Changed { error: Box::new(failure), change: "asking for less".to_owned(), pause: false };
        assert_eq!(failure.to_string(), "asking for less: check it: h answers 503");
        assert_eq!(format!("{:#}", anyhow::Error::from(failure)), "asking for less: check it: h answers 503");
    }

    #[test]
    fn a_time_out_says_whether_the_answer_had_begun() {
        let timed_out = |has_begun| {
            let timeout = Duration::from_secs(3);
            HttpError::TimedOut { host: "h".to_owned(), timeout, has_begun }.to_string()
        };
        assert_eq!(timed_out(false), "h did not answer within 3 s");
        assert_eq!(timed_out(true), "the answer of h did not arrive within 3 s");
    }
}
