//! The look back after a mark whose answer was lost.
//!
//! Such a mark was applied, or may yet be. If a record slipped in just before, the mark hit it, and nobody has seen it. So the
//! loop reads the records after the first one of the page that the service shows as read, and delivers those that it has not
//! written. This narrows the gap and cannot close it. It does not find:
//!
//! - a record that slipped in before that first record, or at its time stamp,
//! - a record that the mark hits after the run has ended.

use anyhow::{Context, Result};
use log::warn;

use super::Run;
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
    /// a mark may be applied late.
    ///
    /// # Errors
    /// When the service keeps failing, or a record cannot be written.
    pub fn look_back(&mut self, page: &Page, run: &mut Run) -> Result<()> {
        let is_shown = |first: Fingerprint| page.fingerprints().any(|record| record == first);
        let Some(lost) = self.0.take_if(|lost| !is_shown(lost.first.fingerprint())) else { return Ok(()) };
        // The page, what slipped in, and what the lost marks may have hit after it.
        deliver_read_since(run, &lost.first, lost.page + 2 * lost.count, |_| false)?;
        if !page.is_last() {
            self.0 = Some(lost);
        }
        Ok(())
    }

    /// Warns of what may be lost when a run ends before it could look back.
    pub fn warn(&self) {
        if let Some(lost) = &self.0 {
            let since = &lost.first.timestamp;
            warn!("the answer to a mark was lost: a record after {since} that slipped in just then may be lost too");
        }
    }
}

/// Reads up to `count` records after `first`, in pages, and delivers those that the service shows as read and that are neither
/// written nor committed.
///
/// # Errors
/// When the service keeps failing, or a record cannot be written.
pub fn deliver_read_since(
    run: &mut Run,
    first: &Identity,
    count: usize,
    is_committed: impl Fn(Fingerprint) -> bool,
) -> Result<()> {
    let (mut after, mut left, mut found) = (first.timestamp.clone(), count, Fingerprints::default());
    loop {
        let page = run
            .queue
            .since(&after, left)
            .context("the answer to a mark was lost, and a record that slipped in just then may be lost too")?;
        let (is_short, next) = (page.is_short(), next_page(&page));
        let page = page.already_read();
        run.out.deliver_marked(&page, |record| is_committed(record) || found.contains(&record))?;
        found.extend(page.fingerprints());
        let Some((timestamp, behind)) = next.filter(|(timestamp, _)| *timestamp != after) else { break };
        left = left.saturating_sub(behind);
        if is_short || left == 0 {
            break;
        }
        after = timestamp;
    }
    run.out.ledger.look_back(found);
    Ok(())
}

/// The time stamp after which the next page begins, and how many records of this page are not in that one. The records at the last
/// time stamp come again: more of them may follow.
fn next_page(page: &Page) -> Option<(String, usize)> {
    let timestamps: Vec<_> = page.identities().map(|identity| identity.timestamp).collect();
    let last = timestamps.last()?;
    let behind = timestamps.iter().rposition(|timestamp| timestamp != last).map_or(timestamps.len(), |index| index + 1);
    Some((timestamps[behind - 1].clone(), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_begins_with_the_last_time_stamp_again() {
        let next = |timestamps: &[&str]| {
            let record = |stamp: &&str| format!(r#"{{"recordId":"a","recordTimeStampISO":"{stamp}"}}"#);
            let records: Vec<_> = timestamps.iter().map(record).collect();
            next_page(&Page::parse(format!("[{}]", records.join(",")).into(), 1).unwrap())
        };
        let page = |timestamp: &str, behind| Some((timestamp.to_owned(), behind));
        assert_eq!(next(&["1", "2", "3"]), page("2", 2));
        assert_eq!(next(&["1", "2", "2"]), page("1", 1));
        assert_eq!(next(&["2", "2"]), page("2", 2));
        assert_eq!(next(&[]), None);
    }
}
