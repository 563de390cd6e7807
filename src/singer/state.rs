//! STATE: what a run hands to the next one, under `bookmarks.<stream>`.
//!
//! The service keeps the read status itself, so in `write` and `read` mode a bookmark only says whose it is. In `commit` mode
//! it says which records it covers. A target prints a STATE once it has committed everything before it, so a STATE that comes
//! back proves that those records are committed. Where the tap runs the target, a STATE is a checkpoint of this run, and comes back in
//! the same run. Everything else in a state passes byte for byte; only white space between tokens
//! goes, if it holds a line break.

use std::path::Path;

use indexmap::IndexMap;
use log::{info, warn};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, error::Category};

use crate::config::settings::MAX_RECORDS;
use crate::config::source::read_text;
use crate::config::{Acknowledge, Config, Invalid};
use crate::record::{Bookmark, Checkpoint, ReturnedBookmark, ReturnedCheckpoint, on_one_line};

/// The members of a JSON object, in its order, each as it was written.
type Members = IndexMap<String, Box<RawValue>>;

/// The state that a run begins with, whichever streams it is of.
#[derive(Debug, Default)]
pub struct State(Members);

/// What is written under `bookmarks.<stream>`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    stream_id: &'a str,
    acknowledge: Acknowledge,
    #[serde(flatten)]
    position: Option<&'a Position>,
}

/// What a STATE covers, in `commit` mode.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Position {
    /// The records that are out, so that the next run can find them.
    Window(Bookmark),
    /// What this run remembers.
    Checkpoint(Checkpoint),
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
        State::parse(&text).map_err(invalid)
    }

    /// Reads a state, or a STATE message: the whole message instead of its value is easily saved by mistake.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<State, String> {
        let read = |text: &[u8]| {
            serde_json::from_slice::<Members>(text).map_err(|error| match error.classify() {
                Category::Data => "not a JSON object".to_owned(),
                _ => format!("not JSON: {error}"),
            })
        };
        // Before any white space goes: without it `1 2` would be a number.
        read(text.as_bytes())?;
        let members = read(&on_one_line(text.trim().as_bytes()))?;
        if members.get("type").is_none_or(|kind| kind.get() != "\"STATE\"") {
            return Ok(State(members));
        }
        let value = members.get("value").and_then(|value| serde_json::from_str(value.get()).ok());
        value.map(State).ok_or_else(|| "a STATE message without a value".to_owned())
    }

    /// The state as it was given.
    ///
    /// # Errors
    /// Never: what was read as JSON can be written as JSON.
    pub fn unchanged(&self) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(&self.0)
    }

    /// The bookmarks of all streams; none if there is no object of them.
    fn bookmarks(&self) -> Members {
        let bookmarks = self.0.get("bookmarks").and_then(|bookmarks| serde_json::from_str(bookmarks.get()).ok());
        bookmarks.unwrap_or_default()
    }

    /// The state of one stream, and how to write it; in `commit` mode also the bookmark that the state returns.
    pub fn of_stream(self, stream: &str, config: &Config) -> (StreamState, Option<ReturnedBookmark>) {
        let is_commit = config.acknowledge == Acknowledge::Commit;
        let returned = is_commit.then(|| self.returned_bookmark(stream, config)).flatten();
        let state = StreamState {
            stream: stream.to_owned(),
            stream_id: config.stream_id.clone(),
            acknowledge: config.acknowledge,
            position: returned.as_deref().cloned().map(Position::Window),
            bookmarks: self.bookmarks(),
            state: self.0,
        };
        (state, returned)
    }

    fn returned_bookmark(&self, stream: &str, config: &Config) -> Option<ReturnedBookmark> {
        // What does not fit a `Value`, such as 1e400, counts as null, which is no bookmark.
        let entry: Value = serde_json::from_str(self.bookmarks().get(stream)?.get()).unwrap_or_default();
        let problem = match Owner::deserialize(&entry) {
            Err(error) => format!("cannot be read ({error})"),
            Ok(owner) if owner.stream_id != config.stream_id => format!("is of stream {}", owner.stream_id),
            Ok(owner) if owner.acknowledge != Acknowledge::Commit => "is not of `acknowledge` `commit`".to_owned(),
            Ok(Owner { count: None, .. }) => return None,
            Ok(_) => match ReturnedBookmark::deserialize(&entry) {
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

/// The checkpoint of the stream that a line of a target's output returns; `None` if the line is anything else. Only the value of a STATE
/// counts, as the Singer specification has it: a whole STATE message may be the input of a target that repeats it.
pub fn returned_checkpoint(line: &str, stream: &str) -> Option<ReturnedCheckpoint> {
    let state: Members = serde_json::from_str(line).ok()?;
    serde_json::from_str(State(state).bookmarks().get(stream)?.get()).ok()
}

/// The state with the bookmark of the stream that is read.
#[derive(Debug)]
pub struct StreamState {
    stream: String,
    stream_id: String,
    acknowledge: Acknowledge,
    position: Option<Position>,
    /// The bookmarks of all streams, as they came.
    bookmarks: Members,
    /// The state, as it came.
    state: Members,
}

impl StreamState {
    /// Sets what the next STATE covers; in `write` and `read` mode a STATE covers nothing.
    pub fn set_bookmark(&mut self, bookmark: Option<Bookmark>) {
        self.position = bookmark.map(Position::Window);
    }

    /// Sets which checkpoint the next STATE is.
    pub fn set_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.position = Some(Position::Checkpoint(checkpoint));
    }

    /// The value of the STATE message.
    ///
    /// # Errors
    /// Never: what was read as JSON can be written as JSON.
    pub fn value(&self) -> serde_json::Result<Box<RawValue>> {
        let own = to_raw_value(&Entry {
            stream_id: &self.stream_id,
            acknowledge: self.acknowledge,
            position: self.position.as_ref(),
        })?;
        let (mut state, mut bookmarks) = (self.state.clone(), self.bookmarks.clone());
        bookmarks.insert(self.stream.clone(), own);
        state.insert("bookmarks".to_owned(), to_raw_value(&bookmarks)?);
        to_raw_value(&state)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The state as the next run gets it.
    fn passed_on(text: &str) -> String {
        let state = State::parse(text).unwrap();
        let bookmarks = state.bookmarks();
        let stream = StreamState {
            stream: "own".to_owned(),
            stream_id: "id".to_owned(),
            acknowledge: Acknowledge::Write,
            position: None,
            bookmarks,
            state: state.0,
        };
        stream.value().unwrap().get().to_owned()
    }

    const OWN: &str = r#""own":{"streamId":"id","acknowledge":"write"}"#;

    #[test]
    fn what_is_not_ours_passes_byte_for_byte() {
        for text in [
            "12345678901234567890.10",
            "1E+400",
            "-0.0",
            "0.1000",
            r#""\u00e9\/\ud800""#,
            r#"{"b": 1, "a": 1.0, "b": 2}"#,
            "[]",
        ] {
            assert_eq!(
                passed_on(&format!(
                    r#"{{"z":{text},"bookmarks":{{"other":{text},"own":{text},"more":{text}}},"a":{text}}}"#
                )),
                format!(r#"{{"z":{text},"bookmarks":{{"other":{text},{OWN},"more":{text}}},"a":{text}}}"#)
            );
        }
    }

    #[test]
    fn a_state_of_several_lines_goes_on_one() {
        let text = "{\n  \"bookmarks\": {\r\n    \"other\": {\"x y\": [ 1.0, 2 ]}\n  }\n}\n";
        assert_eq!(passed_on(text), format!(r#"{{"bookmarks":{{"other":{{"x y":[1.0,2]}},{OWN}}}}}"#));
    }

    #[test]
    fn bookmarks_that_are_no_object_are_replaced() {
        for text in ["{}", r#"{"bookmarks":null}"#, r#"{"bookmarks":[1]}"#] {
            assert_eq!(passed_on(text), format!(r#"{{"bookmarks":{{{OWN}}}}}"#));
        }
    }

    #[test]
    fn white_space_is_not_taken_out_of_what_is_not_json() {
        assert_eq!(State::parse("{\"a\":\n1 2}").unwrap_err(), "not JSON: expected `,` or `}` at line 2 column 3");
    }

    proptest! {
        #[test]
        fn numbers_pass_to_the_digit(number in "-?(0|[1-9][0-9]{0,40})([.][0-9]{1,40})?([eE][-+]?[0-9]{1,4})?") {
            let text = format!(r#"{{"bookmarks":{{"other":{{"x":{number}}}"#);
            prop_assert_eq!(passed_on(&format!("{text}}}}}")), format!("{text},{OWN}}}}}"));
        }
    }
}
