//! The members of a JSON object. A name may be there twice, and need not be Unicode text.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::text::decode_string;

/// The members of an object that names each once, in their order, as they are written.
pub type Texts = IndexMap<String, Box<RawValue>>;

/// The members in their order: each name, the name as it is written, and the value.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            // A name that is not Unicode text (a lone surrogate) stays as it is written: no field
            // has it.
            let name = decode_string(key.get()).unwrap_or(Cow::Borrowed(key.get()));
            self.0.push((name, key, value));
        }
        Ok(self)
    }
}
