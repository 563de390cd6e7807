//! Small questions about JSON text.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::de::IgnoredAny;

/// The text as it came, or without the white space between its tokens where that holds a line break
/// (a line break within a JSON string is always escaped, RFC 8259 section 7).
pub fn on_one_line(json: &[u8]) -> Cow<'_, [u8]> {
    if !has_line_break(json) {
        return Cow::Borrowed(json);
    }
    let mut line = Vec::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for &byte in json {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        line.push(byte);
    }
    Cow::Owned(line)
}

/// Whether the text spreads over several lines.
pub(super) fn has_line_break(json: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', json).is_some()
}

/// The text as it came, or, if it is JSON otherwise, with an escape in the place of each byte that
/// is not UTF-8: 0xE9 becomes `\udce9`, a lone surrogate, as Python's `surrogateescape` has it. So
/// a JSON string keeps every byte.
pub(super) fn in_utf_8(json: Bytes) -> Bytes {
    if str::from_utf8(&json).is_ok() || serde_json::from_slice::<IgnoredAny>(&json).is_err() {
        return json;
    }
    let mut text = String::with_capacity(json.len() + json.len() / 4);
    for chunk in json.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\udc{byte:02x}")));
    }
    text.into()
}

/// The value of a JSON string; `None` for any other JSON value. A string that is not Unicode text
/// (JSON can write a lone surrogate) is returned as written, quotes included.
pub(super) fn decode_string(json: &str) -> Option<Cow<'_, str>> {
    let plain = json.strip_prefix('"')?.strip_suffix('"')?;
    Some(if memchr::memchr(b'\\', plain.as_bytes()).is_some() {
        serde_json::from_str(json).map_or(Cow::Borrowed(json), Cow::Owned)
    } else {
        Cow::Borrowed(plain)
    })
}

/// Where a part lies in the text that it was borrowed from.
pub(super) fn range_of(part: &str, text: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}
