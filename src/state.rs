//! STATE: what a run hands to the next one, under `bookmarks.<stream>`.
//!
//! The service keeps the read status itself, so in `write` and `read` mode a bookmark only says whose it is. In `commit` mode
//! it says which records it covers: a target prints a STATE once it has committed all that came before, so a STATE that comes
//! back proves that they are committed. Bookmarks of other streams pass on unchanged.

use std::path::Path;

use log::{info, warn};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Acknowledge, Config, Invalid, parse_object, read_text};
use crate::record::{CameBack, Covered};
use crate::settings::MOST_RECORDS;

/// The state that a run begins with, whichever streams it is of.
#[derive(Debug, Default)]
pub struct State(Map<String, Value>);

/// What a bookmark holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bookmark<'a> {
    stream_id: &'a str,
    acknowledge: Acknowledge,
    /// In `commit` mode: the records that are out.
    #[serde(flatten)]
    covered: Option<&'a Covered>,
}

/// What is read of a bookmark to see whose it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a bookmark")]
struct Owner {
    stream_id: String,
    acknowledge: Acknowledge,
    count: Option<Value>,
}

impl State {
    /// Reads the file that `--state` names. A file that is not there or empty is no state yet, and said so: without a state
    /// nothing is lost, it is only read again.
    ///
    /// # Errors
    /// [`Invalid`] when the file is no JSON object or cannot be read.
    pub fn load(path: Option<&Path>) -> Result<State, Invalid> {
        let Some(path) = path else { return Ok(State::default()) };
        let invalid = |problem: String| Invalid::new(format!("state {}: {problem}", path.display()));
        let text = match read_text(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(invalid(format!("read the file: {error}")));
            }
            text => text.unwrap_or_default(),
        };
        if text.trim().is_empty() {
            warn!("state {}: there is none yet", path.display());
            return Ok(State::default());
        }
        let mut object = parse_object(&text).map_err(|error| invalid(format!("{error:#}")))?;
        // The whole message instead of its value is easily saved by mistake.
        if object.get("type") == Some(&json!("STATE")) {
            let value = object.remove("value");
            let Some(Value::Object(value)) = value else {
                return Err(invalid("a STATE message without a value".to_owned()));
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
        let came_back = match config.acknowledge {
            Acknowledge::Commit => self.came_back(stream, config),
            Acknowledge::Write | Acknowledge::Read => None,
        };
        StreamState {
            stream: stream.to_owned(),
            stream_id: config.stream_id.clone(),
            acknowledge: config.acknowledge,
            covered: came_back.as_ref().map(|state| state.covered().clone()),
            came_back,
            state: self.0,
        }
    }

    fn came_back(&self, stream: &str, config: &Config) -> Option<CameBack> {
        let bookmark = self.0.get("bookmarks")?.get(stream)?;
        let problem = match Owner::deserialize(bookmark) {
            Err(error) => format!("cannot be read ({error})"),
            Ok(owner) if owner.stream_id != config.stream_id => format!("is of stream {}", owner.stream_id),
            Ok(owner) if owner.acknowledge != Acknowledge::Commit => "is not of `acknowledge` `commit`".to_owned(),
            Ok(Owner { count: None, .. }) => return None,
            Ok(_) => match CameBack::deserialize(bookmark) {
                Err(error) => format!("cannot be read ({error})"),
                Ok(state) if state.covered().count > MOST_RECORDS => {
                    format!("covers {} records, more than a run can", state.covered().count)
                }
                Ok(state) => return Some(state).filter(|state| state.covered().count > 0),
            },
        };
        info!("the state's bookmark of {stream:?} {problem}: nothing is marked by it");
        None
    }
}

/// The state with the bookmark of the stream that is read.
#[derive(Debug)]
pub struct StreamState {
    stream: String,
    stream_id: String,
    acknowledge: Acknowledge,
    /// What the state that came back covers.
    came_back: Option<CameBack>,
    /// What the state covers that is told now.
    covered: Option<Covered>,
    state: Map<String, Value>,
}

impl StreamState {
    /// What the state that came back proves to be committed; it proves it once.
    pub fn take_proof(&mut self) -> Option<CameBack> {
        self.came_back.take()
    }

    /// From now on the state covers these records, or none.
    pub fn cover(&mut self, covered: Option<Covered>) {
        self.covered = covered;
    }

    /// The value of the STATE message.
    pub fn value(&self) -> Value {
        let mut state = self.state.clone();
        let bookmarks = state.entry("bookmarks").or_insert_with(|| json!({}));
        if !bookmarks.is_object() {
            *bookmarks = json!({});
        }
        bookmarks[&self.stream] = json!(Bookmark {
            stream_id: &self.stream_id,
            acknowledge: self.acknowledge,
            covered: self.covered.as_ref(),
        });
        Value::Object(state)
    }
}
