//! Finds out why a request failed, in words that hold no secret.

use std::error::Error;
use std::io::{self, Read as _};
use std::time::{Duration, SystemTime};

use anyhow::Chain;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::{Position, Url, form_urlencoded};

use super::gzip::unpacked;
use super::http_error::HttpError;
use super::{certificate, proxy};
use crate::logging::shortened;

/// How much of a refusal's text is read, in bytes.
const MAX_REFUSAL: u64 = 16 * 1024;

/// What a token endpoint may give as the reason (RFC 6749 section 5.2).
const OAUTH_ERRORS: [&str; 6] = [
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// What a refusal for a while says, in small letters, with no space, `_` or `-` between words.
const LIMITS: [&str; 5] = ["toomanyrequests", "ratelimit", "throttl", "slowdown", "temporarilyunavailable"];

/// The content types that are named.
const MEDIA_TYPES: [&str; 5] = ["application/json", "text/html", "text/plain", "text/xml", "application/xml"];

/// The host and port of a URL, to name it in a message.
pub fn host(url: &Url) -> String {
    url[Position::BeforeHost..Position::AfterPort].to_owned()
}

/// The content type of an answer, if it is one that is known: anything else may be a secret.
pub fn media_type(response: &Response) -> Option<&'static str> {
    let media_type = response.headers().get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    MEDIA_TYPES.into_iter().find(|known| known.eq_ignore_ascii_case(media_type))
}

/// Why a request did not get across, or brought no head of an answer.
pub fn diagnose(host: &str, timeout: Duration, error: reqwest::Error) -> HttpError {
    let proxy = error.url().and_then(proxy::name);
    let route = proxy.as_ref().map_or_else(|| host.to_owned(), |proxy| format!("{host} through {proxy}"));
    if error.is_timeout() {
        HttpError::TimedOut { host: route, timeout, has_begun: false }
    } else if !error.is_connect() {
        HttpError::CutOff { host: route, reason: innermost(&error.without_url()), has_begun: false }
    } else if let Some(failure) = proxy.and_then(|proxy| proxy::diagnose(&proxy, host, &error)) {
        failure
    } else if let Some(problem) = certificate::problem(host, &error) {
        HttpError::Rejected(problem)
    } else {
        HttpError::Unreachable(route, innermost(&error.without_url()))
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

/// What the cause at the bottom says: the layers above it only say that something failed.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let text = Chain::new(error).last().map(ToString::to_string).unwrap_or_default();
    // rustls adds a link to its manual, which is for programmers.
    text.split(": https://docs.rs/").next().unwrap_or_default().replace(char::is_control, " ")
}

/// The error for an answer other than success. It quotes what the answer says without these
/// secrets; if none are given, the OAuth error code alone: a token endpoint may send back any
/// secret.
pub fn refusal(host: &str, response: Response, secrets: &[SecretString]) -> HttpError {
    let status = response.status().as_u16();
    let retry_after = parse_retry_after(response.headers(), SystemTime::now());
    let is_html = media_type(&response) == Some("text/html");
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    // The status decides; a text that cannot be read adds nothing.
    let mut body = Vec::new();
    let _ = unpacked(response).and_then(|response| response.take(MAX_REFUSAL).read_to_end(&mut body));
    let retry_after = retry_after.or_else(|| asks_to_wait(&body).then_some(Duration::ZERO));
    let is_page = is_html || body.trim_ascii_start().starts_with(b"<");
    let text: String = if secrets.is_empty() {
        oauth_error(&body).map_or_else(String::new, |code| format!(": {code}"))
    } else {
        // A query may hold a secret.
        let location = location.iter().filter_map(|location| location.split(['?', '#']).next());
        let location = location.map(|location| format!(", pointing to {}", redact(secrets, location)));
        let said = Some(redact(secrets, &String::from_utf8_lossy(&body))).filter(|said| !said.is_empty());
        location.chain(said.map(|said| format!(": {said}"))).collect()
    };
    HttpError::Status { host: host.to_owned(), status, retry_after, is_page, text }
}

/// Whether a refusal is that of a limit, which some give as 400 and without `Retry-After`.
fn asks_to_wait(body: &[u8]) -> bool {
    let said = String::from_utf8_lossy(body).to_lowercase().replace(['_', '-', ' '], "");
    LIMITS.iter().any(|limit| said.contains(limit))
}

/// The error code in an answer of a token endpoint, if it is one that is known: anything else may
/// be a secret.
pub fn oauth_error(body: &[u8]) -> Option<&'static str> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?.as_str()?;
    OAUTH_ERRORS.into_iter().find(|code| *code == error)
}

/// What an answer says that is a JSON object with a message.
pub fn message(body: &[u8]) -> Option<String> {
    let object: Value = serde_json::from_slice(body).ok()?;
    ["message", "errorMessage", "error"].iter().find_map(|name| Some(object.get(name)?.as_str()?.to_owned()))
}

/// The text without the secrets, whether as they are, as in a form, or as in JSON; on one line, and
/// shortened.
pub fn redact(secrets: &[SecretString], text: &str) -> String {
    let mut redacted = text.trim().to_owned();
    for secret in secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
        let in_form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let in_json = Value::from(secret).to_string();
        for written in [secret, &in_form, in_json.trim_matches('"')] {
            redacted = redacted.replace(written, "[secret]");
        }
    }
    shortened(redacted.replace(char::is_control, " "))
}

/// How long `Retry-After` asks to wait: seconds, or a date (RFC 9110 section 10.2.3). A date in the
/// past means no wait.
fn parse_retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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
            parse_retry_after(&headers, now)
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:48:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
        assert_eq!(parse_retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_host_goes_with_its_port_and_without_path() {
        assert_eq!(host(&Url::parse("https://me:pw@example.com/a?b").unwrap()), "example.com");
        assert_eq!(host(&Url::parse("http://[::1]:8080/a").unwrap()), "[::1]:8080");
    }

    #[test]
    fn secrets_are_taken_out_of_a_text_and_the_rest_is_shortened() {
        let secrets = [SecretString::from("pa/s\"s w"), SecretString::from("")];
        assert_eq!(
            redact(&secrets, " a pa/s\"s w,\npa%2Fs%22s+w and pa/s\\\"s w. "),
            "a [secret], [secret] and [secret]."
        );
        assert_eq!(redact(&secrets, &"ö".repeat(301)), format!("{}…", "ö".repeat(300)));
    }

    #[test]
    fn only_a_known_error_of_a_token_endpoint_is_quoted() {
        assert_eq!(oauth_error(br#"{"error":"invalid_scope","error_description":"hunter2"}"#), Some("invalid_scope"));
        assert_eq!(oauth_error(br#"{"error":"hunter2"}"#), None);
        assert_eq!(oauth_error(b"hunter2"), None);
    }

    #[test]
    fn a_limit_is_known_by_its_words() {
        for limit in [r#"{"__type":"TooManyRequestsException"}"#, r#"{"error":"slow_down"}"#, "Rate limit exceeded"] {
            assert!(asks_to_wait(limit.as_bytes()), "{limit}");
        }
        assert!(!asks_to_wait(br#"{"message":"500 records are too many: the limit is 100"}"#));
    }

    #[test]
    fn only_a_text_is_a_message() {
        assert_eq!(message(br#"{"errorMessage":"timed out"}"#).as_deref(), Some("timed out"));
        assert_eq!(message(br#"{"message":{"a":1},"error":"no"}"#).as_deref(), Some("no"));
        assert_eq!(message(br#"{"recordId":"a"}"#), None);
        assert_eq!(message(b"7"), None);
    }
}
