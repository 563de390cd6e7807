//! The look back after a mark whose answer was lost.
//!
//! Such a mark was applied, or may yet be. If a record slipped in just before, the mark hit it, and nobody has seen it. So the
//! loop reads the records after the first one of the page that the service shows as read, and delivers those that it has not
//! written. This narrows the gap and cannot close it. It does not find:
//!
//! - a record that slipped in before that first record, or at its time stamp,
//! - a record at a time stamp that more records share than the service shows at once,
//! - a record that the mark hits after the run has ended.

use anyhow::{Context, Result};
use log::warn;

use super::Run;
use super::ties::{Crowd, Next};
use crate::record::{Fingerprint, Fingerprints, Identity, Page};

/// The marks whose answers were lost, until a look back has found everything that they may have hit.
#[derive(Debug, Default)]
pub struct LostMarks(Option<Lost>);

#[derive(Debug)]
struct Lost {
    /// The oldest record of the page that was marked last.
    first: Identity,
    /// How many records that page holds.
    page: usize,
    /// How many records the lost marks may have marked.
    count: usize,
}

impl LostMarks {
    /// Adds a mark of `count` records. The oldest of them is `first`.
    pub fn add(&mut self, first: Identity, count: usize) {
        let before = self.0.take().map_or(0, |lost| lost.count);
        self.0 = Some(Lost { first, page: count, count: before + count });
    }

    /// Whether there is nothing to look back for.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Notes that the mark of a page of `count` records that begins with `first` was answered: a lost mark that is applied now
    /// hits later records.
    pub fn move_to(&mut self, first: Identity, count: usize) {
        if let Some(lost) = &mut self.0 {
            (lost.first, lost.page) = (first, count);
        }
    }

    /// Looks back once a peeked page shows that the marks were applied, and again with every further page until the last one:
    /// a mark may be applied late. Returns the ids of the records that it has delivered.
    ///
    /// # Errors
    /// When the service keeps failing, or a record cannot be written.
    pub fn look_back(&mut self, page: &Page, run: &mut Run) -> Result<Vec<String>> {
        let Some(lost) = self.0.take_if(|lost| !shows(page, &lost.first)) else { return Ok(Vec::new()) };
        // The page, what slipped in, and what the lost marks may have hit after it.
        let found = deliver_read_since(run, &lost.first, lost.page + 2 * lost.count, |_| false);
        if found.is_err() || !page.is_last() {
            self.0 = Some(lost);
        }
        found
    }

    /// Whether a peeked page shows that a lost mark is not applied, or not yet.
    pub fn may_be_applied(&self, page: &Page) -> bool {
        self.0.as_ref().is_some_and(|lost| shows(page, &lost.first))
    }

    /// Warns of what may be lost when a run ends before it could look back.
    pub fn warn(&self) {
        if let Some(lost) = &self.0 {
            let since = &lost.first.timestamp;
            warn!("the answer to a mark was lost: a record after {since} that slipped in just then may be lost too");
        }
    }
}

fn shows(page: &Page, record: &Identity) -> bool {
    let fingerprint = record.fingerprint();
    page.fingerprints().any(|shown| shown == fingerprint)
}

/// Reads up to `count` records after `first`, in pages, and delivers those that the service shows as read and that are neither
/// written nor committed. Returns their ids.
///
/// A page of a single time stamp is asked for again, with more records, until it shows what comes after that stamp: the next page
/// begins strictly after a stamp. Where the service shows no more at once, a line says what may be missed.
///
/// # Errors
/// When the service keeps failing, or a record cannot be written.
pub fn deliver_read_since(
    run: &mut Run,
    first: &Identity,
    count: usize,
    is_committed: impl Fn(Fingerprint) -> bool,
) -> Result<Vec<String>> {
    let mut delivered = Vec::new();
    let (mut after, mut left, mut found) = (first.timestamp.clone(), count, Fingerprints::default());
    let (mut crowd, mut incomplete) = (Crowd::default(), Vec::new());
    loop {
        let page = run
            .queue
            .since(&after, crowd.count(left, left))
            .context("the answer to a mark was lost, and a record that slipped in just then may be lost too")?;
        let (is_last, next) = (page.is_last(), Next::after(&page));
        let page = page.already_read();
        delivered.extend(run.out.deliver_marked(&page, |record| is_committed(record) || found.contains(&record))?);
        found.extend(page.fingerprints());
        let Some(next) = next.filter(|next| !is_last && next.behind < left && next.timestamp != after) else { break };
        if next.is_one_stamp {
            if crowd.grow(next.behind) {
                continue;
            }
            incomplete.push(next.timestamp.clone());
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
    run.out.ledger.look_back(found);
    Ok(delivered)
}
