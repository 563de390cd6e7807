//! A stored record: its text, and where its parts are.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::store::{Identity, Record};

/// The `readStatus` of an unread record. That of a read record is `true`.
const UNREAD: &str = "false";

/// A part of a record's text: the offsets of its first byte and of the byte after its last. Empty
/// if the text lacks it.
type Span = (u32, u32);

/// A stored record.
#[derive(Debug)]
pub(crate) struct Entry {
    text: Box<str>,
    /// `recordId` and `recordTimeStampISO` as JSON string literals, and the payload.
    id: Span,
    stamp: Span,
    payload: Span,
    /// The offset of [`UNREAD`]; `None` for a text that does not say so.
    status: Option<u32>,
}

/// The parts of a text that is served as it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    record_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "recordTimeStampISO")]
    stamp: Option<&'a RawValue>,
    #[serde(borrow)]
    data_payload: Option<&'a RawValue>,
    #[serde(borrow)]
    read_status: Option<&'a RawValue>,
}

impl Entry {
    pub(crate) fn new(stream_id: &str, record_id: &str, stamp: &str, payload: &str) -> Entry {
        let mut text = String::with_capacity(160 + record_id.len() + stream_id.len() + stamp.len() + payload.len());
        let mut put = |key: &str, literal: &str| -> Span {
            text.push_str(key);
            let from = offset(text.len());
            text.push_str(literal);
            (from, offset(text.len()))
        };
        let id = put(r#"{"recordId":"#, &quoted(record_id));
        put(r#","streamId":"#, &quoted(stream_id));
        let stamp = put(r#","recordTimeStampISO":"#, &quoted(stamp));
        let status = put(r#","readStatus":""#, UNREAD).0;
        let payload = put(r#"","dataPayload":"#, payload);
        text.push('}');
        Entry { text: text.into_boxed_str(), id, stamp, payload, status: Some(status) }
    }

    pub(crate) fn verbatim(text: &str) -> Entry {
        let fields: Option<Fields<'_>> = serde_json::from_str(text).ok();
        let span = |part: Option<&RawValue>| part.map_or((0, 0), |part| span_in(text, part.get()));
        let Some(fields) = fields else {
            return Entry { id: (0, 0), stamp: (0, 0), payload: (0, 0), text: text.into(), status: None };
        };
        let status = fields.read_status.filter(|status| status.get().trim_matches('"') == UNREAD);
        Entry {
            id: span(fields.record_id),
            stamp: span(fields.stamp),
            payload: span(fields.data_payload),
            text: text.into(),
            status: status.map(|status| span(Some(status)).0 + u32::from(status.get().starts_with('"'))),
        }
    }

    /// The length of the text in bytes.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// Empty for a text without one.
    pub(crate) fn record_id(&self) -> String {
        self.decode(self.id)
    }

    fn part(&self, span: Span) -> &str {
        self.text.get(span.0 as usize..span.1 as usize).unwrap_or_default()
    }

    /// The value of a string literal in the text; empty if there is none.
    fn decode(&self, span: Span) -> String {
        serde_json::from_str(self.part(span)).unwrap_or_default()
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity { record_id: self.record_id(), timestamp: self.decode(self.stamp) }
    }

    pub(crate) fn record(&self) -> Record {
        let payload = self.part(self.payload).to_owned();
        Record { identity: self.identity(), json: self.text.to_string(), payload }
    }

    pub(crate) fn write_to(&self, body: &mut Vec<u8>, read: bool) {
        match self.status {
            Some(status) if read => {
                let (head, tail) = self.text.split_at(status as usize);
                body.extend_from_slice(head.as_bytes());
                body.extend_from_slice(b"true");
                body.extend_from_slice(tail.strip_prefix(UNREAD).unwrap_or(tail).as_bytes());
            }
            _ => body.extend_from_slice(self.text.as_bytes()),
        }
    }
}

/// `text` as a JSON string literal.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The span of `part`, which must be a slice of `text`.
fn span_in(text: &str, part: &str) -> Span {
    let from = part.as_ptr() as usize - text.as_ptr() as usize;
    (offset(from), offset(from + part.len()))
}

/// An offset in a record's text. Beyond 4 GB it is wrong: the record's parts would be empty, its
/// text would be complete.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
