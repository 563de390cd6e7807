//! The proof that records were delivered.
//!
//! `Queue::mark` takes a [`Delivered`] by value, and there are two ways to get one:
//! [`Peeked::deliver`], which writes and flushes a page, and [`Ledger::delivered`], which goes by
//! what a target has returned or how it has ended, and what was put aside. So code that marks what
//! was not delivered does not compile.

use std::io;
use std::ops::Deref;

use anyhow::Result;
use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::MessageWriter;
use super::identity::Fingerprint;
use super::in_flight::Returned;
use super::ledger::Ledger;
use super::page::Page;

/// A page that a peek has shown: nothing in it is marked yet, and every record can be delivered.
#[derive(Debug)]
pub struct Peeked(Page);

impl Peeked {
    /// Takes the answer to a peek, up to the first record without an identity.
    ///
    /// # Errors
    /// When the oldest record has none: all that came before it is marked by then.
    pub fn new(page: Page) -> Result<Peeked> {
        match page.odd() {
            Some(0) => Err(page.no_identity(0)),
            _ => Ok(Peeked(page.before_odd())),
        }
    }

    /// Takes the answer to a peek; records without an identity become dead letters.
    pub fn with_odd_records(page: Page) -> Peeked {
        Peeked(page)
    }

    /// The page, which is not to be marked.
    pub fn into_page(self) -> Page {
        self.0
    }

    /// Writes the records that are not in the ledger; flushes, and only then adds them to it.
    pub fn deliver(self, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> io::Result<Delivered> {
        let written = self.write_unknown(|record| ledger.contains(record), out)?;
        ledger.add(self.fingerprints());
        Ok(Delivered { count: self.len(), page: self.0, written })
    }
}

impl Deref for Peeked {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.0
    }
}

/// The proof that the oldest records of a page have been written and flushed, or committed.
#[derive(Debug)]
#[must_use = "mark it as read; dropped, the page only comes again"]
pub struct Delivered {
    page: Page,
    count: usize,
    written: usize,
}

impl Delivered {
    /// The proof for the oldest records of a page, which are committed. `None` if there are none.
    pub(super) fn committed(page: Peeked, count: usize) -> Option<Delivered> {
        (count > 0).then_some(Delivered { page: page.0, count, written: 0 })
    }

    /// How many records there are to mark: the oldest ones of the page.
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

    /// The records to mark, in order.
    pub fn to_mark(&self) -> impl Iterator<Item = Fingerprint> {
        self.page.fingerprints().take(self.count)
    }

    /// The record behind those to mark. Once they are marked, and nothing else, the next page
    /// begins with it.
    pub fn fence(&self) -> Option<Fingerprint> {
        self.page.fingerprints().nth(self.count)
    }

    /// The page with the records to mark, and no others.
    pub fn into_records(self) -> Page {
        self.page.oldest(self.count)
    }

    /// Reads the answer to the mark. An answer that repeats what was to be marked is not parsed
    /// again, whether or not it shows the records as read already.
    ///
    /// # Errors
    /// When the answer is not a JSON array.
    pub fn parse_marked(self, answer: Bytes) -> Result<Page> {
        let is_same = self.page.same_but_for_status(self.count, &answer);
        if is_same { Ok(self.into_records()) } else { Page::parse(answer, self.count) }
    }
}

/// Which records a STATE covers: the `count` oldest unread ones. It stays small, however many they
/// are. It cannot tell them from the records behind them if each of those is equal in everything to
/// its counterpart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// The number of records.
    pub count: usize,
    /// SHA-256 over `recordId`, `recordTimeStampISO` and `dataPayload` of each, in order, in
    /// hexadecimal. Of each text it takes the length (8 bytes, little-endian) and the bytes
    /// (UTF-8); of one that is missing, the largest length and no bytes. Of a record without an
    /// identity it takes, in place of these three, a text that is missing and those before and
    /// after the read status.
    pub digest: String,
}

impl Bookmark {
    /// The bookmark that covers a page, and nothing else.
    pub fn of(page: &Page) -> Bookmark {
        Bookmark::of_oldest(page, page.len())
    }

    /// Whether a page begins with what the bookmark covers.
    pub fn begins(&self, page: &Page) -> bool {
        self.count <= page.len() && *self == Bookmark::of_oldest(page, self.count)
    }

    fn of_oldest(page: &Page, count: usize) -> Bookmark {
        let mut digest = Context::new(&SHA256);
        for record in page.records().take(count) {
            for text in record.distinctive_texts() {
                digest.update(&text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
                digest.update(text.unwrap_or_default());
            }
        }
        let digest = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Bookmark { count, digest }
    }
}

/// A bookmark that came back: the target has committed what it covers.
pub type ReturnedBookmark = Returned<Bookmark>;

/// Records that a target was given between two STATEs.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The records.
    pub records: Vec<Fingerprint>,
    /// The ids of some of them, for an error.
    pub ids: Vec<String>,
    /// How many of them the target has got: the others were put aside.
    pub written: usize,
    /// Whether they were marked before they were written: they slipped in before a mark.
    pub slipped_in: bool,
}
