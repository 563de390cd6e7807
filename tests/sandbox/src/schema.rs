//! Schemas: a stream has any number of them, and one may be active. New records must fit an active
//! JSON schema, where the sandbox is built with the feature `validate`.

#[cfg(feature = "validate")]
use crate::validator::Validator;
#[cfg(not(feature = "validate"))]
use no_validator::Validator;

/// A registered schema.
pub(crate) struct Schema {
    /// `JSON`, `AVRO` or `GREAT_EXPECTATIONS`.
    pub(crate) kind: String,
    /// The schema as it was sent.
    pub(crate) text: String,
    validator: Option<Validator>,
}

impl Schema {
    /// Registers `text` as a schema of the type `kind`. Only a JSON schema is compiled.
    pub(crate) fn new(kind: &str, text: &str) -> Result<Schema, String> {
        let validator = match kind {
            "JSON" => Some(Validator::compile(text)?),
            "AVRO" | "GREAT_EXPECTATIONS" => None,
            _ => return Err(format!("schemaType {kind:?} is not one of JSON, AVRO, GREAT_EXPECTATIONS")),
        };
        Ok(Schema { kind: kind.to_owned(), text: text.to_owned(), validator })
    }

    /// Validates a record's payload. The error says what is wrong with it.
    pub(crate) fn check(&self, payload: &str) -> Result<(), String> {
        match &self.validator {
            Some(validator) => validator.check(payload),
            None => Ok(()),
        }
    }
}

/// Without the feature `validate`, any JSON object is a schema, and every record fits it.
#[cfg(not(feature = "validate"))]
mod no_validator {
    use serde_json::{Map, Value};

    pub(super) struct Validator;

    impl Validator {
        pub(super) fn compile(text: &str) -> Result<Validator, String> {
            serde_json::from_str::<Map<String, Value>>(text).map(|_| Validator).map_err(|error| error.to_string())
        }

        pub(super) fn check(&self, _payload: &str) -> Result<(), String> {
            Ok(())
        }
    }
}
