//! Whether a value fits its setting. What is wrong follows the setting's name in an error.

use std::net::IpAddr;

use serde_json::Value;
use url::Url;

use super::settings::{Kind, Setting};
use super::timestamp::instant;

impl Setting {
    /// Checks a value against the setting's kind.
    ///
    /// # Errors
    /// What is wrong with it, to follow the setting's name. Quotes the value, unless that may hold
    /// a secret.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match (&self.kind, value) {
            // As in Docker's --env-file, which takes quotes for a part of the value.
            (_, Value::String(text)) if is_in_quotes(text) => {
                Err("begins and ends with quotes, which are a part of the value: remove them".to_owned())
            }
            (Kind::Integer(range), _) if value.as_u64().is_some_and(|number| range.contains(&number)) => Ok(()),
            (Kind::Integer(range), _) => {
                let (min, max) = range.clone().into_inner();
                Err(format!("must be a whole number from {min} to {max}, not {}", shown(value)))
            }
            (Kind::Choice(words), _) if words().iter().any(|(word, _)| value == word) => Ok(()),
            (Kind::Choice(_), _) if self.name == "acknowledge" && value == "read" => {
                Err("`read` is gone, because it lost records: use `write`".to_owned())
            }
            (Kind::Choice(words), _) => {
                let words: Vec<_> = words().iter().map(|(word, _)| format!("{word:?}")).collect();
                Err(format!("must be one of {}, not {}", words.join(", "), shown(value)))
            }
            (kind, Value::String(text)) if !text.trim().is_empty() => check_text(kind, text),
            (_, Value::String(_)) => Err(match self.default {
                Some(default) => format!("is empty: give it a value, or remove it to use {default}"),
                None if self.is_required => "is empty: give it a value".to_owned(),
                None => "is empty: give it a value, or remove it".to_owned(),
            }),
            (Kind::Secret, _) => Err("must be a string: write it in quotes".to_owned()),
            _ => Err(format!("must be a string, not {}", shown(value))),
        }
    }
}

fn is_in_quotes(text: &str) -> bool {
    text.len() > 1 && ['"', '\''].iter().any(|quote| text.starts_with(*quote) && text.ends_with(*quote))
}

fn check_text(kind: &Kind, text: &str) -> Result<(), String> {
    let is_stray = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '%');
    match kind {
        // A URL may hold a password.
        Kind::Secret | Kind::Url if text.trim() != text => Err("must not begin or end with white space".to_owned()),
        _ if text.trim() != text => Err(format!("must not begin or end with white space: {}", quoted(text))),
        Kind::Id if text.contains(is_stray) || matches!(text, "." | "..") => {
            Err(format!("must be the id alone, such as 60c49e86-9db3-414a-87a1-f51ccee4ec0c, not {}", quoted(text)))
        }
        Kind::Header if text.chars().any(|c| !(c == ' ' || c.is_ascii_graphic())) => {
            Err(format!("must be plain ASCII text to go into a header, not {}", quoted(text)))
        }
        Kind::Url => check_url(text),
        Kind::Timestamp if instant(text).is_err() => Err(format!(
            "must be a time stamp with an offset, such as 2026-01-31T08:00:00Z or \
             2026-01-31T08:00:00.5-05:00[America/New_York], not {}",
            quoted(text)
        )),
        _ => Ok(()),
    }
}

/// Whether secrets may be sent there. Text that may hold a password or a token is not quoted.
fn check_url(text: &str) -> Result<(), String> {
    let found = if text.contains(['@', '?', '#']) { String::new() } else { format!(", not {}", quoted(text)) };
    let url = Url::parse(text).map_err(|error| format!("must be a URL that begins with https://{found} ({error})"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password: use clientId and clientSecret".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path, without `?` or `#`".to_owned());
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        "http" => Err(format!("must begin with https:// unless it leads to this machine itself{found}")),
        _ => Err(format!("must begin with https://{found}")),
    }
}

/// Whether the URL leads to this machine: 127.0.0.0/8, ::1 or localhost (RFC 6761 section 6.3).
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A wrong value as an error shows it: of an array or an object only what it is.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// The beginning of a text, in quotes and on one line.
fn quoted(text: &str) -> String {
    const MAX_QUOTED: usize = 100;
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?} and so on", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SETTINGS;

    #[test]
    fn every_default_is_valid() {
        for setting in &SETTINGS {
            let value = setting.default.map(|default| setting.value(default));
            assert_eq!(value.map_or(Ok(()), |value| setting.check(&value)), Ok(()), "{}", setting.name);
        }
    }

    #[test]
    fn http_is_for_loopback_only() {
        for url in ["http://127.0.0.1:80", "http://[::1]", "http://localhost:1/x", "https://example.com/api"] {
            assert!(check_url(url).is_ok(), "{url}");
        }
        for url in ["http://example.com", "http://10.0.0.1", "http://localhost.example.com", "http://x.localhost"] {
            assert_eq!(
                check_url(url).unwrap_err(),
                format!("must begin with https:// unless it leads to this machine itself, not {url:?}")
            );
        }
        for (url, problem) in [
            ("ftp://x", "must begin with https://, not \"ftp://x\""),
            ("nowhere", "must be a URL that begins with https://, not \"nowhere\" (relative URL without a base)"),
            ("1:hunter2@example.com", "must be a URL that begins with https:// (relative URL without a base)"),
            ("me:hunter2@example.com", "must begin with https://"),
            ("https://example.com?token=hunter2", "must end with its path, without `?` or `#`"),
            ("https://me:hunter2@example.com", "must not hold a user name or password: use clientId and clientSecret"),
        ] {
            assert_eq!(check_url(url).unwrap_err(), problem);
        }
    }
}
