//! The marks, and the fence that proves what they have hit.
//!
//! A mark hits whatever is oldest at that moment, and its answer may be lost, late, or belong to
//! another attempt. So the last record of a full page is not marked together with the others. It is
//! the fence: the next page has to begin with it.
//!
//! If the mark's answer is exactly what was to be marked, and the next page begins with the fence, the
//! page is done. After anything else, something may be marked that this run has not seen: the marker
//! looks back, and delivers what the service shows as read and this run has not written.

use std::time::{Duration, Instant};

use anyhow::Result;
use log::{info, warn};

use super::look_back::{Found, look_back};
use super::run::Run;
use crate::config::Config;
use crate::config::timestamp::instant;
use crate::metrics::{plural, records};
use crate::record::{Delivered, Fingerprint, Fingerprints, Page, Peeked};
use crate::streamduo::Tuning;
use crate::streamduo::queue::{Count, Marked};
use crate::streamduo::retry::Retry;

/// While a lost mark may still be applied, the marker looks back at each page that is smaller. In front
/// of the fence of a larger one, exactly as many records would have to slip in as the mark hits.
const SMALL_PAGE: usize = 1_000;

/// How often in a row a page of records that are equal in everything may be shown again after it was
/// marked: there may be that many more of them.
const MAX_EQUAL_PAGES: usize = 100;

/// What is known since the last page that was accepted.
#[derive(Debug, Default)]
struct Last {
    /// What was marked since then.
    marked: Fingerprints,
    /// The oldest record that was to be marked, unless the answer shows that the mark has hit others.
    oldest: Option<Fingerprint>,
    /// The first and the last time stamp among them.
    timestamps: [Option<String>; 2],
    /// What the next page has to begin with.
    fence: Option<Fingerprint>,
    /// Whether the mark was answered, or none was sent.
    is_answered: bool,
    /// Whether the answer was exactly what was to be marked, or no mark was sent.
    is_exact: bool,
    /// Whether the stream ended with the page that was marked.
    is_end: bool,
    /// What a look back has shown as read, if the last page was not accepted.
    read: Fingerprints,
}

impl Last {
    /// A mark that is sent now.
    fn of(delivered: &Delivered) -> Last {
        let page = delivered.page();
        let marked: Fingerprints = delivered.to_mark().collect();
        Last {
            timestamps: [page.first_timestamp(), page.last_timestamp_of(delivered.count())],
            oldest: delivered.to_mark().next(),
            fence: delivered.fence().filter(|fence| !marked.contains(fence)),
            marked,
            is_end: page.is_last(),
            ..Last::default()
        }
    }
}

/// Peeks and marks for a mode, and delivers what a mark has hit unseen.
#[derive(Debug)]
pub struct Marker {
    /// `None` before the first page.
    last: Option<Last>,
    /// A look back begins after this time stamp.
    from: Option<String>,
    /// How many marks may still be applied, because their answers were lost, and how long the last of
    /// them may be.
    lost: usize,
    lost_until: Instant,
    /// How long a mark may be under way: twice `requestTimeoutSeconds`.
    max_delay: Duration,
    /// The most records that were marked at once, and shown at once.
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
            last: None,
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

    /// Marks the oldest records of a page that were delivered, but for the fence. What the answer shows
    /// besides them is delivered at once. Returns whether the whole page is marked.
    pub fn mark(&mut self, delivered: Delivered, run: &mut Run) -> Result<bool> {
        self.found = Found::default();
        let by_id = run.queue.marks_by_id();
        let max = delivered.count().min(run.queue.max_marked()).max(1);
        let count = if by_id { max } else { count_before_fence(delivered.page(), max) };
        let is_whole = count == delivered.page().len();
        let delivered = delivered.at_most(count);
        let mut last = Last::of(&delivered);
        let to_mark: Vec<_> = delivered.to_mark().collect();
        self.most_marked = self.most_marked.max(count);
        match run.queue.mark(delivered)? {
            Marked::Answered(answer) => {
                let is_exact = answer.fingerprints().eq(to_mark);
                last.is_answered = true;
                last.is_exact = is_exact || by_id;
                if !is_exact {
                    last.marked = answer.fingerprints().collect();
                }
                if by_id {
                    last.fence = None;
                }
                self.last = Some(last);
                self.learn_answer(&answer, is_exact, run)?;
                // An id does not reach a record that is equal to a later one: the next page shows it.
                Ok(is_whole && is_exact && !by_id && !self.may_be_applied())
            }
            Marked::Unknown(error) => {
                // A mark by id can be repeated, and hits nothing else.
                if !by_id {
                    self.last = Some(last);
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
        if let Some(last) = self.last.as_ref().filter(|last| last.is_exact) {
            found.read.extend(&last.marked);
        }
        found
    }

    /// Looks once for what a mark may have hit unseen, before a run ends that would have gone on.
    pub fn end_early(&mut self, run: &mut Run) {
        let Some(last) = &self.last else { return };
        let fence = last.fence;
        let is_sure = last.is_exact && !self.may_be_applied();
        if is_sure && (fence.is_none() || last.marked.is_empty()) {
            return;
        }
        run.stop.defer();
        run.queue.without_retries();
        if is_sure && run.queue.peek(Count::AtOnce(1)).is_ok_and(|page| page.fingerprints().next() == fence) {
            return;
        }
        self.look_once(run);
    }

    /// Looks back, and says so if something may be lost all the same.
    pub fn look_once(&mut self, run: &mut Run) {
        let looked_back = self.look_back(run).map(|found| self.found.add(found));
        if looked_back.is_err() || self.may_be_applied() {
            let since = self.from.as_ref().map_or_else(String::new, |from| format!(" after {from}"));
            let why = looked_back.err().map_or_else(String::new, |error| format!(" ({error:#})"));
            warn!("what the last mark has hit cannot be checked{why}: a record{since} that slipped in may be lost");
        }
    }

    /// Writes at once what the answer to a mark shows and nobody has seen.
    fn learn_answer(&mut self, answer: &Page, is_exact: bool, run: &mut Run) -> Result<()> {
        run.out.metrics.count_marked(answer.len());
        if is_exact {
            return Ok(());
        }
        let (delivered, ids) = run.out.deliver_marked(answer)?;
        if !ids.is_empty() {
            // It has had an effect, although the next page may begin as this one did.
            self.last.iter_mut().for_each(|last| last.oldest = None);
            let were = plural(ids.len(), "was", "were");
            info!("{} slipped in between peek and mark, and {were} written at once", records(ids.len()));
        }
        self.found.add(Found { read: answer.fingerprints().collect(), delivered, ids });
        Ok(())
    }

    /// Whether a page may be delivered and marked. If not, another one is to be peeked.
    fn accept(&mut self, page: &Page, run: &mut Run) -> Result<bool> {
        self.most_shown = self.most_shown.max(page.len());
        let Some(mut last) = self.last.take() else {
            self.from = page.first_timestamp();
            self.expect(page, run);
            return Ok(true);
        };
        let first = page.fingerprints().next();
        let fits = match last.fence {
            Some(_) => first == last.fence,
            None => self.shows_nothing_marked(page, &last),
        };
        let is_late = self.may_be_applied() && (last.fence.is_none() || page.len() < SMALL_PAGE);
        if last.is_exact && fits && !is_late {
            self.ineffective.reset();
            self.advance(page, &last);
            self.expect(page, run);
            return Ok(true);
        }
        let is_accepted = match self.check(page, &mut last, fits, run) {
            Ok(is_accepted) => is_accepted,
            Err(error) => {
                // What was hit stays unknown: see `end_early`.
                self.last = Some(Last { is_exact: false, ..last });
                return Err(error);
            }
        };
        if is_accepted {
            self.advance(page, &last);
        } else if let Some(start) = page.first_timestamp() {
            self.from = self.from.take().filter(|from| is_before(from, &start)).or(Some(start));
        }
        self.expect(page, run);
        // A look back takes several requests, and a mark that comes late may hit what it has passed.
        self.last.iter_mut().for_each(|next| {
            next.is_exact = is_accepted;
            next.read = std::mem::take(&mut last.read);
        });
        Ok(is_accepted)
    }

    /// Looks back for what the last mark has hit unseen. Whether nothing was found, and the page still
    /// shows what is unread.
    fn check(&mut self, page: &Page, last: &mut Last, fits: bool, run: &mut Run) -> Result<bool> {
        let found = self.look_back(run)?;
        if !last.is_answered {
            // A look back does not show what lies at the time stamp that it begins after.
            let left: Fingerprints = page.fingerprints().filter(|record| last.marked.contains(record)).collect();
            let gone = last.marked.len() - left.len();
            run.out.metrics.count_marked(gone);
            let is_shown = page.fingerprints().any(|record| Some(record) == last.oldest);
            let is_applied = last.fence.is_some() && fits || !is_shown && reaches(page, last);
            self.lost = self.lost.saturating_sub(usize::from(is_applied));
        }
        let has_found = !found.delivered.is_empty();
        let first = page.fingerprints().next();
        let is_ineffective = last.is_answered && first.is_some() && first == last.oldest;
        // If it was so before the page was peeked, the unread ones are others that are equal to them.
        let is_read_now = |record: Fingerprint| found.read.contains(&record) && !last.read.contains(&record);
        let is_stale = page.fingerprints().any(is_read_now);
        if is_ineffective || first.is_some_and(is_read_now) && !has_found {
            let problem = "the service shows records as unread that it has answered to be marked as read";
            self.ineffective.wait_after("mark", problem, &run.stop)?;
        }
        last.read.clone_from(&found.read);
        self.found.add(found);
        Ok(!has_found && !is_stale)
    }

    /// Delivers what the service shows as read and this run has not written.
    fn look_back(&mut self, run: &mut Run) -> Result<Found> {
        let Some(from) = &self.from else {
            warn!("no record shows a time stamp: one that slipped in before a mark may be lost");
            return Ok(Found::default());
        };
        let mut found = Found::default();
        let looked_back = look_back(from, self.most_asked, self.most_marked, &mut found, run);
        if !found.delivered.is_empty() {
            let records = records(found.delivered.len());
            info!(
                "{records} that this run had not seen were read by a mark that came late or by somebody else, and are written now"
            );
        }
        if let Err(error) = looked_back {
            self.found.add(found);
            return Err(error);
        }
        Ok(found)
    }

    /// Whether a page shows none of the records that were marked, unless they may be others that are
    /// equal to them in everything.
    fn shows_nothing_marked(&mut self, page: &Page, last: &Last) -> bool {
        if page.fingerprints().all(|record| !last.marked.contains(&record)) {
            self.equal_pages = 0;
            return true;
        }
        self.equal_pages += 1;
        last.marked.len() == 1 && !last.is_end && self.equal_pages <= MAX_EQUAL_PAGES
    }

    /// The next page has to begin as this one does, until something is marked.
    fn expect(&mut self, page: &Page, run: &mut Run) {
        run.out.ledger.recall(page);
        run.out.ledger.forget(self.most_shown);
        let fence = page.fingerprints().next().filter(|_| !run.queue.marks_by_id());
        self.last = Some(Last { fence, is_answered: true, is_exact: true, ..Last::default() });
    }

    /// A look back after the next mark begins before what was marked last, so that it finds what has
    /// slipped in right before this page.
    fn advance(&mut self, page: &Page, last: &Last) {
        let Some(start) = page.first_timestamp() else { return };
        let [first, tail] = &last.timestamps;
        let earlier = [first, &self.from, tail].into_iter().flatten().find(|stamp| is_before(stamp, &start));
        self.from = Some(earlier.cloned().unwrap_or(start));
    }
}

/// How many of the oldest records to mark, up to `max`, so that the one behind them is equal to none of
/// them: the fence. All of them, if the stream ends there.
fn count_before_fence(page: &Page, max: usize) -> usize {
    if max == page.len() && page.is_last() {
        return max;
    }
    let records: Vec<_> = page.fingerprints().collect();
    let is_fence = |count: &usize| !records[..*count].contains(&records[*count]);
    (1..=max.min(records.len().saturating_sub(1))).rev().find(is_fence).unwrap_or(max)
}

/// Whether a page would show the oldest record that was to be marked, if that was unread.
fn reaches(page: &Page, last: &Last) -> bool {
    let end = page.last_timestamp_of(page.len());
    page.is_last() || matches!((&last.timestamps[0], &end), (Some(oldest), Some(end)) if is_before(oldest, end))
}

/// Whether one time stamp is earlier than another. What is not a time stamp is not.
fn is_before(one: &str, other: &str) -> bool {
    matches!((instant(one), instant(other)), (Ok(one), Ok(other)) if one < other)
}
