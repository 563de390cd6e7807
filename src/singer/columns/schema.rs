//! The columns that a JSON schema describes: one that a partner has registered, or one that
//! somebody has written by hand.

use std::slice;

use serde_json::{Map, Value};

use super::column::{Column, Columns};
use super::seen::Seen;
use super::tree::MAX_LEVELS;

/// How many schemas are looked at. References can make a small schema grow without end.
const MAX_SCHEMAS: usize = 10_000;

/// How many references may lead from one to the next.
const MAX_REFERENCES: usize = 16;

/// The columns that a schema of payloads describes, and what is wrong with it. What no column can
/// be typed for is JSON text.
pub fn columns(schema: &Value) -> (Columns, Vec<String>) {
    let mut reader =
        Reader { root: schema, resolving: Vec::new(), looked_at: 0, problems: Vec::new(), path: Vec::new() };
    let mut seen = Seen::default();
    reader.read(schema, &mut seen);
    if !schema.is_object() || !seen.may_be_object() {
        reader.problems.push("it does not describe an object: correct it, or name another file".to_owned());
    }
    (seen.columns(Seen::all), reader.problems)
}

/// Reads a JSON schema.
struct Reader<'a> {
    root: &'a Value,
    /// The local references that are being resolved, as JSON pointers (RFC 6901).
    resolving: Vec<&'a str>,
    /// How many schemas were looked at.
    looked_at: usize,
    problems: Vec<String>,
    /// The way to the schema that is being read.
    path: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    /// Notes what a schema allows. One that says nothing, or cannot be found, adds nothing.
    fn read(&mut self, schema: &'a Value, seen: &mut Seen) {
        let Some(schema) = schema.as_object().filter(|_| self.looked_at < MAX_SCHEMAS) else { return };
        self.looked_at += 1;
        for word in ["anyOf", "oneOf", "allOf"] {
            for part in schema.get(word).and_then(Value::as_array).into_iter().flatten() {
                self.read(part, seen);
            }
        }
        if let Some(reference) = schema.get("$ref") {
            self.resolve(reference, seen);
        }
        self.read_types(schema, seen);
        if self.path.len() > MAX_LEVELS {
            return;
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.path.push(name);
            self.read(property, seen.fields.entry(name.clone()).or_default());
            self.path.pop();
        }
    }

    fn resolve(&mut self, reference: &'a Value, seen: &mut Seen) {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let Some(pointer) = pointer.filter(|pointer| !self.resolving.contains(pointer)) else { return };
        let Some(schema) = self.root.pointer(pointer).filter(|_| self.resolving.len() < MAX_REFERENCES) else { return };
        self.resolving.push(pointer);
        self.read(schema, seen);
        self.resolving.pop();
    }

    /// Notes the types that a schema itself names or implies.
    fn read_types(&mut self, schema: &Map<String, Value>, seen: &mut Seen) {
        let level = self.path.len();
        let object = Column::Object(Columns::default());
        let types = match schema.get("type") {
            Some(Value::Array(types)) => types.as_slice(),
            Some(word) => slice::from_ref(word),
            None if schema.contains_key("properties") => return seen.note_column(&object, level),
            None if schema.contains_key("items") => return seen.note_column(&Column::Json, level),
            None => {
                let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
                for value in values.chain(schema.get("const")).filter(|value| !value.is_null()) {
                    seen.note_column(&Column::of(&value.to_string()), level);
                }
                return;
            }
        };
        let is_json = schema.get("contentMediaType").is_some_and(|kind| kind == "application/json");
        for word in types {
            let column = match word.as_str().unwrap_or_default() {
                "null" => continue,
                "object" => object.clone(),
                "array" => Column::Json,
                "boolean" => Column::Boolean,
                "integer" => Column::Integer,
                "number" => Column::Number,
                "string" if is_json => Column::Json,
                "string" => Column::String,
                _ => {
                    let path = self.path.join(".");
                    self.problems
                        .push(format!("{path:?} has the type {word}, which JSON schema does not know: correct that"));
                    continue;
                }
            };
            seen.note_column(&column, level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: Value) -> (Value, Vec<String>) {
        let (columns, problems) = columns(&schema);
        (columns.schema()["properties"].take(), problems)
    }

    fn leaf(kind: &str) -> Value {
        json!({"type": ["null", kind]})
    }

    #[test]
    fn a_schema_comes_down_to_columns() {
        let schema = json!({
            "$id": "https://example.com/car.json", "type": "object", "required": ["make"],
            "allOf": [{"properties": {"sold": {"type": "boolean"}}}, {"required": ["sold"]}],
            "properties": {
                "make": {"type": "string", "minLength": 1, "format": "email", "description": "who made it"},
                "doors": {"type": ["integer", "null"]},
                "price": {"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]},
                "owner": {"$ref": "#/definitions/owner"},
                "tags": {"items": {"type": "string"}},
                "state": {"enum": ["new", "used", null]},
                "mixed": {"enum": ["new", 7]},
                "either": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"type": "number"}}}]},
                "text": {"type": "string", "contentMediaType": "application/json"},
                "free": {}, "open": true, "closed": {"type": "object"},
                "elsewhere": {"$ref": "https://example.com/other.json"},
            },
            "definitions": {"owner": {"properties": {"name": {"type": "string"}, "boss": {"$ref": "#/definitions/owner"}}}}
        });
        let expected = json!({
            "sold": leaf("boolean"), "make": leaf("string"), "doors": leaf("integer"), "price": leaf("number"),
            "owner": {"type": ["null", "object"], "properties": {"name": leaf("string"), "boss": leaf("string")}},
            "tags": leaf("string"), "state": leaf("string"), "mixed": leaf("string"), "either": leaf("string"),
            "text": leaf("string"), "free": leaf("string"), "open": leaf("string"), "closed": leaf("string"),
            "elsewhere": leaf("string"),
        });
        assert_eq!(of(schema), (expected, vec![]));
    }

    #[test]
    fn references_that_multiply_are_bounded() {
        let refer = |n: usize| json!({"$ref": format!("#/definitions/{n}")});
        let eight = |n: usize| ('a'..='h').map(|name| (name.to_string(), refer(n))).collect::<Map<_, _>>();
        let definitions: Map<_, _> = (0..20).map(|n| (n.to_string(), json!({"properties": eight(n + 1)}))).collect();
        let (columns, _) = columns(&json!({"properties": eight(0), "definitions": definitions}));
        assert!(columns.paths().len() <= 8_usize.pow(4));
        assert_eq!(Columns::default().with(&columns).paths().len(), 400);
    }

    #[test]
    fn what_json_schema_does_not_know_is_named() {
        let (columns, problems) =
            of(json!({"properties": {"x": {"type": "float"}, "a": {"properties": {"b": {"type": 7}}}}}));
        assert_eq!(columns["x"], leaf("string"));
        assert_eq!(
            problems,
            [
                "\"x\" has the type \"float\", which JSON schema does not know: correct that",
                "\"a.b\" has the type 7, which JSON schema does not know: correct that"
            ]
        );
        for schema in [json!([]), json!(true), json!({"type": "string"}), json!({"type": ["object", "array"]})] {
            assert_eq!(
                of(schema),
                (json!({}), vec!["it does not describe an object: correct it, or name another file".to_owned()])
            );
        }
        assert_eq!(of(json!({})), (json!({}), vec![]));
    }
}
