//! Where a read by time is. A page begins strictly after a time stamp, so the next page does not
//! show what this one leaves out of its last time stamp.

use anyhow::Result;

use super::run::Run;
use crate::config::settings::MAX_RECORDS;
use crate::config::timestamp::instant;
use crate::record::Page;
use crate::streamduo::queue::Count;

/// How often a page of a single time stamp is asked for again although the last try showed no more.
/// If an outage or two have left the size small, it grows meanwhile; a size that the service
/// refuses does not.
const MAX_TRIES: usize = 10;

/// Reads on after a time stamp, or from the beginning.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    /// The next page begins after this time stamp. `None` at the beginning.
    after: Option<String>,
    /// The most records that a page has shown, if all of them share a time stamp; otherwise 0.
    shown: usize,
    /// How many pages have shown no more.
    tries: usize,
}

impl Cursor {
    /// Reads what comes after a time stamp.
    pub fn at(after: String) -> Cursor {
        Cursor { after: Some(after), ..Cursor::default() }
    }

    /// The next page begins after this time stamp.
    pub fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }

    /// Whether nothing is read yet.
    pub fn is_at_start(&self) -> bool {
        self.after.is_none()
    }

    /// Reads a page of this size; more, if the last one was a single time stamp.
    pub fn read(&self, page_size: usize, run: &mut Run) -> Result<Page> {
        run.queue.since(self.after(), self.count(page_size))
    }

    /// How many records to ask for: twice what the last page has shown, if that was a single time
    /// stamp.
    pub fn count(&self, page_size: usize) -> Count {
        match self.shown {
            0 => Count::UpTo(page_size),
            shown => Count::AtOnce(MAX_RECORDS.min(2 * shown)),
        }
    }

    /// Goes on behind a page. Returns whether there is more to read, and a way to read it.
    pub fn advance(&mut self, page: &Page) -> bool {
        let Some((count, timestamp)) = self.next(page) else { return false };
        let Ok(next) = instant(&timestamp) else { return false };
        if count == page.len() {
            return self.ask_for_more(count);
        }
        let is_later = instant(self.after()).is_ok_and(|after| after < next) || self.is_at_start();
        *self = Cursor::at(timestamp);
        is_later
    }

    /// How many records of a page come before its last time stamp, and the time stamp up to there:
    /// the next page begins with the last one again, because more records may have it. All records,
    /// if they share one time stamp. Records at the very stamp that was asked for, which some
    /// services show again, do not count as others. `None` if the stream ends with the page.
    pub fn next(&self, page: &Page) -> Option<(usize, String)> {
        let timestamps = page.timestamps_after(self.after());
        let last = timestamps.last().filter(|_| !page.is_last)?;
        let other = timestamps.iter().rposition(|timestamp| !is_same_instant(timestamp, last));
        let other = other.filter(|index| !is_same_instant(&timestamps[*index], self.after()));
        let count = other.map_or(timestamps.len(), |index| index + 1);
        Some((count, timestamps[count - 1].clone().into_owned()))
    }

    /// Asks for more records, because all `shown` ones of a page share a time stamp. Returns
    /// whether that makes sense.
    pub fn ask_for_more(&mut self, shown: usize) -> bool {
        self.tries = if shown > self.shown { 0 } else { self.tries + 1 };
        self.shown = self.shown.max(shown);
        self.tries < MAX_TRIES
    }
}

/// Whether two time stamps are of one instant. What is not a time stamp is of none.
fn is_same_instant(one: &str, other: &str) -> bool {
    one == other || instant(one).is_ok_and(|one| Ok(one) == instant(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(timestamps: &[&str]) -> Option<(usize, String)> {
        let record = |stamp: &&str| format!(r#"{{"recordId":"a","recordTimeStampISO":"{stamp}"}}"#);
        let records: Vec<_> = timestamps.iter().map(record).collect();
        Cursor::at("0".to_owned()).next(&Page::parse(format!("[{}]", records.join(",")).into(), 1).unwrap())
    }

    #[test]
    fn the_next_page_begins_with_the_last_time_stamp_again() {
        assert_eq!(next(&["1", "2", "3"]), Some((2, "2".to_owned())));
        assert_eq!(next(&["1", "2", "2"]), Some((1, "1".to_owned())));
        assert_eq!(next(&["2", "2"]), Some((2, "2".to_owned())));
        assert_eq!(next(&[]), None);
    }

    #[test]
    fn records_at_the_time_stamp_that_was_asked_for_are_no_way_on() {
        assert_eq!(next(&["0", "0", "1"]), Some((3, "1".to_owned())));
        assert_eq!(next(&["0", "1", "2"]), Some((2, "1".to_owned())));
    }

    #[test]
    fn two_texts_of_one_instant_are_one_time_stamp() {
        let [a, b, c] = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z[UTC]", "2026-01-01T05:30:01.000+05:30"];
        assert_eq!(next(&[a, b, c]), Some((1, a.to_owned())));
        assert_eq!(next(&[b, c]), Some((2, c.to_owned())));
    }
}
