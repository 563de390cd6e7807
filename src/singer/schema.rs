//! The schema of a record, and of its payload as far as it is known.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::config::{Config, PayloadFormat, TimestampFormat};
use crate::record::{Members, Page};
use crate::singer::transform::{PAYLOAD, TIMESTAMP};

/// How deep a schema goes; below it everything fits.
const MAX_DEPTH: usize = 16;

/// How many schemas a reduced one may hold; beyond that everything fits.
const MAX_SCHEMAS: usize = 10_000;

/// All types of JSON but `integer`, which is a `number`.
const ANY: [&str; 6] = ["null", "object", "array", "string", "number", "boolean"];

/// The schema of a StreamDuo record, every field under its own name.
///
/// `recordTimeStampISO` has no `format`: an RFC 9557 time stamp with its zone in brackets is not an RFC 3339 `date-time`, and
/// SQL targets fail on it.
pub fn record(payload: &Value) -> Value {
    json!({
        "type": "object",
        "properties": {
            "recordId": {"type": "string"},
            "streamId": {"type": ["null", "string"]},
            TIMESTAMP: {"type": "string"},
            "readStatus": {"type": ["null", "string", "boolean"]},
            PAYLOAD: payload,
        },
        "additionalProperties": true
    })
}

/// The schema of a payload that may be anything.
pub fn any() -> Value {
    json!({"type": ANY, "additionalProperties": true})
}

/// Changes a record's schema to what the settings make of its records.
pub fn apply_settings(schema: &mut Value, config: &Config) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let mut set = |name: &str, value: Value| {
        if let Some(property) = properties.get_mut(name) {
            *property = value;
        }
    };
    if config.payload_format == PayloadFormat::String {
        set(PAYLOAD, json!({"type": ["null", "string"]}));
    }
    if config.timestamp_format == TimestampFormat::Rfc3339 {
        set(TIMESTAMP, json!({"type": "string", "format": "date-time"}));
    } else if let Some(Value::Object(timestamp)) = properties.get_mut(TIMESTAMP) {
        // Of a catalog that was made with the other format.
        timestamp.shift_remove("format");
    }
}

/// The schema of payloads that fit a JSON schema registered for the stream.
///
/// # Errors
/// When it is not JSON.
pub fn registered(schema: &str) -> serde_json::Result<Value> {
    let schema = serde_json::from_str(schema)?;
    let mut reduction = Reduction { root: &schema, resolving: vec![""], room: MAX_SCHEMAS };
    Ok(nullable(&reduction.reduce(&schema, 0)))
}

/// The schema that fits the payloads of a page, and how many those are; [`any`] for none.
pub fn sampled(page: &Page) -> (Value, usize) {
    let mut schema = json!({});
    let mut seen = 0;
    for record in page.texts() {
        let Ok(Members(fields)) = serde_json::from_slice(record) else { continue };
        if let Some((.., payload)) = fields.into_iter().find(|(name, ..)| name == PAYLOAD) {
            merge(&mut schema, of(payload, 0));
            seen += 1;
        }
    }
    (if seen == 0 { any() } else { nullable(&schema) }, seen)
}

/// The types of one value, nested.
fn of(value: &RawValue, depth: usize) -> Value {
    if depth == MAX_DEPTH {
        return any();
    }
    let text = value.get();
    let kind = match text.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        // A number that no 64-bit column can hold as an integer is none.
        _ if text.parse::<i64>().is_ok() => "integer",
        _ => "number",
    };
    let mut schema = json!({"type": [kind]});
    if kind == "object" {
        let Members(fields) = serde_json::from_str(text).unwrap_or(Members(Vec::new()));
        for (name, _, value) in fields {
            merge(&mut schema["properties"][name], of(value, depth + 1));
        }
    } else if kind == "array" {
        for item in serde_json::from_str::<Vec<&RawValue>>(text).unwrap_or_default() {
            merge(&mut schema["items"], of(item, depth + 1));
        }
    }
    schema
}

/// Reduces a registered schema to types, properties and items.
struct Reduction<'a> {
    root: &'a Value,
    /// The local references that are being resolved, as JSON pointers (RFC 6901): one of these is
    /// [`any`].
    resolving: Vec<&'a str>,
    /// How many more schemas the result may hold. References can make a small schema grow without end.
    room: usize,
}

impl<'a> Reduction<'a> {
    fn reduce(&mut self, schema: &'a Value, depth: usize) -> Value {
        let Value::Object(schema) = schema else { return any() };
        if depth == MAX_DEPTH || self.room == 0 {
            return any();
        }
        self.room -= 1;
        if let Some(reference) = schema.get("$ref") {
            return self.resolve(reference, depth);
        }
        let mut out = json!({});
        for word in ["anyOf", "oneOf", "allOf"] {
            for part in schema.get(word).and_then(Value::as_array).into_iter().flatten() {
                merge(&mut out, self.reduce(part, depth + 1));
            }
        }
        let mut own = types(schema, depth);
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            own["properties"][name] = self.reduce(property, depth + 1);
        }
        if let Some(items @ Value::Object(_)) = schema.get("items") {
            own["items"] = self.reduce(items, depth + 1);
        }
        merge(&mut out, own);
        if out.get("type").is_some() { out } else { any() }
    }

    fn resolve(&mut self, reference: &'a Value, depth: usize) -> Value {
        let Some(pointer) = reference.as_str().and_then(|text| text.strip_prefix('#')) else { return any() };
        let Some(target) = self.root.pointer(pointer).filter(|_| !self.resolving.contains(&pointer)) else {
            return any();
        };
        self.resolving.push(pointer);
        let reduced = self.reduce(target, depth + 1);
        self.resolving.pop();
        reduced
    }
}

/// The types that a schema itself names or implies. A type that JSON schema does not know is any type.
fn types(schema: &Map<String, Value>, depth: usize) -> Value {
    let kinds = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.clone(),
        Some(kind) => vec![kind.clone()],
        None if schema.contains_key("properties") => vec![json!("object")],
        None if schema.contains_key("items") => vec![json!("array")],
        None => {
            let mut own = json!({});
            let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
            for value in values.filter_map(|value| serde_json::value::to_raw_value(value).ok()) {
                merge(&mut own, of(&value, depth));
            }
            return own;
        }
    };
    let is_known = |kind: &Value| kind == "integer" || ANY.iter().any(|known| kind == known);
    if kinds.iter().all(is_known) { json!({"type": kinds}) } else { any() }
}

/// Makes a schema fit what another one fits too: types are gathered, and the rest is merged by name.
fn merge(into: &mut Value, other: Value) {
    match (into, other) {
        (Value::Object(members), Value::Object(more)) => {
            for (name, value) in more {
                merge(members.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(types), Value::Array(more)) => {
            for kind in more {
                if !types.contains(&kind) {
                    types.push(kind);
                }
            }
        }
        (into, other) => *into = other,
    }
}

/// The schema with its types in order and each once, null among them, and room for properties that
/// it does not know.
fn nullable(schema: &Value) -> Value {
    let has = |kind: &str| schema["type"].as_array().is_some_and(|types| types.iter().any(|known| known == kind));
    let mut types: Vec<_> = ANY.into_iter().filter(|kind| *kind == "null" || has(kind)).collect();
    if has("integer") && !has("number") {
        types.push("integer");
    }
    let mut out = json!({"type": types});
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        out["properties"][name] = nullable(property);
    }
    if let Some(items) = schema.get("items") {
        out["items"] = nullable(items);
    }
    if has("object") {
        out["additionalProperties"] = json!(true);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_records(payloads: &[&str]) -> Value {
        let records: Vec<_> = payloads.iter().map(|payload| format!(r#"{{"dataPayload":{payload}}}"#)).collect();
        sampled(&Page::parse(format!("[{}]", records.join(",")).into(), 1).unwrap()).0
    }

    fn reduced(schema: Value) -> Value {
        registered(&schema.to_string()).unwrap()
    }

    #[test]
    fn a_sample_is_the_union_of_its_types() {
        assert_eq!(
            of_records(&[
                r#"{"make":"Toyota","price":10.00,"doors":4,"tags":["a",1],"big":123456789012345678901234567890}"#,
                r#"{"make":null,"price":7,"doors":2,"tags":[],"owner":{"name":"x"}}"#,
                r#"{"owner":{"age":7},"huge":1e400}"#,
            ]),
            json!({"type": ["null", "object"], "properties": {
                "make": {"type": ["null", "string"]},
                "price": {"type": ["null", "number"]},
                "doors": {"type": ["null", "integer"]},
                "tags": {"type": ["null", "array"], "items": {"type": ["null", "string", "integer"]}},
                "big": {"type": ["null", "number"]},
                "owner": {"type": ["null", "object"], "properties": {
                    "name": {"type": ["null", "string"]}, "age": {"type": ["null", "integer"]}
                }, "additionalProperties": true},
                "huge": {"type": ["null", "number"]}
            }, "additionalProperties": true})
        );
        assert_eq!(of_records(&["7", "\"x\"", "null"]), json!({"type": ["null", "string", "integer"]}));
        assert_eq!(of_records(&[]), any());
    }

    #[test]
    fn a_payload_may_be_as_deep_as_it_likes() {
        let deep = format!("{}7{}", "[".repeat(5000), "]".repeat(5000));
        let schema = of_records(&[&deep]).to_string();
        assert_eq!(schema.matches("items").count(), MAX_DEPTH);
    }

    #[test]
    fn a_registered_schema_is_reduced_to_its_skeleton() {
        let schema = json!({
            "$id": "https://example.com/object.json", "type": "object", "required": ["make"],
            "properties": {
                "make": {"type": "string", "minLength": 1, "format": "email"},
                "doors": {"type": ["integer", "null"]},
                "owner": {"$ref": "#/definitions/owner"},
                "tags": {"items": {"type": "string"}},
                "state": {"enum": ["new", "used", 7]},
                "either": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"type": "number"}}}]},
                "free": {},
                "elsewhere": {"$ref": "https://example.com/other.json"},
                "open": true
            },
            "definitions": {"owner": {"properties": {"name": {"type": "string"}, "boss": {"$ref": "#/definitions/owner"}}}}
        });
        let mut reduced = reduced(schema);
        let owner = reduced["properties"].as_object_mut().unwrap().remove("owner").unwrap();
        let open = json!({"type": ANY, "additionalProperties": true});
        assert_eq!(owner["properties"], json!({"name": {"type": ["null", "string"]}, "boss": open}));
        assert_eq!(
            reduced,
            json!({"type": ["null", "object"], "properties": {
                "make": {"type": ["null", "string"]},
                "doors": {"type": ["null", "integer"]},
                "tags": {"type": ["null", "array"], "items": {"type": ["null", "string"]}},
                "state": {"type": ["null", "string", "integer"]},
                "either": {"type": ["null", "object", "string"], "properties": {
                    "a": {"type": ["null", "number"]}
                }, "additionalProperties": true},
                "free": open, "elsewhere": open, "open": open
            }, "additionalProperties": true})
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_stays_small() {
        let itself: Map<_, _> = ('a'..='h').map(|name| (name.to_string(), json!({"$ref": "#"}))).collect();
        let reduced = reduced(json!({"properties": itself}));
        let open = json!({"type": ANY, "additionalProperties": true});
        assert_eq!(reduced["properties"].as_object().unwrap().values().collect::<Vec<_>>(), [&open; 8]);
    }

    #[test]
    fn references_that_multiply_are_bounded() {
        let refer = |n: usize| json!({"$ref": format!("#/definitions/{n}")});
        let eight = |n: usize| ('a'..='h').map(|name| (name.to_string(), refer(n))).collect::<Map<_, _>>();
        let definitions: Map<_, _> = (0..20).map(|n| (n.to_string(), json!({"properties": eight(n + 1)}))).collect();
        let reduced = reduced(json!({"properties": eight(0), "definitions": definitions})).to_string();
        // Each schema has at most eight properties.
        assert!(reduced.matches("\"type\"").count() <= 8 * MAX_SCHEMAS);
    }

    #[test]
    fn an_unknown_type_is_any_type() {
        let open = json!({"type": ANY, "additionalProperties": true});
        for kind in [json!("float"), json!(["string", "uuid"]), json!(7)] {
            assert_eq!(reduced(json!({"properties": {"x": {"type": kind}}}))["properties"]["x"], open);
        }
    }
}
