//! The proof that records were delivered.
//!
//! `Queue::mark` takes a [`Delivered`] by value, and there are two ways to get one: [`Peeked::deliver`], which writes and flushes a
//! page, and [`Committed::delivered`], which goes by what a target has returned or how it has ended. So code that marks what was
//! not delivered does not compile.

use std::io;
use std::ops::Deref;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::MessageWriter;
use super::fingerprints::Fingerprints;
use super::identity::Fingerprint;
use super::ledger::Ledger;
use super::page::{InvalidBody, Page};

/// A page that a peek has shown: nothing in it is marked yet, and every record can be delivered.
#[derive(Debug)]
pub struct Peeked(Page);

impl Peeked {
    /// Takes the answer to a peek.
    ///
    /// # Errors
    /// [`InvalidBody`] when a record has no identity: no target could tell it from others.
    pub fn new(page: Page) -> Result<Peeked, InvalidBody> {
        match page.missing_identity() {
            None => Ok(Peeked(page)),
            Some(error) => Err(error),
        }
    }

    /// Takes the answer to a peek, where records without an identity are put aside instead of delivered to a target.
    pub fn with_odd_records(page: Page) -> Peeked {
        Peeked(page)
    }

    /// Notes that the service may have capped the page, so that more records may follow although it is short.
    pub fn suspect_cap(&mut self) {
        self.0.suspect_cap();
    }

    /// Writes every record but those that are in the ledger and not known to be marked; flushes, and only then adds them to the
    /// ledger.
    ///
    /// # Errors
    /// When a record cannot be written, or handed over. Nothing may be marked then.
    pub fn deliver(self, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> io::Result<Delivered> {
        let Peeked(page) = self;
        let written = page.write(|record| ledger.unmarked_copies(record), out)?;
        ledger.add(&page);
        Ok(Delivered { count: page.len(), page, written })
    }
}

impl AsRef<Page> for Peeked {
    fn as_ref(&self) -> &Page {
        &self.0
    }
}

impl Deref for Peeked {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.0
    }
}

/// The proof that the records of a page have been written and flushed, or committed.
#[derive(Debug)]
#[must_use = "a delivered page is to be marked as read"]
pub struct Delivered {
    page: Page,
    count: usize,
    written: usize,
}

impl Delivered {
    /// How many records there are to mark, the oldest ones of the page: all of them are delivered, now or before, and not known to
    /// be marked.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The proof for no more than the `max` oldest of them.
    pub fn at_most(self, max: usize) -> Delivered {
        Delivered { count: self.count.min(max), ..self }
    }

    /// How many of them were written now.
    pub fn written(&self) -> usize {
        self.written
    }

    /// The page that was delivered.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// The records to mark.
    pub fn into_records(self) -> Page {
        self.page.oldest(self.count)
    }

    /// Reads the answer to the mark. An answer that repeats the delivered page is not parsed again, whether or not it shows
    /// the records as read already.
    ///
    /// # Errors
    /// [`InvalidBody`] when the answer is not a JSON array.
    pub fn parse_marked(self, answer: Bytes) -> Result<Page, InvalidBody> {
        if self.page.same_but_for_status(&answer) { Ok(self.page) } else { Page::parse(answer, self.count) }
    }
}

/// Which records a STATE covers: the `count` oldest unread ones. It stays small, however many they are. It cannot tell them from
/// the records that come after them if those are equal in everything, each to its counterpart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// The number of records.
    pub count: usize,
    /// SHA-256 over `recordId`, `recordTimeStampISO` and `dataPayload` of each, in order, in hexadecimal. Of each text it takes the
    /// length (8 bytes, little-endian) and the bytes (UTF-8); of one that is missing, the largest length and no bytes. Of a record
    /// without an identity it takes, in place of these three, a text that is missing and those before and after the read status.
    pub digest: String,
}

impl Bookmark {
    /// The bookmark that covers a page, and nothing else.
    pub fn of(page: &Page) -> Bookmark {
        let mut digest = Context::new(&SHA256);
        for record in page.records() {
            for text in record.distinctive_texts() {
                digest.update(&text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
                digest.update(text.unwrap_or_default());
            }
        }
        let digest = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Bookmark { count: page.len(), digest }
    }
}

/// A bookmark that the target has returned: it has committed what the bookmark covers. It can only be deserialized, and is to be
/// deserialized only from a STATE that came back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReturnedBookmark(Bookmark);

impl Deref for ReturnedBookmark {
    type Target = Bookmark;

    fn deref(&self) -> &Bookmark {
        &self.0
    }
}

/// Records that the target has committed and that are not known to be marked.
#[derive(Debug, Default)]
pub struct Committed(Fingerprints);

impl Committed {
    /// The records of a page, if they are the ones that the bookmark covers.
    pub fn prove(page: &Peeked, returned: &ReturnedBookmark) -> Option<Committed> {
        (Bookmark::of(page) == returned.0).then(|| Committed(page.fingerprints().collect()))
    }

    /// Adds records that a target has acknowledged.
    pub(super) fn extend(&mut self, records: Vec<Fingerprint>) {
        for record in records {
            self.0.add(record);
        }
    }

    /// Forgets the records that the page does not show: they are marked already.
    pub fn keep_shown(&mut self, page: &Page) {
        self.0.cut_down_to(&page.fingerprints().collect());
    }

    /// The committed records at the beginning of a page, if there are any.
    pub fn delivered(&self, page: Peeked) -> Option<Delivered> {
        let mut copies = Fingerprints::default();
        let is_committed = |record: &Fingerprint| copies.add(*record) <= self.copies(*record);
        let count = page.fingerprints().take_while(is_committed).count();
        (count > 0).then_some(Delivered { page: page.0, count, written: 0 })
    }

    /// How many copies of the record are committed, and not known to be marked.
    pub fn copies(&self, record: Fingerprint) -> usize {
        self.0.count(record)
    }

    /// How many records are left to mark.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all are marked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes records that are marked. Returns whether any of them was left to mark.
    pub fn note_marked(&mut self, records: impl IntoIterator<Item = Fingerprint>) -> bool {
        let before = self.0.len();
        for record in records {
            self.0.remove(record);
        }
        self.0.len() < before
    }
}
