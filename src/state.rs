//! STATE: what a run hands to the next one, under `bookmarks.<stream>`.
//!
//! The service keeps the read status itself, so in `write` and `read` mode a bookmark only says whose it is. In `commit` mode
//! it says which records it covers: a target prints a STATE once it has committed all that came before, so a STATE that comes
//! back proves that they are committed. Bookmarks of other streams pass on unchanged.

use std::path::Path;

use log::{info, warn};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Acknowledge, Config, Invalid, read_object};
use crate::record::Covered;
use crate::settings::MOST_RECORDS;

/// The state that a run begins with, whichever streams it is of.
#[derive(Debug, Default)]
pub struct State(Map<String, Value>);

/// What a bookmark holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bookmark {
    stream_id: String,
    acknowledge: Acknowledge,
    /// In `commit` mode: the records that are out.
    #[serde(flatten)]
    covered: Option<Covered>,
}

impl State {
    /// Reads the file that `--state` names. A file that is not there or empty is no state yet, and said so: without a state
    /// nothing is lost, it is only read again.
    ///
    /// # Errors
    /// [`Invalid`] when the file is no JSON object or cannot be read.
    pub fn load(path: Option<&Path>) -> Result<State, Invalid> {
        let Some(path) = path else { return Ok(State::default()) };
        let missing = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if std::fs::metadata(path).map_or_else(missing, |file| file.len() == 0) {
            warn!("state {}: there is none yet", path.display());
            return Ok(State::default());
        }
        let mut object =
            read_object(path).map_err(|error| Invalid::new(format!("state {}: {error:#}", path.display())))?;
        // The whole message instead of its value is easily saved by mistake.
        if object.get("type") == Some(&json!("STATE")) {
            let value = object.remove("value");
            let Some(Value::Object(value)) = value else {
                return Err(Invalid::new(format!("state {}: a STATE message without a value", path.display())));
            };
            object = value;
        }
        Ok(State(object))
    }

    /// The state that a STATE message held.
    #[cfg(test)]
    pub fn from_value(value: Value) -> State {
        match value {
            Value::Object(object) => State(object),
            _ => State::default(),
        }
    }

    /// The state as it was given.
    pub fn unchanged(self) -> Value {
        Value::Object(self.0)
    }

    /// The state of one stream: which records it covers, if it is one to go on from, and how to write it.
    pub fn of_stream(self, stream: &str, config: &Config) -> StreamState {
        let covered = match config.acknowledge {
            Acknowledge::Commit => self.covered(stream, config),
            Acknowledge::Write | Acknowledge::Read => None,
        };
        StreamState {
            stream: stream.to_owned(),
            bookmark: Bookmark { stream_id: config.stream_id.clone(), acknowledge: config.acknowledge, covered },
            state: self.0,
        }
    }

    fn covered(&self, stream: &str, config: &Config) -> Option<Covered> {
        let bookmark = self.0.get("bookmarks")?.get(stream)?;
        let problem = match serde_json::from_value::<Bookmark>(bookmark.clone()) {
            Err(error) => format!("cannot be read ({error})"),
            Ok(bookmark) if bookmark.stream_id != config.stream_id => format!("is of stream {}", bookmark.stream_id),
            Ok(bookmark) if bookmark.acknowledge != Acknowledge::Commit => {
                "is not of `acknowledge` `commit`".to_owned()
            }
            Ok(Bookmark { covered: Some(covered), .. }) if covered.count > MOST_RECORDS => {
                format!("covers {} records, more than a run can", covered.count)
            }
            Ok(bookmark) => return bookmark.covered.filter(|covered| covered.count > 0),
        };
        info!("the state's bookmark of {stream:?} {problem}: nothing is marked by it");
        None
    }
}

/// The state with the bookmark of the stream that is read.
#[derive(Debug)]
pub struct StreamState {
    stream: String,
    bookmark: Bookmark,
    state: Map<String, Value>,
}

impl StreamState {
    /// The records that are out and not marked yet, as far as the state proves.
    pub fn covered(&self) -> Option<&Covered> {
        self.bookmark.covered.as_ref()
    }

    /// From now on the state covers these records, or none.
    pub fn cover(&mut self, covered: Option<Covered>) {
        self.bookmark.covered = covered;
    }

    /// The value of the STATE message.
    pub fn value(&self) -> Value {
        let mut state = self.state.clone();
        let bookmarks = state.entry("bookmarks").or_insert_with(|| json!({}));
        if !bookmarks.is_object() {
            *bookmarks = json!({});
        }
        bookmarks[&self.stream] = json!(self.bookmark);
        Value::Object(state)
    }
}
