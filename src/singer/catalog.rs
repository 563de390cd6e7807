//! The catalog: what `--discover` prints, and what `--catalog` says of the stream to read.
//! Source: the Singer specification, docs/DISCOVERY_MODE.md and docs/SYNC_MODE.md.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use log::warn;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::source::read_text;
use crate::config::{Acknowledge, Config, Invalid};
use crate::singer::selection::{self, Metadata, Selection, describe};
use crate::singer::transform::{PAYLOAD, TIMESTAMP, Transform};
use crate::singer::{Stream, schema};

/// The fields that make a record's identity.
const KEY_PROPERTIES: [&str; 2] = ["recordId", TIMESTAMP];

/// The catalog of the one stream there is, as `--discover` prints it, with metadata for every
/// field: Meltano takes a field without metadata for one that cannot be deselected. A stream that
/// is read by time is replicated by its time stamp.
pub fn discover(stream_name: &str, mut schema: Value, acknowledge: Acknowledge) -> Value {
    let mut root =
        json!({"inclusion": "available", "selected-by-default": true, "table-key-properties": KEY_PROPERTIES});
    let mut stream = json!({"tap_stream_id": stream_name, "stream": stream_name, "key_properties": KEY_PROPERTIES});
    if acknowledge == Acknowledge::Never {
        root["replication-method"] = json!("INCREMENTAL");
        root["replication-key"] = json!(TIMESTAMP);
        root["valid-replication-keys"] = json!([TIMESTAMP]);
        stream["replication_method"] = json!("INCREMENTAL");
        stream["replication_key"] = json!(TIMESTAMP);
    }
    let mut metadata = Vec::new();
    describe(&mut schema, &[], &mut metadata);
    for field in &mut metadata {
        field.metadata = match field.breadcrumb.as_slice() {
            [] => root.take(),
            [_, name] if KEY_PROPERTIES.contains(&name.as_str()) => json!({"inclusion": "automatic"}),
            _ => json!({"inclusion": "available", "selected-by-default": true}),
        };
    }
    stream["schema"] = schema;
    stream["metadata"] = json!(metadata);
    json!({"streams": [stream]})
}

/// The stream of the configuration, with all its fields.
pub fn whole_stream(config: &Config) -> Stream {
    let mut schema = schema::record();
    schema::apply_settings(&mut schema, config);
    Stream {
        name: config.stream_name.clone(),
        schema,
        key_properties: KEY_PROPERTIES.map(str::to_owned).to_vec(),
        transform: Transform {
            timestamp: config.timestamp_format,
            payload: config.payload_format,
            ..Transform::default()
        },
    }
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
    #[serde(default)]
    schema: Value,
    #[serde(default)]
    selected: Value,
    key_properties: Option<Vec<String>>,
    #[serde(default)]
    metadata: Vec<Metadata>,
}

impl Entry {
    fn name(&self) -> Option<&str> {
        self.stream.as_deref().or(self.tap_stream_id.as_deref()).filter(|name| !name.is_empty())
    }

    /// What is said of the stream as a whole.
    fn root(&self) -> &Value {
        let root = self.metadata.iter().find(|entry| entry.breadcrumb.is_empty());
        root.map_or(&Value::Null, |entry| &entry.metadata)
    }

    /// Whether the schema has all these fields.
    fn has(&self, names: &[impl AsRef<str>]) -> bool {
        names.iter().all(|name| self.schema["properties"].get(name.as_ref()).is_some())
    }

    /// Whether the stream is selected: yes, unless the entry says otherwise.
    fn is_selected(&self) -> bool {
        let root = self.root();
        let said = [&root["selected"], &self.selected, &self.schema["selected"]].into_iter().find_map(selection::flag);
        root["inclusion"] != "unsupported" && said.or_else(|| selection::selected(root)).unwrap_or(true)
    }

    /// The key properties that the metadata (as Meltano's `metadata` extra) or else the entry sets,
    /// if they are others than the tap's, and the schema has them all.
    fn key_properties(&self) -> Option<Vec<String>> {
        let in_root = serde_json::from_value(self.root()["table-key-properties"].clone()).ok();
        let mut said = [in_root, self.key_properties.clone()].into_iter().flatten();
        // A discovered catalog has both, and a user who changes one leaves the other as it was.
        let names: Vec<String> = said.find(|names: &Vec<_>| !names.is_empty() && *names != KEY_PROPERTIES)?;
        if !self.has(&names) {
            warn!("the catalog's key properties {names:?} are not all in its schema, so the tap's own are used");
            return None;
        }
        Some(names)
    }
}

/// Reads a catalog: the stream to read, or `None` if it is not selected.
///
/// # Errors
/// [`Invalid`] when the file is not a catalog, has no stream, or selects several: a run reads one.
pub fn load(path: &Path, config: &Config) -> Result<Option<Stream>, Invalid> {
    let invalid = |problem: anyhow::Error| Invalid::new(format!("catalog {}: {problem}", path.display()));
    let Some(mut entry) = selected(path).map_err(invalid)? else { return Ok(None) };
    describe(&mut entry.schema, &[], &mut entry.metadata);
    let mut stream = whole_stream(config);
    stream.name = entry.name().unwrap_or_default().to_owned();
    if let Some(names) = entry.key_properties() {
        stream.key_properties = names;
    }
    let keys: Vec<&str> = KEY_PROPERTIES.into_iter().chain(stream.key_properties.iter().map(String::as_str)).collect();
    let by_name = config.columns_file.is_some().then_some(PAYLOAD);
    let selection = Selection::new(&entry.metadata, &keys, by_name);
    if entry.has(&KEY_PROPERTIES) {
        stream.schema = entry.schema.take();
        schema::apply_settings(&mut stream.schema, config);
    } else if !entry.schema.is_null() {
        let missing = KEY_PROPERTIES.join(" and ");
        let path = path.display();
        warn!("catalog {path}: its schema lacks the key properties {missing}, so the tap's own is used");
    }
    selection.cut_schema(&mut stream.schema);
    stream.transform.selection = selection;
    Ok(Some(stream))
}

/// The one entry that is selected, if any is.
fn selected(path: &Path) -> Result<Option<Entry>> {
    let text = read_text(path).map_err(|error| anyhow!("read the file: {error}; make one with --discover"))?;
    let catalog: Catalog = serde_json::from_str(&text)
        .map_err(|error| anyhow!("it is not a Singer catalog ({error}): make one with --discover"))?;
    ensure!(!catalog.streams.is_empty(), "it holds no stream: make a catalog with --discover");
    let mut selected = catalog.streams.into_iter().filter(Entry::is_selected);
    let Some(entry) = selected.next() else { return Ok(None) };
    let name = entry.name().context("its stream has no name: make a catalog with --discover")?;
    let others: Vec<_> = selected.map(|entry| format!("{:?}", entry.name().unwrap_or_default())).collect();
    let others = others.join(", ");
    ensure!(others.is_empty(), "it selects {name:?} and {others}: a run reads one stream, so deselect the others");
    Ok(Some(entry))
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
