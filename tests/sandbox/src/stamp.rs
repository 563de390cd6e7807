//! Time stamps: RFC 9557 text as the vendor writes it, such as
//! `2022-02-01T15:16:23.716848-05:00[America/New_York]`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The rules of the zone of the vendor's time stamps, America/New_York, since 2007 (POSIX.1-2017,
/// 8.3). With them the sandbox needs neither /usr/share/zoneinfo nor a database of its own, which
/// takes long to compile.
const ZONE: &str = "EST5EDT,M3.2.0,M11.1.0";

/// An offset and the zone's name, for `strftime`.
const OFFSET_AND_ZONE: &str = "%:z[America/New_York]";

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

/// How many digits of a second a Java `ZonedDateTime` writes.
const DIGITS: [i64; 4] = [6, 0, 3, 9];

/// How the time stamps of sample records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamps {
    /// As in the vendor's example: 6 digits of a second, an offset and a zone.
    #[default]
    Example,
    /// In turn with 0, 3, 6 and 9 digits of a second, and with an offset and a zone, with `Z[UTC]`
    /// and with an offset alone.
    Mixed,
    /// As in the example, cut from what the service keeps: it shows a record also after the time
    /// stamp that the record has.
    Cut,
}

/// Formats and parses time stamps. It holds the zone, so that the zone is looked up once.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// A clock in the vendor's zone.
    pub(crate) fn new() -> Clock {
        Clock { zone: TimeZone::posix(ZONE).unwrap_or(TimeZone::UTC) }
    }

    /// Now, to the microsecond.
    pub(crate) fn now() -> Timestamp {
        Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or(Timestamp::MAX)
    }

    /// `at` as in a record.
    pub(crate) fn format(&self, at: Timestamp) -> String {
        write(at, self.zone.clone(), ".%6f", OFFSET_AND_ZONE)
    }

    /// The time stamp of the sample record number `index` at about `at`, and when exactly it is.
    pub(crate) fn sample(&self, at: Timestamp, stamps: Stamps, index: usize) -> (Timestamp, String) {
        if stamps != Stamps::Mixed {
            let micros = Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
            let at = if stamps == Stamps::Cut { micros + SignedDuration::from_nanos(7) } else { micros };
            return (at, self.format(at));
        }
        let digits = DIGITS[index % DIGITS.len()];
        let unit = 10_i128.pow(9 - digits as u32);
        // So that the ninth digit is not 0.
        let nanos = at.as_nanosecond() + 7;
        let at = Timestamp::from_nanosecond(nanos - nanos.rem_euclid(unit)).unwrap_or(at);
        let (zone, suffix) = match index / DIGITS.len() % 3 {
            0 => (self.zone.clone(), OFFSET_AND_ZONE),
            1 => (TimeZone::UTC, "Z[UTC]"),
            _ => (self.zone.clone(), "%:z"),
        };
        let fraction = if digits == 0 { String::new() } else { format!(".%{digits}f") };
        (at, write(at, zone, &fraction, suffix))
    }

    /// Parses a time stamp that has an offset. The zone in brackets may be one that only Java
    /// knows.
    pub(crate) fn parse(text: &str) -> Option<Timestamp> {
        let zone = text.strip_suffix(']').and_then(|text| text.split_once('['));
        let text = zone.map_or(text, |(time, _)| time);
        // A `Timestamp` ends before the last day of the year 9999.
        if text.starts_with("9999-12-31") { Some(Timestamp::MAX) } else { text.parse().ok() }
    }

    /// Parses `recordTimeStampISO` of a request: complete as in a record, or cut somewhere before
    /// its offset.
    pub(crate) fn since(&self, text: &str) -> Option<Since> {
        if let Some(at) = Clock::parse(text) {
            return Some(Since::After(at));
        }
        let local: DateTime = text.parse().ok()?;
        self.zone.to_timestamp(local).ok().map(Since::From)
    }
}

fn write(at: Timestamp, zone: TimeZone, fraction: &str, suffix: &str) -> String {
    at.to_zoned(zone).strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}{suffix}")).to_string()
}

/// `at` plus `micros`; `at` itself if the sum is out of range.
pub(crate) fn add_micros(at: Timestamp, micros: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_micros(micros)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::{Clock, EXAMPLE, Since, Stamps, add_micros};

    #[test]
    fn a_time_stamp_is_formatted_as_in_the_vendors_example() {
        let text = Clock::new().format(EXAMPLE);
        assert_eq!(text, "2022-02-01T15:16:23.716848-05:00[America/New_York]");
        assert_eq!(Clock::parse(&text), Some(EXAMPLE));
    }

    #[test]
    fn a_time_stamp_cut_to_the_second_includes_that_whole_second() {
        let second = add_micros(EXAMPLE, -716_848);
        assert_eq!(Clock::new().since("2022-02-01T15:16:23"), Some(Since::From(second)));
        assert_eq!(Clock::new().since("yesterday"), None);
    }

    #[test]
    fn mixed_time_stamps_have_every_form_and_stand_for_their_time() {
        let stamps: Vec<_> = (0..12).map(|index| Clock::new().sample(EXAMPLE, Stamps::Mixed, index)).collect();
        for (at, text) in &stamps {
            assert_eq!(Clock::parse(text), Some(*at), "{text}");
        }
        let texts: Vec<_> = stamps.iter().map(|(_, text)| text.as_str()).collect();
        let expected = [
            "2022-02-01T15:16:23.716848-05:00[America/New_York]",
            "2022-02-01T15:16:23-05:00[America/New_York]",
            "2022-02-01T15:16:23.716-05:00[America/New_York]",
            "2022-02-01T15:16:23.716848007-05:00[America/New_York]",
            "2022-02-01T20:16:23.716848Z[UTC]",
            "2022-02-01T20:16:23Z[UTC]",
            "2022-02-01T20:16:23.716Z[UTC]",
            "2022-02-01T20:16:23.716848007Z[UTC]",
            "2022-02-01T15:16:23.716848-05:00",
            "2022-02-01T15:16:23-05:00",
            "2022-02-01T15:16:23.716-05:00",
            "2022-02-01T15:16:23.716848007-05:00",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn summer_time_has_its_own_offset() {
        let summer = add_micros(EXAMPLE, 180 * 86_400_000_000);
        assert_eq!(Clock::new().format(summer), "2022-07-31T16:16:23.716848-04:00[America/New_York]");
    }
}
