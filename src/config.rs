//! The configuration of a run: read from JSON files and the environment, and checked as a whole before any request.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use std::{env, fs, io};

use anyhow::{Context, Result};
use log::warn;
use secrecy::SecretString;
use serde::de::value::{Error as ChoiceError, StringDeserializer};
use serde::de::{Deserialize, IntoDeserializer};
use serde::{Deserialize as DeserializeWord, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::settings::{ENV_PREFIX, Kind, SETTINGS, check_url, named, nearest};

/// The value of `--config` that stands for the environment.
const ENV: &str = "ENV";

/// Variables with the prefix that are no settings.
const OTHER_VARIABLES: [&str; 1] = ["LOGLEVEL"];

/// Keys that Singer configurations share and that mean nothing here.
const SINGER_KEYS: [&str; 4] = ["start_date", "end_date", "disable_collection", "metrics_log_level"];

/// When a record counts as delivered, and may be marked as read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, DeserializeWord)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// Once it is written to stdout and flushed.
    #[default]
    Write,
    /// Once the target has committed it, which a STATE that comes back proves.
    Commit,
    /// As it is read: one request a page, and a crash loses a page.
    Read,
}

/// How `recordTimeStampISO` is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, DeserializeWord)]
#[serde(rename_all = "lowercase")]
pub enum TimestampFormat {
    /// As it is sent: RFC 9557, with its zone.
    #[default]
    Original,
    /// RFC 3339 in UTC, a JSON schema `date-time`.
    Rfc3339,
}

/// How `dataPayload` is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, DeserializeWord)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// As it is sent.
    #[default]
    Json,
    /// Its JSON text as one string.
    String,
}

/// Where the schema of `dataPayload` comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, DeserializeWord)]
#[serde(rename_all = "lowercase")]
pub enum PayloadSchema {
    /// One that fits every record.
    #[default]
    Any,
    /// The stream's active JSON schema.
    Registered,
    /// The types that its last records have.
    Sampled,
}

/// The settings of a run, all of them valid. Its `Debug` does not show the secret.
#[derive(Debug)]
pub struct Config {
    /// `streamId`: the stream to read. Required.
    pub stream_id: String,
    /// `clientId`: the machine client's id (RFC 6749 section 2.2). Required.
    pub client_id: String,
    /// `clientSecret`: the machine client's secret. Required.
    pub client_secret: SecretString,
    /// `streamName`: the name of the Singer stream. Default `records`, as the vendor's tap has it.
    pub stream_name: String,
    /// `acknowledge`: when a record counts as delivered. Default `write`.
    pub acknowledge: Acknowledge,
    /// `pageSize`: in `write` and `read` mode, the most records asked for in one request. 1 to 100,000, default 1,000.
    pub page_size: usize,
    /// `maxPending`: in `commit` mode, the most records that are out at once and asked for in one request. 1 to 100,000,
    /// default 10,000.
    pub max_pending: usize,
    /// `pollIntervalSeconds`: with `--follow`, the pause once the stream is drained. 0 to 86,400, default 10.
    pub poll_interval: Duration,
    /// `timestampFormat`: how `recordTimeStampISO` is written. Default `original`.
    pub timestamp_format: TimestampFormat,
    /// `payloadFormat`: how `dataPayload` is written. Default `json`.
    pub payload_format: PayloadFormat,
    /// `payloadSchema`: where the schema of `dataPayload` comes from. Default `any`.
    pub payload_schema: PayloadSchema,
    /// `apiUrl`: the base of the API. Default `https://api.streamduo.com`.
    pub api_url: Url,
    /// `authUrl`: the OAuth 2.0 token endpoint (RFC 6749 section 3.2). Default: the vendor's.
    pub auth_url: Url,
    /// `scope`: the OAuth 2.0 scope to ask for (RFC 6749 section 3.3). Default: the vendor's, to read records.
    pub scope: String,
    /// `requestTimeoutSeconds`: the most that one request may take, from connect to last byte. 1 to 3,600, default 60.
    pub request_timeout: Duration,
    /// `maxRetries`: how many failures of one request in a row are forgiven. 0 to 100, default 5.
    pub max_retries: usize,
    /// `userAgent`: the `User-Agent` header (RFC 9110 section 10.1.5). Default `tap-streamduo/VERSION`.
    pub user_agent: String,
}

/// What is wrong with the configuration, or with a file that the command line names, and how to mend it: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Invalid {
        Invalid(text.into())
    }
}

impl Config {
    /// Reads the settings from the files, or from the environment where the path is `ENV`; later ones win.
    ///
    /// # Errors
    /// [`Invalid`], with all that is wrong at once.
    pub fn load(sources: &[impl AsRef<Path>]) -> Result<Config, Invalid> {
        if sources.is_empty() {
            return Err(Invalid::new(
                "no configuration: name it with --config config.json, or take it from the environment with --config ENV",
            ));
        }
        let mut given = Map::new();
        for source in sources.iter().map(AsRef::as_ref) {
            if source == Path::new(ENV) {
                given.extend(from_environment(env::vars_os()));
            } else {
                let file = read_object(source).with_context(|| format!("config {}", source.display()));
                let file = file.map_err(|error| Invalid(format!("{error:#}")))?;
                // A null stands for a setting that is not given.
                given.extend(file.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
        Config::from_settings(given)
    }

    fn from_settings(given: Map<String, Value>) -> Result<Config, Invalid> {
        warn_of_unknown(&given);
        let mut settings = Settings { problems: Vec::new(), given };
        let config = Config {
            stream_id: settings.stream_id(),
            client_id: settings.text("clientId"),
            client_secret: settings.text("clientSecret").into(),
            stream_name: settings.text("streamName"),
            acknowledge: settings.choice("acknowledge"),
            page_size: settings.integer("pageSize"),
            max_pending: settings.integer("maxPending"),
            poll_interval: Duration::from_secs(settings.integer("pollIntervalSeconds")),
            timestamp_format: settings.choice("timestampFormat"),
            payload_format: settings.choice("payloadFormat"),
            payload_schema: settings.choice("payloadSchema"),
            api_url: settings.url("apiUrl"),
            auth_url: settings.url("authUrl"),
            scope: settings.text("scope"),
            request_timeout: Duration::from_secs(settings.integer("requestTimeoutSeconds")),
            max_retries: settings.integer("maxRetries"),
            user_agent: settings.header("userAgent"),
        };
        match settings.problems.as_slice() {
            [] => Ok(config),
            problems => Err(Invalid(format!("the configuration is not usable: {}", problems.join("; ")))),
        }
    }
}

/// Reads a JSON object from a file.
///
/// # Errors
/// When the file cannot be read, is not JSON or no object.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    parse_object(&read_text(path).context("read the file")?)
}

/// Parses a JSON object.
///
/// # Errors
/// When the text is not JSON or no object.
pub fn parse_object(text: &str) -> Result<Map<String, Value>> {
    // `serde_json` quotes no values in its syntax errors, so no secret leaks here.
    let value: Value = serde_json::from_str(text).context("not JSON")?;
    match value {
        Value::Object(object) => Ok(object),
        _ => anyhow::bail!("not a JSON object"),
    }
}

/// Reads a file, without the byte order mark that some editors write (RFC 8259 section 8.1).
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

/// The settings that the environment holds. An empty variable counts as not set; a number may be written as such.
fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Map<String, Value> {
    let mut given = Map::new();
    for (variable, value) in variables.filter(|(_, value)| !value.is_empty()) {
        let Some(name) = variable.to_str().and_then(|variable| variable.strip_prefix(ENV_PREFIX)) else { continue };
        // What is not Unicode cannot be right; how it looks then is good enough for the check to refuse it.
        let value = value.to_string_lossy().into_owned();
        match SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name)) {
            Some(setting) if matches!(setting.kind, Kind::Integer { .. }) => {
                let value = value.parse::<u64>().map_or(Value::String(value), Value::from);
                given.insert(setting.name.to_owned(), value);
            }
            Some(setting) => {
                given.insert(setting.name.to_owned(), Value::String(value));
            }
            None if OTHER_VARIABLES.contains(&name) => {}
            None => {
                let near =
                    nearest(name).map_or_else(String::new, |near| format!(": did you mean {}?", near.variable()));
                warn!("the environment variable {ENV_PREFIX}{name} is no setting{near}");
            }
        }
    }
    given
}

/// Warns of every key that is no setting.
fn warn_of_unknown(given: &Map<String, Value>) {
    let unknown: BTreeMap<_, _> = given
        .keys()
        .filter(|key| !key.starts_with('_') && !SINGER_KEYS.contains(&key.as_str()) && named(key).is_none())
        .map(|key| (key, nearest(key)))
        .collect();
    for (key, near) in unknown {
        match near {
            Some(near) => warn!("unknown setting `{key}`: did you mean `{}`?", near.name),
            None => warn!("unknown setting `{key}`: it is not used"),
        }
    }
}

/// The settings as given, and what was found wrong with them so far. A getter that finds a setting wrong notes the
/// problem and returns an empty value, which never leaves this module.
struct Settings {
    given: Map<String, Value>,
    problems: Vec<String>,
}

impl Settings {
    /// The text of a setting or of its default; the checks that its kind asks for are made.
    fn text(&mut self, name: &str) -> String {
        let Some(setting) = named(name) else { unreachable!("{name} is in the table") };
        let text = match (self.given.get(name), setting.default) {
            (Some(value), _) => setting.check(value).map_err(|problem| format!("`{name}` {problem}")),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(missing(name, &self.given)),
        };
        text.unwrap_or_else(|problem| {
            self.problems.push(problem);
            String::new()
        })
    }

    fn integer<N: TryFrom<u64> + Default>(&mut self, name: &str) -> N {
        let number = self.text(name).parse().unwrap_or_default();
        N::try_from(number).unwrap_or_default()
    }

    /// A word of the table as the enum that reads it.
    fn choice<T: for<'de> Deserialize<'de> + Default>(&mut self, name: &str) -> T {
        let word: StringDeserializer<ChoiceError> = self.text(name).into_deserializer();
        T::deserialize(word).unwrap_or_default()
    }

    fn stream_id(&mut self) -> String {
        let id = self.text("streamId");
        let stray = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '%');
        if id.contains(stray) || matches!(id.as_str(), "." | "..") {
            self.problems.push(format!(
                "`streamId` must be the id alone, such as 60c49e86-9db3-414a-87a1-f51ccee4ec0c, not {id:?}"
            ));
        }
        id
    }

    fn header(&mut self, name: &str) -> String {
        let text = self.text(name);
        if text.chars().any(|c| !(c == ' ' || c.is_ascii_graphic())) {
            self.problems.push(format!("`{name}` must be plain ASCII text to go into a header, not {text:?}"));
        }
        text
    }

    fn url(&mut self, name: &str) -> Url {
        let text = self.text(name);
        check_url(&text).unwrap_or_else(|problem| {
            if !text.is_empty() {
                self.problems.push(format!("`{name}` {problem}"));
            }
            Url::parse("https://localhost").unwrap_or_else(|_| unreachable!("a constant URL"))
        })
    }
}

/// What to say of a required setting that is not there, naming a key that was probably meant for it.
fn missing(name: &str, given: &Map<String, Value>) -> String {
    let meant = given.keys().find(|key| named(key).is_none() && nearest(key).is_some_and(|near| near.name == name));
    match meant {
        Some(key) => format!("`{name}` is missing (`{key}` is there: a misspelling?)"),
        None => format!("`{name}` is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn config(settings: Value) -> Result<Config, String> {
        let Value::Object(mut given) = settings else { panic!("an object") };
        for name in ["streamId", "clientId", "clientSecret"] {
            given.entry(name).or_insert_with(|| json!(format!("a-{name}")));
        }
        Config::from_settings(given).map_err(|error| error.to_string())
    }

    fn problem(settings: Value) -> String {
        let error = config(settings).unwrap_err();
        error.strip_prefix("the configuration is not usable: ").unwrap().to_owned()
    }

    #[test]
    fn every_setting_has_its_default() {
        let config = config(json!({})).unwrap();
        assert_eq!(config.stream_name, "records");
        assert_eq!(config.acknowledge, Acknowledge::Write);
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
    fn every_word_of_the_table_is_told_apart() {
        let words = |name: &str| match named(name).unwrap().kind {
            Kind::Choice(words) => words,
            _ => panic!("{name} is no choice"),
        };
        let read = |name: &str, of: fn(&Config) -> String| {
            let read = words(name).iter().map(|word| of(&config(json!({name: word})).unwrap()).to_lowercase());
            assert_eq!(read.collect::<Vec<_>>(), words(name), "{name}");
        };
        read("acknowledge", |config| format!("{:?}", config.acknowledge));
        read("timestampFormat", |config| format!("{:?}", config.timestamp_format));
        read("payloadFormat", |config| format!("{:?}", config.payload_format));
        read("payloadSchema", |config| format!("{:?}", config.payload_schema));
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(problem(json!({"pageSize": 0})), "`pageSize` must be a whole number from 1 to 100000, not 0");
        assert_eq!(problem(json!({"pageSize": 2.5})), "`pageSize` must be a whole number from 1 to 100000, not 2.5");
        assert_eq!(
            problem(json!({"maxRetries": "5"})),
            "`maxRetries` must be a whole number from 0 to 100, not a string"
        );
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let config = config(json!({"clientSecret": "hunter2"})).unwrap();
        assert_eq!(config.client_secret.expose_secret(), "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_environment_names_settings_in_capitals() {
        let variables = [
            ("TAP_STREAMDUO_CLIENTSECRET", "s"),
            ("TAP_STREAMDUO_PAGESIZE", "7"),
            ("TAP_STREAMDUO_MAXRETRIES", "many"),
            ("TAP_STREAMDUO_SCOPE", ""),
            ("TAP_STREAMDUO_LOGLEVEL", "DEBUG"),
            ("PATH", "/bin"),
        ];
        let given = from_environment(variables.iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(Value::Object(given), json!({"clientSecret": "s", "pageSize": 7, "maxRetries": "many"}));
    }
}
