//! The one table of settings. It checks a configuration, and `--about` prints it; a test compares the README's copy.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::{Map, Value, json};

use super::choices::{Acknowledge, MarkBy, PayloadFormat, PayloadSchema, TargetProof, TimestampFormat};
use super::found::{found, kind_of, quoted};
use super::timestamp::instant;
use super::url::check_url;

/// The prefix of a setting's environment variable, before its name in capitals (the Singer SDK's form).
pub const ENV_PREFIX: &str = "TAP_STREAMDUO_";

/// The maximum number of records that a setting lets a request ask for.
pub const MAX_RECORDS: usize = 100_000;

/// What a setting holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text but an empty one.
    Text,
    /// A text that needs no escaping in a URL's path.
    Id,
    /// A text that needs no escaping in a header.
    Header,
    /// A text that no log, error or `Debug` shows.
    Secret,
    /// A whole number between two bounds.
    Integer {
        /// The smallest one.
        min: u64,
        /// The largest one.
        max: u64,
    },
    /// One of these words, each with its meaning.
    Choice(fn() -> Vec<(String, String)>),
    /// A time stamp with an offset (RFC 3339 or RFC 9557).
    Timestamp,
    /// An `https://` URL, or an `http://` one towards loopback.
    Url,
}

/// A setting's row in the table.
#[derive(Debug)]
pub struct Setting {
    /// Its name in a config file.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it has to be given.
    pub is_required: bool,
    /// The value if none is given, if there is one.
    pub default: Option<&'static str>,
    /// What it means, in Markdown, without its bounds and words.
    help: &'static str,
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

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

/// The words of a choice, and their meanings.
fn words<T: ValueEnum>() -> Vec<(String, String)> {
    let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let meaning = |value: &PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
    values.map(|value| (value.get_name().to_owned(), meaning(&value))).collect()
}

const RECORDS: Kind = integer(1, MAX_RECORDS as u64);

/// Every setting, in the order in which they are explained.
pub static SETTINGS: [Setting; 23] = [
    required("streamId", Kind::Id, "the stream to read"),
    required("clientId", Kind::Text, "the machine client's id"),
    required("clientSecret", Kind::Secret, "the machine client's secret"),
    optional("streamName", Kind::Text, "records", "the name of the Singer stream"),
    optional(
        "acknowledge",
        Kind::Choice(words::<Acknowledge>),
        "write",
        "when a record counts as delivered, and may be marked as read",
    ),
    optional("markBy", Kind::Choice(words::<MarkBy>), "position", "which records are marked once some are delivered"),
    optional("pageSize", RECORDS, "1000", "with `write` and `never`: the most records asked for in one request"),
    optional(
        "maxPending",
        RECORDS,
        "10000",
        "with `commit` or a target: the most records out at once, and in one request",
    ),
    optional(
        "targetProof",
        Kind::Choice(words::<TargetProof>),
        "state",
        "with a target that the tap runs: what proves that it has committed its records",
    ),
    without_default(
        "deadLetterFile",
        Kind::Text,
        "a file that takes the records that no target could load; without it such a record ends the run",
    ),
    optional("pollIntervalSeconds", integer(0, 86_400), "10", "with `--follow`: the pause once the stream is drained"),
    optional(
        "startTimestamp",
        Kind::Timestamp,
        "1970-01-01T00:00:00Z",
        "with `never`: the records after this time stamp are read, unless there is a state; best given with the offset that the \
         stream's own time stamps have",
    ),
    optional(
        "replayOverlapSeconds",
        integer(0, 2_592_000),
        "0",
        "with `never`: how much before the bookmark is read again, to find what has arrived late",
    ),
    optional(
        "timestampFormat",
        Kind::Choice(words::<TimestampFormat>),
        "original",
        "how `recordTimeStampISO` is written",
    ),
    optional("payloadFormat", Kind::Choice(words::<PayloadFormat>), "json", "how `dataPayload` is written"),
    optional("payloadSchema", Kind::Choice(words::<PayloadSchema>), "any", "the schema of `dataPayload`"),
    optional("apiUrl", Kind::Url, "https://api.streamduo.com", "the API; `http://` only towards this machine itself"),
    optional(
        "authUrl",
        Kind::Url,
        "https://streamduo-authentication.auth.us-east-1.amazoncognito.com/oauth2/token",
        "the OAuth 2.0 token endpoint; `http://` only towards this machine itself",
    ),
    optional("scope", Kind::Text, "https://api.streamduo.com/read:records", "the OAuth 2.0 scope to ask for"),
    optional(
        "requestTimeoutSeconds",
        integer(1, 3_600),
        "60",
        "the most that one request may take, from connect to last byte",
    ),
    optional(
        "maxAnswerMegabytes",
        integer(1, 4_096),
        "32",
        "the most that one answer may hold, decompressed; pages shrink to fit, so only a larger record needs more",
    ),
    optional("maxRetries", integer(0, 100), "5", "how many failures of one request in a row are forgiven"),
    optional(
        "userAgent",
        Kind::Header,
        concat!("tap-streamduo/", env!("CARGO_PKG_VERSION")),
        "the `User-Agent` header",
    ),
];

/// The setting of this name.
pub fn named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The setting with the most similar name, if one is similar.
pub fn nearest(name: &str) -> Option<&'static Setting> {
    const LIKE: f64 = 0.75;
    let plain = |name: &str| name.replace(['_', '-', ' ', '.'], "").to_ascii_lowercase();
    SETTINGS
        .iter()
        .map(|setting| (strsim::normalized_damerau_levenshtein(&plain(name), &plain(setting.name)), setting))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, setting)| setting)
}

impl Setting {
    /// The name of the environment variable.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// What it means, in Markdown.
    pub fn meaning(&self) -> String {
        match self.kind {
            Kind::Integer { min, max } => format!("{}, {min} to {}", self.help, with_commas(max)),
            Kind::Choice(words) => {
                let words: Vec<_> = words().iter().map(|(word, meaning)| format!("`{word}`: {meaning}")).collect();
                format!("{}: {}", self.help, words.join("; "))
            }
            _ => self.help.to_owned(),
        }
    }

    /// What to say in place of a default.
    fn without_default(&self) -> &'static str {
        if self.is_required { "required" } else { "no default" }
    }

    /// Its default in plain text, or that it has none.
    pub fn default_text(&self) -> String {
        self.default.map_or_else(|| self.without_default().to_owned(), |default| format!("default: {default}"))
    }

    /// What it means in lines of plain text. A choice has a line for each of its words.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.kind {
            Kind::Choice(words) => {
                lines.push(format!("{}:", self.help));
                lines.extend(words().into_iter().map(|(word, meaning)| format!("- {word}: {meaning}")));
            }
            _ => lines.push(self.meaning()),
        }
        lines.into_iter().map(|line| line.replace('`', "")).collect()
    }

    /// Its default, if there is one.
    pub fn default(&self) -> Option<Value> {
        let number = |text: &str| text.parse::<u64>().ok().filter(|_| matches!(self.kind, Kind::Integer { .. }));
        self.default.map(|text| number(text).map_or_else(|| json!(text), Value::from))
    }

    /// Checks a value against the setting's kind.
    ///
    /// # Errors
    /// What is wrong with it, to follow the setting's name. Shows what was found, unless it is a secret.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match (self.kind, value) {
            (Kind::Integer { min, max }, Value::Number(number)) => match number.as_u64() {
                Some(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!("must be a whole number from {min} to {max}, not {number}")),
            },
            (Kind::Integer { min, max }, other) => {
                let is_quoted = other.as_str().is_some_and(|text| text.parse::<u64>().is_ok());
                let remedy = if is_quoted { ": write it without quotes" } else { "" };
                Err(format!("must be a whole number from {min} to {max}, not {}{remedy}", found(other)))
            }
            (Kind::Choice(words), Value::String(word)) if words().iter().any(|(known, _)| known == word) => Ok(()),
            (Kind::Choice(_), Value::String(word)) if self.name == "acknowledge" && word == "read" => {
                Err("`read` is gone, because it lost records: take `write`".to_owned())
            }
            (Kind::Choice(words), other) => {
                let words = words().iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
                Err(format!("must be one of {words}, not {}", found(other)))
            }
            (_, Value::String(text)) if text.trim().is_empty() => Err(match self.default {
                Some(default) => format!("is empty: give it a value, or remove it to have {default}"),
                None if self.is_required => "is empty: give it a value".to_owned(),
                None => "is empty: give it a value, or remove it".to_owned(),
            }),
            (kind, Value::String(text)) => check_text(kind, text),
            (Kind::Secret, other) => Err(format!("must be a string, not {}", kind_of(other))),
            (_, other) => Err(format!("must be a string, not {}", found(other))),
        }
    }

    /// The setting's JSON schema, as the Singer SDK's `--about` has it.
    fn schema(&self) -> Value {
        let kind = if matches!(self.kind, Kind::Integer { .. }) { "integer" } else { "string" };
        let mut schema = Map::new();
        let types = if self.is_required { json!([kind]) } else { json!([kind, "null"]) };
        schema.insert("type".to_owned(), types);
        schema.insert("description".to_owned(), json!(self.meaning()));
        match self.kind {
            Kind::Integer { min, max } => {
                schema.insert("minimum".to_owned(), json!(min));
                schema.insert("maximum".to_owned(), json!(max));
            }
            Kind::Choice(words) => {
                schema.insert("enum".to_owned(), json!(words().into_iter().map(|(word, _)| word).collect::<Vec<_>>()));
            }
            Kind::Secret => {
                schema.insert("secret".to_owned(), json!(true));
                schema.insert("writeOnly".to_owned(), json!(true));
            }
            Kind::Url => {
                schema.insert("format".to_owned(), json!("uri"));
            }
            Kind::Text | Kind::Id | Kind::Header | Kind::Timestamp => {}
        }
        if let Some(default) = self.default() {
            schema.insert("default".to_owned(), default);
        }
        Value::Object(schema)
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
    let row = |setting: &Setting| {
        let default = setting.default.map_or_else(
            || setting.without_default().to_owned(),
            |default| format!("`{}`", default.replace(env!("CARGO_PKG_VERSION"), "VERSION")),
        );
        format!("| `{}` | {default} | {} |\n", setting.name, setting.meaning())
    };
    SETTINGS
        .iter()
        .fold("| setting | default | meaning |\n|---|---|---|\n".to_owned(), |table, setting| table + &row(setting))
}

fn check_text(kind: Kind, text: &str) -> Result<(), String> {
    let is_stray = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '%');
    match kind {
        // A URL may hold a password.
        Kind::Secret | Kind::Url if text.trim() != text => Err("must not begin or end with white space".to_owned()),
        _ if text.trim() != text => Err(format!("must not begin or end with white space: {}", quoted(text))),
        Kind::Id if text.contains(is_stray) || matches!(text, "." | "..") => {
            Err(format!("must be the id alone, such as 60c49e86-9db3-414a-87a1-f51ccee4ec0c, not {}", quoted(text)))
        }
        Kind::Header if text.chars().any(|c| !(c == ' ' || c.is_ascii_graphic())) => {
            Err(format!("must be plain ASCII text to go into a header, not {}", quoted(text)))
        }
        Kind::Url => check_url(text).map(drop),
        Kind::Timestamp if instant(text).is_err() => Err(format!(
            "must be a time stamp with an offset, such as 2026-01-31T08:00:00Z or \
             2026-01-31T08:00:00.5-05:00[America/New_York], not {}",
            quoted(text)
        )),
        _ => Ok(()),
    }
}

/// 100000 as 100,000.
fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid() {
        for setting in SETTINGS.iter().filter(|setting| setting.default.is_some()) {
            assert_eq!(setting.check(&setting.default().unwrap()), Ok(()), "{}", setting.name);
        }
    }

    #[test]
    fn the_readme_has_this_table() {
        assert!(
            include_str!("../../README.md").contains(&format!("\n{}\n", table())),
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
