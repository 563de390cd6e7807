//! A page of records as the service sent it, who its records are, and the proof that they were delivered.
//!
//! A record is never rebuilt: [`Page`] keeps the answer's bytes and where each record lies in them.
//!
//! [`Delivered`] is what a mark takes, by value. There are two ways to get one: [`Peeked::deliver`], which writes and flushes
//! a page that a peek has shown, and [`Committed::delivered`], which goes by the digest of a STATE that came back. So marking
//! what was not delivered does not compile.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::ops::{Deref, Range};
use std::sync::LazyLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};

// Named, so that tests/promise finds it too.
#[path = "record/scan.rs"]
mod scan;

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

    /// Takes the STATE that covers everything before it, and hands over all of it.
    ///
    /// # Errors
    /// When it cannot be handed over.
    fn state(&mut self, value: &Value) -> io::Result<()>;
}

/// What tells a record from every other: its id, and the time stamp that tells the versions of one id apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `recordId`
    pub record_id: String,
    /// `recordTimeStampISO`, the text as sent: an RFC 9557 time stamp
    pub timestamp: String,
}

impl Identity {
    /// The same, to remember.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.record_id, &self.timestamp)
    }
}

/// A record's identity in 128 bits, to remember it by: a hash (SipHash-1-3) under a key that each process draws at random.
///
/// Among 100,000 records, two share one with a probability of 10^-29; and nobody without the key can choose ids that do (unless
/// one of them is no Unicode text, and stands for itself as it is written).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u128);

impl Fingerprint {
    fn of(record_id: &str, timestamp: &str) -> Fingerprint {
        static KEYED: LazyLock<SipHasher13> = LazyLock::new(|| {
            // The way to random numbers that the standard library has.
            let random = || RandomState::new().build_hasher().finish();
            SipHasher13::new_with_keys(random(), random())
        });
        let mut hasher = *KEYED;
        hasher.write_usize(record_id.len());
        hasher.write(record_id.as_bytes());
        hasher.write(timestamp.as_bytes());
        Fingerprint(hasher.finish128().as_u128())
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Half of what is random already is enough to spread by.
        hasher.write_u64(self.0 as u64);
    }
}

/// Remembered records.
type Fingerprints = std::collections::HashSet<Fingerprint, foldhash::fast::RandomState>;

/// Why an answer is no page. No message quotes what may be a record: records are private.
#[derive(Debug, thiserror::Error)]
pub enum NoPage {
    /// The text is cut off or no JSON at all: another try may bring a better one.
    #[error("the answer is not JSON: {0}{1}")]
    NotJson(serde_json::Error, String),
    /// JSON, but not what a record-request answers: another try brings the same.
    #[error("the answer is not an array of records but {0}")]
    NotRecords(String),
    /// A record without one of the fields that make its identity.
    #[error("record {0} of the answer has no identity: {1}")]
    NoIdentity(usize, String),
}

/// A record's place in the answer, and who it is.
#[derive(Debug)]
struct Entry {
    span: Range<usize>,
    /// `None` where the record lacks one of the fields.
    who: Option<Who>,
    /// Where the value of `readStatus` is.
    read_status: Option<Range<usize>>,
}

/// Who a record is, and where it says so.
#[derive(Debug)]
struct Who {
    record_id: Range<usize>,
    timestamp: Range<usize>,
    fingerprint: Fingerprint,
}

impl Who {
    /// Reads the two fields of a record in `answer`, if they are strings.
    fn read(record_id: &RawValue, timestamp: &RawValue, answer: &[u8]) -> Option<Who> {
        Some(Who {
            fingerprint: Fingerprint::of(&said(record_id.get())?, &said(timestamp.get())?),
            record_id: place(record_id.get(), answer),
            timestamp: place(timestamp.get(), answer),
        })
    }
}

/// The records of one answer, in the order of the answer: oldest first.
#[derive(Debug)]
pub struct Page {
    answer: Bytes,
    entries: Vec<Entry>,
}

impl Page {
    /// Reads the answer to a record-request. A record whose identity cannot be told is kept: it can still be written.
    ///
    /// # Errors
    /// [`NoPage`] when the answer is no JSON array.
    pub fn parse(answer: Bytes) -> Result<Page, NoPage> {
        let entries = match scan::entries(&answer) {
            Some(entries) => entries,
            None => take_apart(&answer)?,
        };
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

    /// The records as they were sent, in the order of the answer.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| &self.answer[entry.span.clone()])
    }

    /// Who the records are, in the order of the answer, as far as they say so.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        self.identities_said().map(|(record_id, timestamp)| Identity {
            record_id: record_id.into_owned(),
            timestamp: timestamp.into_owned(),
        })
    }

    /// Who the oldest record is.
    pub fn first(&self) -> Option<Identity> {
        self.identities().next()
    }

    /// Who the records are, to remember.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.entries.iter().filter_map(|entry| Some(entry.who.as_ref()?.fingerprint))
    }

    fn identities_said(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.entries.iter().filter_map(|entry| {
            let who = entry.who.as_ref()?;
            Some((self.said(&who.record_id)?, self.said(&who.timestamp)?))
        })
    }

    /// What a string in the answer says.
    fn said(&self, span: &Range<usize>) -> Option<Cow<'_, str>> {
        said(str::from_utf8(&self.answer[span.clone()]).ok()?)
    }

    /// The records that are not known to be delivered.
    fn undelivered(&self, known: impl Fn(Fingerprint) -> bool) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| !entry.who.as_ref().is_some_and(|who| known(who.fingerprint)))
    }

    /// The ids of the records that are not known to be delivered, as far as they have one.
    pub fn ids_undelivered(&self, known: impl Fn(Fingerprint) -> bool) -> Vec<Cow<'_, str>> {
        self.undelivered(known)
            .map(|entry| {
                let id = entry.who.as_ref().and_then(|who| self.said(&who.record_id));
                id.unwrap_or(Cow::Borrowed("without an id"))
            })
            .collect()
    }

    /// Writes every record that is not known to be delivered, and flushes. Returns how many.
    ///
    /// # Errors
    /// When the sink does not take a record, or the flush.
    pub fn write(&self, known: impl Fn(Fingerprint) -> bool, sink: &mut impl Sink) -> io::Result<usize> {
        let mut written = 0;
        // Once for all: a record alone is too short to look through.
        let breaks = has_line_break(&self.answer);
        for entry in self.undelivered(known) {
            let text = &self.answer[entry.span.clone()];
            sink.record(&if breaks { on_one_line(text) } else { Cow::Borrowed(text) })?;
            written += 1;
        }
        sink.flush()?;
        Ok(written)
    }

    /// The records of the page that the service has as read (`readStatus` is a string, and a boolean may be met).
    pub fn already_read(mut self) -> Page {
        let answer = &self.answer;
        self.entries.retain(|entry| {
            entry.read_status.clone().is_some_and(|status| matches!(&answer[status], b"true" | b"\"true\""))
        });
        self
    }

    /// Whether an answer is this one, byte for byte, but for what it says of which records are read.
    fn is_but_for_status(&self, answer: &[u8]) -> bool {
        const STATUSES: [&[u8]; 5] = [b"\"true\"", b"\"false\"", b"true", b"false", b"null"];
        let (mut from, mut rest) = (0, answer);
        for status in self.entries.iter().filter_map(|entry| entry.read_status.clone()) {
            let Some(behind) = rest.strip_prefix(&self.answer[from..status.start]) else { return false };
            let Some(behind) = STATUSES.iter().find_map(|other| behind.strip_prefix(*other)) else { return false };
            (from, rest) = (status.end, behind);
        }
        rest == &self.answer[from..]
    }
}

/// A page that a peek has shown: nothing in it is marked yet, and every record has an identity.
#[derive(Debug)]
pub struct Peeked(Page);

impl Peeked {
    /// Takes the answer to a peek.
    ///
    /// # Errors
    /// [`NoPage`] when a record has no identity: it could not be told from others.
    pub fn new(page: Page) -> Result<Peeked, NoPage> {
        match page.entries.iter().position(|entry| entry.who.is_none()) {
            None => Ok(Peeked(page)),
            Some(index) => {
                let text = &page.answer[page.entries[index].span.clone()];
                Err(NoPage::NoIdentity(index + 1, what_lacks(text)))
            }
        }
    }

    /// Writes every record that is not among `written`, flushes, and only then adds them and says so.
    ///
    /// # Errors
    /// When the sink does not take a record, or the flush; nothing may be marked then.
    pub fn deliver(self, written: &mut Written, sink: &mut impl Sink) -> io::Result<Delivered> {
        let Peeked(page) = self;
        let new = page.write(|record| written.knows(record), sink)?;
        let unmarked: Vec<_> = page.fingerprints().filter(|record| !written.marked.contains(record)).collect();
        let count = unmarked.len();
        written.unmarked.extend(unmarked);
        Ok(Delivered { page, count, written: new })
    }
}

impl Deref for Peeked {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.0
    }
}

/// The proof that every record of a page has been written and flushed, or committed. To mark takes one by value.
#[derive(Debug)]
#[must_use = "a delivered page is to be marked as read"]
pub struct Delivered {
    page: Page,
    count: usize,
    written: usize,
}

impl Delivered {
    /// How many records there are to mark: all of them are delivered, now or before, and not known to be marked.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many of them were written now.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Reads the answer to the mark. One that is what the peek has shown needs no second reading, whether or not it shows the
    /// records as read already.
    ///
    /// # Errors
    /// [`NoPage`] when the answer is no JSON array.
    pub fn read_marked(self, answer: Bytes) -> Result<Page, NoPage> {
        if self.page.is_but_for_status(&answer) { Ok(self.page) } else { Page::parse(answer) }
    }
}

/// The records that a run has written and flushed, as long as the service may show them again.
#[derive(Debug, Default)]
pub struct Written {
    /// Not known to be marked.
    unmarked: Fingerprints,
    /// Marked, by the last answer to a mark.
    marked: Fingerprints,
}

impl Written {
    /// Whether this run has written the record.
    pub fn knows(&self, record: Fingerprint) -> bool {
        self.unmarked.contains(&record) || self.marked.contains(&record)
    }

    /// How many records may still be unread for the service.
    pub fn unmarked(&self) -> usize {
        self.unmarked.len()
    }

    /// The records of this answer are marked. They are remembered until the next answer, lest a peek still shows them.
    /// Returns whether the answer tells anything: of a record that was to be marked, or of one that was not known.
    pub fn mark(&mut self, answer: &Page) -> bool {
        let news = answer.fingerprints().any(|record| !self.marked.contains(&record));
        self.marked.clear();
        for record in answer.fingerprints() {
            self.unmarked.remove(&record);
            self.marked.insert(record);
        }
        news
    }

    /// Whether the page shows a record that the last answer to a mark has shown as well.
    pub fn is_marked_in(&self, page: &Page) -> bool {
        page.fingerprints().any(|record| self.marked.contains(&record))
    }

    /// Forgets what the page does not show; returns how many records.
    pub fn keep_shown(&mut self, page: &Page) -> usize {
        let shown: Fingerprints = page.fingerprints().collect();
        let before = self.unmarked.len();
        self.unmarked.retain(|record| shown.contains(record));
        before - self.unmarked.len()
    }
}

/// Which records a STATE covers: so many of the oldest unread ones, and who they are. However many they are, it stays small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// How many.
    pub count: usize,
    /// SHA-256 over their identities, in order, in hexadecimal: of each text its length (8 bytes, little-endian) and its
    /// bytes (UTF-8), `recordId` first.
    pub digest: String,
}

impl Covered {
    /// What a STATE written now covers: the page, and nothing else.
    pub fn by(page: &Page) -> Covered {
        let mut digest = Sha256::new();
        for (record_id, timestamp) in page.identities_said() {
            for text in [record_id, timestamp] {
                digest.update((text.len() as u64).to_le_bytes());
                digest.update(text.as_bytes());
            }
        }
        let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Covered { count: page.len(), digest }
    }
}

/// What a STATE covers that came back. There is no other way to one than to read it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CameBack(Covered);

impl CameBack {
    /// What it covers.
    pub fn covered(&self) -> &Covered {
        &self.0
    }
}

/// Records that the target has committed, for a STATE that covers them came back, and that are not known to be marked.
#[derive(Debug)]
pub struct Committed(Fingerprints);

impl Committed {
    /// The records of a page, if they are the ones that the STATE covers.
    pub fn prove(page: &Peeked, state: &CameBack) -> Option<Committed> {
        (Covered::by(page) == state.0).then(|| Committed(page.fingerprints().collect()))
    }

    /// The records at the beginning of a page that are committed, if there are any.
    pub fn delivered(&self, page: Peeked) -> Option<Delivered> {
        let count = page.fingerprints().take_while(|record| self.knows(*record)).count();
        (count > 0).then_some(Delivered { page: page.0, count, written: 0 })
    }

    /// Whether the record is committed.
    pub fn knows(&self, record: Fingerprint) -> bool {
        self.0.contains(&record)
    }

    /// How many are left to mark.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all are marked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The records of this answer are marked. Returns whether any of them was to be marked.
    pub fn mark(&mut self, answer: &Page) -> bool {
        let before = self.0.len();
        for record in answer.fingerprints() {
            self.0.remove(&record);
        }
        self.0.len() < before
    }
}

/// The records of any answer: the answer is taken apart first, and each record then.
fn take_apart(answer: &[u8]) -> Result<Vec<Entry>, NoPage> {
    let texts: Vec<&RawValue> = serde_json::from_slice(answer).map_err(|error| {
        if error.is_data() { NoPage::NotRecords(outline(answer)) } else { NoPage::NotJson(error, excerpt(answer)) }
    })?;
    let entry = |text: &&RawValue| Entry {
        span: place(text.get(), answer),
        who: who(text.get(), answer),
        read_status: read_status(text.get(), answer),
    };
    Ok(texts.iter().map(entry).collect())
}

/// Who a record of `answer` is, if it says so.
fn who(record: &str, answer: &[u8]) -> Option<Who> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow, rename = "recordId")]
        record_id: &'a RawValue,
        #[serde(borrow, rename = "recordTimeStampISO")]
        timestamp: &'a RawValue,
    }
    let Fields { record_id, timestamp } = read_object(record)?;
    Who::read(record_id, timestamp, answer)
}

/// Where a record of `answer` says whether it is read, if it does.
fn read_status(record: &str, answer: &[u8]) -> Option<Range<usize>> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow, rename = "readStatus")]
        status: &'a RawValue,
    }
    let Fields { status } = read_object(record)?;
    Some(place(status.get(), answer))
}

/// The fields of an object: serde would take those of an array as well, by their places.
fn read_object<'a, T: Deserialize<'a>>(record: &'a str) -> Option<T> {
    serde_json::from_str(record.starts_with('{').then_some(record)?).ok()
}

/// What a JSON string says, if it is one. One that is no Unicode text (a lone surrogate, which JSON can write) stands for itself
/// as it is written.
fn said(written: &str) -> Option<Cow<'_, str>> {
    let plain = written.strip_prefix('"')?.strip_suffix('"')?;
    Some(if memchr::memchr(b'\\', plain.as_bytes()).is_some() {
        serde_json::from_str(written).map_or(Cow::Borrowed(written), Cow::Owned)
    } else {
        Cow::Borrowed(plain)
    })
}

/// Where a part of the answer lies in it.
fn place(part: &str, answer: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - answer.as_ptr().addr();
    start..start + part.len()
}

/// Why a record has no identity, without quoting it.
fn what_lacks(record: &[u8]) -> String {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(record) else {
        return "it is no object".to_owned();
    };
    for name in ["recordId", "recordTimeStampISO"] {
        match fields.get(name) {
            None => return format!("`{name}` is missing"),
            Some(Value::String(_)) => {}
            Some(_) => return format!("`{name}` is not a string"),
        }
    }
    "a field is there twice".to_owned()
}

/// The text as it came, or without the white space between its tokens where that holds a line break
/// (a line break within a JSON string is always escaped, RFC 8259 section 7).
pub fn on_one_line(json: &[u8]) -> Cow<'_, [u8]> {
    if !has_line_break(json) {
        return Cow::Borrowed(json);
    }
    let mut line = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
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

fn has_line_break(json: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', json).is_some()
}

/// What an answer is that is JSON and no array: never its values, which may be records.
fn outline(answer: &[u8]) -> String {
    match serde_json::from_slice(answer) {
        Ok(Value::Object(object)) => {
            let keys: Vec<_> = object.keys().take(5).map(|key| format!("{key:?}")).collect();
            format!("an object with the keys [{}]", keys.join(", "))
        }
        _ => "another value".to_owned(),
    }
}

/// The beginning of a text that is no JSON, to quote behind an error; nothing where it may be the beginning of records.
fn excerpt(answer: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(answer);
    let text = text.trim();
    if text.is_empty() || text.starts_with(['[', '{']) {
        return String::new();
    }
    let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    format!(": {:?}{cut}", text.chars().take(LONGEST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

        fn state(&mut self, _value: &Value) -> io::Result<()> {
            unreachable!("a page writes no STATE")
        }
    }

    fn peeked(answer: &str) -> Peeked {
        Peeked::new(Page::parse(answer.to_owned().into()).unwrap()).unwrap()
    }

    fn page(identities: &[(&str, &str)]) -> Peeked {
        let records: Vec<_> = identities
            .iter()
            .map(|(id, stamp)| format!(r#"{{"recordId":"{id}","recordTimeStampISO":"{stamp}"}}"#))
            .collect();
        peeked(&format!("[{}]", records.join(",")))
    }

    fn deliver(answer: &str) -> Vec<String> {
        let mut sink = Memory::default();
        let page = peeked(answer);
        let count = page.len();
        assert_eq!(page.deliver(&mut Written::default(), &mut sink).unwrap().count(), count);
        assert_eq!((sink.flushed, sink.lines.len()), (count, count));
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
    fn a_written_record_is_not_written_again_but_counts_as_delivered() {
        let mut written = Written::default();
        let mut sink = Memory::default();
        let _ = page(&[("a", "1")]).deliver(&mut written, &mut sink).unwrap();
        let delivered = page(&[("a", "1"), ("a", "2")]).deliver(&mut written, &mut sink).unwrap();
        assert_eq!((delivered.count(), delivered.written(), sink.lines.len(), written.unmarked()), (2, 1, 2, 2));
        assert!(written.mark(&page(&[("a", "1")])));
        assert!(!written.mark(&page(&[("a", "1")])), "it was told before");
        assert!(!written.mark(&page(&[])));
        assert!(written.mark(&page(&[("a", "1")])));
        assert_eq!(written.unmarked(), 1);
        assert!(written.is_marked_in(&page(&[("b", "1"), ("a", "1")])));
        assert!(!written.is_marked_in(&page(&[("a", "2")])));
        assert_eq!(written.keep_shown(&page(&[])), 1);
    }

    #[test]
    fn the_answer_to_a_mark_tells_what_is_marked_whether_the_peek_has_shown_it_or_not() {
        let shown = [("a", "1"), ("b", "1")];
        let delivered = || page(&shown).deliver(&mut Written::default(), &mut Memory::default()).unwrap();
        for marked in [&shown[..], &[("a", "1"), ("b", "1"), ("z", "1")], &[("a", "1"), ("z", "1")], &[]] {
            let answer = page(marked).0;
            let expected: Vec<_> = answer.identities().collect();
            let read = delivered().read_marked(answer.answer).unwrap();
            assert_eq!(read.identities().collect::<Vec<_>>(), expected);
        }
        assert!(delivered().read_marked(Bytes::from_static(b"[")).is_err());
    }

    #[test]
    fn an_answer_is_known_by_all_but_its_read_status() {
        let shown = r#"[{"recordId":"a","readStatus":"false","recordTimeStampISO":"t"}, {"recordTimeStampISO":"t","recordId":"b","readStatus":null}]"#;
        let page = Page::parse(shown.into()).unwrap();
        let with = |from: &str, to: &str| page.is_but_for_status(shown.replace(from, to).as_bytes());
        assert!(with("", ""));
        for status in [r#""true""#, r#""false""#, "true", "false", "null"] {
            assert!(with(r#""false""#, status) && with("null", status), "{status}");
        }
        for (from, to) in [
            (r#""false""#, r#""x","recordId":"z""#),
            (r#""false""#, "truer"),
            (r#""false""#, ""),
            ("null", r#"true,"recordId":"z""#),
            (r#""a""#, r#""z""#),
            (r#""b""#, r#""z""#),
            ("null}", "null,\"x\":1}"),
            ("]", r#",{"recordId":"c","recordTimeStampISO":"t"}]"#),
            ("]", ""),
        ] {
            assert!(!with(from, to), "{from} {to}");
        }
        assert!(!page.is_but_for_status(b""));
    }

    #[test]
    fn a_fingerprint_tells_where_the_id_ends() {
        assert_eq!(Fingerprint::of("a", "1"), Fingerprint::of("a", "1"));
        let all = [("a", "11"), ("a1", "1"), ("a11", ""), ("", "a11"), ("a", "1")];
        let different: Fingerprints = all.iter().map(|(id, stamp)| Fingerprint::of(id, stamp)).collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn an_answer_reads_the_same_whether_it_is_scanned_or_taken_apart() {
        let plain = r#"{"recordId":"\u0061","recordTimeStampISO":"t","dataPayload":{"recordId":"no"}}"#;
        for (record, scanned) in [
            (plain, true),
            (r#"{ "x" : [ 1 ] , "recordTimeStampISO" : "t" , "recordId" : "a" }"#, true),
            (r#"{"recordTimeStampISO":"t","recordId":7}"#, true),
            (r#"{"recordTimeStampISO":"t"}"#, true),
            (r#"{"\u0072ecordId":"a","recordTimeStampIS\u004f":"t"}"#, true),
            (r#"{"recordId":"a","recordTimeStampISO":"t","x":{"{":"}"} }"#, true),
            (r#"{"recordId":"a","recordTimeStampISO":"t","x":"}"}"#, true),
            (r#"{"recordId":"a","recordId":"b","recordTimeStampISO":"t"}"#, false),
            (r#"{"recordId":"a","\u0072ecordId":"b","recordTimeStampISO":"t"}"#, false),
            ("{}", false),
            ("7", false),
            (r#"["a","t"]"#, false),
        ] {
            let answer = format!(" [ {record} ,\n{record}] ");
            let page = Page::parse(answer.clone().into()).unwrap();
            assert_eq!(scan::entries(answer.as_bytes()).is_some(), scanned, "{record}");
            assert_eq!(page.texts().collect::<Vec<_>>(), [record.as_bytes(), record.as_bytes()]);
            let who = who(record, record.as_bytes()).map(|who| who.fingerprint);
            assert_eq!(page.fingerprints().next(), who, "{record}");
            assert_eq!(page.identities().next().map(|identity| identity.fingerprint()), who, "{record}");
        }
    }

    /// Any answer, with what may lead astray whoever looks for braces: in strings, behind white space, in odd records.
    fn any_answer() -> impl Strategy<Value = String> {
        const TEXTS: [&str; 9] =
            [r#""""#, r#""}""#, r#""{""#, r#""\"}""#, r#""\\""#, r#""},{""#, r#""\ud800""#, r#""\u007d""#, r#""é""#];
        const ODD_KEYS: [&str; 4] = [r#""\u0072ecordId""#, r#""recordTimeStampIS\u004f""#, r#""readStatus""#, r#""x""#];
        const SCALARS: [&str; 7] = ["1e400", "-0", "123456789012345678901234567890.10", "null", "true", "{}", "[]"];
        let space = || prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t")];
        let string = || prop::sample::select(&TEXTS[..]).prop_map(str::to_owned);
        let key = prop_oneof![
            6 => Just(r#""recordId""#.to_owned()),
            6 => Just(r#""recordTimeStampISO""#.to_owned()),
            2 => prop::sample::select(&ODD_KEYS[..]).prop_map(str::to_owned),
            2 => string(),
        ];
        let list = |items: Vec<String>, [open, close]: [char; 2]| format!("{open}{}{close}", items.join(","));
        let object = move |value: BoxedStrategy<String>| {
            let field = (space(), key.clone(), space(), value, space())
                .prop_map(|(a, key, b, value, c)| format!("{a}{key}{b}:{value}{c}"));
            prop::collection::vec(field, 0..5).prop_map(move |fields| list(fields, ['{', '}']))
        };
        let leaf = prop_oneof![3 => string(), 1 => prop::sample::select(&SCALARS[..]).prop_map(str::to_owned)];
        let fields = object.clone();
        let value = leaf.prop_recursive(2, 8, 3, move |value| {
            let array = prop::collection::vec(value.clone(), 0..3).prop_map(move |items| list(items, ['[', ']']));
            prop_oneof![array, fields(value.boxed())]
        });
        let record = prop_oneof![9 => object(value.clone().boxed()), 1 => value];
        let records = prop::collection::vec((space(), record, space()), 0..4);
        (space(), records, space()).prop_map(move |(before, records, after)| {
            let records = records.into_iter().map(|(a, record, b)| format!("{a}{record}{b}")).collect();
            format!("{before}{}{after}", list(records, ['[', ']']))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_answer_reads_the_same_whether_it_is_scanned_or_taken_apart(
            answer in any_answer(),
            damage in prop::option::of((any::<prop::sample::Index>(), prop::sample::select(&b"{}[],:\"\\ \n\xff\0"[..]))),
        ) {
            let mut answer = answer.into_bytes();
            if let Some((place, byte)) = damage {
                let place = place.index(answer.len());
                answer[place] = byte;
            }
            let seen = |entries: Vec<Entry>| -> Vec<_> {
                let who = |who: Who| (who.record_id, who.timestamp, who.fingerprint);
                entries.into_iter().map(|entry| (entry.span, entry.who.map(who), entry.read_status)).collect()
            };
            if let Some(scanned) = scan::entries(&answer) {
                let apart = take_apart(&answer);
                prop_assert!(apart.is_ok(), "{apart:?}");
                prop_assert_eq!(seen(scanned), seen(apart.unwrap()));
            }
        }
    }

    #[test]
    fn an_id_that_is_no_unicode_text_stands_for_itself() {
        let page = peeked(r#"[{"recordId":"\ud800","recordTimeStampISO":"\u0074"}]"#);
        let identity = Identity { record_id: r#""\ud800""#.to_owned(), timestamp: "t".to_owned() };
        assert_eq!(page.identities().collect::<Vec<_>>(), [identity]);
    }

    #[test]
    fn what_is_no_page_is_told_apart_and_not_quoted() {
        let error = |answer: &str| Page::parse(answer.to_owned().into()).and_then(Peeked::new).unwrap_err().to_string();
        assert_eq!(error("<html>"), r#"the answer is not JSON: expected value at line 1 column 1: "<html>""#);
        assert_eq!(error(r#"[{"recordId":"#), "the answer is not JSON: EOF while parsing a value at line 1 column 13");
        assert_eq!(
            error(r#"{"records":["private"],"n":1}"#),
            r#"the answer is not an array of records but an object with the keys ["records", "n"]"#
        );
        assert_eq!(error(r#""private""#), "the answer is not an array of records but another value");
        let no_identity = |record: &str| error(&format!(r#"[{{"recordId":"a","recordTimeStampISO":"t"}},{record}]"#));
        for (record, problem) in [
            (r#"{"recordId":"private"}"#, "`recordTimeStampISO` is missing"),
            (r#"{"recordTimeStampISO":"t","recordId":null}"#, "`recordId` is not a string"),
            (r#"{"recordTimeStampISO":"t","recordId":"a","recordId":"b"}"#, "a field is there twice"),
            (r#""private""#, "it is no object"),
            (r#"["private","t"]"#, "it is no object"),
        ] {
            assert_eq!(no_identity(record), format!("record 2 of the answer has no identity: {problem}"));
        }
        assert!(matches!(Page::parse(Bytes::from_static(b"[\"\xff\"]")), Err(NoPage::NotJson(..))));
    }

    #[test]
    fn an_excerpt_is_short() {
        assert_eq!(excerpt(b" abc \n"), ": \"abc\"");
        assert_eq!(excerpt("é".repeat(5000).as_bytes()), format!(": {:?}…", "é".repeat(200)));
        assert_eq!(excerpt(b" [{\"dataPayload\":"), "");
    }

    #[test]
    fn a_digest_tells_who_and_in_which_order() {
        let covered = Covered::by(&page(&[("a", "1"), ("b", "2")]));
        // printf '\1\0\0\0\0\0\0\0a\1\0\0\0\0\0\0\0001\1\0\0\0\0\0\0\0b\1\0\0\0\0\0\0\0002' | sha256sum
        assert_eq!(covered.digest, "8f3b38fadbc769fb2596a15bffac27cf871aaa64dbda44357b76882c2c1299d9");
        let state = CameBack(covered);
        assert!(Committed::prove(&page(&[("a", "1"), ("b", "2")]), &state).is_some());
        for other in [&[("b", "2"), ("a", "1")][..], &[("a", "1")], &[("a1", ""), ("b", "2")], &[]] {
            assert!(Committed::prove(&page(other), &state).is_none(), "{other:?}");
        }
    }

    #[test]
    fn only_what_is_committed_at_the_beginning_of_a_page_counts_as_delivered() {
        let both = [("a", "1"), ("b", "2")];
        let known = page(&both);
        let mut committed = Committed::prove(&known, &CameBack(Covered::by(&known))).unwrap();
        let count = |committed: &Committed, identities: &[(&str, &str)]| {
            committed.delivered(page(identities)).map(|delivered| delivered.count())
        };
        assert_eq!(count(&committed, &both), Some(2));
        assert_eq!(count(&committed, &[("a", "1"), ("c", "1"), ("b", "2")]), Some(1));
        assert_eq!(count(&committed, &[("c", "1"), ("a", "1")]), None);
        assert!(committed.mark(&page(&[("a", "1")])));
        assert!(!committed.mark(&page(&[("a", "1"), ("z", "1")])));
        assert_eq!((count(&committed, &both), committed.len()), (None, 1));
    }

    #[test]
    fn read_records_are_told_by_their_status() {
        let answer = r#"[{"recordId":"a","recordTimeStampISO":"t","readStatus":"true"},
            {"recordId":"b","recordTimeStampISO":"t","readStatus":true},
            {"recordId":"c","recordTimeStampISO":"t","readStatus":"false"},
            {"recordId":"d","recordTimeStampISO":"t","readStatus":null},
            {"recordId":"e","recordTimeStampISO":"t"},
            ["true"]]"#;
        let read = Page::parse(answer.into()).unwrap().already_read();
        assert_eq!(read.identities().map(|identity| identity.record_id).collect::<Vec<_>>(), ["a", "b"]);
    }
}
