//! The one table of settings. `--about` prints it; a test compares the copy in `docs/settings.md`.

use std::ops::RangeInclusive;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use indicatif::HumanCount;
use serde_json::{Map, Value, json};

use self::Kind::{Choice, Header, Id, Integer, Secret, Text, Timestamp, Url};
use super::choices::{Acknowledge, MarkBy, PayloadFormat, PayloadSchema, TargetProof, TimestampFormat};

/// The prefix of a setting's environment variable, before its name in capitals (the Singer SDK's
/// form).
pub const ENV_PREFIX: &str = "TAP_STREAMDUO_";

/// The maximum number of records that a request asks for.
pub const MAX_RECORDS: usize = 100_000;

/// The largest `maxPending`.
pub const MAX_PENDING: usize = 1_000_000;

/// `maxPending` by default with a target: each window may be a start of the target, and what is
/// remembered of so many records fits into 64 MB.
pub const MAX_PENDING_WITH_TARGET: usize = 500_000;

/// What a setting holds.
#[derive(Debug)]
pub enum Kind {
    /// Any text but an empty one.
    Text,
    /// A text that needs no escaping in a URL's path.
    Id,
    /// A text that needs no escaping in a header.
    Header,
    /// A text that no log, error or `Debug` shows.
    Secret,
    /// A whole number from the first to the last of these.
    Integer(RangeInclusive<u64>),
    /// One of these words, each with its meaning.
    Choice(fn() -> Vec<(String, String)>),
    /// A time stamp with an offset (RFC 3339 or RFC 9557).
    Timestamp,
    /// An `https://` URL, or an `http://` one that leads to this machine.
    Url,
}

/// A setting's row in the table.
#[derive(Debug)]
pub struct Setting {
    /// Its name in a config file.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it has to be set.
    pub is_required: bool,
    /// The value if it is not set.
    pub default: Option<&'static str>,
    /// What it means, in Markdown, without its bounds and words.
    pub help: &'static str,
}

const fn required(name: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { name, kind, is_required: true, default: None, help }
}

const fn optional(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind, is_required: false, default: Some(default), help }
}

const fn without_default(name: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { name, kind, is_required: false, default: None, help }
}

/// The words of a choice, and their meanings.
fn words<T: ValueEnum>() -> Vec<(String, String)> {
    let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let meaning = |value: &PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
    values.map(|value| (value.get_name().to_owned(), meaning(&value))).collect()
}

/// Every setting, in the order in which they are explained.
pub static SETTINGS: [Setting; 24] = [
    required("streamId", Id, "the stream to read"),
    required("clientId", Text, "the machine client's id"),
    required("clientSecret", Secret, "the machine client's secret"),
    optional("streamName", Text, "records", "the name of the Singer stream"),
    optional(
        "acknowledge",
        Choice(words::<Acknowledge>),
        "write",
        "when a record counts as delivered, and may be marked as read (with a target `commit`, unless it is `never`)",
    ),
    optional("markBy", Choice(words::<MarkBy>), "position", "which records a mark hits"),
    optional(
        "pageSize",
        Integer(1..=MAX_RECORDS as u64),
        "1000",
        "with `write`, `never`, and a target that commits at once: the most records asked for in one request",
    ),
    optional(
        "maxPending",
        Integer(1..=MAX_PENDING as u64),
        "10000",
        "with `commit`, or a target (then 500000 by default): the most records that are written and not yet committed \
         (one request asks for at most 100000)",
    ),
    optional(
        "targetProof",
        Choice(words::<TargetProof>),
        "state",
        "with a target that the tap runs: what proves that it has committed its records",
    ),
    without_default(
        "deadLetterFile",
        Text,
        "a file that takes the records that no target could load; without it such a record ends the run",
    ),
    optional("pollIntervalSeconds", Integer(0..=86_400), "10", "with `--follow`: the pause once the stream is drained"),
    optional(
        "startTimestamp",
        Timestamp,
        "1970-01-01T00:00:00Z",
        "with `never`: if there is no state, the records after this time stamp are read; give it the offset that the \
         stream's own time stamps have",
    ),
    optional(
        "replayOverlapSeconds",
        Integer(0..=2_592_000),
        "0",
        "with `never`: how many seconds before the bookmark are read again, to find records that arrived late",
    ),
    optional("timestampFormat", Choice(words::<TimestampFormat>), "original", "how `recordTimeStampISO` is written"),
    optional("payloadFormat", Choice(words::<PayloadFormat>), "json", "how `dataPayload` is written"),
    optional("payloadSchema", Choice(words::<PayloadSchema>), "any", "the schema of `dataPayload`"),
    without_default(
        "columnsFile",
        Text,
        "with `sampled` and `registered`: the file in which the tap keeps the columns of `dataPayload`, a JSON schema, relative to \
         the folder that the tap is started in; the tap adds to it, and no column ever changes",
    ),
    optional("apiUrl", Url, "https://api.streamduo.com", "the API; `http://` only for this machine itself"),
    optional(
        "authUrl",
        Url,
        "https://streamduo-authentication.auth.us-east-1.amazoncognito.com/oauth2/token",
        "the OAuth 2.0 token endpoint; `http://` only for this machine itself",
    ),
    optional("scope", Text, "https://api.streamduo.com/read:records", "the OAuth 2.0 scope to ask for"),
    optional(
        "requestTimeoutSeconds",
        Integer(1..=3_600),
        "60",
        "the most that one request may take, from connect to last byte",
    ),
    optional(
        "maxAnswerMegabytes",
        Integer(1..=4_096),
        "32",
        "the most that one answer may hold, decompressed; pages shrink to fit, so only a larger record needs more",
    ),
    optional("maxRetries", Integer(0..=100), "5", "how often in a row one request may fail and be sent again"),
    optional("userAgent", Header, concat!("tap-streamduo/", env!("CARGO_PKG_VERSION")), "the `User-Agent` header"),
];

/// The setting with the most similar name, if one is similar.
pub fn nearest(name: &str) -> Option<&'static Setting> {
    const LIKE: f64 = 0.75;
    let plain = |name: &str| name.replace(['_', '-', ' ', '.'], "").to_ascii_lowercase();
    let likeness = |setting: &Setting| strsim::normalized_damerau_levenshtein(&plain(name), &plain(setting.name));
    let nearest = SETTINGS.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    nearest.filter(|setting| likeness(setting) >= LIKE)
}

impl Setting {
    /// The name of the environment variable.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// What it means, in Markdown.
    pub fn meaning(&self) -> String {
        match &self.kind {
            Kind::Integer(range) => format!("{}, {} to {}", self.help, range.start(), HumanCount(*range.end())),
            Kind::Choice(words) => {
                let words: Vec<_> = words().iter().map(|(word, meaning)| format!("`{word}`: {meaning}")).collect();
                format!("{}: {}", self.help, words.join("; "))
            }
            _ => self.help.to_owned(),
        }
    }

    /// Its default in plain text, or that it has none.
    pub fn default_text(&self) -> String {
        match self.default {
            Some(default) => format!("default: {default}"),
            None if self.is_required => "required".to_owned(),
            None => "no default".to_owned(),
        }
    }

    /// The value that a text stands for, be it a default or what a variable holds.
    pub fn value(&self, text: &str) -> Value {
        match self.kind {
            Kind::Integer(_) => text.parse::<u64>().map_or_else(|_| json!(text), Value::from),
            _ => json!(text),
        }
    }

    /// The setting's JSON schema, as the Singer SDK's `--about` has it.
    fn schema(&self) -> Value {
        let kind = if let Kind::Integer(_) = self.kind { "integer" } else { "string" };
        let types = if self.is_required { json!([kind]) } else { json!([kind, "null"]) };
        let mut schema = json!({"type": types, "description": self.meaning()});
        match &self.kind {
            Kind::Integer(range) => {
                schema["minimum"] = json!(range.start());
                schema["maximum"] = json!(range.end());
            }
            Kind::Choice(words) => schema["enum"] = words().into_iter().map(|(word, _)| word).collect(),
            Kind::Secret => {
                schema["secret"] = json!(true);
                schema["writeOnly"] = json!(true);
            }
            Kind::Url => schema["format"] = json!("uri"),
            Kind::Text | Kind::Id | Kind::Header | Kind::Timestamp => {}
        }
        if let Some(default) = self.default {
            schema["default"] = self.value(default);
        }
        schema
    }
}

/// The JSON schema of a configuration.
pub fn schema() -> Value {
    let properties: Map<_, _> = SETTINGS.iter().map(|setting| (setting.name.to_owned(), setting.schema())).collect();
    let required: Vec<_> = SETTINGS.iter().filter(|setting| setting.is_required).map(|setting| setting.name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// The settings as a Markdown table.
pub fn table() -> String {
    let mut table = "| setting | default | meaning |\n|---|---|---|\n".to_owned();
    for setting in &SETTINGS {
        let default = match setting.default {
            Some(default) => format!("`{}`", default.replace(env!("CARGO_PKG_VERSION"), "VERSION")),
            None => setting.default_text(),
        };
        table += &format!("| `{}` | {default} | {} |\n", setting.name, setting.meaning());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_page_has_this_table() {
        assert!(
            include_str!("../../docs/settings.md").contains(&format!("\n{}\n", table())),
            "put this into it:\n{}",
            table()
        );
    }

    #[test]
    fn a_misspelt_key_finds_its_setting() {
        for (key, name) in
            [("stream_id", "streamId"), ("clientID", "clientId"), ("page-size", "pageSize"), ("scopes", "scope")]
        {
            assert_eq!(nearest(key).unwrap().name, name);
        }
        assert!(nearest("database").is_none());
    }
}
