//! The schema of a record.

use log::warn;
use serde_json::{Value, json};

use crate::config::{Config, PayloadFormat, PayloadSchema, TimestampFormat};
use crate::singer::transform::{PAYLOAD, REST, TIMESTAMP};

/// The schema of a StreamDuo record, every field under its own name. Its payload may be anything.
///
/// `recordTimeStampISO` has no `format`: an RFC 9557 time stamp with its zone in brackets is not an
/// RFC 3339 `date-time`, and SQL targets fail on it.
pub fn record() -> Value {
    json!({
        "type": "object",
        "properties": {
            "recordId": {"type": "string"},
            "streamId": {"type": ["null", "string"]},
            TIMESTAMP: {"type": "string"},
            "readStatus": {"type": ["null", "string", "boolean"]},
            PAYLOAD: any(),
        },
        "additionalProperties": true
    })
}

/// The schema of a payload that may be anything.
fn any() -> Value {
    json!({"type": ["null", "object", "array", "string", "number", "boolean"], "additionalProperties": true})
}

/// Changes a record's schema to what the settings make of its records. A catalog may have been made
/// with others.
pub fn apply_settings(schema: &mut Value, config: &Config) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let text = json!(["null", "string"]);
    let was_text = properties.get(PAYLOAD).is_some_and(|payload| payload["type"] == text);
    let had_columns = properties.shift_remove(REST).is_some();
    let mut set = |name: &str, value: Value| {
        if let Some(property) = properties.get_mut(name) {
            *property = value;
        }
    };
    // Columns describe themselves once they are known.
    if had_columns && config.payload_schema == PayloadSchema::Any {
        warn!("the catalog was made with columns, and `payloadSchema` is `any`: the payload is written as it is");
        set(PAYLOAD, any());
    }
    match config.payload_format {
        PayloadFormat::String => set(PAYLOAD, json!({"type": text})),
        PayloadFormat::Json if was_text => set(PAYLOAD, any()),
        PayloadFormat::Json => {}
    }
    if config.timestamp_format == TimestampFormat::Rfc3339 {
        set(TIMESTAMP, json!({"type": "string", "format": "date-time"}));
    } else if let Some(Value::Object(timestamp)) = properties.get_mut(TIMESTAMP) {
        // Of a catalog that was made with the other format.
        timestamp.shift_remove("format");
    }
}
