//! Which fields are selected: a deselected one is gone from RECORD and SCHEMA, and everything else
//! passes byte for byte. Source: singer-python's `metadata.py` and the Singer SDK's
//! `singer_sdk/_singerlib/catalog.py`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::record::Members;

/// An entry of a catalog's metadata.
#[derive(Debug, Serialize, Deserialize)]
pub struct Metadata {
    /// The way to the field in the schema, such as `["properties", "dataPayload"]`; empty for the
    /// stream itself.
    #[serde(default)]
    pub breadcrumb: Vec<String>,
    /// What is said of it.
    pub metadata: Value,
}

/// Whether what has this metadata is selected: `automatic` always, `unsupported` never, and
/// `selected` over `selected-by-default`; `None` if nothing is said.
pub fn selected(metadata: &Value) -> Option<bool> {
    match metadata["inclusion"].as_str() {
        Some("automatic") => Some(true),
        Some("unsupported") => Some(false),
        _ => flag(&metadata["selected"]).or_else(|| flag(&metadata["selected-by-default"])),
    }
}

/// What `true` or `false` says, also as a text: some tools write it so.
pub fn flag(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_str()?.to_ascii_lowercase().parse().ok())
}

/// Gives every field of a schema its metadata, the stream itself first. What the schema says of
/// selection (an old form of the catalog) moves there; what is there already wins.
pub fn describe(schema: &mut Value, breadcrumb: &[String], metadata: &mut Vec<Metadata>) {
    let place = metadata.iter().position(|entry| entry.breadcrumb == breadcrumb).unwrap_or_else(|| {
        metadata.push(Metadata { breadcrumb: breadcrumb.to_vec(), metadata: json!({}) });
        metadata.len() - 1
    });
    let Value::Object(members) = schema else { return };
    for name in ["selected", "inclusion"] {
        let Some(said) = members.shift_remove(name) else { continue };
        let about = &mut metadata[place].metadata;
        if about.is_object() && about[name].is_null() {
            about[name] = said;
        }
    }
    let step = |name: &str| [breadcrumb, &[name.to_owned()]].concat();
    if let Some(Value::Object(properties)) = members.get_mut("properties") {
        for (name, property) in properties {
            describe(property, &[step("properties"), vec![name.clone()]].concat(), metadata);
        }
    }
    if let Some(items) = members.get_mut("items") {
        describe(items, &step("items"), metadata);
    }
}

/// The fields of a value that are not selected.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The value itself is not selected; then nothing in it is.
    dropped: bool,
    /// Of its fields, only those are selected that the catalog knows.
    by_name: bool,
    properties: BTreeMap<String, Selection>,
    items: Option<Box<Selection>>,
}

/// Everything is selected.
static ALL: Selection = Selection { dropped: false, by_name: false, properties: BTreeMap::new(), items: None };

impl Selection {
    /// What the metadata deselects; the fields at the top named in `always` stay whatever it says.
    /// In the field `by_name`: if a field of an object is not selected, the fields of that object
    /// that the catalog does not know are not, either: those without metadata.
    pub fn new(metadata: &[Metadata], always: &[&str], by_name: Option<&str>) -> Selection {
        let mut root = Selection::default();
        for entry in metadata {
            let is_dropped = selected(&entry.metadata) == Some(false);
            let is_by_name = by_name.is_some() && entry.breadcrumb.get(1).map(String::as_str) == by_name;
            if (is_dropped || is_by_name)
                && let Some(node) = root.node(&entry.breadcrumb)
            {
                node.dropped |= is_dropped;
            }
        }
        // The stream as a whole is selected, or it would not be read.
        root.dropped = false;
        for name in always {
            root.properties.remove(*name);
        }
        if let Some(field) = by_name.and_then(|name| root.properties.get_mut(name)) {
            field.select_by_name();
        }
        root
    }

    fn node(&mut self, breadcrumb: &[String]) -> Option<&mut Selection> {
        match breadcrumb {
            [] => Some(self),
            [step, name, rest @ ..] if step == "properties" => {
                self.properties.entry(name.clone()).or_default().node(rest)
            }
            [step, rest @ ..] if step == "items" => self.items.get_or_insert_default().node(rest),
            _ => None,
        }
    }

    /// Leaves out what is not known of the objects that lack a field, and forgets the fields of the
    /// others.
    fn select_by_name(&mut self) {
        self.properties.values_mut().for_each(Selection::select_by_name);
        self.by_name = self.properties.values().any(|field| field.dropped);
        self.properties.retain(|_, field| self.by_name || !field.is_all());
        self.items.take_if(|items| items.is_all());
    }

    /// Whether everything is selected.
    pub fn is_all(&self) -> bool {
        !self.dropped
            && self.properties.values().all(Selection::is_all)
            && self.items.as_ref().is_none_or(|items| items.is_all())
    }

    /// Whether a field is not selected.
    pub fn leaves_out(&self, name: &str) -> bool {
        self.properties.get(name).map_or(self.by_name, |field| field.dropped)
    }

    /// Whether a field is not selected because the catalog does not know it.
    pub fn is_unknown(&self, name: &str) -> bool {
        self.by_name && !self.properties.contains_key(name)
    }

    /// What is selected of a field.
    pub fn of(&self, name: &str) -> &Selection {
        self.properties.get(name).unwrap_or(&ALL)
    }

    /// Takes the fields that are not selected out of a JSON schema.
    pub fn cut_schema(&self, schema: &mut Value) {
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.retain(|name, _| !self.leaves_out(name));
            for (name, property) in properties {
                self.of(name).cut_schema(property);
            }
        }
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            required.retain(|name| !name.as_str().is_some_and(|name| self.leaves_out(name)));
        }
        if let (Some(items), Some(schema)) = (&self.items, schema.get_mut("items")) {
            items.cut_schema(schema);
        }
    }

    /// Appends a JSON value without the fields that are not selected; what is selected as a whole
    /// is not touched.
    pub fn cut(&self, json: &RawValue, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.properties.is_empty()
            && let Ok(fields) = serde_json::from_str(json.get())
        {
            self.cut_fields(fields, out, |_, selection, value, out| selection.cut(value, out))
        } else if let Some(items) = &self.items
            && let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(json.get())
        {
            out.push(b'[');
            for value in values {
                if !out.ends_with(b"[") {
                    out.push(b',');
                }
                items.cut(value, out)?;
            }
            out.push(b']');
            Ok(())
        } else {
            out.write_all(json.get().as_bytes())
        }
    }

    /// What is selected of a JSON value.
    pub fn kept<'a>(&self, json: &'a RawValue) -> io::Result<Cow<'a, str>> {
        if self.is_all() {
            return Ok(Cow::Borrowed(json.get()));
        }
        let mut kept = Vec::with_capacity(json.get().len());
        self.cut(json, &mut kept)?;
        String::from_utf8(kept).map(Cow::Owned).map_err(io::Error::other)
    }

    /// Appends an object's fields, each key as it was written, but for those that are not selected.
    /// `write` is given a field's name, what is selected of it, and its value, and appends the
    /// value.
    pub fn cut_fields(
        &self,
        Members(fields): Members,
        out: &mut Vec<u8>,
        write: impl Fn(&str, &Selection, &RawValue, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        out.push(b'{');
        for (name, key, value) in fields.into_iter().filter(|(name, ..)| !self.leaves_out(name)) {
            begin_member(key, out)?;
            write(&name, self.of(&name), value, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// Appends the name of an object's next member.
pub fn begin_member(name: &(impl Serialize + ?Sized), out: &mut Vec<u8>) -> io::Result<()> {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, name)?;
    out.push(b':');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(metadata: Value) -> Selection {
        Selection::new(&serde_json::from_value::<Vec<Metadata>>(metadata).unwrap(), &["recordId"], None)
    }

    fn cut(selection: &Selection, json: &str) -> String {
        let mut out = Vec::new();
        selection.cut(serde_json::from_str(json).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn deselected(breadcrumbs: &[&[&str]]) -> Selection {
        let metadata: Vec<_> =
            breadcrumbs.iter().map(|way| json!({"breadcrumb": way, "metadata": {"selected": false}})).collect();
        selection(json!(metadata))
    }

    #[test]
    fn selected_wins_over_selected_by_default_and_inclusion_over_both() {
        for (metadata, selected) in [
            (json!({"selected": true, "selected-by-default": false}), Some(true)),
            (json!({"selected": false, "selected-by-default": true}), Some(false)),
            (json!({"selected-by-default": false}), Some(false)),
            (json!({"selected": "False", "selected-by-default": "true"}), Some(false)),
            (json!({"inclusion": "automatic", "selected": false}), Some(true)),
            (json!({"inclusion": "unsupported", "selected": true}), Some(false)),
            (json!({"inclusion": "available"}), None),
        ] {
            assert_eq!(super::selected(&metadata), selected, "{metadata}");
        }
    }

    #[test]
    fn what_is_kept_passes_byte_for_byte() {
        let selection = deselected(&[&["properties", "b"], &["properties", "c", "properties", "é"]]);
        assert!(!selection.is_all());
        assert_eq!(
            cut(
                &selection,
                r#"{"a": 1.00, "b":{"x":[1]}, "c":{"\u00e9":1, "f": 1e400 , "g\u0301": {"é": [ ] }},"d" : "\u2028"}"#
            ),
            r#"{"a":1.00,"c":{"f":1e400,"g\u0301":{"é": [ ] }},"d":"\u2028"}"#
        );
    }

    #[test]
    fn items_of_arrays_are_cut_too() {
        let selection = deselected(&[&["properties", "a", "items", "properties", "x"]]);
        assert_eq!(cut(&selection, r#"{"a":[{"x":1,"y":2}, 7, {"x":[]}]}"#), r#"{"a":[{"y":2},7,{}]}"#);
        assert_eq!(cut(&selection, r#"{"a":"no array"}"#), r#"{"a":"no array"}"#);
    }

    #[test]
    fn a_parents_deselection_covers_its_children_and_the_key_stays() {
        let selection = selection(json!([
            {"breadcrumb": ["properties", "a"], "metadata": {"selected": false}},
            {"breadcrumb": ["properties", "a", "properties", "x"], "metadata": {"selected": true}},
            {"breadcrumb": ["properties", "recordId"], "metadata": {"selected": false}}
        ]));
        assert_eq!(cut(&selection, r#"{"recordId":"1","a":{"x":1}}"#), r#"{"recordId":"1"}"#);
    }

    #[test]
    fn a_schema_is_cut_like_its_records() {
        let mut schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "array", "items": {"properties": {"x": {}, "y": {}}}}, "b": {}, "c": {}
        }});
        let selection = deselected(&[&["properties", "b"], &["properties", "a", "items", "properties", "x"]]);
        selection.cut_schema(&mut schema);
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["a"], "properties": {
                "a": {"type": "array", "items": {"properties": {"y": {}}}}, "c": {}
            }})
        );
    }

    #[test]
    fn nothing_deselected_is_everything() {
        assert!(selection(json!([{"breadcrumb": [], "metadata": {"selected": false}}])).is_all());
        assert!(deselected(&[&["nonsense", "x"]]).is_all());
    }
}
