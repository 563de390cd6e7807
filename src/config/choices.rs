//! Settings that are one of a few words. A variant's name is the word in a config file, and its
//! comment is the word's meaning in the table of settings.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// When a record counts as delivered, and may be marked as read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// once it is written to stdout and flushed
    #[default]
    Write,
    /// once the target has committed it
    Commit,
    /// nothing is marked, and the stream is read by time, from `startTimestamp` on
    Never,
}

impl Acknowledge {
    /// Whether a run marks what it has written to stdout. If so, a file is synced before each mark,
    /// and a target is refused: what it has not committed would be marked.
    pub fn marks_what_is_written(self) -> bool {
        match self {
            Acknowledge::Write => true,
            Acknowledge::Commit | Acknowledge::Never => false,
        }
    }
}

/// How delivered records are marked as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MarkBy {
    /// as many of the oldest unread records as were delivered
    Position,
    /// exactly the records that were delivered, with a request for each (with `write` and `commit`)
    Id,
}

/// What proves that a target that the tap runs has committed what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TargetProof {
    /// a STATE that it prints
    State,
    /// that it has read its whole input and ends with exit code 0
    Exit,
}

/// How `recordTimeStampISO` is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TimestampFormat {
    /// as it is sent
    #[default]
    Original,
    /// in UTC with `Z`, and `format: date-time` in the schema
    Rfc3339,
}

/// How `dataPayload` is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PayloadFormat {
    /// as it is sent
    #[default]
    Json,
    /// its JSON text as one string, for targets that cannot nest
    String,
}

/// Where the schema of `dataPayload` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PayloadSchema {
    /// fits every record
    Any,
    /// columns for the fields that the stream's active JSON schema describes
    Registered,
    /// columns for the fields of its last 100 records and of the unread ones
    Sampled,
}
