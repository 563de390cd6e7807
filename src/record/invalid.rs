//! Why an answer is not a page of records. No message quotes what may be a record: records are
//! private.

use serde::de::IgnoredAny;

/// Why the body of an answer is not a page.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBody {
    /// The text is cut off, or is not JSON: another try may bring a better one.
    #[error("the answer is not JSON: {0}{1}")]
    NotJson(String, String),
    /// JSON, but not what a record-request answers: another try brings the same.
    #[error("the answer is not an array of records")]
    NotRecords,
    /// A record without one of the fields that make its identity, and nowhere to put it.
    #[error("record {0} of the answer has no identity: {1}; set `deadLetterFile` to put such records aside and go on")]
    NoIdentity(usize, String),
}

/// Why an answer is not a JSON array.
pub(super) fn diagnose(answer: &[u8]) -> InvalidBody {
    match serde_json::from_slice::<IgnoredAny>(answer) {
        Ok(_) => InvalidBody::NotRecords,
        Err(problem) => InvalidBody::NotJson(problem.to_string(), excerpt(answer)),
    }
}

/// The beginning of an answer that is not JSON, to quote in an error. Only an HTML page that holds
/// no quote and no bracket is quoted: a record holds both, and any other text may be records in
/// another format.
pub(super) fn excerpt(answer: &[u8]) -> String {
    const MAX_CHARACTERS: usize = 200;
    /// The most bytes that one more character than these takes. The rest is not decoded: it may be
    /// many megabytes.
    const MAX_BYTES: usize = 4 * (MAX_CHARACTERS + 1);
    let text = answer.strip_prefix("\u{feff}".as_bytes()).unwrap_or(answer).trim_ascii();
    let begins_with = |start: &[u8]| text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start));
    if !begins_with(b"<!doctype html") && !begins_with(b"<html") {
        return String::new();
    }
    let beginning = String::from_utf8_lossy(&text[..text.len().min(MAX_BYTES)]);
    let quoted = match beginning.char_indices().nth(MAX_CHARACTERS) {
        _ if text.iter().any(|byte| b"\"[]{}".contains(byte)) => None,
        None => Some(format!(": {beginning:?}")),
        // Between words: half a secret would not be known as one.
        Some((end, _)) => beginning[..end].rsplit_once(char::is_whitespace).map(|(words, _)| format!(": {words:?}…")),
    };
    quoted.unwrap_or_else(|| ": an HTML page".to_owned())
}
