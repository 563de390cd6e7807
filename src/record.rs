//! A page of records as the service sent it, who its records are, and the proof that they were delivered.
//!
//! A record is never rebuilt: [`Page`] keeps the answer's bytes and where each record lies in them.
//! [`Delivered`] can only come from [`Page::deliver`], which writes and flushes, and a mark takes one by value: so
//! marking what was not delivered does not compile.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Where records are delivered.
pub trait Sink {
    /// Takes one record, JSON text without a line break.
    ///
    /// # Errors
    /// When it cannot be written; what was written since the last flush may be lost.
    fn record(&mut self, json: &[u8]) -> io::Result<()>;

    /// Hands over everything written so far.
    ///
    /// # Errors
    /// When it cannot be handed over.
    fn flush(&mut self) -> io::Result<()>;
}

/// What tells a record from every other: its id, and the time stamp that tells the versions of one id apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `recordId`
    pub record_id: String,
    /// `recordTimeStampISO`, the text as sent: an RFC 9557 time stamp
    pub timestamp: String,
}

/// Why an answer is no page.
#[derive(Debug, thiserror::Error)]
pub enum NoPage {
    /// The text is cut off or no JSON at all: another try may bring a better one.
    #[error("the answer is not JSON: {0}{1}")]
    NotJson(serde_json::Error, String),
    /// JSON, but not what a record-request answers: another try brings the same.
    #[error("the answer is not an array of records{0}")]
    NotRecords(String),
    /// A record without one of the fields that make its identity.
    #[error("record {0} of the answer has no readable identity: {1}")]
    NoIdentity(usize, serde_json::Error),
}

/// A record's place in the answer, and who it is.
#[derive(Debug)]
struct Entry {
    identity: Identity,
    text: Range<usize>,
}

/// The records of one answer, in the order of the answer: oldest first.
#[derive(Debug)]
pub struct Page {
    answer: Vec<u8>,
    entries: Vec<Entry>,
}

/// The fields of a record that the tap reads; all others pass unread.
#[derive(Deserialize)]
#[serde(expecting = "a record")]
struct Wire<'a> {
    #[serde(borrow, rename = "recordId")]
    record_id: Cow<'a, str>,
    #[serde(borrow, rename = "recordTimeStampISO")]
    timestamp: Cow<'a, str>,
}

impl Page {
    /// Reads the answer to a record-request.
    ///
    /// # Errors
    /// [`NoPage`] when the answer is no JSON array of records with an identity.
    pub fn parse(answer: Vec<u8>) -> Result<Page, NoPage> {
        let texts: Vec<&RawValue> = serde_json::from_slice(&answer).map_err(|error| {
            if error.is_data() {
                NoPage::NotRecords(excerpt(&answer))
            } else {
                NoPage::NotJson(error, excerpt(&answer))
            }
        })?;
        let mut entries = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().map(|text| text.get()).enumerate() {
            let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| NoPage::NoIdentity(index + 1, error))?;
            let start = text.as_ptr().addr() - answer.as_ptr().addr();
            entries.push(Entry {
                identity: Identity { record_id: wire.record_id.into_owned(), timestamp: wire.timestamp.into_owned() },
                text: start..start + text.len(),
            });
        }
        Ok(Page { answer, entries })
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Who the records are, in the order of the answer.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.entries.iter().map(|entry| &entry.identity)
    }

    /// Writes every record that is not among `known`, flushes, and only then says so.
    ///
    /// # Errors
    /// When the sink takes a record or the flush not; nothing may be marked then.
    pub fn deliver(&self, known: &HashSet<Identity>, sink: &mut impl Sink) -> io::Result<Delivered> {
        let mut written = 0;
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.identity)) {
            sink.record(&on_one_line(&self.answer[entry.text.clone()]))?;
            written += 1;
        }
        sink.flush()?;
        Ok(Delivered { count: self.entries.len(), written })
    }
}

/// The proof that every record of a page has been written and flushed. To mark takes one by value.
#[derive(Debug)]
#[must_use = "a delivered page is to be marked as read"]
pub struct Delivered {
    count: usize,
    written: usize,
}

impl Delivered {
    /// How many records the page holds: all of them are delivered, now or before.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many of them were written now.
    pub fn written(&self) -> usize {
        self.written
    }
}

/// The record's text as it came, or without the white space between its tokens where that holds a line break
/// (a line break within a JSON string is always escaped, RFC 8259 section 7).
fn on_one_line(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Cow::Borrowed(text);
    }
    let mut line = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in text {
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

/// The beginning of an answer, to quote behind an error; nothing where it may hold records: those are private.
fn excerpt(answer: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(answer);
    let text = text.trim();
    if text.is_empty() || text.starts_with('[') {
        return String::new();
    }
    let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    format!(": {:?}{cut}", text.chars().take(LONGEST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that remembers what it was given and when it was flushed.
    #[derive(Default)]
    struct Memory {
        lines: Vec<String>,
        flushed: usize,
    }

    impl Sink for Memory {
        fn record(&mut self, json: &[u8]) -> io::Result<()> {
            self.lines.push(String::from_utf8(json.to_vec()).unwrap());
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushed = self.lines.len();
            Ok(())
        }
    }

    fn deliver(answer: &str) -> Vec<String> {
        let mut sink = Memory::default();
        let page = Page::parse(answer.into()).unwrap();
        let delivered = page.deliver(&HashSet::new(), &mut sink).unwrap();
        assert_eq!((delivered.count(), delivered.written()), (page.len(), page.len()));
        assert_eq!(sink.flushed, sink.lines.len());
        sink.lines
    }

    #[test]
    fn a_record_passes_byte_for_byte() {
        let record = r#"{"recordId":"\u00e9\"1","recordTimeStampISO":"t", "x": [10.00, 1e400, 123456789012345678901234567890, -0.0, "\u2028\/"],"dataPayload":null,"a":1,"a":2}"#;
        assert_eq!(deliver(&format!("[{record} , {record}]")), [record, record]);
    }

    #[test]
    fn white_space_goes_where_it_holds_a_line_break_and_strings_stay() {
        let pretty = "[\n  {\n    \"recordId\" : \"a b\\\\\",\r\n\t\"recordTimeStampISO\": \"t \\\" \\n u\",\n    \"v\": [ 1.0 , {} ]\n  }\n]";
        assert_eq!(deliver(pretty), [r#"{"recordId":"a b\\","recordTimeStampISO":"t \" \n u","v":[1.0,{}]}"#]);
    }

    #[test]
    fn a_known_record_is_not_written_again_but_counts_as_delivered() {
        let page = Page::parse(
            br#"[{"recordId":"a","recordTimeStampISO":"1"},{"recordId":"a","recordTimeStampISO":"2"}]"#.to_vec(),
        )
        .unwrap();
        let known = HashSet::from([Identity { record_id: "a".into(), timestamp: "1".into() }]);
        let mut sink = Memory::default();
        let delivered = page.deliver(&known, &mut sink).unwrap();
        assert_eq!(sink.lines, [r#"{"recordId":"a","recordTimeStampISO":"2"}"#]);
        assert_eq!((delivered.count(), delivered.written()), (2, 1));
    }

    #[test]
    fn what_is_no_page_is_told_apart() {
        let error = |answer: &str| Page::parse(answer.into()).unwrap_err().to_string();
        assert_eq!(error("<html>"), r#"the answer is not JSON: expected value at line 1 column 1: "<html>""#);
        assert_eq!(error(r#"[{"recordId":"#), "the answer is not JSON: EOF while parsing a value at line 1 column 13");
        assert_eq!(error(r#"{"message":"x"}"#), r#"the answer is not an array of records: "{\"message\":\"x\"}""#);
        assert_eq!(
            error(r#"[{"recordId":"a","recordTimeStampISO":"t"},{"recordId":"a"}]"#),
            "record 2 of the answer has no readable identity: missing field `recordTimeStampISO` at line 1 column 16"
        );
        assert!(matches!(Page::parse(b"[7]".to_vec()), Err(NoPage::NoIdentity(1, ..))));
        assert!(matches!(Page::parse(b"[\"\xff\"]".to_vec()), Err(NoPage::NotJson(..))));
    }

    #[test]
    fn an_excerpt_is_short() {
        assert_eq!(excerpt(b" abc \n"), ": \"abc\"");
        assert_eq!(excerpt("é".repeat(5000).as_bytes()), format!(": {:?}…", "é".repeat(200)));
        assert_eq!(excerpt(b" [{\"dataPayload\":"), "");
    }
}
