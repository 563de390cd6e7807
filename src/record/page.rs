//! The records of one answer.
//!
//! A record is never rebuilt: [`Page`] keeps the answer's bytes, and where each record lies in
//! them.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use bytes::Bytes;
use jiff::Timestamp;

use super::MessageWriter;
use super::identity::{Fingerprint, Fingerprints};
use super::invalid::diagnose;
use super::ledger::Ledger;
use super::members::Texts;
use super::parse::{Entry, Record, entries};
use super::text::{has_line_break, in_utf_8, on_one_line};

/// How long an answer took, and when it was complete.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Until its head arrived.
    pub first_byte: Duration,
    /// From then on, until its last byte.
    pub transfer: Duration,
    /// When that arrived.
    pub arrived: Timestamp,
}

/// The records of one answer, in the order of the answer: oldest first.
#[derive(Debug)]
pub struct Page {
    answer: Bytes,
    entries: Vec<Entry>,
    /// How long the answer took, and when it was complete.
    pub timing: Timing,
    /// Whether the page is shorter than what was asked for.
    pub is_short: bool,
    /// Whether the stream ends with this page: it is short, and the service is not suspected of
    /// capping pages there. Means nothing for the answer to a mark.
    pub is_last: bool,
}

impl Page {
    /// Reads the answer to a record-request that asked for `asked` records, and has arrived now. A
    /// record without an identity is kept: it can still be written.
    ///
    /// # Errors
    /// When the answer is not a JSON array.
    pub fn parse(answer: Bytes, asked: usize) -> Result<Page> {
        let answer = in_utf_8(answer);
        let entries = entries(str::from_utf8(&answer).unwrap_or_default()).ok_or_else(|| diagnose(&answer))?;
        let is_short = entries.len() < asked;
        let timing = Timing { arrived: Timestamp::now(), ..Timing::default() };
        Ok(Page { answer, entries, timing, is_short, is_last: is_short })
    }

    /// The size of the answer, in bytes.
    pub fn bytes(&self) -> usize {
        self.answer.len()
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of the oldest records lie in the first `bytes` bytes of the answer.
    pub fn len_within(&self, bytes: usize) -> usize {
        self.entries.iter().take_while(|entry| entry.span.end <= bytes).count()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The records as they were sent.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| &self.answer[entry.span.clone()])
    }

    /// The records.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record<'_>> + ExactSizeIterator {
        self.entries.iter().map(|entry| entry.record(&self.answer))
    }

    /// The first time stamp that a record of the page has.
    pub fn first_timestamp(&self) -> Option<String> {
        self.records().find_map(|record| record.timestamp).map(Cow::into_owned)
    }

    /// The last time stamp that one of the oldest `count` records has.
    pub fn last_timestamp_of(&self, count: usize) -> Option<String> {
        self.records().take(count).rev().find_map(|record| record.timestamp).map(Cow::into_owned)
    }

    /// The time stamps of a page that was asked for after `timestamp`: one for each record, as
    /// sent. A record without one takes that of the record before it, else that of the first record
    /// that has one, else `timestamp`.
    pub fn timestamps_after<'a>(&'a self, timestamp: &'a str) -> Vec<Cow<'a, str>> {
        let mut last = self.first_timestamp().map_or(Cow::Borrowed(timestamp), Cow::Owned);
        let known = |record: Record<'a>| {
            last = record.timestamp.unwrap_or(std::mem::take(&mut last));
            last.clone()
        };
        self.records().map(known).collect()
    }

    /// Counts records whose time stamp is not valid as records without one.
    pub fn drop_invalid_timestamps(&mut self, is_valid: impl Fn(&str) -> bool) {
        for entry in &mut self.entries {
            if !entry.record(&self.answer).timestamp.is_some_and(|timestamp| is_valid(&timestamp)) {
                entry.timestamp = None;
            }
        }
    }

    /// The fingerprints of the records.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.entries.iter().map(|entry| entry.fingerprint)
    }

    /// The entries of the records that are not known, each once.
    fn unknown_entries(&self, is_known: impl Fn(Fingerprint) -> bool) -> impl Iterator<Item = &Entry> {
        let mut seen = Fingerprints::with_capacity_and_hasher(self.len(), Default::default());
        self.entries.iter().filter(move |entry| !is_known(entry.fingerprint) && seen.insert(entry.fingerprint))
    }

    /// The records that are not known, each once, and their ids, or "without an id".
    pub fn unknown(&self, is_known: impl Fn(Fingerprint) -> bool) -> impl Iterator<Item = (Fingerprint, Cow<'_, str>)> {
        self.unknown_entries(is_known).map(|entry| {
            let id = entry.record(&self.answer).record_id.unwrap_or(Cow::Borrowed("without an id"));
            (entry.fingerprint, id)
        })
    }

    /// Writes the records that are not known, and flushes. Returns how many the writer has taken.
    pub fn write_unknown(
        &self,
        is_known: impl Fn(Fingerprint) -> bool,
        out: &mut dyn MessageWriter,
    ) -> io::Result<usize> {
        out.look_ahead(self);
        let mut written = 0;
        let time_extracted = format!("{:.6}", self.timing.arrived);
        // One search for the whole page: a record alone is too short for one to pay.
        let has_breaks = has_line_break(&self.answer);
        for entry in self.unknown_entries(is_known) {
            let text = &self.answer[entry.span.clone()];
            let text = if has_breaks { on_one_line(text) } else { Cow::Borrowed(text) };
            if entry.has_identity() {
                out.record(&text, &time_extracted)?;
            } else {
                out.dead_letter(&text, &self.why_no_identity(entry), &time_extracted)?;
            }
            written += 1;
        }
        out.flush()?;
        Ok(written)
    }

    /// Writes some of the records, and flushes; only then adds them to the ledger. Returns how many
    /// the writer has taken.
    pub fn write(&self, some: &[Fingerprint], ledger: &mut Ledger, out: &mut dyn MessageWriter) -> io::Result<usize> {
        let some: Fingerprints = some.iter().copied().collect();
        let written = self.write_unknown(|record| !some.contains(&record), out)?;
        ledger.add(some);
        Ok(written)
    }

    /// Writes a record as one that no target loads, and flushes.
    pub(super) fn write_odd(&self, record: Fingerprint, reason: &str, out: &mut dyn MessageWriter) -> io::Result<()> {
        let time_extracted = format!("{:.6}", self.timing.arrived);
        if let Some(entry) = self.entries.iter().find(|entry| entry.fingerprint == record) {
            out.dead_letter(&on_one_line(&self.answer[entry.span.clone()]), reason, &time_extracted)?;
        }
        out.flush()
    }

    /// The records of the page that the service has as read, or has not.
    pub fn that_are_read(mut self, are_read: bool) -> Page {
        self.entries.retain(|entry| entry.record(&self.answer).is_read == are_read);
        self
    }

    /// The page with its `count` oldest records.
    pub fn oldest(mut self, count: usize) -> Page {
        self.entries.truncate(count);
        self
    }

    /// Whether an answer shows the oldest `count` records and nothing else, byte for byte but for
    /// what it says of which are read.
    pub(super) fn same_but_for_status(&self, count: usize, answer: &[u8]) -> bool {
        const STATUSES: [&[u8]; 4] = [b"\"true\"", b"\"false\"", b"true", b"false"];
        let oldest = &self.entries[..count];
        let Some(last) = oldest.last() else { return false };
        let mut from = 0;
        let mut rest = answer;
        for status in oldest.iter().filter_map(|entry| entry.read_status.clone()) {
            let Some(behind) = rest.strip_prefix(&self.answer[from..status.start]) else { return false };
            let Some(behind) = STATUSES.iter().find_map(|other| behind.strip_prefix(*other)) else { return false };
            from = status.end;
            rest = behind;
        }
        rest.strip_prefix(&self.answer[from..last.span.end]).is_some_and(|end| end.trim_ascii() == b"]")
    }

    /// The page up to the first record without an identity, which no target could tell from others.
    /// More follows then.
    pub fn before_odd(self) -> Page {
        match self.odd() {
            Some(index) => Page { is_short: false, is_last: false, ..self.oldest(index) },
            None => self,
        }
    }

    /// Where the first record without an identity is.
    pub(super) fn odd(&self) -> Option<usize> {
        self.entries.iter().position(|entry| !entry.has_identity())
    }

    /// The error about the first record without an identity, if there is one.
    pub fn missing_identity(&self) -> Option<Error> {
        self.odd().map(|index| self.no_identity(index))
    }

    /// The error about this record, which has no identity.
    pub(super) fn no_identity(&self, index: usize) -> Error {
        let why = self.why_no_identity(&self.entries[index]);
        let number = index + 1;
        anyhow!(
            "record {number} of the answer has no identity: {why}; set `deadLetterFile` to put such records aside and go on"
        )
    }

    /// Why a record has no identity, without quoting it.
    fn why_no_identity(&self, entry: &Entry) -> String {
        let record = &self.answer[entry.span.clone()];
        let Ok(fields) = serde_json::from_slice::<Texts>(record) else {
            let is_object = record.starts_with(b"{");
            return if is_object { "a name in it is not Unicode text" } else { "it is not an object" }.to_owned();
        };
        for name in ["recordId", "recordTimeStampISO"] {
            match fields.get(name) {
                None => return format!("`{name}` is missing"),
                Some(value) if !value.get().starts_with('"') => return format!("`{name}` is not a string"),
                Some(_) => {}
            }
        }
        match (&entry.record_id, &entry.timestamp) {
            (Some(_), None) => "`recordTimeStampISO` is not a time stamp with an offset".to_owned(),
            _ => "a field is there twice".to_owned(),
        }
    }
}
