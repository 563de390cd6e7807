//! What a column holds, and which JSON values fit it.

/// The most digits of a number that a double holds exactly.
const MAX_DIGITS: usize = 15;

/// The type of a column, besides null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`
    Boolean,
    /// What 64 bits with a sign hold, written without a point or an exponent
    Integer,
    /// What a double holds without a loss
    Number,
    /// Unicode text without U+0000
    String,
    /// The JSON text of any value
    Json,
}

impl Kind {
    /// The type of column for a value other than null, given as JSON text. For an object it is
    /// [`Kind::Json`].
    pub fn of(json: &str) -> Kind {
        let scalars = [Kind::Boolean, Kind::Integer, Kind::Number];
        let is_string = json.starts_with('"');
        let other = if is_string { Kind::String } else { Kind::Json };
        scalars.into_iter().find(|kind| kind.fits(json)).unwrap_or(other)
    }

    /// Whether every target can store a value in such a column, and give it back as it was.
    pub fn fits(self, json: &str) -> bool {
        match self {
            Kind::Boolean => matches!(json, "true" | "false"),
            // A negative zero would lose its sign.
            Kind::Integer => json != "-0" && json.parse::<i64>().is_ok(),
            Kind::Number => is_number(json),
            Kind::String => is_text(json),
            Kind::Json => true,
        }
    }

    /// Its name in the schema of a record.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::String | Kind::Json => "string",
        }
    }
}

fn is_number(json: &str) -> bool {
    if !json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return false;
    }
    let mantissa = json.split(['e', 'E']).next().unwrap_or(json);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit);
    match digits.skip_while(|digit| *digit == b'0').count() {
        0 => !json.starts_with('-'),
        1..=MAX_DIGITS => json.parse().is_ok_and(f64::is_normal),
        _ => false,
    }
}

fn is_text(json: &str) -> bool {
    let is_escaped = || memchr::memchr(b'\\', json.as_bytes()).is_some();
    json.starts_with('"')
        && (!is_escaped() || serde_json::from_str::<String>(json).is_ok_and(|text| !text.contains('\0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_only_where_every_target_gives_it_back() {
        let deep = format!("{}{}", "[".repeat(1200), "]".repeat(1200));
        let long = "7".repeat(5000);
        let cases = [
            (Kind::Boolean, &["true", "false"][..], &["null", "\"true\"", "0"][..]),
            (
                Kind::Integer,
                &["0", "-1", "9007199254740993", "9223372036854775807", "-9223372036854775808"],
                &["-0", "10.0", "1e2", "9223372036854775808", "\"1\"", "true", &long],
            ),
            (
                Kind::Number,
                &["0", "0.0", "0e9", "-1.50", "123456789012345", "0.000000000000000123456789012345", "1e300"],
                &["-0", "-0.0", "1e400", "-1e-400", "1234567890123456", "1.0000000000000000", "\"1\"", &long],
            ),
            (
                Kind::String,
                &["\"\"", "\"é\"", "\"\\u00e9\\n\"", "\"\\ud83d\\ude00\"", "\"\\\\u0000\""],
                &["\"\\u0000\"", "\"\\ud800\"", "1", "[]", "{}"],
            ),
            (Kind::Json, &["[]", "{}", "1e400", "\"\\u0000\"", &deep], &[]),
        ];
        for (kind, good, bad) in cases {
            for json in good {
                assert!(kind.fits(json), "{kind:?} {json}");
            }
            for json in bad {
                assert!(!kind.fits(json), "{kind:?} {json}");
            }
        }
    }

    #[test]
    fn a_value_that_no_typed_column_holds_is_json_text() {
        for (json, kind) in [
            ("true", Kind::Boolean),
            ("1", Kind::Integer),
            ("1.0", Kind::Number),
            ("\"\\u0000\"", Kind::String),
            ("18446744073709551616", Kind::Json),
            ("1e400", Kind::Json),
            ("[1]", Kind::Json),
        ] {
            assert_eq!(Kind::of(json), kind, "{json}");
        }
    }
}
