//! The configuration of a run. It is checked as a whole before any request.
//!
//! [`Config`] holds the result. [`settings`] is the table of all settings, with their bounds and
//! defaults; `choices` has the words of those that are one of a few. `source` reads what the user
//! has set, and `check` compares it with the table. [`timestamp`] reads time stamps.

mod check;
mod choices;
pub mod settings;
pub mod source;
pub mod timestamp;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use url::Url;

use settings::{MAX_PENDING_WITH_TARGET, SETTINGS};
use source::UserSettings;

pub use check::is_loopback;
pub use choices::{Acknowledge, MarkBy, PayloadFormat, PayloadSchema, TargetProof, TimestampFormat};

/// The settings of a run, all of them valid. Bounds and defaults are in [`settings::SETTINGS`].
/// `Debug` does not show the secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// `streamId`: the stream to read.
    pub stream_id: String,
    /// `clientId`: the machine client's id (RFC 6749 section 2.2).
    pub client_id: String,
    /// `clientSecret`: the machine client's secret.
    pub client_secret: SecretString,
    /// `streamName`: the name of the Singer stream; by default that of the vendor's tap.
    pub stream_name: String,
    /// `acknowledge`: when a record counts as delivered.
    pub acknowledge: Acknowledge,
    /// `markBy`: how delivered records are marked as read.
    pub mark_by: MarkBy,
    /// `pageSize`: in `write` and `never` mode, the maximum number of records in one request.
    pub page_size: usize,
    /// `maxPending`: in `commit` mode, the maximum number of records that are out at once. With a
    /// target [`MAX_PENDING_WITH_TARGET`] by default.
    pub max_pending: usize,
    /// `targetProof`: what proves that a target that the tap runs has committed what it was given.
    pub target_proof: TargetProof,
    /// `deadLetterFile`: where records go that no target could load; without it they end the run.
    pub dead_letter_file: Option<PathBuf>,
    /// `pollIntervalSeconds`: with `--follow`, the pause once the stream is drained.
    #[serde(rename = "pollIntervalSeconds", deserialize_with = "seconds")]
    pub poll_interval: Duration,
    /// `startTimestamp`: in `never` mode, what comes after this time stamp is read, unless a STATE
    /// says otherwise.
    pub start_timestamp: String,
    /// `replayOverlapSeconds`: in `never` mode, how much before the bookmark is read again.
    #[serde(rename = "replayOverlapSeconds", deserialize_with = "seconds")]
    pub replay_overlap: Duration,
    /// `timestampFormat`: how `recordTimeStampISO` is written.
    pub timestamp_format: TimestampFormat,
    /// `payloadFormat`: how `dataPayload` is written.
    pub payload_format: PayloadFormat,
    /// `payloadSchema`: where the schema of `dataPayload` comes from.
    pub payload_schema: PayloadSchema,
    /// `columnsFile`: where the columns of `dataPayload` are kept, if it is written as columns.
    pub columns_file: Option<PathBuf>,
    /// `apiUrl`: the base of the API.
    pub api_url: Url,
    /// `authUrl`: the OAuth 2.0 token endpoint (RFC 6749 section 3.2).
    pub auth_url: Url,
    /// `scope`: the OAuth 2.0 scope to ask for (RFC 6749 section 3.3).
    pub scope: String,
    /// `requestTimeoutSeconds`: the most that one request may take, from connect to last byte.
    #[serde(rename = "requestTimeoutSeconds", deserialize_with = "seconds")]
    pub request_timeout: Duration,
    /// `maxAnswerMegabytes`: the most that one answer may hold, decompressed. Here in bytes.
    #[serde(rename = "maxAnswerMegabytes", deserialize_with = "megabytes")]
    pub max_answer: usize,
    /// `maxRetries`: how many failures of one request in a row are forgiven.
    pub max_retries: usize,
    /// `userAgent`: the `User-Agent` header (RFC 9110 section 10.1.5).
    pub user_agent: String,
}

/// What is wrong with the configuration, or with a file that the command line names, and how to fix
/// it: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Invalid(pub Vec<String>);

impl Invalid {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Invalid {
        Invalid(vec![text.into()])
    }
}

impl Config {
    /// Reads the settings from the files, or from the environment if the path is `ENV`; later ones
    /// win. `is_test` is to try them: a misspelt one is an error, too. With a target, what it has
    /// committed is marked, so `acknowledge` is `commit`, or `never` if nothing is to be marked.
    ///
    /// # Errors
    /// [`Invalid`], with all that is wrong at once.
    pub fn load(sources: &[PathBuf], is_test: bool, has_target: bool) -> Result<Config, Invalid> {
        Config::check(&source::read(sources)?, sources, is_test, has_target)
    }

    /// Checks what the user has set, and adds the defaults.
    fn check(user: &UserSettings, sources: &[PathBuf], is_test: bool, has_target: bool) -> Result<Config, Invalid> {
        let mut settings = Map::new();
        let mut problems = Vec::new();
        for setting in &SETTINGS {
            let value = match user.get(setting.name) {
                Some((name, value)) => {
                    // A number may be a text, as in the environment.
                    let value = value.as_str().map_or_else(|| value.clone(), |text| setting.value(text));
                    problems.extend(setting.check(&value).err().map(|problem| format!("{name} {problem}")));
                    value
                }
                None if has_target && setting.name == "acknowledge" => "commit".into(),
                None if has_target && setting.name == "maxPending" => MAX_PENDING_WITH_TARGET.into(),
                None => setting.default.map(|default| setting.value(default)).unwrap_or_default(),
            };
            if setting.is_required && value.is_null() {
                problems.push(source::missing(setting, sources));
            }
            settings.insert(setting.name.to_owned(), value);
        }
        let set = |setting: &str, word: &str| user.get(setting).filter(|(_, value)| value == word);
        if let (Some((mark_by, _)), Some((acknowledge, _))) = (set("markBy", "id"), set("acknowledge", "never")) {
            problems.push(format!(
                "{mark_by} `id` does not go with {acknowledge} `never`, which marks nothing: remove one of them"
            ));
        }
        let columns = ["sampled", "registered"].into_iter().find_map(|word| set("payloadSchema", word).zip(Some(word)));
        match (columns, set("payloadFormat", "string"), user.get("columnsFile")) {
            (Some(((schema, _), word)), Some((format, _)), _) => problems.push(format!(
                "{format} `string` writes the payload as one text, and {schema} `{word}` as columns: remove one of them"
            )),
            (Some(((schema, _), word)), None, None) => problems.push(format!(
                "{schema} `{word}` needs `columnsFile`, in which the tap keeps the columns that it has made, so that \
                 none ever changes its type: name a file, such as columns.json, and keep it"
            )),
            (None, _, Some((file, _))) if settings["payloadSchema"] == "any" => problems.push(format!(
                "{file} does nothing without `payloadSchema` `sampled` or `registered`: set that, or remove it"
            )),
            _ => {}
        }
        if has_target
            && let Some((name, value)) = user.get("acknowledge")
            && Acknowledge::deserialize(value).is_ok_and(Acknowledge::marks_what_is_written)
        {
            let word = value.as_str().unwrap_or_default();
            problems.push(format!(
                "{name} `{word}` does not go with a target: what the target has committed is marked; remove the \
                 setting, or set it to `never` to mark nothing"
            ));
        }
        problems.extend(source::report_unknown(user, is_test));
        if !problems.is_empty() {
            return Err(Invalid(problems));
        }
        Config::deserialize(Value::Object(settings)).map_err(|error| Invalid::new(error.to_string()))
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}

fn megabytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    usize::deserialize(deserializer).map(|megabytes| megabytes.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::settings::{Kind, SETTINGS};
    use super::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn config(settings: Value) -> Result<Config, String> {
        let Value::Object(mut settings) = settings else { panic!("an object") };
        for name in ["streamId", "clientId", "clientSecret"] {
            settings.entry(name).or_insert_with(|| json!(format!("a-{name}")));
        }
        let settings = settings.into_iter().map(|(name, value)| (name.clone(), (format!("`{name}`"), value)));
        Config::check(&settings.collect(), &["config.json".into()], false, false).map_err(|error| error.to_string())
    }

    fn problem(settings: Value) -> String {
        config(settings).unwrap_err()
    }

    #[test]
    fn every_setting_has_its_default() {
        let config = config(json!({})).unwrap();
        assert_eq!(config.stream_name, "records");
        assert_eq!((config.acknowledge, config.mark_by), (Acknowledge::Write, MarkBy::Position));
        assert_eq!((config.page_size, config.max_pending, config.max_retries), (1000, 10_000, 5));
        assert_eq!((config.poll_interval, config.request_timeout), (Duration::from_secs(10), Duration::from_secs(60)));
        assert_eq!(config.timestamp_format, TimestampFormat::Original);
        assert_eq!((config.payload_format, config.payload_schema), (PayloadFormat::Json, PayloadSchema::Any));
        assert_eq!(config.api_url.as_str(), "https://api.streamduo.com/");
        assert_eq!(config.user_agent, format!("tap-streamduo/{}", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn every_setting_is_read() {
        for setting in &SETTINGS {
            let error = problem(json!({setting.name: {}}));
            assert!(error.starts_with(&format!("`{}` must be ", setting.name)), "{error}");
        }
    }

    #[test]
    fn every_word_of_the_table_is_a_value() {
        for setting in &SETTINGS {
            let Kind::Choice(words) = setting.kind else { continue };
            for (word, _) in words() {
                let mut settings = json!({setting.name: word});
                if matches!(word.as_str(), "sampled" | "registered") {
                    settings["columnsFile"] = json!("columns.json");
                }
                assert!(config(settings).is_ok(), "{} {word}", setting.name);
            }
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(problem(json!({"pageSize": 0})), "`pageSize` must be a whole number from 1 to 100000, not 0");
        assert_eq!(problem(json!({"pageSize": 2.5})), "`pageSize` must be a whole number from 1 to 100000, not 2.5");
    }

    #[test]
    fn the_start_is_a_time_stamp() {
        for stamp in ["2022-02-01T15:16:23.716848-05:00[America/New_York]", "2026-01-01T00:00:00Z"] {
            assert_eq!(config(json!({"startTimestamp": stamp})).unwrap().start_timestamp, stamp);
        }
        for stamp in ["2026-01-01", "2026-01-01T00:00:00", "20260101T000000Z", "yesterday"] {
            assert_eq!(
                problem(json!({"startTimestamp": stamp})),
                format!(
                    "`startTimestamp` must be a time stamp with an offset, such as 2026-01-31T08:00:00Z or \
                     2026-01-31T08:00:00.5-05:00[America/New_York], not {stamp:?}"
                )
            );
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let config = config(json!({"clientSecret": "hunter2"})).unwrap();
        assert_eq!(config.client_secret.expose_secret(), "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
