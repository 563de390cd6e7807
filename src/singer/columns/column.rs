//! What a column holds, and which JSON values fit it.

use indexmap::IndexMap;

/// The most digits of a number that a double holds exactly.
const MAX_DIGITS: usize = 15;

/// The fields of an object that have columns, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns(pub IndexMap<String, Column, foldhash::fast::RandomState>);

/// What a field is, besides null.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
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
    /// An object with columns of its own
    Object(Columns),
}

impl Column {
    /// The column for a value other than null, given as JSON text; without those of an object's
    /// fields.
    pub fn of(json: &str) -> Column {
        let scalars = [Column::Boolean, Column::Integer, Column::Number];
        let found = scalars.into_iter().find(|column| column.fits(json));
        found.unwrap_or(match json.bytes().next() {
            Some(b'"') => Column::String,
            Some(b'{') => Column::Object(Columns::default()),
            _ => Column::Json,
        })
    }

    /// Whether every target can store a value in such a column, and give it back as it was.
    pub fn fits(&self, json: &str) -> bool {
        match self {
            Column::Boolean => matches!(json, "true" | "false"),
            // A negative zero would lose its sign.
            Column::Integer => json != "-0" && json.parse::<i64>().is_ok(),
            Column::Number => is_number(json),
            Column::String => is_text(json),
            Column::Json => true,
            Column::Object(_) => json.starts_with('{'),
        }
    }

    /// Its name in the schema of a record.
    pub fn name(&self) -> &'static str {
        match self {
            Column::Boolean => "boolean",
            Column::Integer => "integer",
            Column::Number => "number",
            Column::String | Column::Json => "string",
            Column::Object(_) => "object",
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
            (Column::Boolean, &["true", "false"][..], &["null", "\"true\"", "0"][..]),
            (
                Column::Integer,
                &["0", "-1", "9007199254740993", "9223372036854775807", "-9223372036854775808"],
                &["-0", "10.0", "1e2", "9223372036854775808", "\"1\"", "true", &long],
            ),
            (
                Column::Number,
                &["0", "0.0", "0e9", "-1.50", "123456789012345", "0.000000000000000123456789012345", "1e300"],
                &["-0", "-0.0", "1e400", "-1e-400", "1234567890123456", "1.0000000000000000", "\"1\"", &long],
            ),
            (
                Column::String,
                &["\"\"", "\"é\"", "\"\\u00e9\\n\"", "\"\\ud83d\\ude00\"", "\"\\\\u0000\""],
                &["\"\\u0000\"", "\"\\ud800\"", "1", "[]", "{}"],
            ),
            (Column::Json, &["[]", "{}", "1e400", "\"\\u0000\"", &deep], &[]),
        ];
        for (column, good, bad) in cases {
            for json in good {
                assert!(column.fits(json), "{column:?} {json}");
            }
            for json in bad {
                assert!(!column.fits(json), "{column:?} {json}");
            }
        }
    }

    #[test]
    fn a_value_that_no_typed_column_holds_is_json_text() {
        for (json, column) in [
            ("true", Column::Boolean),
            ("1", Column::Integer),
            ("1.0", Column::Number),
            ("\"\\u0000\"", Column::String),
            ("18446744073709551616", Column::Json),
            ("1e400", Column::Json),
            ("[1]", Column::Json),
        ] {
            assert_eq!(Column::of(json), column, "{json}");
        }
    }
}
