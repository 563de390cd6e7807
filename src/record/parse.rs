//! The one parser: where each record of an answer lies, and where its identity is written.
//!
//! The answer is read once. Each record is read by `serde_json` from where it begins, which tells where it ends. A record may be
//! any JSON value: one that is no object, or lacks a field, or has a name that is no Unicode text, has no identity.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::identity::Fingerprint;
use super::text::{decode_string, range_of};

/// One record of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The record's text.
    pub(super) span: Range<usize>,
    /// `None` where the record lacks one of the fields, has one twice, or has one that is no string.
    pub(super) key: Option<Key>,
    /// The value of `readStatus`.
    pub(super) read_status: Option<Range<usize>>,
}

/// Where a record's identity is written: the values of `recordId` and `recordTimeStampISO`, quotes included.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) record_id: Range<usize>,
    pub(super) timestamp: Range<usize>,
    pub(super) fingerprint: Fingerprint,
}

/// The records of an answer; `None` if it is no JSON array.
pub(super) fn entries(answer: &str) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut at = expect(b'[', answer, 0)?;
    if let Some(end) = expect(b']', answer, at) {
        return ends(answer, end).then_some(entries);
    }
    loop {
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
}

/// Reads the record that begins at `start`. Returns it and where it ends.
fn entry(answer: &str, start: usize) -> Option<(Entry, usize)> {
    let text = &answer[start..];
    let (fields, length) = match first::<Fields<'_>>(text) {
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

/// The place behind `byte`, if that is the next one but for white space.
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

/// The fields of a record that the tap reads, as they are written.
#[derive(Default)]
struct Fields<'a> {
    record_id: Field<'a>,
    timestamp: Field<'a>,
    read_status: Field<'a>,
}

/// A field of a record.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Missing,
    Once(&'a str),
    Repeated,
}

impl<'a> Field<'a> {
    fn set(&mut self, value: &'a str) {
        *self = match self {
            Field::Missing => Field::Once(value),
            Field::Once(_) | Field::Repeated => Field::Repeated,
        };
    }

    fn once(&self) -> Option<&'a str> {
        match self {
            Field::Once(value) => Some(value),
            Field::Missing | Field::Repeated => None,
        }
    }
}

impl Fields<'_> {
    fn key(&self, answer: &str) -> Option<Key> {
        let (record_id, timestamp) = (self.record_id.once()?, self.timestamp.once()?);
        Some(Key {
            fingerprint: Fingerprint::of(&decode_string(record_id)?, &decode_string(timestamp)?),
            record_id: range_of(record_id, answer),
            timestamp: range_of(timestamp, answer),
        })
    }

    fn read_status(&self, answer: &str) -> Option<Range<usize>> {
        Some(range_of(self.read_status.once()?, answer))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Record;

        impl<'de> Visitor<'de> for Record {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key()? {
                    let field = match name {
                        Name::RecordId => &mut fields.record_id,
                        Name::TimeStamp => &mut fields.timestamp,
                        Name::ReadStatus => &mut fields.read_status,
                        Name::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    field.set(map.next_value::<&RawValue>()?.get());
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Record)
    }
}

/// A field's name.
enum Name {
    RecordId,
    TimeStamp,
    ReadStatus,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl Visitor<'_> for Key {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(match name {
                    "recordId" => Name::RecordId,
                    "recordTimeStampISO" => Name::TimeStamp,
                    "readStatus" => Name::ReadStatus,
                    _ => Name::Other,
                })
            }
        }

        deserializer.deserialize_str(Key)
    }
}
