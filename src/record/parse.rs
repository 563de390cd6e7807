//! The one parser: where each record of an answer lies, and where its identity and its payload are written.
//!
//! The answer is read once. Each record is read by `serde_json` from where it begins, which tells where it ends. A record may be
//! any JSON value. It has no identity if it is not an object, lacks a field, has one twice, or has a name that is not Unicode text.

use std::ops::Range;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::identity::Fingerprint;
use super::text::{decode_string, range_of};

/// The most values that an array may hold: no request asks for more records.
const MAX_ENTRIES: usize = 100_000;

/// One record of an answer.
#[derive(Debug)]
pub(super) struct Entry {
    /// The record's text.
    pub(super) span: Range<usize>,
    /// `None` if the record lacks one of the fields, has one twice, or has one that is not a string.
    pub(super) key: Option<Key>,
    /// The value of `readStatus`.
    pub(super) read_status: Option<Range<usize>>,
}

/// What tells a record from others, and where it is written.
#[derive(Debug)]
pub(super) struct Key {
    /// The value of `recordId`, quotes included.
    pub(super) record_id: Range<usize>,
    /// The value of `recordTimeStampISO`, quotes included.
    pub(super) timestamp: Range<usize>,
    /// The value of `dataPayload`.
    pub(super) payload: Option<Range<usize>>,
    pub(super) fingerprint: Fingerprint,
}

/// The records of an answer; `None` if it is not a JSON array, or holds more values than any request asks for.
pub(super) fn entries(answer: &str) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut at = expect(b'[', answer, 0)?;
    if let Some(end) = expect(b']', answer, at) {
        return ends(answer, end).then_some(entries);
    }
    while entries.len() < MAX_ENTRIES {
        let start = skip_space(answer, at);
        let (entry, end) = entry(answer, start)?;
        entries.push(entry);
        match expect(b',', answer, end) {
            Some(next) => at = next,
            None => {
                let end = expect(b']', answer, end)?;
                return ends(answer, end).then_some(entries);
            }
        }
    }
    None
}

/// Reads the record that begins at `start`. Returns it and where it ends.
fn entry(answer: &str, start: usize) -> Option<(Entry, usize)> {
    let text = &answer[start..];
    // Only an object: serde would also take the fields of an array, by their places.
    let object = text.starts_with('{').then(|| first::<Fields<'_>>(text)).flatten();
    let (fields, length) = match object {
        Some(record) => record,
        None => (Fields::default(), first::<IgnoredAny>(text)?.1),
    };
    let end = start + length;
    Some((Entry { span: start..end, key: fields.key(answer), read_status: fields.read_status(answer) }, end))
}

/// The first JSON value of a text, and its length.
fn first<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

/// The place after `byte`, if only white space comes before it.
fn expect(byte: u8, text: &str, at: usize) -> Option<usize> {
    let at = skip_space(text, at);
    (text.as_bytes().get(at) == Some(&byte)).then_some(at + 1)
}

fn ends(text: &str, at: usize) -> bool {
    skip_space(text, at) == text.len()
}

/// The next place that holds no white space (RFC 8259 section 2).
fn skip_space(text: &str, at: usize) -> usize {
    let space = text.as_bytes()[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    at + space.count()
}

/// The fields of a record that the tap reads, as they are written. A field that is there twice is an error.
#[derive(Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "recordId")]
    record_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "recordTimeStampISO")]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, rename = "readStatus")]
    read_status: Option<&'a RawValue>,
    #[serde(borrow, rename = "dataPayload", default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
}

/// Keeps a `null` apart from a field that is missing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Fields<'_> {
    fn key(&self, answer: &str) -> Option<Key> {
        let (record_id, timestamp) = (self.record_id?.get(), self.timestamp?.get());
        let payload = self.payload.map(RawValue::get);
        Some(Key {
            fingerprint: Fingerprint::of(&decode_string(record_id)?, &decode_string(timestamp)?, payload),
            record_id: range_of(record_id, answer),
            timestamp: range_of(timestamp, answer),
            payload: payload.map(|payload| range_of(payload, answer)),
        })
    }

    fn read_status(&self, answer: &str) -> Option<Range<usize>> {
        Some(range_of(self.read_status?.get(), answer))
    }
}
