//! Why an answer is not a page of records. No message quotes what may be a record: records are
//! private.

use anyhow::{Error, anyhow};
use serde::de::IgnoredAny;

/// How much of a web page is quoted at the most, in bytes. Who shows the error shortens it.
const MAX_QUOTED: usize = 4096;

/// Why an answer is not a JSON array.
pub(super) fn diagnose(answer: &[u8]) -> Error {
    match serde_json::from_slice::<IgnoredAny>(answer) {
        Ok(_) => anyhow!("the answer is not an array of records"),
        Err(problem) => anyhow!("the answer is not JSON: {problem}{}", excerpt(answer)),
    }
}

/// The beginning of an answer that is not JSON, to quote in an error. Only an HTML page that holds
/// no quote and no bracket is quoted: a record holds both, and any other text may be records in
/// another format.
pub(super) fn excerpt(answer: &[u8]) -> String {
    let text = answer.strip_prefix("\u{feff}".as_bytes()).unwrap_or(answer).trim_ascii();
    let begins_with = |start: &[u8]| text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start));
    if !begins_with(b"<!doctype html") && !begins_with(b"<html") {
        String::new()
    } else if text.iter().any(|byte| b"\"[]{}".contains(byte)) {
        ": an HTML page".to_owned()
    } else {
        format!(": {:?}", String::from_utf8_lossy(&text[..text.len().min(MAX_QUOTED)]))
    }
}
