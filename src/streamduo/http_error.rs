//! Why a request brought no usable answer, in words that hold no secret.

use std::error::Error;
use std::io::{self, Read as _};
use std::time::{Duration, Instant, SystemTime};

use reqwest::blocking::Response;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use secrecy::SecretString;
use url::Url;

use super::certificate;
use super::proxy::Proxy;
use super::redact::redact;
use crate::logging;

/// How much of a refusal's text is quoted, in characters.
const MAX_QUOTED: usize = 300;

/// How much of a refusal's text is read, in bytes.
const MAX_REFUSAL: u64 = 16 * 1024;

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The host and port of the URL.
        host: String,
        /// What the operating system or the TLS library says.
        reason: String,
    },
    /// A certificate or a proxy stands in the way: what is wrong, and the remedy. Another try does not help.
    #[error("{0}")]
    Rejected(String),
    /// The answer did not come within `requestTimeoutSeconds`.
    #[error("{}", timed_out(host, *timeout, *has_begun))]
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
    /// The answer is larger than `maxAnswerMegabytes`.
    #[error("the answer of {host} is larger than {} bytes", max)]
    TooLarge {
        /// The host and port of the URL.
        host: String,
        /// The limit, in bytes.
        max: usize,
    },
    /// The answer is complete, but its body is not what it has to be.
    #[error("{0}")]
    InvalidBody(String),
    /// An answer other than success (RFC 9110 section 15).
    #[error("{host} answers {status}{text}")]
    Status {
        /// The host and port of the URL.
        host: String,
        /// The status code.
        status: u16,
        /// What `Retry-After` asks for (RFC 9110 section 10.2.3).
        retry_after: Option<Duration>,
        /// Where the answer points to and what it says, shortened, without secrets.
        text: String,
    },
}

impl HttpError {
    /// The status code of an answer other than success.
    pub fn status(&self) -> Option<u16> {
        match self {
            HttpError::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the service refuses the request as it is, and may accept one for fewer records: 400, 413 or 422.
    pub fn is_refusal(&self) -> bool {
        matches!(self.status(), Some(400 | 413 | 422))
    }

    /// Whether the service may have applied the request.
    pub fn may_have_been_applied(&self) -> bool {
        match self {
            HttpError::Unreachable { .. } | HttpError::Rejected(_) => false,
            HttpError::TimedOut { .. }
            | HttpError::CutOff { .. }
            | HttpError::TooLarge { .. }
            | HttpError::InvalidBody(_) => true,
            HttpError::Status { status, .. } => *status >= 500,
        }
    }
}

/// Whether the service may have applied the request that failed with this error.
pub fn may_have_been_applied(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(HttpError::may_have_been_applied)
}

/// The host and port of a URL, to name it in a message.
pub fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Why a request did not get across, or brought no head of an answer. If a proxy does not let it through, the proxy is asked why,
/// until the deadline; without one it is not asked.
pub fn diagnose(host: &str, timeout: Duration, error: reqwest::Error, ask_proxy_until: Option<Instant>) -> HttpError {
    let proxy = error.url().and_then(Proxy::of);
    let route = proxy.as_ref().map_or_else(|| host.to_owned(), |proxy| format!("{host} through {proxy}"));
    if error.is_timeout() {
        HttpError::TimedOut { host: route, timeout, has_begun: false }
    } else if !error.is_connect() {
        HttpError::CutOff { host: route, reason: innermost(&error.without_url()), has_begun: false }
    } else if let Some(failure) = proxy.and_then(|proxy| proxy.diagnose(&error, ask_proxy_until)) {
        failure
    } else if let Some(problem) = certificate::problem(host, "`apiUrl` and `authUrl`", &error) {
        HttpError::Rejected(problem)
    } else {
        HttpError::Unreachable { host: route, reason: innermost(&error.without_url()) }
    }
}

/// Why the body of an answer did not get across.
pub fn transfer_failure(host: &str, timeout: Duration, error: io::Error) -> HttpError {
    let host = host.to_owned();
    match error.downcast::<reqwest::Error>() {
        Ok(error) if error.is_timeout() => HttpError::TimedOut { host, timeout, has_begun: true },
        Ok(error) => HttpError::CutOff { host, reason: innermost(&error.without_url()), has_begun: true },
        Err(error) => HttpError::CutOff { host, reason: innermost(&error), has_begun: true },
    }
}

fn timed_out(host: &str, timeout: Duration, has_begun: bool) -> String {
    let seconds = timeout.as_secs();
    if has_begun {
        format!("the answer of {host} did not arrive within {seconds} s")
    } else {
        format!("{host} did not answer within {seconds} s")
    }
}

/// What the cause at the bottom says: the layers above it only say that something failed.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    // rustls adds a link to its manual, which is for programmers.
    logging::without_control_characters(text.split(": https://docs.rs/").next().unwrap_or_default())
}

/// The error for an answer other than success.
pub fn refusal(host: &str, response: Response, secrets: &[SecretString]) -> HttpError {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let mut text = String::new();
    if let Some(location) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()) {
        // A query may hold what is nobody's business.
        let location = location.split(['?', '#']).next().unwrap_or_default();
        text = format!(", pointing to {}", redact(secrets, location));
    }
    // The status decides; a text that cannot be read adds nothing.
    let mut body = Vec::new();
    let _ = response.take(MAX_REFUSAL).read_to_end(&mut body);
    let said = redact(secrets, &String::from_utf8_lossy(&body));
    let said = logging::without_control_characters(said.trim());
    if !said.is_empty() {
        let end = if said.chars().nth(MAX_QUOTED).is_some() { "…" } else { "" };
        text = format!("{text}: {}{end}", said.chars().take(MAX_QUOTED).collect::<String>());
    }
    HttpError::Status { host: host.to_owned(), status, retry_after, text }
}

/// How long `Retry-After` asks to wait: seconds, or a date (RFC 9110 section 10.2.3). A date in the past means no wait.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:48:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_host_goes_with_its_port_and_without_path() {
        assert_eq!(host(&Url::parse("https://me:pw@example.com/a?b").unwrap()), "example.com");
        assert_eq!(host(&Url::parse("http://[::1]:8080/a").unwrap()), "[::1]:8080");
    }
}
