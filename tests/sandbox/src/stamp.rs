//! Time stamps: RFC 9557 text as the vendor writes it, such as
//! `2022-02-01T15:16:23.716848-05:00[America/New_York]`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The zone of the vendor's time stamps, from the bundled database.
const ZONE: &str = "America/New_York";

/// The time stamp of the vendor's example record, 2022-02-01T15:16:23.716848-05:00.
pub(crate) const EXAMPLE: Timestamp = Timestamp::constant(1_643_746_583, 716_848_000);

/// Where a READ_SINCE_TIMESTAMP starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// After this time: the request's time stamp has an offset.
    After(Timestamp),
    /// At this time or after it: the request's time stamp is cut short, for example to the second.
    From(Timestamp),
}

/// How sample records are stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// How many records in a row share a time stamp.
    pub ties: usize,
    /// The digits of a second, 0 to 9. Java writes 0, 3, 6 or 9.
    pub digits: u8,
}

impl Default for Stamps {
    /// A time stamp for each record, to the microsecond, like the vendor's example.
    fn default() -> Stamps {
        Stamps { ties: 1, digits: 6 }
    }
}

/// Formats and parses time stamps. It holds the zone, so that the zone is looked up once.
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

    /// `at` as in a record.
    pub(crate) fn format(&self, at: Timestamp) -> String {
        self.format_to(at, Stamps::default().digits)
    }

    /// `at` as in a record, with so many digits of a second. The rest is cut off.
    pub(crate) fn format_to(&self, at: Timestamp, digits: u8) -> String {
        let fraction = if digits == 0 { String::new() } else { format!(".%{digits}f") };
        at.to_zoned(self.zone.clone()).strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}%:z[%:Q]")).to_string()
    }

    /// Parses a time stamp that has an offset.
    pub(crate) fn parse(text: &str) -> Option<Timestamp> {
        text.parse().ok()
    }

    /// Parses `recordTimeStampISO` of a request: complete as in a record, or cut somewhere before its offset.
    pub(crate) fn since(&self, text: &str) -> Option<Since> {
        if let Some(at) = Clock::parse(text) {
            return Some(Since::After(at));
        }
        let local: DateTime = text.parse().ok()?;
        self.zone.to_timestamp(local).ok().map(Since::From)
    }
}

/// `at` plus `micros`; `at` itself if the sum is out of range.
pub(crate) fn add_micros(at: Timestamp, micros: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_micros(micros)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::{Clock, EXAMPLE, Since, add_micros};

    #[test]
    fn a_time_stamp_is_formatted_as_in_the_vendors_example() {
        let text = Clock::new().format(EXAMPLE);
        assert_eq!(text, "2022-02-01T15:16:23.716848-05:00[America/New_York]");
        assert_eq!(Clock::parse(&text), Some(EXAMPLE));
    }

    #[test]
    fn a_time_stamp_has_as_many_digits_as_are_asked_for() {
        let texts = [0, 3, 6, 9].map(|digits| Clock::new().format_to(EXAMPLE, digits));
        let texts = texts.each_ref().map(|text| text.trim_end_matches("-05:00[America/New_York]"));
        let second = "2022-02-01T15:16:23";
        assert_eq!(texts, ["", ".716", ".716848", ".716848000"].map(|fraction| format!("{second}{fraction}")));
    }

    #[test]
    fn a_time_stamp_cut_to_the_second_includes_that_whole_second() {
        let second = add_micros(EXAMPLE, -716_848);
        assert_eq!(Clock::new().since("2022-02-01T15:16:23"), Some(Since::From(second)));
        assert_eq!(Clock::new().since("yesterday"), None);
    }

    #[test]
    fn summer_time_has_its_own_offset() {
        let summer = add_micros(EXAMPLE, 180 * 86_400_000_000);
        assert_eq!(Clock::new().format(summer), "2022-07-31T16:16:23.716848-04:00[America/New_York]");
    }
}
