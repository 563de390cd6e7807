//! The settings: one table of them, read from JSON files and the environment, checked together, before any request.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use log::warn;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::{Host, Url};

/// The prefix of a setting's environment variable, before its name in capitals (the Singer SDK's form).
const ENV_PREFIX: &str = "TAP_STREAMDUO_";

/// The value of `--config` that stands for the environment.
const ENV: &str = "ENV";

/// Variables with the prefix that are no settings.
const OTHER_VARIABLES: [&str; 2] = ["LOGLEVEL", "LIVE_CONFIG"];

/// Keys that Singer configurations share and that mean nothing here.
const SINGER_KEYS: [&str; 4] = ["start_date", "end_date", "disable_collection", "metrics_log_level"];

/// The most records that a setting lets a request ask for.
pub const MOST_RECORDS: usize = 100_000;

/// What a setting holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Any text but an empty one.
    Text,
    /// A whole number between two bounds.
    Integer { least: u64, most: u64 },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An `https://` URL, or an `http://` one towards loopback.
    Url,
}

/// A setting's row in the table.
#[derive(Debug)]
struct Setting {
    name: &'static str,
    kind: Kind,
    /// The value where none is given; without one the setting is required.
    default: Option<&'static str>,
    /// Words among the choices that are not built yet.
    unavailable: &'static [&'static str],
}

impl Setting {
    const fn required(name: &'static str) -> Setting {
        Setting { name, kind: Kind::Text, default: None, unavailable: &[] }
    }

    const fn optional(name: &'static str, kind: Kind, default: &'static str) -> Setting {
        Setting { name, kind, default: Some(default), unavailable: &[] }
    }

    const fn not_yet(mut self, words: &'static [&'static str]) -> Setting {
        self.unavailable = words;
        self
    }

    /// The name of the environment variable.
    fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.to_ascii_uppercase())
    }
}

const fn integer(least: u64, most: u64) -> Kind {
    Kind::Integer { least, most }
}

/// Every setting. The README explains each; the fields of [`Config`] say what they mean.
static SETTINGS: [Setting; 17] = [
    Setting::required("streamId"),
    Setting::required("clientId"),
    Setting::required("clientSecret"),
    Setting::optional("streamName", Kind::Text, "records"),
    Setting::optional("acknowledge", Kind::Choice(&["write", "commit", "read"]), "write"),
    Setting::optional("pageSize", integer(1, MOST_RECORDS as u64), "1000"),
    Setting::optional("maxPending", integer(1, MOST_RECORDS as u64), "10000"),
    Setting::optional("pollIntervalSeconds", integer(0, 86_400), "10"),
    Setting::optional("timestampFormat", Kind::Choice(&["original", "rfc3339"]), "original").not_yet(&["rfc3339"]),
    Setting::optional("payloadFormat", Kind::Choice(&["json", "string"]), "json").not_yet(&["string"]),
    Setting::optional("payloadSchema", Kind::Choice(&["any", "registered", "sampled"]), "any")
        .not_yet(&["registered", "sampled"]),
    Setting::optional("apiUrl", Kind::Url, "https://api.streamduo.com"),
    Setting::optional(
        "authUrl",
        Kind::Url,
        "https://streamduo-authentication.auth.us-east-1.amazoncognito.com/oauth2/token",
    ),
    Setting::optional("scope", Kind::Text, "https://api.streamduo.com/read:records"),
    Setting::optional("requestTimeoutSeconds", integer(1, 3_600), "60"),
    Setting::optional("maxRetries", integer(0, 100), "5"),
    Setting::optional("userAgent", Kind::Text, concat!("tap-streamduo/", env!("CARGO_PKG_VERSION"))),
];

/// When a record counts as delivered, and may be marked as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// Once it is written to stdout and flushed.
    Write,
    /// Once the target has committed it, which a STATE that comes back proves.
    Commit,
    /// As it is read: one request a page, and a crash loses a page.
    Read,
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
    /// `apiUrl`: the base of the API, without a slash at its end. Default `https://api.streamduo.com`.
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

/// What is wrong with the configuration, the command line's files or the output, and how to mend it: exit code 2.
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
        let mut settings = Settings { problems: Vec::new(), given };
        settings.name_unknown();
        let config = Config {
            stream_id: settings.stream_id(),
            client_id: settings.text("clientId"),
            client_secret: settings.text("clientSecret").into(),
            stream_name: settings.text("streamName"),
            acknowledge: match settings.text("acknowledge").as_str() {
                "commit" => Acknowledge::Commit,
                "read" => Acknowledge::Read,
                _ => Acknowledge::Write,
            },
            page_size: settings.integer("pageSize"),
            max_pending: settings.integer("maxPending"),
            poll_interval: Duration::from_secs(settings.integer("pollIntervalSeconds")),
            api_url: settings.url("apiUrl"),
            auth_url: settings.url("authUrl"),
            scope: settings.text("scope"),
            request_timeout: Duration::from_secs(settings.integer("requestTimeoutSeconds")),
            max_retries: settings.integer("maxRetries"),
            user_agent: settings.header("userAgent"),
        };
        for name in ["timestampFormat", "payloadFormat", "payloadSchema"] {
            settings.text(name);
        }
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
pub fn read_object(path: &Path) -> Result<Map<String, Value>> {
    // `serde_json` quotes no values in its syntax errors, so no secret leaks here.
    let value: Value = serde_json::from_str(&read_text(path)?).context("not JSON")?;
    match value {
        Value::Object(object) => Ok(object),
        _ => anyhow::bail!("not a JSON object"),
    }
}

/// Reads a file, without the byte order mark that some editors write (RFC 8259 section 8.1).
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).context("read the file")?;
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

/// The settings that the environment holds. An empty variable counts as not set; a number may be written as such.
fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Map<String, Value> {
    let mut given = Map::new();
    for (variable, value) in variables.filter(|(_, value)| !value.is_empty()) {
        let Some(variable) = variable.to_str().filter(|variable| variable.starts_with(ENV_PREFIX)) else { continue };
        let rest = &variable[ENV_PREFIX.len()..];
        // What is not Unicode cannot be right; how it looks then is good enough for the check to refuse it.
        let value = value.to_string_lossy().into_owned();
        match SETTINGS.iter().find(|setting| setting.variable() == variable) {
            Some(Setting { name, kind: Kind::Integer { .. }, .. }) => {
                let value = value.parse::<u64>().map_or(Value::String(value), Value::from);
                given.insert((*name).to_owned(), value);
            }
            Some(setting) => {
                given.insert(setting.name.to_owned(), Value::String(value));
            }
            None if OTHER_VARIABLES.contains(&rest) => {}
            None => {
                let near =
                    nearest(rest).map_or_else(String::new, |near| format!(": did you mean {}?", near.variable()));
                warn!("the environment variable {variable} is no setting{near}");
            }
        }
    }
    given
}

/// The setting whose name is most like this one, if any is.
fn nearest(name: &str) -> Option<&'static Setting> {
    const LIKE: f64 = 0.75;
    let plain = |name: &str| name.replace(['_', '-', ' ', '.'], "").to_ascii_lowercase();
    SETTINGS
        .iter()
        .map(|setting| (strsim::normalized_damerau_levenshtein(&plain(name), &plain(setting.name)), setting))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, setting)| setting)
}

/// The settings as given, and what was found wrong with them so far. A getter that finds a setting wrong notes the
/// problem and returns an empty value, which never leaves this module.
struct Settings {
    given: Map<String, Value>,
    problems: Vec<String>,
}

impl Settings {
    /// Warns of every key that is no setting.
    fn name_unknown(&self) {
        let mut unknown = BTreeMap::new();
        for key in self.given.keys().filter(|key| !key.starts_with('_') && !SINGER_KEYS.contains(&key.as_str())) {
            if !SETTINGS.iter().any(|setting| setting.name == key) {
                unknown.insert(key, nearest(key));
            }
        }
        for (key, near) in unknown {
            match near {
                Some(near) => warn!("unknown setting `{key}`: did you mean `{}`?", near.name),
                None => warn!("unknown setting `{key}`: it is not used"),
            }
        }
    }

    /// The text of a setting or of its default; the checks that its kind asks for are made.
    fn text(&mut self, name: &str) -> String {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            unreachable!("{name} is in the table")
        };
        let value = match self.given.get(name) {
            None => match setting.default {
                Some(default) => return default.to_owned(),
                None => {
                    self.problems.push(missing(name, &self.given));
                    return String::new();
                }
            },
            Some(value) => value,
        };
        check(setting, value).unwrap_or_else(|problem| {
            self.problems.push(format!("`{name}` {problem}"));
            String::new()
        })
    }

    fn integer<N: TryFrom<u64> + Default>(&mut self, name: &str) -> N {
        let number = self.text(name).parse().unwrap_or_default();
        N::try_from(number).unwrap_or_default()
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
            // Never used: a problem was noted. The default is known to be a URL by the tests.
            Url::parse("https://localhost").unwrap_or_else(|_| unreachable!("a constant URL"))
        })
    }
}

/// What to say of a required setting that is not there, naming a key that was probably meant for it.
fn missing(name: &str, given: &Map<String, Value>) -> String {
    let meant = given.keys().find(|key| {
        !SETTINGS.iter().any(|setting| setting.name == *key) && nearest(key).is_some_and(|near| near.name == name)
    });
    match meant {
        Some(key) => format!("`{name}` is missing (`{key}` is there: a misspelling?)"),
        None => format!("`{name}` is missing"),
    }
}

/// Checks a value against its setting's kind and returns its text.
fn check(setting: &Setting, value: &Value) -> Result<String, String> {
    match (setting.kind, value) {
        (Kind::Integer { least, most }, Value::Number(number)) => match number.as_u64() {
            Some(number) if (least..=most).contains(&number) => Ok(number.to_string()),
            _ => Err(format!("must be a whole number from {least} to {most}, not {number}")),
        },
        (Kind::Integer { least, most }, other) => {
            Err(format!("must be a whole number from {least} to {most}, not {}", kind_of(other)))
        }
        (Kind::Choice(words), Value::String(word)) if words.contains(&word.as_str()) => {
            if setting.unavailable.contains(&word.as_str()) {
                Err(format!("cannot be {word:?} yet: it is not available in this version"))
            } else {
                Ok(word.clone())
            }
        }
        (Kind::Choice(words), other) => {
            let words = words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            let found = other.as_str().map_or_else(|| kind_of(other).to_owned(), |word| format!("{word:?}"));
            Err(format!("must be one of {words}, not {found}"))
        }
        (Kind::Text | Kind::Url, Value::String(text)) if text.trim().is_empty() => Err("is empty".to_owned()),
        (Kind::Text | Kind::Url, Value::String(text)) if text.trim() != text => {
            Err("has white space at its beginning or end".to_owned())
        }
        (Kind::Text | Kind::Url, Value::String(text)) => Ok(text.clone()),
        (Kind::Text | Kind::Url, other) => Err(format!("must be a string, not {}", kind_of(other))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Parses a URL that secrets may be sent to. A URL that carries a password is not quoted.
fn check_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL ({error})"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password: use clientId and clientSecret".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path, without `?` or `#`".to_owned());
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(format!("must begin with https:// unless it leads to this machine itself, not {text:?}")),
        _ => Err(format!("must begin with https://, not {text:?}")),
    }
}

/// Whether the URL leads to this machine: 127.0.0.0/8, ::1 or localhost (RFC 6761 section 6.3).
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
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
    fn every_default_is_valid() {
        let config = config(json!({})).unwrap();
        assert_eq!(config.stream_name, "records");
        assert_eq!(config.acknowledge, Acknowledge::Write);
        assert_eq!((config.page_size, config.max_retries), (1000, 5));
        assert_eq!(config.request_timeout, Duration::from_secs(60));
        assert_eq!(config.api_url.as_str(), "https://api.streamduo.com/");
        assert_eq!(config.user_agent, format!("tap-streamduo/{}", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn every_setting_is_read() {
        let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        for name in &names {
            let error = problem(json!({*name: {}}));
            assert!(error.starts_with(&format!("`{name}` must be ")), "{error}");
        }
        assert_eq!(names.len(), names.iter().collect::<std::collections::BTreeSet<_>>().len());
    }

    #[test]
    fn the_readme_lists_every_setting_with_its_default() {
        let readme = include_str!("../README.md");
        let table = readme.split("\n## ").find(|section| section.starts_with("Settings")).unwrap();
        let listed: Vec<&str> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(listed, SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>());
        for setting in &SETTINGS {
            let default = match setting.default {
                Some(default) => format!("`{}`", default.replace(env!("CARGO_PKG_VERSION"), "VERSION")),
                None => "required".to_owned(),
            };
            assert!(table.contains(&format!("| `{}` | {default} | ", setting.name)), "{}: {default}", setting.name);
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
    fn what_is_not_built_yet_says_so() {
        assert_eq!(
            problem(json!({"payloadFormat": "string"})),
            "`payloadFormat` cannot be \"string\" yet: it is not available in this version"
        );
    }

    #[test]
    fn http_is_for_loopback_only() {
        for url in ["http://127.0.0.1:80", "http://[::1]", "http://localhost:1/x", "https://example.com/api"] {
            assert!(config(json!({"apiUrl": url})).is_ok(), "{url}");
        }
        for url in ["http://example.com", "http://10.0.0.1", "http://localhost.example.com", "http://x.localhost"] {
            assert_eq!(
                problem(json!({"apiUrl": url})),
                format!("`apiUrl` must begin with https:// unless it leads to this machine itself, not {url:?}")
            );
        }
        assert_eq!(problem(json!({"apiUrl": "ftp://x"})), "`apiUrl` must begin with https://, not \"ftp://x\"");
        assert_eq!(problem(json!({"apiUrl": "nowhere"})), "`apiUrl` is no URL (relative URL without a base)");
        assert_eq!(
            problem(json!({"authUrl": "https://me:hunter2@example.com"})),
            "`authUrl` must not hold a user name or password: use clientId and clientSecret"
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
