//! Validates records against a JSON schema.

use boon::{Compiler, Draft, SchemaIndex, Schemas, SchemeUrlLoader};
use serde_json::Value;

/// The URL under which a schema is compiled. It is never fetched.
const LOCATION: &str = "sandbox:///schema.json";

/// A compiled JSON schema.
pub(crate) struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    /// Compiles a JSON schema: as draft 7, like in the vendor's SDK, unless its `$schema` names
    /// another.
    pub(crate) fn compile(text: &str) -> Result<Validator, String> {
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
        Ok(Validator { schemas, index })
    }

    /// Validates a record's payload. The error says what is wrong with it.
    pub(crate) fn check(&self, payload: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(payload).map_err(|error| format!("cannot validate: {error}"))?;
        self.schemas.validate(&value, self.index).map_err(|error| format!("does not fit the active schema: {error}"))
    }
}
