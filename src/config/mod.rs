//! The configuration of a run. It is checked as a whole before any request.
//!
//! [`settings`] is the table of all settings, with their bounds and defaults; [`source`] reads what the user has set; [`Config`]
//! holds the result. [`url`] says where secrets may be sent.

pub mod settings;
pub mod source;
pub mod url;

use std::path::Path;
use std::time::Duration;

use ::url::Url;
use anyhow::Result;
use clap::ValueEnum;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use settings::{named, nearest};
use url::check_url;

/// When a record counts as delivered, and may be marked as read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TimestampFormat {
    /// As it is sent: RFC 9557, with its zone.
    #[default]
    Original,
    /// RFC 3339 in UTC, a JSON schema `date-time`.
    Rfc3339,
}

/// How `dataPayload` is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PayloadFormat {
    /// As it is sent.
    #[default]
    Json,
    /// Its JSON text as one string.
    String,
}

/// Where the schema of `dataPayload` comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PayloadSchema {
    /// One that fits every record.
    #[default]
    Any,
    /// The stream's active JSON schema.
    Registered,
    /// The types that its last records have.
    Sampled,
}

/// The settings of a run, all of them valid. Bounds and defaults are in [`settings::SETTINGS`]. `Debug` does not show the
/// secret.
#[derive(Debug)]
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
    /// `pageSize`: in `write` and `read` mode, the maximum number of records in one request.
    pub page_size: usize,
    /// `maxPending`: in `commit` mode, the maximum number of records that are out at once, and in one request.
    pub max_pending: usize,
    /// `pollIntervalSeconds`: with `--follow`, the pause once the stream is drained.
    pub poll_interval: Duration,
    /// `timestampFormat`: how `recordTimeStampISO` is written.
    pub timestamp_format: TimestampFormat,
    /// `payloadFormat`: how `dataPayload` is written.
    pub payload_format: PayloadFormat,
    /// `payloadSchema`: where the schema of `dataPayload` comes from.
    pub payload_schema: PayloadSchema,
    /// `apiUrl`: the base of the API.
    pub api_url: Url,
    /// `authUrl`: the OAuth 2.0 token endpoint (RFC 6749 section 3.2).
    pub auth_url: Url,
    /// `scope`: the OAuth 2.0 scope to ask for (RFC 6749 section 3.3).
    pub scope: String,
    /// `requestTimeoutSeconds`: the most that one request may take, from connect to last byte.
    pub request_timeout: Duration,
    /// `maxRetries`: how many failures of one request in a row are forgiven.
    pub max_retries: usize,
    /// `userAgent`: the `User-Agent` header (RFC 9110 section 10.1.5).
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
        Config::check(source::read(sources)?)
    }

    /// Checks what the user has set, and adds the defaults.
    fn check(given: Map<String, Value>) -> Result<Config, Invalid> {
        let mut settings = Checker { problems: Vec::new(), given };
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

/// Checks settings one by one. A getter that finds a setting wrong notes the problem and returns an empty value, which never
/// leaves this module.
struct Checker {
    given: Map<String, Value>,
    problems: Vec<String>,
}

impl Checker {
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

    fn choice<T: ValueEnum + Default>(&mut self, name: &str) -> T {
        T::from_str(&self.text(name), false).unwrap_or_default()
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
    use super::settings::SETTINGS;
    use super::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn config(settings: Value) -> Result<Config, String> {
        let Value::Object(mut given) = settings else { panic!("an object") };
        for name in ["streamId", "clientId", "clientSecret"] {
            given.entry(name).or_insert_with(|| json!(format!("a-{name}")));
        }
        Config::check(given).map_err(|error| error.to_string())
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
}
