//! STATE: what a run hands to the next one, under `bookmarks.<stream>`.
//!
//! The service keeps the read status itself, so in `write` and `read` mode a bookmark only says whose it is. In `commit` mode
//! it says which records it covers. A target prints a STATE once it has committed everything before it, so a STATE that comes
//! back proves that those records are committed. Where the tap runs the target, a STATE is a checkpoint of this run, and comes back in
//! the same run. Everything else in a state passes byte for byte; only white space between tokens
//! goes, if it holds a line break.
//!
//! In `never` mode it says up to which time stamp everything is written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use indexmap::IndexMap;
use log::{info, warn};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, error::Category};

use crate::config::settings::MAX_RECORDS;
use crate::config::source::read_text;
use crate::config::timestamp::instant;
use crate::config::{Acknowledge, Config, Invalid};
use crate::record::{Bookmark, Checkpoint, ReturnedBookmark, ReturnedCheckpoint, on_one_line};
use crate::singer::transform::TIMESTAMP;

/// The members of a JSON object, in its order, each as it was written.
type Members = IndexMap<String, Box<RawValue>>;

/// The state that a run begins with, whichever streams it is of.
#[derive(Debug, Default)]
pub struct State {
    members: Members,
    /// The file that `--state` names.
    file: Option<PathBuf>,
}

/// What is written under `bookmarks.<stream>`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    stream_id: &'a str,
    acknowledge: Acknowledge,
    #[serde(flatten)]
    position: Option<&'a Position>,
}

/// What a STATE covers, in `commit` and `never` mode.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Position {
    /// The records that are out, so that the next run can find them.
    Window(Bookmark),
    /// What this run remembers.
    Checkpoint(Checkpoint),
    /// Everything up to a time stamp.
    UpTo(TimeBookmark),
}

/// What replication by key leaves in a STATE. The names are those of the Singer SDKs.
#[derive(Debug, Clone, Serialize)]
struct TimeBookmark {
    replication_key: &'static str,
    replication_key_value: String,
}

impl TimeBookmark {
    fn new(timestamp: &str) -> TimeBookmark {
        TimeBookmark { replication_key: TIMESTAMP, replication_key_value: timestamp.to_owned() }
    }
}

/// What is read of such an entry to see which stream it belongs to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a bookmark")]
struct Owner {
    stream_id: String,
    acknowledge: Acknowledge,
    count: Option<Value>,
    #[serde(rename = "replication_key_value")]
    timestamp: Option<Value>,
}

impl State {
    /// Reads the file that `--state` names. A file that is missing or empty is a warning and no state: without one nothing is
    /// lost, it is only read again.
    ///
    /// # Errors
    /// [`Invalid`] when the file is not a JSON object or cannot be read.
    pub fn load(path: Option<&Path>) -> Result<State, Invalid> {
        let Some(path) = path else { return Ok(State::default()) };
        let file = Some(path.to_owned());
        let invalid = |problem: String| Invalid::new(format!("state {}: {problem}", path.display()));
        let text = match read_text(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(invalid(format!("read the file: {error}")));
            }
            text => text.unwrap_or_default(),
        };
        if text.trim().is_empty() {
            warn!("state {}: there is none yet", path.display());
            return Ok(State { file, ..State::default() });
        }
        let state = State::parse(&text).map_err(invalid)?;
        Ok(State { file, ..state })
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
            return Ok(State { members, file: None });
        }
        let value = members.get("value").and_then(|value| serde_json::from_str(value.get()).ok());
        value.map(|members| State { members, file: None }).ok_or_else(|| "a STATE message without a value".to_owned())
    }

    /// The state as it was given.
    ///
    /// # Errors
    /// Never: what was read as JSON can be written as JSON.
    pub fn unchanged(&self) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(&self.members)
    }

    /// The bookmarks of all streams; none if there is no object of them.
    fn bookmarks(&self) -> Members {
        let bookmarks = self.members.get("bookmarks").and_then(|bookmarks| serde_json::from_str(bookmarks.get()).ok());
        bookmarks.unwrap_or_default()
    }

    /// The state of one stream, and how to write it; in `commit` mode also the bookmark that the state returns.
    pub fn of_stream(self, stream: &str, config: &Config) -> (StreamState, Option<ReturnedBookmark>) {
        let returned = match config.acknowledge {
            Acknowledge::Commit => self.returned_bookmark(stream, config),
            _ => None,
        };
        let position = match config.acknowledge {
            Acknowledge::Never => self.time_bookmark(stream, config).map(Position::UpTo),
            _ => returned.as_deref().cloned().map(Position::Window),
        };
        let state = StreamState {
            stream: stream.to_owned(),
            stream_id: config.stream_id.clone(),
            acknowledge: config.acknowledge,
            position,
            bookmarks: self.bookmarks(),
            state: self.members,
            file: self.file,
        };
        (state, returned)
    }

    /// The stream's entry, and whose it is: of the stream and the mode that are read, or else why not. `None` if there is no entry.
    fn own_entry(&self, stream: &str, config: &Config) -> Option<(Value, Result<Owner, String>)> {
        // What does not fit a `Value`, such as 1e400, counts as null, which is no bookmark.
        let entry: Value = serde_json::from_str(self.bookmarks().get(stream)?.get()).unwrap_or_default();
        let owner = match Owner::deserialize(&entry) {
            Err(error) => Err(format!("cannot be read ({error})")),
            Ok(owner) if owner.stream_id != config.stream_id => Err(format!("is of stream {}", owner.stream_id)),
            Ok(owner) if owner.acknowledge != config.acknowledge => {
                let mode = config.acknowledge.to_possible_value();
                Err(format!("is not of `acknowledge` `{}`", mode.as_ref().map_or("", |mode| mode.get_name())))
            }
            Ok(owner) => Ok(owner),
        };
        Some((entry, owner))
    }

    /// The time stamp up to which an earlier run has written everything.
    fn time_bookmark(&self, stream: &str, config: &Config) -> Option<TimeBookmark> {
        let (_, owner) = self.own_entry(stream, config)?;
        let problem = match owner {
            Err(problem) => problem,
            Ok(Owner { timestamp: None, .. }) => return None,
            Ok(Owner { timestamp: Some(Value::String(timestamp)), .. }) if instant(&timestamp).is_ok() => {
                return Some(TimeBookmark::new(&timestamp));
            }
            Ok(_) => "holds no time stamp with an offset".to_owned(),
        };
        info!("the state's bookmark of {stream:?} {problem}: reading from `startTimestamp` on");
        None
    }

    fn returned_bookmark(&self, stream: &str, config: &Config) -> Option<ReturnedBookmark> {
        let (entry, owner) = self.own_entry(stream, config)?;
        let problem = match owner {
            Err(problem) => problem,
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
    let members = serde_json::from_str(line).ok()?;
    let state = State { members, file: None };
    serde_json::from_str(state.bookmarks().get(stream)?.get()).ok()
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
    /// The file that it came from.
    file: Option<PathBuf>,
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

    /// Sets up to which time stamp the next STATE covers everything.
    pub fn set_time_bookmark(&mut self, timestamp: &str) {
        self.position = Some(Position::UpTo(TimeBookmark::new(timestamp)));
    }

    /// The time stamp up to which the STATE covers everything, in `never` mode.
    pub fn time_bookmark(&self) -> Option<&str> {
        match &self.position {
            Some(Position::UpTo(bookmark)) => Some(&bookmark.replication_key_value),
            _ => None,
        }
    }

    /// Writes the value to the file that the state came from, if there is one. A crash leaves the old file or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        replace(path, self.value()?.get().as_bytes()).with_context(|| format!("write the state to {}", path.display()))
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

/// Replaces a file by way of another one beside it.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(new, path)
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
            state: state.members,
            file: None,
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
