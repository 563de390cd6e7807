//! Reads a stream by time, whether or not its records are read, and marks nothing.
//!
//! Each page begins strictly after a time stamp. The bookmark is a time stamp up to which
//! everything is written, so records that share one are never split: the last one of a page that
//! may not be the end is left to the next page. What would skip records ends the run instead: a
//! service that does not show the oldest records first, or not all records at one time stamp at
//! once.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use jiff::SignedDuration;

use super::cursor::Cursor;
use super::run::Run;
use crate::config::Config;
use crate::config::timestamp::{earlier, instant};
use crate::metrics::records;
use crate::record::{Bookmark, Fingerprint, Fingerprints, Page};
use crate::singer::state::TimeBookmark;
use crate::streamduo::queue::Count;

/// Why a service cannot be read by time, and what to do.
const NOT_OLDEST_FIRST: &str = "the service does not show the oldest records after a time stamp first, so reading by time would skip \
                                records: set `acknowledge` to `write` or `commit`, which read what is unread";

/// Reads what comes after a time stamp.
#[derive(Debug)]
pub struct ByTime {
    /// `pageSize`
    page_size: usize,
    /// `replayOverlapSeconds`
    overlap: Duration,
    /// `startTimestamp`
    start: String,
    /// Whether `deadLetterFile` takes records without a time stamp: see [`Page::timestamps_after`].
    has_dead_letter_file: bool,
    /// What is written.
    bookmark: TimeBookmark,
    cursor: Cursor,
    /// Whether the service is known to show the oldest records first.
    is_oldest_first: bool,
    /// Whether the last page has shown the end of the stream.
    is_at_end: bool,
    /// The records that this run has written and the service may show again, also in their order.
    written: Fingerprints,
    in_order: VecDeque<(SignedDuration, Fingerprint)>,
}

impl ByTime {
    /// Reads from a bookmark on, or else from `startTimestamp`.
    pub fn new(config: &Config, bookmark: TimeBookmark) -> ByTime {
        ByTime {
            page_size: config.page_size,
            overlap: config.replay_overlap,
            start: config.start_timestamp.clone(),
            has_dead_letter_file: config.dead_letter_file.is_some(),
            bookmark,
            cursor: Cursor::at(config.start_timestamp.clone()),
            is_oldest_first: false,
            is_at_end: false,
            written: Fingerprints::default(),
            in_order: VecDeque::new(),
        }
    }

    /// What is written.
    pub fn bookmark(&self) -> &TimeBookmark {
        &self.bookmark
    }

    /// Whether the stream ends with what was written last.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Goes to where a poll begins: `replayOverlapSeconds` before the bookmark, but not before
    /// `startTimestamp`.
    pub fn begin(&mut self) -> Result<()> {
        let mut after = self.start.clone();
        if let Some(bookmark) = &self.bookmark.timestamp {
            let early = earlier(bookmark, self.overlap)
                .map_err(|problem| anyhow!("lower `replayOverlapSeconds`, for before {bookmark}: {problem}"))?;
            let start = instant(&self.start);
            if instant(&early) >= start || start >= instant(bookmark) {
                after = early;
            }
        }
        self.cursor = Cursor::at(after);
        Ok(())
    }

    /// Reads the next page, and writes those of its records that this run has not written yet.
    /// Returns how many.
    ///
    /// # Errors
    /// When the service or the output fails, or records would be skipped.
    pub fn write_next(&mut self, run: &mut Run) -> Result<usize> {
        let (page, instants, is_complete) = self.read_next(run)?;
        // What an earlier run has written of the records that ended the stream.
        let at_end = self.bookmark.at_end.take().filter(|at_end| at_end.begins(&page));
        let at_end: Fingerprints = page.fingerprints().take(at_end.map_or(0, |at_end| at_end.count)).collect();
        let new = run.out.write(&page, |record| self.written.contains(&record) || at_end.contains(&record))?;
        if let Some(last) = page.timestamps_after(self.cursor.after()).pop().filter(|_| is_complete) {
            let last = last.into_owned();
            if self.bookmark.timestamp.as_ref().is_none_or(|bookmark| instant(bookmark) < instant(&last)) {
                self.bookmark.timestamp = Some(last.clone());
            }
            self.cursor = Cursor::at(last);
        }
        self.bookmark.at_end = (!is_complete).then(|| Bookmark::of(&page));
        self.remember(&page, instants);
        Ok(new)
    }

    /// Remembers the records of a page as long as the service may show them again.
    fn remember(&mut self, page: &Page, instants: Vec<SignedDuration>) {
        let bookmark = self.bookmark.timestamp.as_deref().and_then(|bookmark| instant(bookmark).ok());
        let overlap = SignedDuration::try_from(self.overlap).unwrap_or_default();
        let from = bookmark.map_or(SignedDuration::MIN, |bookmark| bookmark.saturating_sub(overlap));
        for (at, record) in instants.into_iter().zip(page.fingerprints()) {
            if at >= from && self.written.insert(record) {
                self.in_order.push_back((at, record));
            }
        }
        while let Some((_, record)) = self.in_order.pop_front_if(|(at, _)| *at < from) {
            self.written.remove(&record);
        }
    }

    /// Reads the next page up to its last time stamp, with the instants of its records. Returns
    /// also whether it shows all records up to there.
    fn read_next(&mut self, run: &mut Run) -> Result<(Page, Vec<SignedDuration>, bool)> {
        self.is_at_end = false;
        loop {
            run.stop.check()?;
            let mut page = self.cursor.read(self.page_size, run)?;
            let mut instants = self.instants(&mut page)?;
            let Some((count, timestamp)) = self.cursor.next(&page) else {
                self.is_at_end = true;
                return Ok((page, instants, true));
            };
            if count < page.len() {
                self.check_order(&page, instants[0], run)?;
                instants.truncate(count);
                return Ok((page.oldest(count), instants, true));
            }
            // The service may have held back more of them, and nothing comes after them that would
            // tell.
            if page.is_short && !shows_more(&page, &timestamp, run)? {
                self.is_at_end = true;
                return Ok((page, instants, false));
            }
            if !self.cursor.ask_for_more(count) {
                let shown = records(count);
                bail!(
                    "the service shows {shown} at {timestamp} at once and nothing after them, so reading by time \
                     would skip the records that it does not show: raise `maxAnswerMegabytes` or \
                     `requestTimeoutSeconds`"
                );
            }
        }
    }

    /// The instants of a page's records, in order.
    fn instants(&self, page: &mut Page) -> Result<Vec<SignedDuration>> {
        if self.has_dead_letter_file {
            page.drop_invalid_timestamps(|timestamp| instant(timestamp).is_ok());
        } else if let Some(error) = page.missing_identity() {
            return Err(error);
        }
        let read = |text: &str| {
            instant(text).map_err(|problem| {
                anyhow!(
                    "cannot read by time after recordTimeStampISO {text:?}: {problem}; set `deadLetterFile` to put such records \
                     aside and go on"
                )
            })
        };
        let after = self.cursor.after();
        let timestamps = page.timestamps_after(after);
        let instants = timestamps.iter().map(|timestamp| read(timestamp)).collect::<Result<Vec<_>>>()?;
        if !instants.is_sorted() {
            bail!(NOT_OLDEST_FIRST);
        }
        if let Some(first) = timestamps.first().filter(|first| instant(first) < instant(after)) {
            bail!(
                "asked for records after {after}, the service shows one at {first}: give `startTimestamp` with the offset that \
                 the stream's own time stamps have"
            );
        }
        Ok(instants)
    }

    /// Checks once that the service shows the oldest records after a time stamp, and not the
    /// newest: a request for a single record has to show the one that the page begins with, or one
    /// that is no later.
    fn check_order(&mut self, page: &Page, first: SignedDuration, run: &mut Run) -> Result<()> {
        if self.is_oldest_first {
            return Ok(());
        }
        let mut oldest = run.queue.since(self.cursor.after(), Count::AtOnce(1))?;
        let instants = self.instants(&mut oldest)?;
        let is_first = oldest.fingerprints().next() == page.fingerprints().next();
        let has_stamp = oldest.records().any(|record| record.timestamp.is_some());
        if !is_first && (!has_stamp || instants[0] > first) {
            bail!(NOT_OLDEST_FIRST);
        }
        self.is_oldest_first = true;
        Ok(())
    }
}

/// Whether the service shows records after a time stamp that a page up to it does not show. It may
/// show some of that page again: those at its end without a time stamp, or all at the last one.
fn shows_more(page: &Page, timestamp: &str, run: &mut Run) -> Result<bool> {
    let unplaced = page.records().rev().take_while(|record| record.timestamp.is_none()).count();
    let known: Fingerprints = page.fingerprints().collect();
    for count in [1 + unplaced, page.len() + 1] {
        let more = run.queue.since(timestamp, Count::AtOnce(count))?;
        let is_more = more.fingerprints().any(|record| !known.contains(&record));
        if is_more || more.is_short {
            return Ok(is_more);
        }
    }
    Ok(false)
}
