//! Time stamps as the service writes them: RFC 9557, which is RFC 3339 and may name the zone in
//! brackets.
//!
//! It looks like a Java `ZonedDateTime`, whose text has 0, 3, 6 or 9 digits of a second, and no
//! seconds at all if they are zero.

use std::time::Duration;

use jiff::civil::DateTime;

/// The instant of a time stamp. The offset tells it; the zone in brackets adds nothing (RFC 9557
/// section 3.4).
///
/// # Errors
/// What is wrong with the text. One without an offset has no instant.
pub fn instant(text: &str) -> Result<jiff::Timestamp, String> {
    let separators: Vec<_> = [4, 7, 10, 13].iter().filter_map(|place| text.as_bytes().get(*place)).collect();
    if !matches!(separators[..], [b'-', b'-', b'T' | b't', b':']) {
        return Err("it does not begin like 2026-01-31T08:00".to_owned());
    }
    text.parse().map_err(|error: jiff::Error| error.to_string())
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
        ];
        for text in texts {
            assert_eq!(instant(text), instant(texts[0]), "{text}");
        }
        assert!(instant("2022-02-01T20:16:00.000000001Z") > instant(texts[0]));
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
