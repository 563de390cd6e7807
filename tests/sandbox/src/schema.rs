//! Schemas: a stream has any number of them, and one may be active. New records must fit an active JSON schema.

use boon::{Compiler, Draft, SchemaIndex, Schemas, SchemeUrlLoader};
use serde_json::Value;

/// The URL under which a schema is compiled. It is never fetched.
const LOCATION: &str = "sandbox:///schema.json";

/// A registered schema.
pub(crate) struct Schema {
    /// `JSON`, `AVRO` or `GREAT_EXPECTATIONS`.
    pub(crate) kind: String,
    /// The schema as it was sent.
    pub(crate) text: String,
    validator: Option<(Schemas, SchemaIndex)>,
}

impl Schema {
    /// Registers `text` as a schema of the type `kind`. Only a JSON schema is validated: as draft 7, like in the vendor's
    /// SDK, unless its `$schema` names another.
    pub(crate) fn new(kind: &str, text: &str) -> Result<Schema, String> {
        let validator = match kind {
            "JSON" => Some(compile(text)?),
            "AVRO" | "GREAT_EXPECTATIONS" => None,
            _ => return Err(format!("schemaType {kind:?} is not one of JSON, AVRO, GREAT_EXPECTATIONS")),
        };
        Ok(Schema { kind: kind.to_owned(), text: text.to_owned(), validator })
    }

    /// Validates a record's payload. The error says what is wrong with it.
    pub(crate) fn check(&self, payload: &str) -> Result<(), String> {
        let Some((schemas, index)) = &self.validator else { return Ok(()) };
        let value: Value = serde_json::from_str(payload).map_err(|error| format!("cannot validate: {error}"))?;
        schemas.validate(&value, *index).map_err(|error| format!("does not fit the active schema: {error}"))
    }
}

fn compile(text: &str) -> Result<(Schemas, SchemaIndex), String> {
    let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !schema.is_object() {
        return Err("a JSON schema must be an object".to_owned());
    }
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V7);
    // No loaders: a `$ref` to a file or to a web page is an error.
    compiler.use_loader(Box::new(SchemeUrlLoader::new()));
    let mut schemas = Schemas::new();
    compiler.add_resource(LOCATION, schema).map_err(|error| error.to_string())?;
    let index = compiler.compile(LOCATION, &mut schemas).map_err(|error| format!("{error:#}"))?;
    Ok((schemas, index))
}
