//! The marks, and the fence that proves what they have hit.
//!
//! A mark hits whatever is oldest at that moment, and its answer may be lost, late, or belong to
//! another attempt. So the last record of a full page is not marked together with the others. It is
//! the fence: the next page has to begin with it.
//!
//! If the mark's answer is exactly what was to be marked, and the next page begins with the fence,
//! the page is done. After anything else, something may be marked that this run has not seen: the
//! marker looks back, and delivers what the service shows as read and this run has not written.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use log::warn;

use super::look_back::{Found, look_back};
use super::run::Run;
use crate::config::Config;
use crate::config::timestamp::instant;
use crate::record::{Delivered, Fingerprint, Fingerprints, Page, Peeked};
use crate::streamduo::Tuning;
use crate::streamduo::queue::{Count, Marked};
use crate::streamduo::retry::Retry;

/// While a lost mark may still be applied, the marker looks back at each page that is smaller. In
/// front of the fence of a larger one, exactly as many records would have to slip in as the mark
/// hits.
const SMALL_PAGE: usize = 1_000;

/// How often in a row a page of records that are equal in everything may be shown again after it
/// was marked: there may be that many more of them.
const MAX_EQUAL_PAGES: usize = 100;

/// The last mark, with which the next page is compared. If there was a peek since, and no mark was
/// sent after it, there is only the fence: the first record that it has shown.
#[derive(Debug, Default)]
struct LastMark {
    /// What the next page has to begin with.
    fence: Option<Fingerprint>,
    /// What was to be marked, or, if the answer shows other records, those.
    marked: Fingerprints,
    /// The oldest record that was to be marked, unless the answer shows that the mark has hit
    /// others.
    oldest: Option<Fingerprint>,
    /// The first and the last time stamp of what was to be marked.
    timestamps: [Option<String>; 2],
    /// Whether the stream ended with the page that was marked.
    is_end: bool,
    /// Whether the mark was answered, or none was sent.
    is_answered: bool,
    /// Whether it is known what was marked: exactly what was to be, or nothing, because no mark was
    /// sent. Only then the fence proves that nothing else is.
    is_exact: bool,
    /// What a look back has shown as read right before.
    read: Fingerprints,
}

impl LastMark {
    /// No mark is sent yet, and the next page has to begin with this record.
    fn not_sent(fence: Option<Fingerprint>) -> LastMark {
        LastMark { fence, is_answered: true, is_exact: true, ..LastMark::default() }
    }

    /// A mark that is sent now.
    fn sent(delivered: &Delivered, by_id: bool) -> LastMark {
        let page = delivered.page();
        let marked: Fingerprints = delivered.to_mark().collect();
        LastMark {
            fence: delivered.fence().filter(|fence| !by_id && !marked.contains(fence)),
            marked,
            oldest: delivered.to_mark().next(),
            timestamps: [page.first_timestamp(), page.last_timestamp_of(delivered.count())],
            is_end: page.is_last,
            ..LastMark::default()
        }
    }
}

/// Peeks and marks for a mode, and delivers what a mark has hit unseen.
#[derive(Debug)]
pub struct Marker {
    last: LastMark,
    /// A look back begins after this time stamp.
    from: Option<String>,
    /// How many marks may still be applied, because their answers were lost, and how long the last
    /// of them may be.
    lost: usize,
    lost_until: Instant,
    /// How long a mark may be under way: twice `requestTimeoutSeconds`.
    max_delay: Duration,
    /// The most records that were marked at once, and that were shown at once.
    most_marked: usize,
    most_shown: usize,
    /// The most records that a peek has asked for. A look back asks for no more at once.
    most_asked: usize,
    equal_pages: usize,
    ineffective: Retry,
    found: Found,
}

impl Marker {
    /// Nothing is peeked or marked yet.
    pub fn new(config: &Config, tuning: Tuning) -> Marker {
        Marker {
            last: LastMark::not_sent(None),
            from: None,
            lost: 0,
            lost_until: Instant::now(),
            max_delay: 2 * config.request_timeout,
            most_marked: 0,
            most_shown: 0,
            most_asked: 1,
            equal_pages: 0,
            ineffective: tuning.retries,
            found: Found::default(),
        }
    }

    /// Peeks at the oldest unread records. Delivers first what a mark may have hit unseen.
    pub fn peek(&mut self, count: Count, run: &mut Run) -> Result<Peeked> {
        self.found = Found::default();
        self.most_asked = self.most_asked.max(count.max());
        loop {
            run.stop.check()?;
            let page = run.queue.peek(count)?;
            if self.accept(&page, run)? {
                return Ok(page);
            }
        }
    }

    /// Marks the oldest records of a page that were delivered, but for the fence. What the answer
    /// shows besides them is delivered at once. Returns whether the whole page is known to be
    /// marked: never by id, where the next peek tells.
    pub fn mark(&mut self, delivered: Delivered, run: &mut Run) -> Result<bool> {
        self.found = Found::default();
        let by_id = run.queue.marks_by_id();
        let max = delivered.count().min(run.queue.max_marked()).max(1);
        let count = if by_id { max } else { count_before_fence(delivered.page(), max) };
        let is_whole = count == delivered.page().len();
        let delivered = delivered.at_most(count);
        let last = LastMark::sent(&delivered, by_id);
        let to_mark: Vec<_> = delivered.to_mark().collect();
        self.most_marked = self.most_marked.max(count);
        match run.queue.mark(delivered)? {
            Marked::Answered(answer) => {
                let is_exact = answer.fingerprints().eq(to_mark);
                self.last = LastMark { is_answered: true, is_exact: is_exact || by_id, ..last };
                run.out.metrics.count_marked(answer.len());
                if !is_exact {
                    self.deliver_answer(&answer, run)?;
                    // An id that is not found marks nothing.
                    self.last.oldest.take_if(|_| by_id && answer.is_empty());
                }
                // An id does not reach a record that is equal to a later one: the next page shows
                // it.
                Ok(is_whole && is_exact && !by_id && !self.may_be_applied())
            }
            Marked::Unknown(error) => {
                // A mark by id can be repeated, and hits nothing else.
                if !by_id {
                    self.last = last;
                    self.lost += 1;
                    self.lost_until = Instant::now() + self.max_delay;
                }
                run.stop.check()?;
                error.map_or(Ok(false), Err)
            }
            // Nothing was applied: the next page begins as this one did.
            Marked::Refused => Ok(false),
        }
    }

    /// Whether a mark whose answer was lost may still be applied.
    pub fn may_be_applied(&self) -> bool {
        self.lost > 0 && Instant::now() < self.lost_until
    }

    /// What the last peek or mark has shown as read, and what it has delivered.
    pub fn take_found(&mut self) -> Found {
        let mut found = std::mem::take(&mut self.found);
        if self.last.is_exact {
            found.read.extend(&self.last.marked);
        }
        found
    }

    /// Looks once for what a mark may have hit unseen, before a run ends that would have gone on.
    pub fn end_early(&mut self, run: &mut Run) {
        let fence = self.last.fence;
        let is_sure = self.last.is_exact && !self.may_be_applied();
        if is_sure && (fence.is_none() || self.last.marked.is_empty()) {
            return;
        }
        run.stop.defer();
        // A run that is ending looks back once.
        run.queue.policy.max_retries = 0;
        if is_sure && let Ok(page) = run.queue.peek(Count::AtOnce(1)) {
            if page.fingerprints().next() == fence {
                return;
            }
            self.begin_no_later_than(&page);
        }
        self.look_once(run);
    }

    /// Looks back, and says so if something may be lost all the same.
    pub fn look_once(&mut self, run: &mut Run) {
        // Whatever this finds, the fence proves nothing any more: the next page is checked, too.
        self.last.is_exact = false;
        let looked_back = self.look_back(run).map(|found| self.found.add(found));
        if looked_back.is_err() || self.may_be_applied() {
            let since = self.from.as_ref().map_or_else(String::new, |from| format!(" after {from}"));
            let why = looked_back.err().map_or_else(String::new, |error| format!(" ({error:#})"));
            warn!("what the last mark has hit cannot be checked{why}: a record{since} that slipped in may be lost");
        }
    }

    /// Writes at once what the answer to a mark shows and nobody has seen.
    fn deliver_answer(&mut self, answer: &Page, run: &mut Run) -> Result<()> {
        self.last.marked = answer.fingerprints().collect();
        let (delivered, ids) = run.out.deliver_marked(answer, "slipped in between peek and mark")?;
        if !ids.is_empty() {
            // It has had an effect, although the next page may begin as this one did.
            self.last.oldest = None;
        }
        self.found.add(Found { read: answer.fingerprints().collect(), delivered, ids });
        Ok(())
    }

    /// Compares a page with what the last mark should have left. If something may be marked that
    /// this run has not seen, looks back and delivers that. Returns whether the page may be
    /// delivered and marked; if not, another one is to be peeked.
    fn accept(&mut self, page: &Page, run: &mut Run) -> Result<bool> {
        self.most_shown = self.most_shown.max(page.len());
        let first = page.fingerprints().next();
        let fits = match self.last.fence {
            Some(_) => first == self.last.fence,
            None => self.shows_nothing_marked(page),
        };
        let is_late = self.may_be_applied() && (self.last.fence.is_none() || page.len() < SMALL_PAGE);
        let mut is_accepted = self.last.is_exact && fits && !is_late;
        let mut read = Fingerprints::default();
        if is_accepted {
            self.ineffective.failures = 0;
        } else {
            // If this fails, what was hit stays unknown: see `end_early`.
            self.last.is_exact = false;
            self.begin_no_later_than(page);
            (is_accepted, read) = self.check(page, fits, run)?;
        }
        run.out.ledger.recall(page);
        if is_accepted {
            // Not before: the next look back may show again what this one has delivered.
            run.out.ledger.forget(4 * self.most_shown);
        } else {
            // It begins where this one did.
            self.last.timestamps = [None, None];
        }
        self.advance(page);
        // The next page has to begin as this one does, until something is marked. A look back takes
        // several requests, and a mark that comes late may hit what it has passed.
        let fence = first.filter(|_| !run.queue.marks_by_id());
        self.last = LastMark { is_exact: is_accepted, read, ..LastMark::not_sent(fence) };
        Ok(is_accepted)
    }

    /// Looks back for what the last mark has hit unseen. Returns whether nothing was found and the
    /// page still shows what is unread, and what the service shows as read.
    fn check(&mut self, page: &Page, fits: bool, run: &mut Run) -> Result<(bool, Fingerprints)> {
        let found = self.look_back(run)?;
        if !self.last.is_answered {
            self.count_lost(page, fits, run);
        }
        let last = &self.last;
        let first = page.fingerprints().next();
        let has_found = !found.delivered.is_empty();
        // If it was so before the page was peeked, the unread ones are others that are equal to
        // them.
        let is_read_now = |record: Fingerprint| found.read.contains(&record) && !last.read.contains(&record);
        let is_stale = page.fingerprints().any(is_read_now);
        let is_ineffective = last.is_answered && first.is_some() && first == last.oldest;
        if is_ineffective || !has_found && first.is_some_and(is_read_now) {
            let problem = "the service shows records as unread although it has answered that they are marked";
            self.ineffective.count("mark", &anyhow!(problem).into(), &run.stop)?;
        }
        let read = found.read.clone();
        self.found.add(found);
        Ok((!has_found && !is_stale, read))
    }

    /// Counts what a mark has hit whose answer was lost, and the mark as applied if the page proves
    /// it.
    fn count_lost(&mut self, page: &Page, fits: bool, run: &mut Run) {
        let last = &self.last;
        let shown: Fingerprints = page.fingerprints().collect();
        run.out.metrics.count_marked(last.marked.difference(&shown).count());
        let is_gone = last.oldest.is_some_and(|oldest| !shown.contains(&oldest));
        if last.fence.is_some() && fits || is_gone && reaches(page, last) {
            self.lost = self.lost.saturating_sub(1);
        }
    }

    /// Delivers what the service shows as read and this run has not written.
    fn look_back(&mut self, run: &mut Run) -> Result<Found> {
        let Some(from) = &self.from else {
            warn!("no record shows a time stamp: one that slipped in before a mark may be lost");
            return Ok(Found::default());
        };
        let mut found = Found::default();
        let looked_back = look_back(from, self.most_asked, self.most_marked, &mut found, run);
        if looked_back.is_err() {
            self.found.add(std::mem::take(&mut found));
        }
        looked_back.map(|()| found)
    }

    /// Whether a page shows none of the records that were marked, unless they may be others that
    /// are equal to them in everything.
    fn shows_nothing_marked(&mut self, page: &Page) -> bool {
        if page.fingerprints().all(|record| !self.last.marked.contains(&record)) {
            self.equal_pages = 0;
            return true;
        }
        self.equal_pages += 1;
        self.last.marked.len() == 1 && !self.last.is_end && self.equal_pages <= MAX_EQUAL_PAGES
    }

    /// A look back begins where this page does, if that is earlier: also the next one, if this one
    /// fails.
    fn begin_no_later_than(&mut self, page: &Page) {
        let (Some(start), Some(from)) = (page.first_timestamp(), &mut self.from) else { return };
        if is_before(&start, from) {
            *from = start;
        }
    }

    /// A look back after the next mark begins before what was marked last, so that it finds what
    /// has slipped in right before this page.
    fn advance(&mut self, page: &Page) {
        let Some(start) = page.first_timestamp() else { return };
        let [first, tail] = &self.last.timestamps;
        let earlier = [first, &self.from, tail].into_iter().flatten().find(|stamp| is_before(stamp, &start));
        self.from = Some(earlier.cloned().unwrap_or(start));
    }
}

/// How many of the oldest records to mark, up to `max`, so that the one behind them is equal to
/// none of them: the fence. All of them, if the stream ends there.
fn count_before_fence(page: &Page, max: usize) -> usize {
    if max == page.len() && page.is_last {
        return max;
    }
    let records: Vec<_> = page.fingerprints().collect();
    let is_fence = |count: &usize| !records[..*count].contains(&records[*count]);
    (1..=max.min(records.len().saturating_sub(1))).rev().find(is_fence).unwrap_or(max)
}

/// Whether a page would show the oldest record that was to be marked, if that was unread.
fn reaches(page: &Page, last: &LastMark) -> bool {
    let end = page.last_timestamp_of(page.len());
    page.is_last || matches!((&last.timestamps[0], &end), (Some(oldest), Some(end)) if is_before(oldest, end))
}

/// Whether one time stamp is earlier than another. What is not a time stamp is not.
fn is_before(one: &str, other: &str) -> bool {
    matches!((instant(one), instant(other)), (Ok(one), Ok(other)) if one < other)
}
