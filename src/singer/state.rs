//! STATE: what a run hands to the next one, under `bookmarks.<stream>`.
//!
//! The service keeps the read status itself, so in `write` mode a bookmark only says whose it is.
//! In `commit` mode it says which records it covers. A target prints a STATE once it has committed
//! everything before it, so a STATE that comes back proves that those records are committed. If the
//! tap runs the target, a STATE is a checkpoint of this run, and comes back in the same run. In
//! `never` mode it says up to which time stamp everything is written.
//!
//! Everything else in a state passes byte for byte; only white space between tokens goes, if it
//! holds a line break.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use log::warn;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Deserializer, Value, json};

use crate::config::settings::MAX_RECORDS;
use crate::config::source::read_text;
use crate::config::timestamp::instant;
use crate::config::{Acknowledge, Config, Invalid};
use crate::record::{Bookmark, ReturnedBookmark, ReturnedCheckpoint, Texts, on_one_line};
use crate::singer::files::{check_replaceable, replace};
use crate::singer::transform::TIMESTAMP;

/// Where a bookmark holds its time stamp. The name is that of the Singer SDKs.
const KEY_VALUE: &str = "replication_key_value";

/// The state that a run begins with, whichever streams it is of.
#[derive(Debug, Default)]
pub struct State {
    members: Texts,
    /// The file that `--state` names.
    file: Option<PathBuf>,
}

/// What a state holds of one stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a bookmark")]
struct Entry {
    stream_id: String,
    acknowledge: Acknowledge,
    /// The members of a [`Bookmark`] or a [`Checkpoint`](crate::record::Checkpoint), a time stamp, or none.
    #[serde(flatten)]
    covers: Value,
}

/// What a replay has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeBookmark {
    /// Everything up to this time stamp.
    pub timestamp: Option<String>,
    /// The records behind it, which end the stream: more may follow at their time stamp.
    pub at_end: Option<Bookmark>,
}

impl TimeBookmark {
    /// As a STATE holds it.
    pub fn covers(&self) -> Value {
        let mut covers = json!(self.at_end);
        if let Some(timestamp) = &self.timestamp {
            covers["replication_key"] = json!(TIMESTAMP);
            covers[KEY_VALUE] = json!(timestamp);
        }
        covers
    }
}

impl State {
    /// Reads the file that `--state` names. A file that is missing or empty is a warning and no
    /// state: without one nothing is lost, it is only read again. With `saves`, the run has to be
    /// able to replace it.
    pub fn load(path: Option<&Path>, saves: bool) -> Result<State, Invalid> {
        let Some(path) = path else { return Ok(State::default()) };
        let invalid = |problem: String| Invalid::new(format!("state {}: {problem}", path.display()));
        if saves {
            check_replaceable(path).map_err(|error| invalid(error.to_string()))?;
        }
        let text = match read_text(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(invalid(format!("read the file: {error}; name one that can be read")));
            }
            text => text.unwrap_or_default(),
        };
        let mut state = State::default();
        if text.trim().is_empty() {
            warn!("state {}: there is no state yet", path.display());
        } else {
            state = State::parse(&text).map_err(|problem| {
                invalid(format!("{problem}; keep the last STATE of a run there, or remove the file to begin anew"))
            })?;
        }
        state.file = Some(path.to_owned());
        Ok(state)
    }

    /// Reads a state, or the last of several: what a target prints is one a line. It may be a whole
    /// STATE message instead of its value, which is easily saved by mistake, or as Meltano keeps
    /// it.
    pub(crate) fn parse(text: &str) -> Result<State, String> {
        let mut last = "";
        // Before any white space goes: without it `1 2` would be a number.
        for state in Deserializer::from_str(text).into_iter::<&RawValue>() {
            last = state.map_err(|error| format!("not JSON: {error}"))?.get();
        }
        let last = on_one_line(last.as_bytes());
        let mut members: Texts = serde_json::from_slice(&last).map_err(|_| "not a JSON object")?;
        if members.get("type").is_some_and(|kind| kind.get() == "\"STATE\"") {
            members = object(&members, "value").ok_or("a STATE message without a value")?;
        }
        if !members.contains_key("bookmarks") {
            if object(&members, "partial").is_some_and(|partial| !partial.is_empty()) {
                warn!("the state holds a `partial` state of Meltano's, which is not used: only `completed` counts");
            }
            let completed = object(&members, "completed").and_then(|completed| object(&completed, "singer_state"));
            members = completed.or_else(|| object(&members, "singer_state")).unwrap_or(members);
        }
        Ok(State { members, file: None })
    }

    /// The state as it was given.
    pub fn unchanged(&self) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(&self.members)
    }

    /// The state of one stream, and how to write it; and the bookmark that the state returns, for
    /// `commit` mode.
    pub fn of_stream(self, stream: &str, config: &Config) -> (StreamState, Option<ReturnedBookmark>) {
        let own = Entry { stream_id: config.stream_id.clone(), acknowledge: config.acknowledge, covers: Value::Null };
        let mut state = StreamState { stream: stream.to_owned(), own, state: self, is_written: false };
        let (read, result) = match config.acknowledge {
            Acknowledge::Write => return (state, None),
            Acknowledge::Commit => (state.returned_bookmark(), "nothing is marked by it"),
            Acknowledge::Never => (state.returned_time(), "reading from `startTimestamp` on"),
        };
        match read {
            Ok(covers) => state.own.covers = covers,
            Err(problem) => warn!("the state's bookmark of {stream:?} {problem}: {result}"),
        }
        let returned = ReturnedBookmark::deserialize(&state.own.covers).ok();
        (state, returned)
    }
}

/// The members of a member that is an object.
fn object(members: &Texts, name: &str) -> Option<Texts> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// The checkpoint of the stream that a line of a target's output returns; `None` if the line is
/// anything else. Only the value of a STATE counts, as the Singer specification has it: a whole
/// STATE message may be the input of a target that repeats it.
pub fn returned_checkpoint(line: &str, stream: &str) -> Option<ReturnedCheckpoint> {
    let bookmarks = object(&serde_json::from_str(line).ok()?, "bookmarks")?;
    serde_json::from_str(bookmarks.get(stream)?.get()).ok()
}

/// The state with the bookmark of the stream that is read.
#[derive(Debug)]
pub struct StreamState {
    stream: String,
    own: Entry,
    /// The state, as it came.
    state: State,
    /// Whether it is the last message on stdout, or none is to be written now.
    pub is_written: bool,
}

impl StreamState {
    /// The stream's entry in the state; null if there is none. What does not fit a `Value`, such as
    /// 1e400, counts as null, which is not a bookmark.
    fn entry(&self) -> Value {
        let bookmarks = self.bookmarks();
        bookmarks.get(&self.stream).and_then(|entry| serde_json::from_str(entry.get()).ok()).unwrap_or_default()
    }

    /// What the stream's entry in the state covers; null if there is none.
    ///
    /// # Errors
    /// Why the entry is not one of the stream and the mode that are read.
    fn returned(&self) -> Result<Value, String> {
        let entry = self.entry();
        if entry.is_null() {
            return Ok(entry);
        }
        let entry = Entry::deserialize(entry).map_err(|error| format!("cannot be read ({error})"))?;
        if entry.stream_id != self.own.stream_id {
            return Err(format!("is of stream {}", entry.stream_id));
        }
        if entry.acknowledge != self.own.acknowledge {
            let mode = json!(self.own.acknowledge);
            return Err(format!("was not made with `acknowledge` `{}`", mode.as_str().unwrap_or_default()));
        }
        Ok(entry.covers)
    }

    /// What an earlier run has written, if the target may have committed it.
    fn returned_bookmark(&self) -> Result<Value, String> {
        let covers = self.returned()?;
        if covers["count"].is_null() {
            return Ok(Value::Null);
        }
        let bookmark = Bookmark::deserialize(covers).map_err(|error| format!("cannot be read ({error})"))?;
        match bookmark.count {
            0 => Ok(Value::Null),
            1..=MAX_RECORDS => Ok(json!(bookmark)),
            count => Err(format!("covers {count} records, which is more than a run can deliver")),
        }
    }

    /// What an earlier replay has written.
    fn returned_time(&self) -> Result<Value, String> {
        let entry = self.entry();
        let is_own = entry.get("streamId").is_some();
        let is_empty = self.state.members.values().all(|member| member.get() == "{}");
        let own = if is_own { self.returned()? } else { Value::Null };
        // As the Singer SDK writes it, or as singer-python does.
        let time = match [KEY_VALUE, TIMESTAMP].iter().find_map(|name| entry.get(name)) {
            Some(time) => time.clone(),
            None if is_own => Value::Null,
            None => entry,
        };
        let timestamp = match time {
            Value::Null if is_own || is_empty => None,
            Value::Null => return Err("is missing".to_owned()),
            Value::String(time) if instant(&time).is_ok() => Some(time),
            _ => return Err("holds no time stamp with an offset".to_owned()),
        };
        Ok(TimeBookmark { timestamp, at_end: Bookmark::deserialize(own).ok() }.covers())
    }

    /// Sets what the next STATE covers; in `write` mode it covers nothing. Returns whether that is
    /// new.
    pub fn cover(&mut self, covers: Value) -> bool {
        let is_new = covers != self.own.covers;
        self.own.covers = covers;
        self.is_written &= !is_new;
        is_new
    }

    /// What the STATE covers, in `never` mode.
    pub fn time_bookmark(&self) -> TimeBookmark {
        let covers = &self.own.covers;
        let timestamp = covers[KEY_VALUE].as_str().map(str::to_owned);
        TimeBookmark { timestamp, at_end: Bookmark::deserialize(covers).ok() }
    }

    /// Writes what a replay has written, if that has changed, to the file that the state came from,
    /// if there is one. A crash leaves the old file or the new one.
    pub fn save(&mut self, bookmark: &TimeBookmark) -> anyhow::Result<()> {
        let is_new = self.cover(bookmark.covers());
        let Some(path) = self.state.file.as_ref().filter(|_| is_new) else { return Ok(()) };
        replace(path, self.value()?.get().as_bytes()).with_context(|| {
            let path = path.display();
            format!(
                "cannot write the state to {path}: make room there; the next run loads again what it does not cover"
            )
        })
    }

    /// The value of the STATE message. A checkpoint comes back to this run, which needs nothing
    /// else: what the state holds of other streams may be more than a line of a target's output.
    pub fn value(&self) -> serde_json::Result<Box<RawValue>> {
        let own = to_raw_value(&self.own)?;
        if self.own.covers.get("run").is_some() {
            return to_raw_value(&json!({"bookmarks": {&self.stream: own}}));
        }
        let mut bookmarks = self.bookmarks();
        bookmarks.insert(self.stream.clone(), own);
        let mut members = self.state.members.clone();
        members.insert("bookmarks".to_owned(), to_raw_value(&bookmarks)?);
        to_raw_value(&members)
    }

    /// The bookmarks of all streams, as they came; none if there is no object of them.
    fn bookmarks(&self) -> Texts {
        object(&self.state.members, "bookmarks").unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The state as the next run gets it.
    fn passed_on(text: &str) -> String {
        let state = State::parse(text).unwrap();
        let own = Entry { stream_id: "id".to_owned(), acknowledge: Acknowledge::Write, covers: json!({}) };
        let stream = StreamState { stream: "own".to_owned(), own, state, is_written: false };
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
