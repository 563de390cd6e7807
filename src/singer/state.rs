//! STATE: what a run hands to the next one, under `bookmarks.<stream>`.
//!
//! The service keeps the read status itself, so in `write` and `read` mode a bookmark only says whose it is. In `commit` mode
//! it says which records it covers. A target prints a STATE once it has committed everything before it, so a STATE that comes
//! back proves that those records are committed. Bookmarks of other streams pass unchanged.

use std::path::Path;

use log::{info, warn};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::settings::MAX_RECORDS;
use crate::config::source::{parse_object, read_text};
use crate::config::{Acknowledge, Config, Invalid};
use crate::record::{Bookmark, ReturnedBookmark};

/// The state that a run begins with, whichever streams it is of.
#[derive(Debug, Default)]
pub struct State(Map<String, Value>);

/// What is written under `bookmarks.<stream>`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    stream_id: &'a str,
    acknowledge: Acknowledge,
    /// In `commit` mode: the records that are out.
    #[serde(flatten)]
    bookmark: Option<&'a Bookmark>,
}

/// What is read of such an entry to see which stream it belongs to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a bookmark")]
struct Owner {
    stream_id: String,
    acknowledge: Acknowledge,
    count: Option<Value>,
}

impl State {
    /// Reads the file that `--state` names. A file that is missing or empty is a warning and no state: without one nothing is
    /// lost, it is only read again.
    ///
    /// # Errors
    /// [`Invalid`] when the file is not a JSON object or cannot be read.
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

    /// The state of one stream, and how to write it; in `commit` mode also the bookmark that the state returns.
    pub fn of_stream(self, stream: &str, config: &Config) -> (StreamState, Option<ReturnedBookmark>) {
        let is_commit = config.acknowledge == Acknowledge::Commit;
        let returned = is_commit.then(|| self.returned_bookmark(stream, config)).flatten();
        let state = StreamState {
            stream: stream.to_owned(),
            stream_id: config.stream_id.clone(),
            acknowledge: config.acknowledge,
            bookmark: returned.as_deref().cloned(),
            state: self.0,
        };
        (state, returned)
    }

    fn returned_bookmark(&self, stream: &str, config: &Config) -> Option<ReturnedBookmark> {
        let entry = self.0.get("bookmarks")?.get(stream)?;
        let problem = match Owner::deserialize(entry) {
            Err(error) => format!("cannot be read ({error})"),
            Ok(owner) if owner.stream_id != config.stream_id => format!("is of stream {}", owner.stream_id),
            Ok(owner) if owner.acknowledge != Acknowledge::Commit => "is not of `acknowledge` `commit`".to_owned(),
            Ok(Owner { count: None, .. }) => return None,
            Ok(_) => match ReturnedBookmark::deserialize(entry) {
                Err(error) => format!("cannot be read ({error})"),
                Ok(bookmark) if bookmark.count > MAX_RECORDS => {
                    format!("covers {} records, more than a run can", bookmark.count)
                }
                Ok(bookmark) => return Some(bookmark).filter(|bookmark| bookmark.count > 0),
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
    bookmark: Option<Bookmark>,
    state: Map<String, Value>,
}

impl StreamState {
    /// Sets what the next STATE covers; in `write` and `read` mode a STATE covers nothing.
    pub fn set_bookmark(&mut self, bookmark: Option<Bookmark>) {
        self.bookmark = bookmark;
    }

    /// The value of the STATE message.
    pub fn value(&self) -> Value {
        let mut state = self.state.clone();
        let bookmarks = state.entry("bookmarks").or_insert_with(|| json!({}));
        if !bookmarks.is_object() {
            *bookmarks = json!({});
        }
        bookmarks[&self.stream] = json!(Entry {
            stream_id: &self.stream_id,
            acknowledge: self.acknowledge,
            bookmark: self.bookmark.as_ref(),
        });
        Value::Object(state)
    }
}
