//! The look back after a mark whose answer was lost.
//!
//! Such a mark was applied, or may yet be. If a record slipped in just before, the mark hit it, and nobody has seen it. So the
//! loop reads the records after the first one of the page that the service shows as read, and delivers those that it has not
//! written. This narrows the gap and cannot close it. It does not find:
//!
//! - a record that slipped in before that first record, or at its time stamp,
//! - a record at a time stamp that more records share than the service shows at once,
//! - a record that is equal in everything to that first record,
//! - a record that the mark hits after the run has ended,
//! - any record, if none of the page has a time stamp.

use std::iter::repeat_n;

use anyhow::{Context, Result};
use log::warn;

use super::Run;
use super::ties::{Crowd, Next};
use crate::record::{Committed, Fingerprint, Fingerprints, Page, Position};

/// The marks whose answers were lost, until a look back has found everything that they may have hit.
#[derive(Debug, Default)]
pub struct LostMarks(Option<Lost>);

#[derive(Debug)]
struct Lost {
    /// Where the page begins that was marked last.
    start: Position,
    /// How many records that page holds.
    page: usize,
    /// How many records the lost marks may have marked.
    count: usize,
}

impl LostMarks {
    /// Adds a mark of `count` records, the oldest of a page that begins at `start`.
    pub fn add(&mut self, start: Position, count: usize) {
        let before = self.0.take().map_or(0, |lost| lost.count);
        self.0 = Some(Lost { start, page: count, count: before + count });
    }

    /// Whether there is nothing to look back for.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Notes that the mark of a page of `count` records that begins at `start` was answered: a lost mark that is applied now hits
    /// later records.
    pub fn move_to(&mut self, start: Position, count: usize) {
        if let Some(lost) = &mut self.0 {
            (lost.start, lost.page) = (start, count);
        }
    }

    /// Looks back once a peeked page shows that the marks were applied, and again with every further page until the last one:
    /// a mark may be applied late. If it has found anything, the page may show records that are read by now.
    ///
    /// # Errors
    /// When the service keeps failing, or a record cannot be written.
    pub fn look_back(&mut self, page: &Page, run: &mut Run) -> Result<Found> {
        let Some(lost) = self.0.take_if(|lost| !shows(page, &lost.start)) else { return Ok(Found::default()) };
        // The page, what slipped in, and what the lost marks may have hit after it.
        let found = deliver_read_since(run, &lost.start, lost.page + 2 * lost.count, None);
        if found.is_err() || !page.is_last() {
            self.0 = Some(lost);
        }
        found
    }

    /// Whether a peeked page shows that a lost mark is not applied, or not yet.
    pub fn may_be_applied(&self, page: &Page) -> bool {
        self.0.as_ref().is_some_and(|lost| shows(page, &lost.start))
    }

    /// Warns of what may be lost when a run ends before it could look back.
    pub fn warn(&self) {
        if let Some(lost) = &self.0 {
            let since = lost.start.timestamp.as_ref().map_or_else(String::new, |since| format!(" after {since}"));
            warn!("the answer to a mark was lost: a record{since} that slipped in just then may be lost too");
        }
    }
}

fn shows(page: &Page, start: &Position) -> bool {
    page.fingerprints().any(|shown| shown == start.record)
}

/// What a look back has found.
#[derive(Debug, Default)]
pub struct Found {
    /// The records that the service shows as read.
    pub read: Vec<Fingerprint>,
    /// Those of them that this run had written before, and did not know to be marked.
    pub marked: Vec<Fingerprint>,
    /// The ids of those that were written now.
    pub written: Vec<String>,
}

/// Reads up to `count` records after the time stamp of `start`, in pages, and delivers those that the service shows as read and
/// that are neither written nor committed.
///
/// A page of a single time stamp is asked for again, with more records, until it shows what comes after that stamp: the next page
/// begins strictly after a stamp. Where the service shows no more at once, a line says what may be missed.
///
/// # Errors
/// When the service keeps failing, or a record cannot be written.
pub fn deliver_read_since(
    run: &mut Run,
    start: &Position,
    count: usize,
    committed: Option<&Committed>,
) -> Result<Found> {
    let Some(mut after) = start.timestamp.clone() else {
        warn!(
            "the answer to a mark was lost, and no record shows a time stamp: one that slipped in just then may be lost"
        );
        return Ok(Found::default());
    };
    let mut written = Vec::new();
    let (mut left, mut found) = (count, Fingerprints::default());
    let (mut crowd, mut incomplete) = (Crowd::default(), Vec::new());
    loop {
        let page = run
            .queue
            .since(&after, crowd.count(left, left))
            .context("the answer to a mark was lost, and a record that slipped in just then may be lost too")?;
        let (is_last, next) = (page.is_last(), Next::after(&page, &after));
        let page = page.already_read();
        written.extend(run.out.deliver_read(&page, committed, &found)?);
        found.fill_up_to(page.fingerprints().collect());
        let Some(next) = next.filter(|next| !is_last && next.behind < left) else { break };
        if next.is_one_stamp {
            if crowd.grow(next.behind) {
                continue;
            }
            incomplete.push(next.timestamp.clone());
        }
        if next.timestamp == after {
            break;
        }
        (after, left, crowd) = (next.timestamp, left - next.behind, Crowd::default());
    }
    if let [timestamp, others @ ..] = &incomplete[..] {
        let others = match others.len() {
            0 => String::new(),
            1 => " and 1 later time stamp".to_owned(),
            count => format!(" and {count} later time stamps"),
        };
        warn!(
            "the answer to a mark was lost, and the service does not show all records at {timestamp}{others} at once: one that \
             slipped in there just then may be lost"
        );
    }
    let read = found.iter().flat_map(|(record, copies)| repeat_n(record, copies)).collect();
    let marked = run.out.ledger.look_back(start, found);
    run.out.metrics.count_marked(marked.len());
    Ok(Found { read, marked, written })
}
