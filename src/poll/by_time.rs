//! Reads a stream by time, whether or not its records are read, and marks nothing.
//!
//! Each page begins strictly after a time stamp. The bookmark is a time stamp up to which everything is written, so records that
//! share one are never split: the last one of a page that may not be the end is left to the next page. What would skip records ends
//! the run instead: a service that does not show the oldest records first, or not all records at one time stamp at once.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use jiff::Timestamp;

use super::Run;
use super::recent::Recent;
use super::ties::{Crowd, Next};
use crate::config::Config;
use crate::config::settings::MAX_RECORDS;
use crate::config::timestamp::{earlier, instant};
use crate::metrics::records;
use crate::record::{Fingerprint, Page};
use crate::streamduo::Count;

/// Why a service cannot be read by time, and what to do.
const NOT_OLDEST_FIRST: &str = "the service does not show the oldest records after a time stamp first, so reading by time would skip \
                                records: set `acknowledge` to `write` or `commit`, which read by read status";

/// Reads what comes after a time stamp.
#[derive(Debug)]
pub struct ByTime {
    /// `pageSize`
    page_size: usize,
    /// `replayOverlapSeconds`
    overlap: Duration,
    /// `startTimestamp`
    start: String,
    /// Everything up to this time stamp is written.
    bookmark: Option<String>,
    /// The next page begins after this time stamp.
    after: String,
    /// The records after it, while the next page does not show more than one time stamp of them.
    crowd: Crowd,
    /// Whether the service is known to show the oldest records first.
    is_oldest_first: bool,
    recent: Recent,
}

/// What was written of a page.
#[derive(Debug)]
pub struct Written {
    /// The records that this run had not written yet.
    pub new: Vec<Fingerprint>,
    /// Whether the stream ends here.
    pub is_last: bool,
}

/// The beginning of a page, up to where it is complete.
struct Stretch {
    page: Page,
    instants: Vec<Timestamp>,
    /// Whether it shows all records up to its last time stamp.
    is_complete: bool,
    is_last: bool,
}

impl ByTime {
    /// Reads from a bookmark on, or else from `startTimestamp`.
    pub fn new(config: &Config, bookmark: Option<&str>) -> ByTime {
        ByTime {
            page_size: config.page_size,
            overlap: config.replay_overlap,
            start: config.start_timestamp.clone(),
            bookmark: bookmark.map(str::to_owned),
            after: config.start_timestamp.clone(),
            crowd: Crowd::default(),
            is_oldest_first: false,
            recent: Recent::default(),
        }
    }

    /// Everything up to this time stamp is written.
    pub fn bookmark(&self) -> Option<&str> {
        self.bookmark.as_deref()
    }

    /// Goes to where a poll begins: `replayOverlapSeconds` before the bookmark, but not before `startTimestamp`.
    ///
    /// # Errors
    /// When there is no such time stamp.
    pub fn begin(&mut self) -> Result<()> {
        self.crowd = Crowd::default();
        let Some(bookmark) = &self.bookmark else { return Ok(()) };
        self.after = earlier(bookmark, self.overlap).map_err(|problem| anyhow!("before {bookmark}: {problem}"))?;
        let start = instant(&self.start);
        if instant(&self.after) < start && start < instant(bookmark) {
            self.after.clone_from(&self.start);
        }
        Ok(())
    }

    /// Reads the next page, and writes those of its records that this run has not written yet.
    ///
    /// # Errors
    /// When the service or the output fails, or records would be skipped.
    pub fn write_next(&mut self, run: &mut Run) -> Result<Written> {
        let Stretch { page, instants, is_complete, is_last } = self.read_next(run)?;
        let new = page.undelivered_fingerprints(|record| self.recent.copies(record));
        run.out.write(&page, |record| self.recent.copies(record))?;
        if let Some(last) = page.timestamps().last().filter(|_| is_complete) {
            self.after = last.clone().into_owned();
            let is_later = self.bookmark.as_ref().is_none_or(|bookmark| instant(bookmark) < instant(&last));
            self.bookmark = if is_later { Some(last.into_owned()) } else { self.bookmark.take() };
        }
        let bookmark = self.bookmark.as_deref().and_then(|bookmark| instant(bookmark).ok());
        let shown_again = bookmark.and_then(|bookmark| bookmark.checked_sub(self.overlap).ok());
        self.recent.add(instants.into_iter().zip(page.fingerprints()), shown_again.unwrap_or(Timestamp::MIN));
        Ok(Written { new, is_last })
    }

    /// Reads the next page up to where it is complete.
    fn read_next(&mut self, run: &mut Run) -> Result<Stretch> {
        loop {
            run.stop.check()?;
            let mut page = run.queue.since(&self.after, self.crowd.count(self.page_size, MAX_RECORDS))?;
            let mut instants = self.instants(&page)?;
            let Some(next) = Next::after(&page).filter(|_| !page.is_last()) else {
                self.crowd = Crowd::default();
                return Ok(Stretch { page, instants, is_complete: true, is_last: true });
            };
            if !next.is_one_stamp {
                self.check_order(instants[0], run)?;
                page.keep_first(next.behind);
                instants.truncate(next.behind);
                self.crowd = Crowd::default();
                return Ok(Stretch { page, instants, is_complete: true, is_last: false });
            }
            // The service may have held back more of them, and nothing comes after them that would tell.
            if page.is_short() && run.queue.since(&next.timestamp, Count::AtOnce(1))?.is_empty() {
                return Ok(Stretch { page, instants, is_complete: false, is_last: true });
            }
            if !self.crowd.grow(next.behind) {
                let (shown, timestamp) = (records(next.behind), next.timestamp);
                bail!(
                    "the service shows {shown} at {timestamp} and nothing after that time stamp with them, so reading by time \
                     would skip what it does not show: raise `maxAnswerMegabytes` or `requestTimeoutSeconds`"
                );
            }
        }
    }

    /// The instants of a page's records, in order.
    fn instants(&self, page: &Page) -> Result<Vec<Timestamp>> {
        if let Some(error) = page.missing_identity() {
            return Err(error.into());
        }
        let read = |text: &str| {
            instant(text).map_err(|problem| anyhow!("cannot read by time after recordTimeStampISO {text:?}: {problem}"))
        };
        let instants = page.timestamps().map(|timestamp| read(&timestamp)).collect::<Result<Vec<_>>>()?;
        if !instants.is_sorted() {
            bail!(NOT_OLDEST_FIRST);
        }
        let (after, first) = (&self.after, page.timestamps().next());
        if let Some(first) = first.filter(|first| instant(first) < instant(after)) {
            bail!(
                "asked for records after {after}, the service shows one at {first}: give `startTimestamp` with the offset that \
                 the stream's own time stamps have"
            );
        }
        Ok(instants)
    }

    /// Checks once that the service shows the oldest records after a time stamp, and not the newest: a request for a single record
    /// has to show no later one than the page begins with.
    fn check_order(&mut self, first: Timestamp, run: &mut Run) -> Result<()> {
        if !self.is_oldest_first {
            let oldest = run.queue.since(&self.after, Count::AtOnce(1))?;
            if self.instants(&oldest)?.first().is_none_or(|oldest| *oldest > first) {
                bail!(NOT_OLDEST_FIRST);
            }
            self.is_oldest_first = true;
        }
        Ok(())
    }
}
