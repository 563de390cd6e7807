//! The records of an answer in one pass over it.
//!
//! Taking an answer apart first and each record then means to scan every byte twice, which is where a run spends its time. This
//! reads the fields of every record as they come, and tells the record's place from the braces around them: the next one behind the
//! record before, and the next one behind its last value. What is not as usual it leaves to the thorough way: an answer that is
//! no array, a record that is no object, has no fields, or has one of those that are read twice.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Entry, Who, place};

/// The records of a usual answer.
pub(super) fn entries(answer: &[u8]) -> Option<Vec<Entry>> {
    // Once for all: otherwise every value is looked through for what is no UTF-8.
    let text = str::from_utf8(answer).ok()?;
    let records: Vec<Fields<'_>> = serde_json::from_str(text).ok()?;
    let mut end = 0;
    let entry = |fields: Fields<'_>| {
        // Nothing but white space and a comma or a bracket lies before a record's first brace, and nothing but white space
        // between its last value and its last brace.
        let start = end + answer[end..].iter().position(|byte| *byte == b'{')?;
        let last = place(fields.last, answer).end;
        end = last + answer[last..].iter().position(|byte| *byte == b'}')? + 1;
        let who = fields.record_id.zip(fields.timestamp).and_then(|(id, timestamp)| Who::read(id, timestamp, answer));
        let read_status = fields.read_status.map(|status| place(status.get(), answer));
        Some(Entry { span: start..end, who, read_status })
    };
    records.into_iter().map(entry).collect()
}

/// The fields of a record that the tap reads, as they are written, and its last one.
struct Fields<'a> {
    record_id: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    read_status: Option<&'a RawValue>,
    last: &'a str,
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
                let (mut record_id, mut timestamp, mut read_status, mut last) = (None, None, None, None);
                while let Some((Key(key), value)) = map.next_entry::<Key<'_>, &RawValue>()? {
                    last = Some(value.get());
                    let field = match &*key {
                        "recordId" => &mut record_id,
                        "recordTimeStampISO" => &mut timestamp,
                        "readStatus" => &mut read_status,
                        _ => continue,
                    };
                    if field.replace(value).is_some() {
                        return Err(A::Error::custom("a field is there twice"));
                    }
                }
                let last = last.ok_or_else(|| A::Error::custom("no fields"))?;
                Ok(Fields { record_id, timestamp, read_status, last })
            }
        }

        deserializer.deserialize_map(Record)
    }
}

/// A field's name, borrowed wherever it holds no escape.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
