//! Time stamps: RFC 9557 text as the vendor writes it, such as
//! `2022-02-01T15:16:23.716848-05:00[America/New_York]`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The zone of the vendor's time stamps, from the bundled database.
const ZONE: &str = "America/New_York";

/// The moment of the API page's example record, where sample data begins: 2022-02-01T15:16:23.716848-05:00.
pub(crate) const EXAMPLE: Timestamp = Timestamp::constant(1_643_746_583, 716_848_000);

/// Where a read "since" a time stamp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// Strictly after this moment: the text named a moment in full, with its offset.
    After(Timestamp),
    /// From this moment on: the text was cut, as to the second.
    From(Timestamp),
}

/// Writes time stamps; holds the zone, so that it is looked up once.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// A clock in the vendor's zone.
    pub(crate) fn new() -> Clock {
        Clock { zone: TimeZone::get(ZONE).unwrap_or(TimeZone::UTC) }
    }

    /// Now, to the microsecond.
    pub(crate) fn now() -> Timestamp {
        Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or(Timestamp::MAX)
    }

    /// `at` as a record shows it.
    pub(crate) fn text(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S.%6f%:z[%:Q]").to_string()
    }

    /// The moment that `text` names, if it names one in full, with its offset.
    pub(crate) fn moment(text: &str) -> Option<Timestamp> {
        text.parse().ok()
    }

    /// Reads `recordTimeStampISO` of a request: in full as in a record, or cut before its offset.
    pub(crate) fn since(&self, text: &str) -> Option<Since> {
        if let Some(at) = Clock::moment(text) {
            return Some(Since::After(at));
        }
        let local: DateTime = text.parse().ok()?;
        self.zone.to_timestamp(local).ok().map(Since::From)
    }
}

/// `at` plus `micros`, or `at` itself at the end of time.
pub(crate) fn later(at: Timestamp, micros: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_micros(micros)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::{Clock, EXAMPLE, Since, later};

    #[test]
    fn the_example_of_the_api_page_is_written_as_it_stands_there() {
        let text = Clock::new().text(EXAMPLE);
        assert_eq!(text, "2022-02-01T15:16:23.716848-05:00[America/New_York]");
        assert_eq!(Clock::moment(&text), Some(EXAMPLE));
    }

    #[test]
    fn a_text_cut_to_the_second_means_that_whole_second() {
        let second = later(EXAMPLE, -716_848);
        assert_eq!(Clock::new().since("2022-02-01T15:16:23"), Some(Since::From(second)));
        assert_eq!(Clock::new().since("yesterday"), None);
    }

    #[test]
    fn summer_time_has_its_own_offset() {
        let summer = later(EXAMPLE, 180 * 86_400_000_000);
        assert_eq!(Clock::new().text(summer), "2022-07-31T16:16:23.716848-04:00[America/New_York]");
    }
}
