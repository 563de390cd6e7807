//! The file that `columnsFile` names: a JSON schema of the payload, made by the tap, by hand or by
//! both. The tap adds properties to it, and changes nothing else.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use same_file::Handle;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::column::{Column, Columns};
use super::names::MAX_COLUMNS;
use super::schema;
use crate::config::source::read_text;
use crate::record::{Members, Texts};
use crate::singer::files::{check_replaceable, is_behind, replace};

/// How long to wait for another tap, which holds the file for a moment only.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// What tells a JSON schema from another file.
const SCHEMA_WORDS: [&str; 7] = ["$schema", "$ref", "type", "properties", "allOf", "anyOf", "oneOf"];

/// An object without columns.
const EMPTY: &str = r#"{"type": ["null", "object"], "properties": {}}"#;

/// The columns that a file holds. There are none in an empty one, and in one that can still be
/// made.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path) -> Result<Columns> {
    if !path.is_file() {
        check_replaceable(path)?;
        return Ok(Columns::default());
    }
    ensure!(!is_behind(Handle::stdout(), path), "it is the file that stdout goes to: name another one");
    parse(&read_text(path)?)
}

/// Adds the columns that are wanted to a file, as far as they are new, and returns all that it then
/// holds. They are on the disk by then. Taps that share the file take turns.
///
/// # Errors
/// Why they cannot be added. The file is as it was.
pub fn add(path: &Path, wanted: &Columns) -> Result<Columns> {
    let columns = read(path)?;
    if columns.with(wanted) == columns {
        return Ok(columns);
    }
    let _locked = lock(path)?;
    let text = read_text(path)?;
    let columns = parse(&text)?;
    let all = columns.with(wanted);
    let old = if text.trim().is_empty() { EMPTY } else { &text };
    let new = format!("{}\n", added_to(old, &all.without(&columns), 0)?);
    ensure!(parse(&new)? == all, "it is written in a way that the tap cannot add to");
    replace(path, new.as_bytes())?;
    Ok(all)
}

fn parse(text: &str) -> Result<Columns> {
    if text.trim().is_empty() {
        return Ok(Columns::default());
    }
    let json: Value = serde_json::from_str(text).context("correct it, or name another file: it is not JSON")?;
    let is_schema =
        |object: &Map<_, _>| object.is_empty() || SCHEMA_WORDS.iter().any(|word| object.contains_key(*word));
    ensure!(
        json.as_object().is_none_or(is_schema),
        "it is not the JSON schema of an object: name another file, which may be empty or still to be made"
    );
    let (described, problems) = schema::columns(&json);
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    // They would be gone once columns are added.
    if let Some(name) = twice(text) {
        bail!("the name {name} is there twice in one object: remove one of them");
    }
    let columns = Columns::default().with(&described);
    let refused = described.without(&columns).paths().join(", ");
    ensure!(
        refused.is_empty(),
        "a database would refuse these names or confuse them with others, or they are more than {MAX_COLUMNS}: {refused}; \
         remove them, and their values go to `dataPayloadRest`"
    );
    Ok(columns)
}

/// A name that an object of a JSON text holds twice.
fn twice(json: &str) -> Option<&str> {
    let Ok(Members(members)) = serde_json::from_str(json) else {
        let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
        return items.into_iter().find_map(|item| twice(item.get()));
    };
    let mut names = HashSet::new();
    members.into_iter().find_map(|(name, written, value)| match names.insert(name) {
        true => twice(value.get()),
        false => Some(written.get()),
    })
}

/// The schema of an object, with these columns more. It is nested `level` deep in the file.
fn added_to(schema: &str, columns: &Columns, level: usize) -> serde_json::Result<Box<RawValue>> {
    let mut members: Texts = serde_json::from_str(schema)?;
    let mut properties: Texts = serde_json::from_str(members.get("properties").map_or("{}", |text| text.get()))?;
    for (name, column) in &columns.0 {
        let schema = match column {
            Column::Object(columns) => {
                added_to(properties.get(name).map_or(EMPTY, |text| text.get()), columns, level + 2)?
            }
            leaf => {
                let media_type = if *leaf == Column::Json { r#", "contentMediaType": "application/json""# } else { "" };
                RawValue::from_string(format!(r#"{{"type": ["null", "{}"]{media_type}}}"#, leaf.name()))?
            }
        };
        properties.insert(name.clone(), schema);
    }
    members.insert("properties".to_owned(), pretty(&properties, level + 1)?);
    pretty(&members, level)
}

/// An object with a line for each member.
fn pretty(members: &Texts, level: usize) -> serde_json::Result<Box<RawValue>> {
    let indent = "  ".repeat(level);
    let lines = members.iter().map(|(name, value)| format!("{indent}  {}: {value}", json!(name)));
    RawValue::from_string(format!("{{\n{}\n{indent}}}", lines.collect::<Vec<_>>().join(",\n")))
}

/// Opens the file, or makes an empty one, and waits until no other tap holds it.
fn lock(path: &Path) -> Result<File> {
    let started = Instant::now();
    loop {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        while let Err(error) = file.try_lock() {
            ensure!(matches!(error, TryLockError::WouldBlock), io::Error::from(error));
            ensure!(started.elapsed() < MAX_WAIT, "another process holds it");
            thread::sleep(Duration::from_millis(20));
        }
        // Another tap may have put a new one in its place meanwhile.
        if Handle::from_file(file.try_clone()?)? == Handle::from_path(path)? {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use tempfile::TempDir;

    fn wanted(schema: Value) -> Columns {
        schema::columns(&json!({"properties": schema})).0
    }

    /// The text of a file after these columns were added to this one.
    fn added(text: &str, columns: Value) -> Result<String> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("columns.json");
        fs::write(&path, text).unwrap();
        add(&path, &wanted(columns))?;
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        Ok(fs::read_to_string(path).unwrap())
    }

    #[test]
    fn a_file_is_made_with_a_line_for_each_column() {
        let columns = json!({
            "make": {"type": "string"}, "tags": {"type": "array"},
            "owner": {"properties": {"age": {"type": "integer"}, "at": {"properties": {"lat": {"type": "number"}}}}},
        });
        let text = r#"{
  "type": ["null", "object"],
  "properties": {
    "make": {"type": ["null", "string"]},
    "tags": {"type": ["null", "string"], "contentMediaType": "application/json"},
    "owner": {
      "type": ["null", "object"],
      "properties": {
        "age": {"type": ["null", "integer"]},
        "at": {
          "type": ["null", "object"],
          "properties": {
            "lat": {"type": ["null", "number"]}
          }
        }
      }
    }
  }
}
"#;
        assert_eq!(added("", columns.clone()).unwrap(), text);
        assert_eq!(added(text, columns).unwrap(), text);
    }

    #[test]
    fn what_is_there_stays_as_it_is_written() {
        let text = r##"{"title": "Cars", "$comment": 1.10,
  "type": "object", "required": ["make"],
  "properties": {
    "make": {"type":"string",   "description":"who made it"},
    "state": { "$ref": "#/definitions/state" },
    "owner": {"description": "whose it is", "properties": {"name": {"type": "string"}}}
  },
  "definitions": {"state": {"type": "string"}}}"##;
        // What is there does not change its type either.
        let columns = json!({
            "make": {"type": "integer"}, "state": {"type": "boolean"}, "price": {"type": "number"},
            "owner": {"properties": {"name": {"type": "integer"}, "age": {"type": "integer"}}}
        });
        let new = r##"{
  "title": "Cars",
  "$comment": 1.10,
  "type": "object",
  "required": ["make"],
  "properties": {
    "make": {"type":"string",   "description":"who made it"},
    "state": { "$ref": "#/definitions/state" },
    "owner": {
      "description": "whose it is",
      "properties": {
        "name": {"type": "string"},
        "age": {"type": ["null", "integer"]}
      }
    },
    "price": {"type": ["null", "number"]}
  },
  "definitions": {"state": {"type": "string"}}
}
"##;
        assert_eq!(added(text, columns).unwrap(), new);
        assert_eq!(added(text, json!({"make": {"type": "boolean"}})).unwrap(), text, "nothing is new");
    }
}
