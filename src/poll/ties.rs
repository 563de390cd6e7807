//! Time stamps that several records share, where a stream is read by time: a page begins strictly after a time stamp, so that what a
//! page does not show of its last one is not shown by the next page.

use crate::config::timestamp::instant;
use crate::record::Page;
use crate::streamduo::queue::Count;

/// How often a page of a single time stamp is asked for again although the last try showed no more. If an outage or two have left the
/// size small, it grows meanwhile; a size that the service refuses does not.
const MAX_TRIES: usize = 10;

/// Where the page after a page begins.
#[derive(Debug, PartialEq)]
pub struct Next {
    /// It shows what comes after this time stamp.
    pub timestamp: String,
    /// How many records of the page it does not show again.
    pub behind: usize,
    /// Whether all records of the page share the time stamp. If more records have it, the next page does not show them.
    pub is_one_stamp: bool,
}

impl Next {
    /// The page after one of records after `timestamp` begins with the records at the last time stamp again: more of them may
    /// follow.
    pub fn after(page: &Page, timestamp: &str) -> Option<Next> {
        let timestamps = page.timestamps_after(timestamp);
        let last = timestamps.last()?;
        let other = timestamps.iter().rposition(|timestamp| !is_same_instant(timestamp, last));
        let behind = other.map_or(timestamps.len(), |index| index + 1);
        Some(Next { timestamp: timestamps[behind - 1].clone().into_owned(), behind, is_one_stamp: other.is_none() })
    }
}

/// Whether two time stamps are of one instant. What is no time stamp is of none.
fn is_same_instant(one: &str, other: &str) -> bool {
    one == other || instant(one).is_ok_and(|one| Ok(one) == instant(other))
}

/// The records at one time stamp, while ever more of them are asked for.
#[derive(Debug, Default)]
pub struct Crowd {
    /// The most that a page has shown; 0 where there is no crowd.
    shown: usize,
    /// How many pages have shown no more.
    tries: usize,
}

impl Crowd {
    /// How many records to ask for: `usual`, or twice as many as the crowd has shown, up to `max`.
    pub fn count(&self, usual: usize, max: usize) -> Count {
        match self.shown {
            0 => Count::UpTo(usual),
            shown => Count::AtOnce(max.min(2 * shown)),
        }
    }

    /// Notes that all `shown` records of a page share a time stamp. Returns whether it makes sense to ask for more.
    pub fn grow(&mut self, shown: usize) -> bool {
        if shown > self.shown {
            *self = Crowd { shown, tries: 0 };
        } else {
            self.tries += 1;
        }
        self.tries < MAX_TRIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(timestamps: &[&str]) -> Option<Next> {
        let record = |stamp: &&str| format!(r#"{{"recordId":"a","recordTimeStampISO":"{stamp}"}}"#);
        let records: Vec<_> = timestamps.iter().map(record).collect();
        Next::after(&Page::parse(format!("[{}]", records.join(",")).into(), 1).unwrap(), "0")
    }

    fn page(timestamp: &str, behind: usize, is_one_stamp: bool) -> Option<Next> {
        Some(Next { timestamp: timestamp.to_owned(), behind, is_one_stamp })
    }

    #[test]
    fn the_next_page_begins_with_the_last_time_stamp_again() {
        assert_eq!(next(&["1", "2", "3"]), page("2", 2, false));
        assert_eq!(next(&["1", "2", "2"]), page("1", 1, false));
        assert_eq!(next(&["2", "2"]), page("2", 2, true));
        assert_eq!(next(&[]), None);
    }

    #[test]
    fn two_texts_of_one_instant_are_one_time_stamp() {
        let [a, b, c] = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z[UTC]", "2026-01-01T05:30:01.000+05:30"];
        assert_eq!(next(&[a, b, c]), page(a, 1, false));
        assert_eq!(next(&[b, c]), page(c, 2, true));
    }
}
