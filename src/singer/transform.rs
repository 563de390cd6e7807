//! How a record is written: as it came, byte for byte, unless a setting or the selection asks for
//! something else.

use std::borrow::Cow;
use std::io;

use serde_json::value::RawValue;

use crate::config::timestamp::in_utc;
use crate::config::{PayloadFormat, TimestampFormat};
use crate::logging::shortened;
use crate::record::Members;
use crate::singer::columns::Splitter;
use crate::singer::selection::Selection;

/// The field with a record's time stamp.
pub const TIMESTAMP: &str = "recordTimeStampISO";

/// The field with what the producer wrote.
pub const PAYLOAD: &str = "dataPayload";

/// The field with what has no column, as JSON text, if the payload is written as columns.
pub const REST: &str = "dataPayloadRest";

/// A record cannot be written as the settings ask.
#[derive(Debug, thiserror::Error)]
#[error("{reason}; set `timestampFormat` to `original`, or `deadLetterFile` to put such records aside and go on")]
pub struct Unwritable {
    /// What is wrong with the record.
    pub reason: String,
}

/// What is done to every record.
#[derive(Debug, Default)]
pub struct Transform {
    /// The fields that are left away.
    pub selection: Selection,
    /// How the time stamp is written.
    pub timestamp: TimestampFormat,
    /// How the payload is written.
    pub payload: PayloadFormat,
    /// What writes it as columns, if the settings ask for that.
    pub splitter: Option<Splitter>,
}

impl Transform {
    /// The record as it is to be written.
    ///
    /// # Errors
    /// [`Unwritable`] when `timestampFormat` is `rfc3339` and the record's time stamp cannot be
    /// written in that form.
    pub fn apply<'a>(&mut self, record: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
        let as_it_is = self.timestamp == TimestampFormat::Original && self.payload == PayloadFormat::Json;
        if as_it_is && self.splitter.is_none() && self.selection.is_all() {
            return Ok(Cow::Borrowed(record));
        }
        let Ok(Members(mut fields)) = serde_json::from_slice(record) else {
            // It is not an object, so there is no field to change.
            return Ok(Cow::Borrowed(record));
        };
        // Of several payloads, the last one counts, as in any reader of JSON.
        let is_payload = |field: &mut (Cow<str>, _, _)| self.splitter.is_some() && field.0 == PAYLOAD;
        let payload = fields.extract_if(.., is_payload).map(|(.., payload)| payload).last();
        let mut out = Vec::with_capacity(record.len() + record.len() / 4);
        self.selection.cut_fields(Members(fields), &mut out, |name, selection, value, out| match name {
            TIMESTAMP if self.timestamp == TimestampFormat::Rfc3339 => {
                Ok(serde_json::to_writer(out, &rfc3339(value)?)?)
            }
            // A payload that is null stays null, which is what a column can hold.
            PAYLOAD if self.payload == PayloadFormat::String && value.get() != "null" => {
                Ok(serde_json::to_writer(out, &selection.kept(value)?)?)
            }
            _ => selection.cut(value, out),
        })?;
        if let Some(splitter) = &mut self.splitter {
            // Behind the other fields.
            out.pop();
            splitter.write(payload, &mut out)?;
            out.push(b'}');
        }
        Ok(Cow::Owned(out))
    }
}

/// The time stamp as `timestampFormat` `rfc3339` has it.
fn rfc3339(timestamp: &RawValue) -> io::Result<String> {
    let unreadable = |problem: String| {
        let reason = shortened(format!("{TIMESTAMP} {}: {problem}", timestamp.get()));
        io::Error::new(io::ErrorKind::InvalidData, Unwritable { reason })
    };
    let text: String = serde_json::from_str(timestamp.get()).map_err(|error| unreadable(error.to_string()))?;
    in_utc(&text).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::MAX_QUOTED;
    use crate::singer::selection::Metadata;
    use serde_json::json;

    const RECORD: &str = r#"{"recordId":"a", "recordTimeStampISO": "2022-02-01T15:16:23.716848-05:00[America/New_York]", "dataPayload": {"n": 10.00, "s": "é\n"}}"#;

    fn transformed(transform: &mut Transform, record: &str) -> String {
        String::from_utf8(transform.apply(record.as_bytes()).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn a_record_is_not_touched_without_need() {
        assert!(matches!(Transform::default().apply(b"not even JSON").unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn a_time_stamp_becomes_utc_to_the_last_digit() {
        let mut transform = Transform { timestamp: TimestampFormat::Rfc3339, ..Transform::default() };
        let written = transformed(&mut transform, RECORD);
        assert_eq!(
            written,
            r#"{"recordId":"a","recordTimeStampISO":"2022-02-01T20:16:23.716848Z","dataPayload":{"n": 10.00, "s": "é\n"}}"#
        );
        for (original, utc) in [
            ("2022-11-06T01:30:00-04:00[America/New_York]", "2022-11-06T05:30:00Z"),
            ("2022-11-06T01:30:00-05:00[America/New_York]", "2022-11-06T06:30:00Z"),
            ("2022-02-01T15:16:23.123456789Z[UTC]", "2022-02-01T15:16:23.123456789Z"),
            ("2022-02-01T15:16:23+00:00", "2022-02-01T15:16:23Z"),
            ("2022-02-01T15:16-05:00[Nowhere/Land]", "2022-02-01T20:16:00Z"),
            ("9999-12-31T23:59:59.999+00:00", "9999-12-31T23:59:59.999Z"),
        ] {
            let record = json!({"recordTimeStampISO": original}).to_string();
            assert_eq!(transformed(&mut transform, &record), json!({"recordTimeStampISO": utc}).to_string());
        }
    }

    #[test]
    fn a_time_stamp_that_is_none_is_an_error_that_names_the_setting() {
        let mut transform = Transform { timestamp: TimestampFormat::Rfc3339, ..Transform::default() };
        for stamp in ["\"yesterday\"", "\"2022-02-01T15:16:23\"", "7"] {
            let record = format!(r#"{{"recordTimeStampISO":{stamp}}}"#);
            let error = transform.apply(record.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("recordTimeStampISO {stamp}: ")), "{error}");
            assert!(error.contains("; set `timestampFormat` to `original`, or "), "{error}");
        }
    }

    #[test]
    fn an_error_quotes_only_the_beginning_of_a_long_time_stamp() {
        let mut transform = Transform { timestamp: TimestampFormat::Rfc3339, ..Transform::default() };
        let record = json!({"recordTimeStampISO": "é".repeat(1000)}).to_string();
        let error = transform.apply(record.as_bytes()).unwrap_err().to_string();
        let beginning = format!("recordTimeStampISO \"{}…; set ", "é".repeat(MAX_QUOTED - 20));
        assert!(error.starts_with(&beginning), "{error}");
    }

    #[test]
    fn a_payload_becomes_its_text() {
        let mut transform = Transform { payload: PayloadFormat::String, ..Transform::default() };
        let written: serde_json::Value = serde_json::from_str(&transformed(&mut transform, RECORD)).unwrap();
        assert_eq!(written["dataPayload"], json!(r#"{"n": 10.00, "s": "é\n"}"#));
        for (payload, text) in [("null", "null"), ("\"x\"", r#""\"x\"""#), ("1e400", r#""1e400""#), ("[ ]", r#""[ ]""#)]
        {
            let record = format!(r#"{{"dataPayload":{payload}}}"#);
            assert_eq!(transformed(&mut transform, &record), format!(r#"{{"dataPayload":{text}}}"#));
        }
    }

    #[test]
    fn what_is_deselected_is_gone_from_the_text_as_well() {
        let metadata: Vec<Metadata> = serde_json::from_value(json!([
            {"breadcrumb": ["properties", "dataPayload", "properties", "s"], "metadata": {"selected": false}},
            {"breadcrumb": ["properties", "recordTimeStampISO"], "metadata": {"selected": false}}
        ]))
        .unwrap();
        let mut transform = Transform {
            selection: Selection::new(&metadata, &[], None),
            payload: PayloadFormat::String,
            timestamp: TimestampFormat::Rfc3339,
            splitter: None,
        };
        assert_eq!(transformed(&mut transform, RECORD), r#"{"recordId":"a","dataPayload":"{\"n\":10.00}"}"#);
    }
}
