//! The records of an answer in one pass over it.
//!
//! Taking an answer apart first and each record then means to scan every byte twice, which is where a run spends its time. This
//! reads the fields of every record as they come, and tells the record's place from where its first and last one lie. What
//! is not as usual it leaves to the thorough way: an answer that is no array, a record that is no object or has a field twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Entry, Identity, place};

/// The records of a usual answer.
pub(super) fn entries(answer: &[u8]) -> Option<Vec<Entry>> {
    // Once for all: otherwise every value is looked through for what is no UTF-8.
    let text = str::from_utf8(answer).ok()?;
    let records: Vec<Scanned<'_>> = serde_json::from_str(text).ok()?;
    Some(records.into_iter().map(|record| record.entry(answer)).collect())
}

/// A record whose fields have been read.
struct Scanned<'a> {
    record_id: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    first_key: &'a str,
    last_value: &'a str,
}

impl Scanned<'_> {
    fn entry(self, answer: &[u8]) -> Entry {
        let identity = self.record_id.zip(self.timestamp).and_then(|(id, timestamp)| Identity::read(id, timestamp));
        // Nothing but white space lies between the braces and what they hold.
        let is_brace = |byte: &u8| matches!(byte, b'{' | b'}');
        let (first, last) = (place(self.first_key, answer).start, place(self.last_value, answer).end);
        let start = answer[..first].iter().rposition(is_brace).unwrap_or(first);
        let end = answer[last..].iter().position(is_brace).map_or(last, |after| last + after + 1);
        Entry { identity, text: start..end }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scanned<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Scanned<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? else {
                    return Err(Error::custom("no fields"));
                };
                let mut record =
                    Scanned { record_id: None, timestamp: None, first_key: key.get(), last_value: value.get() };
                record.read(key, value)?;
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    record.last_value = value.get();
                    record.read(key, value)?;
                }
                Ok(record)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl<'a> Scanned<'a> {
    fn read<E: Error>(&mut self, key: &RawValue, value: &'a RawValue) -> Result<(), E> {
        let field = match key.get() {
            "\"recordId\"" => &mut self.record_id,
            "\"recordTimeStampISO\"" => &mut self.timestamp,
            // It might be one of them.
            written if written.contains('\\') => return Err(E::custom("a key with an escape")),
            _ => return Ok(()),
        };
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(E::custom("a field is there twice")),
        }
    }
}
