//! The one parser: where each record of an answer lies, and where its identity and its payload are
//! written.
//!
//! The answer is read once. Each record is read by `serde_json` from where it begins, which tells
//! where it ends. A record may be any JSON value. It has no identity if it is not an object, lacks
//! a field, has one twice, or has a name that is not Unicode text. Its fingerprint is then that of
//! its whole text.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::identity::Fingerprint;
use super::members::Members;
use super::text::{decode_string, range_of};

/// The most values that an array may hold: no request asks for more records.
const MAX_ENTRIES: usize = 100_000;

/// One record of an answer: where it lies, and where its fields are written.
#[derive(Debug)]
pub(super) struct Entry {
    /// The record's text.
    pub(super) span: Range<usize>,
    /// The value of `recordId`, quotes included, if it is a string.
    pub(super) record_id: Option<Range<usize>>,
    /// The value of `recordTimeStampISO`, quotes included, if it is a string.
    pub(super) timestamp: Option<Range<usize>>,
    /// The value of `dataPayload`.
    pub(super) payload: Option<Range<usize>>,
    /// The value of `readStatus`.
    pub(super) read_status: Option<Range<usize>>,
    /// What tells it from others.
    pub(super) fingerprint: Fingerprint,
}

impl Entry {
    /// Whether the record has both of its key properties.
    pub(super) fn has_identity(&self) -> bool {
        self.record_id.is_some() && self.timestamp.is_some()
    }

    /// The record, of the answer that it came in.
    pub(super) fn record<'a>(&self, answer: &'a [u8]) -> Record<'a> {
        self.record_of(answer, |range| str::from_utf8(&answer[range]).ok())
    }

    /// The same, with a way to get a part of the answer as text: each is looked at when a page is
    /// parsed, and is known to be text then.
    fn record_of<'a>(&self, answer: &'a [u8], text: impl Fn(Range<usize>) -> Option<&'a str>) -> Record<'a> {
        let string = |range: &Option<Range<usize>>| decode_string(text(range.clone()?)?);
        let Range { start, end } = self.span;
        let status = self.read_status.clone().unwrap_or(end..end);
        let status_text = text(status.clone()).unwrap_or_default();
        Record {
            record_id: string(&self.record_id),
            timestamp: string(&self.timestamp),
            payload: self.payload.clone().map(|payload| &answer[payload]),
            fingerprint: self.fingerprint,
            text_but_status: [&answer[start..status.start], &answer[status.end..end]],
            is_read: status_text.trim_matches('"').eq_ignore_ascii_case("true"),
        }
    }
}

/// What is read of a record. Without a `recordId` or a `recordTimeStampISO` it has no identity.
#[derive(Debug)]
pub struct Record<'a> {
    /// `recordId`
    pub record_id: Option<Cow<'a, str>>,
    /// `recordTimeStampISO`
    pub timestamp: Option<Cow<'a, str>>,
    /// `dataPayload`, as it was sent
    pub payload: Option<&'a [u8]>,
    /// What tells it from other records.
    pub fingerprint: Fingerprint,
    /// Its text before and after its read status
    text_but_status: [&'a [u8]; 2],
    /// Whether `readStatus` says that it is read. It is a string, but may be a boolean; some write
    /// `True`.
    pub is_read: bool,
}

impl Record<'_> {
    /// What tells it from others: its id, its time stamp and its payload; without an identity, its
    /// whole text before and after the value of `readStatus`.
    pub(super) fn distinctive_texts(&self) -> [Option<&[u8]>; 3] {
        match (&self.record_id, &self.timestamp) {
            (Some(id), Some(timestamp)) => [Some(id.as_bytes()), Some(timestamp.as_bytes()), self.payload],
            _ => [None, Some(self.text_but_status[0]), Some(self.text_but_status[1])],
        }
    }
}

/// The records of an answer; `None` if it is not a JSON array, or holds more values than any
/// request asks for.
pub(super) fn entries(answer: &str) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut rest = skip_space(skip_space(answer).strip_prefix('[')?);
    while !rest.starts_with(']') && entries.len() < MAX_ENTRIES {
        if !entries.is_empty() {
            rest = skip_space(rest.strip_prefix(',')?);
        }
        let entry = entry(answer, rest)?;
        rest = skip_space(&answer[entry.span.end..]);
        entries.push(entry);
    }
    skip_space(rest.strip_prefix(']')?).is_empty().then_some(entries)
}

/// Reads the record that a part of the answer begins with.
fn entry(answer: &str, text: &str) -> Option<Entry> {
    // Only an object: serde would also take the fields of an array, by their places.
    let object = text.starts_with('{').then(|| first::<Fields<'_>>(text)).flatten();
    let (fields, length) = object.or_else(|| odd_value(text))?;
    let range = |field: Option<&RawValue>| Some(range_of(field?.get(), answer));
    let string = |field: Option<&RawValue>| range(field.filter(|value| value.get().starts_with('"')));
    let mut entry = Entry {
        span: range_of(&text[..length], answer),
        record_id: string(fields.record_id),
        timestamp: string(fields.timestamp),
        payload: range(fields.payload),
        read_status: range(fields.read_status),
        fingerprint: Fingerprint::default(),
    };
    let record = entry.record_of(answer.as_bytes(), |range| answer.get(range));
    entry.fingerprint = Fingerprint::of(record.distinctive_texts());
    Some(entry)
}

/// The first JSON value of a text, and its length, if it is not an object, holds a field twice, or
/// has a name that is not Unicode text. Only `readStatus` is read of it.
fn odd_value(text: &str) -> Option<(Fields<'_>, usize)> {
    let Some((Members(members), length)) = first::<Members<'_>>(text) else {
        return Some((Fields::default(), first::<IgnoredAny>(text)?.1));
    };
    let mut statuses = members.into_iter().filter(|(name, ..)| name == "readStatus").map(|(.., status)| status);
    let read_status = statuses.next().filter(|_| statuses.next().is_none());
    Some((Fields { read_status, ..Fields::default() }, length))
}

/// The first JSON value of a text, and its length.
fn first<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

/// The text from its first token on (RFC 8259 section 2).
fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// The fields of a record that the tap reads, as they are written. A field that is there twice is
/// an error.
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
