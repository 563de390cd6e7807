//! A model of a target that flattens: it drops what its SCHEMA does not declare, and panics at what
//! does not fit a column, at a column that changes, and at names that a database refuses. It stores
//! what such a database stores: a number is a double.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use tap_streamduo::record::Members;

/// A column's path and its type.
type Declared = (Vec<String>, String);

/// A field of a payload: the names on the way to it, and what it holds.
pub type Leaf = (Vec<String>, String);

/// The columns of a table, over all runs, and its rows.
#[derive(Default)]
pub struct FlatteningTarget {
    /// The type of each column, by its name as a database folds it.
    types: BTreeMap<String, String>,
    /// The declared leaves of the payload, in the order of the last SCHEMA: the path and the type.
    declared: Vec<Declared>,
    /// By `recordId`.
    pub rows: BTreeMap<String, Row>,
}

/// The payload of one record.
pub struct Row {
    /// The columns that are not null: the path, the type and the value as JSON text.
    pub columns: Vec<(Vec<String>, String, String)>,
    pub rest: Option<String>,
}

impl FlatteningTarget {
    /// Loads the messages of one start.
    #[track_caller]
    pub fn load(&mut self, messages: &str) {
        let mut is_declared = false;
        for line in messages.lines() {
            let message: BTreeMap<String, &RawValue> = serde_json::from_str(line).unwrap();
            match message["type"].get() {
                "\"SCHEMA\"" => {
                    assert!(!is_declared, "a second SCHEMA");
                    is_declared = true;
                    self.declare(&serde_json::from_str(message["schema"].get()).unwrap());
                }
                "\"RECORD\"" => {
                    assert!(is_declared, "no SCHEMA before {line}");
                    self.insert(message["record"].get());
                }
                _ => {}
            }
        }
    }

    #[track_caller]
    fn declare(&mut self, schema: &Value) {
        let before = std::mem::take(&mut self.declared);
        if let Some(payload) = schema["properties"].get("dataPayload") {
            self.declare_object(payload, &mut Vec::new());
        }
        assert_eq!(schema["properties"]["dataPayloadRest"], serde_json::json!({"type": ["null", "string"]}));
        for column in before {
            assert!(self.declared.contains(&column), "{column:?} has gone");
        }
        let names: Vec<_> = self.declared.iter().map(|(path, _)| folded(path)).collect();
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.len() <= 400 && names.iter().all(|name| name.len() <= 63), "{names:?}");
    }

    #[track_caller]
    fn declare_object(&mut self, schema: &Value, path: &mut Vec<String>) {
        assert_eq!(schema["type"], serde_json::json!(["null", "object"]));
        let properties = schema["properties"].as_object().unwrap();
        assert!(!properties.is_empty(), "an object without properties at {path:?}");
        for (name, property) in properties {
            path.push(name.clone());
            if property.get("properties").is_some() {
                self.declare_object(property, path);
            } else {
                assert_eq!(property.as_object().unwrap().len(), 1, "{property}");
                assert_eq!((property["type"].as_array().unwrap().len(), &property["type"][0]), (2, &"null".into()));
                let kind = property["type"][1].as_str().unwrap().to_owned();
                let known = self.types.entry(folded(path)).or_insert_with(|| kind.clone());
                assert_eq!(*known, kind, "the column {path:?} has changed");
                self.declared.push((path.clone(), kind));
            }
            path.pop();
        }
    }

    #[track_caller]
    fn insert(&mut self, record: &str) {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(record).unwrap();
        let id = serde_json::from_str(fields["recordId"].get()).unwrap();
        let mut cells = Vec::new();
        if let Some(payload) = fields.get("dataPayload") {
            flatten(payload.get(), &mut Vec::new(), &mut |path, cell| cells.push((path.to_vec(), cell.to_owned())));
        }
        let paths: Vec<_> = cells.iter().map(|(path, _)| path).collect();
        let declared: Vec<_> = self.declared.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, declared, "records are uniform: {record}");
        let store = |((path, cell), (_, kind)): (Leaf, &Declared)| {
            (cell != "null").then(|| (path, kind.clone(), stored(&cell, kind)))
        };
        let columns = cells.into_iter().zip(&self.declared).filter_map(store).collect();
        let rest = serde_json::from_str(&stored_rest(fields["dataPayloadRest"].get())).unwrap();
        self.rows.insert(id, Row { columns, rest });
    }
}

fn stored_rest(cell: &str) -> String {
    if cell == "null" { cell.to_owned() } else { stored(cell, "string") }
}

/// What a database gives back of a value, as JSON text.
#[track_caller]
fn stored(cell: &str, kind: &str) -> String {
    match kind {
        "boolean" => cell.parse::<bool>().unwrap().to_string(),
        "integer" => cell.parse::<i64>().unwrap().to_string(),
        // The way of a float, as of Python and most databases. JSON has no infinity.
        "number" => {
            let number: f64 = cell.parse().unwrap();
            assert!(number.is_finite() && !cell.starts_with('"'), "{cell}");
            format!("{number}")
        }
        "string" => {
            let text: String = serde_json::from_str(cell).unwrap_or_else(|error| panic!("{cell}: {error}"));
            assert!(!text.contains('\0'), "{cell}");
            serde_json::to_string(&text).unwrap()
        }
        _ => panic!("the type {kind}"),
    }
}

fn folded(path: &[String]) -> String {
    format!("dataPayload__{}", path.join("__")).to_lowercase()
}

/// Calls `leaf` with each value in nested objects that is not an object itself.
fn flatten(json: &str, path: &mut Vec<String>, leaf: &mut dyn FnMut(&[String], &str)) {
    if !json.starts_with('{') {
        return leaf(path, json);
    }
    let Members(members) = serde_json::from_str(json).unwrap();
    for (name, _, value) in members {
        path.push(name.into_owned());
        flatten(value.get(), path, leaf);
        path.pop();
    }
}

/// The leaves of a payload, in order: all that is not null.
pub fn leaves(payload: &str) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    add_leaves(payload, &mut Vec::new(), &mut leaves);
    leaves.sort_by(|(one, _), (other, _)| one.cmp(other));
    leaves
}

fn add_leaves(json: &str, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
    flatten(json, path, &mut |path, value| {
        if value != "null" {
            leaves.push((path.to_vec(), canonical(value)));
        }
    });
}

impl Row {
    /// The leaves of the payload as they are read back. `columns` is the text of the columns file,
    /// which tells JSON text from text.
    pub fn leaves(&self, columns: &str) -> Vec<Leaf> {
        let schema: Value = serde_json::from_str(columns).unwrap_or_default();
        let mut leaves = Vec::new();
        for (path, _, value) in &self.columns {
            let column = path.iter().fold(&schema, |schema, name| &schema["properties"][name]);
            assert!(column.is_object(), "{path:?} is not in {columns}");
            if column["contentMediaType"] == "application/json" {
                let text: String = serde_json::from_str(value).unwrap();
                add_leaves(&text, &mut path.clone(), &mut leaves);
            } else {
                leaves.push((path.clone(), canonical(value)));
            }
        }
        if let Some(rest) = &self.rest {
            add_leaves(rest, &mut Vec::new(), &mut leaves);
        }
        leaves.sort_by(|(one, _), (other, _)| one.cmp(other));
        leaves
    }
}

/// One text for each value: of a string its characters, of a number its digits, of an array its
/// text.
fn canonical(json: &str) -> String {
    match json.as_bytes()[0] {
        b'"' => serde_json::from_str::<String>(json).map_or(json.to_owned(), |text| format!("text {text}")),
        b'-' | b'0'..=b'9' => decimal(json),
        _ => json.to_owned(),
    }
}

/// A number as its sign, its digits and its exponent.
fn decimal(json: &str) -> String {
    let unsigned = json.trim_start_matches('-');
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let exponent =
        exponent.parse::<i128>().unwrap() - fraction.len() as i128 + (digits.len() - significant.len()) as i128;
    let significant = significant.trim_start_matches('0');
    let sign = if json.starts_with('-') { "-" } else { "" };
    if significant.is_empty() { format!("{sign}0") } else { format!("{sign}{significant}e{exponent}") }
}
