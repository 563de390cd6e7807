//! Time stamps as the service writes them: RFC 9557, which is RFC 3339 and may name the zone in
//! brackets.
//!
//! It looks like a Java `ZonedDateTime`, whose text has 0, 3, 6 or 9 digits of a second, and no
//! seconds at all if they are zero.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The instant of a time stamp, as the time since 1970 in UTC.
///
/// # Errors
/// What is wrong with the text. One without an offset has no instant.
pub fn instant(text: &str) -> Result<SignedDuration, String> {
    let separators: Vec<_> = [4, 7, 10, 13].iter().filter_map(|place| text.as_bytes().get(*place)).collect();
    if !matches!(separators[..], [b'-', b'-', b'T' | b't', b':']) {
        return Err("it does not begin like 2026-01-31T08:00".to_owned());
    }
    since_epoch(text)
}

/// The offset tells the instant; the zone in brackets adds nothing (RFC 9557 section 3.4). jiff's
/// own type ends before the last day of the year 9999, and knows no zone such as `[GMT+10:00]`,
/// which is how Java writes fixed offsets.
fn since_epoch(text: &str) -> Result<SignedDuration, String> {
    let zone = text.strip_suffix(']').and_then(|text| text.split_once('['));
    let pieces = Pieces::parse(zone.map_or(text, |(time, _)| time)).map_err(|error| error.to_string())?;
    let (Some(time), Some(offset)) = (pieces.time(), pieces.to_numeric_offset()) else {
        return Err("it has no time of day with an offset".to_owned());
    };
    let local = pieces.date().to_datetime(time).duration_since(EPOCH);
    Ok(local - SignedDuration::from_secs(offset.seconds().into()))
}

/// The time stamp in UTC, with `Z` (RFC 3339 section 5.6).
///
/// # Errors
/// What is wrong with the text.
pub fn in_utc(text: &str) -> Result<String, String> {
    let utc = EPOCH.checked_add(since_epoch(text)?).map_err(|error| error.to_string())?;
    Ok(format!("{utc}Z"))
}

/// The time stamp that is so much earlier, to the second, with the same offset, zone and digits:
/// whether the service compares instants or texts is not known.
///
/// # Errors
/// What is wrong with the text, or that there is no such time stamp.
pub fn earlier(text: &str, by: Duration) -> Result<String, String> {
    instant(text)?;
    let has_seconds = text.as_bytes().get(16) == Some(&b':');
    let (local, rest) = text.split_at(if has_seconds { 19 } else { 16 });
    let local: DateTime = local.parse().map_err(|error: jiff::Error| error.to_string())?;
    let earlier = local.checked_sub(by).map_err(|error| error.to_string())?;
    Ok(format!("{}{rest}", earlier.strftime("%Y-%m-%dT%H:%M:%S")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_one_instant_are_equal() {
        let texts = [
            "2022-02-01T15:16:00-05:00[America/New_York]",
            "2022-02-01T15:16-05:00[America/New_York]",
            "2022-02-01T15:16:00.000-05:00",
            "2022-02-01T20:16:00.000000Z[UTC]",
            "2022-02-01T20:16:00.000000000Z",
            "2022-02-02T06:16:00+10:00[GMT+10:00]",
            "2022-02-02T06:16:00+10:00[UTC+10:00]",
            "2022-02-01T17:16:00-03:00[UT-03:00]",
            "2022-02-01T17:16:00-03:00[-03:00]",
        ];
        for text in texts {
            assert_eq!(instant(text), instant(texts[0]), "{text}");
        }
        assert!(instant("2022-02-01T20:16:00.000000001Z") > instant(texts[0]));
        assert!(instant("9999-12-31T23:59:59.999999999-05:00[America/New_York]") > instant("9999-12-31T23:59:59Z"));
    }

    #[test]
    fn what_has_no_instant_is_refused() {
        for text in ["", "yesterday", "2022-02-01", "2022-02-01T15:16:23", "20220201T151623Z", "2022-02-01 15:16:23Z"] {
            assert!(instant(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_earlier_time_stamp_keeps_its_form() {
        for (text, expected) in [
            (
                "2022-03-01T00:00:10.716848-05:00[America/New_York]",
                "2022-02-28T23:59:10.716848-05:00[America/New_York]",
            ),
            ("2022-03-01T00:01Z[UTC]", "2022-03-01T00:00:00Z[UTC]"),
            ("2022-03-01T12:00:00.123+05:30", "2022-03-01T11:59:00.123+05:30"),
        ] {
            assert_eq!(earlier(text, Duration::from_secs(60)).as_deref(), Ok(expected));
        }
        assert!(earlier("yesterday", Duration::ZERO).is_err());
    }
}
