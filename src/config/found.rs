//! A value that is wrong, as an error shows it.

use serde_json::Value;

/// How many characters of a text an error shows.
const MAX_QUOTED: usize = 100;

/// The value itself; of an array or an object only what it is.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Bool(is_true) => is_true.to_string(),
        other => kind_of(other).to_owned(),
    }
}

/// The beginning of a text, in quotes and on one line.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?} and so on", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What a value is, where it must not be shown.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
