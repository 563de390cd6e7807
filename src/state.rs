//! STATE: what a run hands to the next one, under `bookmarks.<stream>`.
//!
//! The service keeps the read status itself, so in `write` and `read` mode a bookmark holds nothing to go on from: it
//! says whose it is. Bookmarks of other streams pass on unchanged.

use std::path::Path;

use log::warn;
use serde_json::{Map, Value, json};

use crate::config::{Acknowledge, Config, Invalid, read_object};

/// The state that the run began with.
#[derive(Debug, Default)]
pub struct State(Map<String, Value>);

impl State {
    /// Reads the file that `--state` names. A file that is not there or empty is no state yet, and said so: with no
    /// state nothing is lost, it is only read again.
    ///
    /// # Errors
    /// [`Invalid`] when the file is no JSON object or cannot be read.
    pub fn load(path: Option<&Path>) -> Result<State, Invalid> {
        let Some(path) = path else { return Ok(State::default()) };
        if std::fs::metadata(path)
            .map_or_else(|error| error.kind() == std::io::ErrorKind::NotFound, |file| file.len() == 0)
        {
            warn!("state {}: there is none yet", path.display());
            return Ok(State::default());
        }
        let mut object = read_object(path).map_err(|error| {
            Invalid::new(format!("state {}: {error:#}; give the last STATE of an earlier run, or none", path.display()))
        })?;
        // The whole message instead of its value is easily saved by mistake.
        if object.get("type") == Some(&json!("STATE"))
            && let Some(Value::Object(value)) = object.remove("value")
        {
            object = value;
        }
        Ok(State(object))
    }

    /// The state as it was given.
    pub fn unchanged(self) -> Value {
        Value::Object(self.0)
    }

    /// The state with this stream's bookmark in it.
    pub fn bookmarked(mut self, stream: &str, config: &Config) -> Value {
        let acknowledge = match config.acknowledge {
            Acknowledge::Write => "write",
            Acknowledge::Read => "read",
        };
        let bookmark = json!({"streamId": config.stream_id, "acknowledge": acknowledge});
        let bookmarks = self.0.entry("bookmarks").or_insert_with(|| json!({}));
        if !bookmarks.is_object() {
            *bookmarks = json!({});
        }
        bookmarks[stream] = bookmark;
        Value::Object(self.0)
    }
}
