//! The catalog: what `--discover` prints, and what `--catalog` says of the stream to read.
//! Source: the Singer specification, docs/DISCOVERY_MODE.md and docs/SYNC_MODE.md.

use std::path::Path;

use anyhow::Context;
use log::warn;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::config::{Invalid, read_text};
use crate::singer::Stream;

/// The fields that make a record's identity.
pub const KEY_PROPERTIES: [&str; 2] = ["recordId", "recordTimeStampISO"];

/// The schema of a StreamDuo record, every field under its own name.
///
/// `recordTimeStampISO` has no `format`: an RFC 9557 time stamp with its zone in brackets is no RFC 3339 `date-time`, and
/// SQL targets fail on it.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "recordId": {"type": "string"},
            "streamId": {"type": ["null", "string"]},
            "recordTimeStampISO": {"type": "string"},
            "readStatus": {"type": ["null", "string", "boolean"]},
            "dataPayload": {
                "type": ["null", "object", "array", "string", "number", "boolean"],
                "additionalProperties": true
            }
        },
        "additionalProperties": true
    })
}

/// The catalog of the one stream there is, as `--discover` prints it.
pub fn discover(stream_name: &str) -> Value {
    let schema = schema();
    let mut metadata = vec![json!({
        "breadcrumb": [],
        "metadata": {"inclusion": "available", "selected-by-default": true, "table-key-properties": KEY_PROPERTIES}
    })];
    for field in schema["properties"].as_object().into_iter().flat_map(|properties| properties.keys()) {
        let about = if KEY_PROPERTIES.contains(&field.as_str()) {
            json!({"inclusion": "automatic"})
        } else {
            json!({"inclusion": "available", "selected-by-default": true})
        };
        metadata.push(json!({"breadcrumb": ["properties", field], "metadata": about}));
    }
    json!({"streams": [{
        "tap_stream_id": stream_name,
        "stream": stream_name,
        "key_properties": KEY_PROPERTIES,
        "schema": schema,
        "metadata": metadata
    }]})
}

/// The stream of this name, with the schema that fits every record.
///
/// # Errors
/// Never: the schema is a constant that is JSON.
pub fn default_stream(name: &str) -> anyhow::Result<Stream> {
    let schema = RawValue::from_string(schema().to_string()).context("write the schema")?;
    let key_properties = KEY_PROPERTIES.map(str::to_owned).to_vec();
    Ok(Stream { name: name.to_owned(), schema, key_properties })
}

#[derive(Deserialize)]
struct Catalog {
    streams: Vec<Entry>,
}

/// An entry of a catalog. Older ones name and select a stream in other places: all are read.
#[derive(Deserialize)]
struct Entry {
    stream: Option<String>,
    tap_stream_id: Option<String>,
    schema: Option<Box<RawValue>>,
    selected: Option<bool>,
    #[serde(default)]
    metadata: Vec<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    breadcrumb: Vec<String>,
    metadata: Value,
}

/// The part of a schema that is looked at.
#[derive(Deserialize)]
struct SchemaOutline {
    #[serde(default)]
    properties: serde_json::Map<String, Value>,
    selected: Option<bool>,
}

impl Entry {
    fn name(&self) -> Option<&str> {
        self.stream.as_deref().or(self.tap_stream_id.as_deref()).filter(|name| !name.is_empty())
    }

    fn outline(&self) -> Option<SchemaOutline> {
        self.schema.as_ref().and_then(|schema| serde_json::from_str(schema.get()).ok())
    }

    /// `selected` over `selected-by-default`; an entry that says neither is selected.
    fn is_selected(&self) -> bool {
        let root = self.metadata.iter().find(|entry| entry.breadcrumb.is_empty()).map(|entry| &entry.metadata);
        let said = |key: &str| root.and_then(|root| root.get(key)).and_then(Value::as_bool);
        if root.and_then(|root| root.get("inclusion")).and_then(Value::as_str) == Some("unsupported") {
            return false;
        }
        said("selected")
            .or(self.selected)
            .or_else(|| self.outline().and_then(|schema| schema.selected))
            .or_else(|| said("selected-by-default"))
            .unwrap_or(true)
    }
}

/// Reads a catalog: the stream to read, or `None` where it is not selected.
///
/// # Errors
/// [`Invalid`] when it is no catalog, knows no stream or selects several: a tap reads one.
pub fn load(path: &Path) -> Result<Option<Stream>, Invalid> {
    let invalid = |problem: String| Invalid::new(format!("catalog {}: {problem}", path.display()));
    let text = read_text(path).map_err(|error| invalid(format!("{error:#}")))?;
    let catalog: Catalog = serde_json::from_str(&text)
        .map_err(|error| invalid(format!("no Singer catalog ({error}); make one with --discover")))?;
    if catalog.streams.is_empty() {
        return Err(invalid("it holds no stream; make one with --discover".to_owned()));
    }
    let mut selected = catalog.streams.into_iter().filter(Entry::is_selected);
    let Some(entry) = selected.next() else { return Ok(None) };
    let others: Vec<_> = selected.map(|entry| format!("{:?}", entry.name().unwrap_or_default())).collect();
    if !others.is_empty() {
        let first = entry.name().unwrap_or_default();
        return Err(invalid(format!(
            "it selects {first:?} and {}: a run reads one stream, so deselect the others",
            others.join(", ")
        )));
    }
    let Some(name) = entry.name() else {
        return Err(invalid("its stream has no name; make one with --discover".to_owned()));
    };
    let mut stream = default_stream(name).map_err(|error| invalid(format!("{error:#}")))?;
    let fits =
        entry.outline().is_some_and(|schema| KEY_PROPERTIES.iter().all(|key| schema.properties.contains_key(*key)));
    match entry.schema {
        Some(schema) if fits => stream.schema = schema,
        Some(_) => warn!(
            "catalog {}: its schema lacks the key properties {}, so the tap's own is used",
            path.display(),
            KEY_PROPERTIES.join(" and ")
        ),
        None => {}
    }
    Ok(Some(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(entry: Value) -> Entry {
        serde_json::from_value(entry).unwrap()
    }

    fn root(metadata: Value) -> Entry {
        entry(json!({"stream": "records", "metadata": [{"breadcrumb": [], "metadata": metadata}]}))
    }

    #[test]
    fn selected_wins_over_selected_by_default() {
        assert!(root(json!({"selected": true, "selected-by-default": false})).is_selected());
        assert!(!root(json!({"selected": false, "selected-by-default": true})).is_selected());
        assert!(!root(json!({"selected-by-default": false})).is_selected());
        assert!(!root(json!({"selected": true, "inclusion": "unsupported"})).is_selected());
    }

    #[test]
    fn an_entry_that_says_nothing_is_selected_and_the_old_places_are_read() {
        assert!(entry(json!({"stream": "records"})).is_selected());
        assert!(!entry(json!({"stream": "records", "schema": {"selected": false}})).is_selected());
        assert!(!entry(json!({"stream": "records", "selected": false})).is_selected());
    }
}
