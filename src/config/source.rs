//! What the user has set: JSON files and environment variables.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, Result};
use log::warn;
use serde_json::{Map, Value};

use super::Invalid;
use super::settings::{ENV_PREFIX, SETTINGS, Setting, nearest};

/// The value of `--config` that stands for the environment.
const ENV: &str = "ENV";

/// Variables with the prefix that are no settings.
const OTHER_VARIABLES: [&str; 1] = ["LOGLEVEL"];

/// Keys that Singer configurations share and that mean nothing here.
const SINGER_KEYS: [&str; 4] = ["start_date", "end_date", "disable_collection", "metrics_log_level"];

/// What the user has set, and where.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The settings by their names, and keys that are none.
    settings: Map<String, Value>,
    /// Where each of them was set last.
    origins: HashMap<String, Origin>,
    /// What looks like a setting and is none.
    unknown: Vec<Unknown>,
    /// How many files were read.
    files: usize,
    /// Whether the environment was read.
    reads_environment: bool,
    /// Variables of settings that are set although the environment was not read.
    unread: Vec<String>,
}

/// Where a setting was set.
#[derive(Debug)]
enum Origin {
    /// In this file.
    File(PathBuf),
    /// By this environment variable.
    Variable(String),
}

/// A name that is no setting's.
#[derive(Debug)]
struct Unknown {
    /// The name, as an error shows it.
    name: String,
    /// Whether it is that of an environment variable.
    is_variable: bool,
    /// The setting whose name is much like it.
    near: Option<&'static Setting>,
}

impl Unknown {
    /// What to say of it.
    fn problem(&self) -> String {
        let Unknown { name, is_variable, near } = self;
        match near {
            Some(near) if *is_variable => {
                format!("the environment variable {name} is no setting: did you mean {}?", near.variable())
            }
            None if *is_variable => format!("the environment variable {name} is no setting: unset it"),
            Some(near) => format!("unknown setting {name}: did you mean `{}`?", near.name),
            None => format!("unknown setting {name}: it is not used; remove it"),
        }
    }
}

impl Given {
    /// The value of a setting, or its default.
    ///
    /// # Errors
    /// What is wrong with it, with the name by which the user has set it.
    pub(super) fn value(&self, setting: &Setting) -> Result<Value, String> {
        match self.settings.get(setting.name) {
            Some(value) => match setting.check(value) {
                Ok(()) => Ok(value.clone()),
                Err(problem) => Err(format!("{} {problem}", self.name(setting.name))),
            },
            None if setting.is_required => Err(self.missing(setting)),
            None => Ok(setting.default.map(|default| setting.value(default)).unwrap_or_default()),
        }
    }

    /// Sets a setting that the user has not set.
    pub(super) fn set_default(&mut self, name: &str, value: &str) {
        self.settings.entry(name).or_insert_with(|| value.into());
    }

    /// The name by which the user has set a setting: that of the variable, or that in the file. Of several files, the one is named
    /// whose value counts.
    pub(super) fn name(&self, setting: &str) -> String {
        match self.origins.get(setting) {
            Some(Origin::Variable(variable)) => variable.clone(),
            Some(Origin::File(path)) if self.files > 1 => format!("`{setting}` in {}", path.display()),
            _ => format!("`{setting}`"),
        }
    }

    /// What is wrong where a required setting is not there. Names what was probably meant for it.
    fn missing(&self, setting: &Setting) -> String {
        let (name, variable) = (setting.name, setting.variable());
        if let Some(Unknown { name: meant, is_variable, .. }) = self.misspelling_of(setting) {
            let name = if *is_variable { variable } else { format!("`{name}`") };
            return format!("{name} is missing: rename {meant}");
        }
        match self.reads_environment {
            _ if self.unread.contains(&variable) => {
                format!("`{name}` is missing: {variable} is set, but read only with --config ENV: add that")
            }
            true if self.files == 0 => format!("{variable} is missing: set it"),
            true => format!("`{name}` is missing: add it to the config file, or set {variable}"),
            false => format!("`{name}` is missing: add it to the config file"),
        }
    }

    /// The unknown name that was probably meant for a required setting that is not there.
    fn misspelling_of(&self, setting: &Setting) -> Option<&Unknown> {
        let is_meant = |unknown: &&Unknown| unknown.near.is_some_and(|near| near.name == setting.name);
        let is_missing = setting.is_required && !self.settings.contains_key(setting.name);
        self.unknown.iter().find(is_meant).filter(|_| is_missing)
    }

    /// The names that are no setting's, but for those that the error of a missing setting names.
    fn unexplained(&self) -> impl Iterator<Item = &Unknown> {
        self.unknown.iter().filter(|unknown| {
            let explained = unknown.near.and_then(|near| self.misspelling_of(near));
            !explained.is_some_and(|explained| std::ptr::eq(explained, *unknown))
        })
    }

    /// Warns of the names that are no setting's. In a test of the settings, one that was probably meant for a setting is a mistake
    /// instead: returns what to say of each.
    pub(super) fn report_unknown(&self, is_test: bool) -> Vec<String> {
        let is_mistake = |unknown: &&Unknown| is_test && unknown.near.is_some();
        let (mistakes, others): (Vec<_>, Vec<_>) = self.unexplained().partition(is_mistake);
        others.iter().for_each(|unknown| warn!("{}", unknown.problem()));
        mistakes.iter().map(|unknown| unknown.problem()).collect()
    }
}

/// Reads what is set in the files, or in the environment where the path is `ENV`; later ones win.
///
/// # Errors
/// [`Invalid`] when there is no source, or files are no JSON objects.
pub(super) fn read(sources: &[impl AsRef<Path>]) -> Result<Given, Invalid> {
    if sources.is_empty() {
        return Err(Invalid::new(
            "no configuration: name it with --config config.json, or take it from the environment with --config ENV",
        ));
    }
    let (mut given, mut problems) = (Given::default(), Vec::new());
    for source in sources.iter().map(AsRef::as_ref) {
        if source == Path::new(ENV) {
            given.reads_environment = true;
            from_environment(env::vars_os(), &mut given);
        } else {
            given.files += 1;
            match read_object(source).with_context(|| format!("config {}", source.display())) {
                Ok(object) => from_file(object, source, &mut given),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
    }
    if !problems.is_empty() {
        return Err(Invalid::all(problems));
    }
    let keys = unknown_keys(&given);
    given.unknown.extend(keys);
    if !given.reads_environment {
        let is_set = |variable: &String| env::var_os(variable).is_some_and(|value| !value.is_empty());
        given.unread = SETTINGS.iter().map(Setting::variable).filter(is_set).collect();
    }
    Ok(given)
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
fn parse_object(text: &str) -> Result<Map<String, Value>> {
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

/// Adds the settings that a file holds. A null stands for a setting that is not given.
fn from_file(object: Map<String, Value>, path: &Path, given: &mut Given) {
    for (name, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        given.origins.insert(name.clone(), Origin::File(path.to_owned()));
        given.settings.insert(name, value);
    }
}

/// Adds the settings that the environment holds. An empty variable counts as not set; a number may be written as such.
fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>, given: &mut Given) {
    for (variable, value) in variables.filter(|(_, value)| !value.is_empty()) {
        let Some(variable) = variable.to_str() else { continue };
        let Some(name) = variable.strip_prefix(ENV_PREFIX) else { continue };
        // What is not Unicode becomes U+FFFD; the service refuses such credentials.
        let value = value.to_string_lossy().into_owned();
        match SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name)) {
            Some(setting) => {
                given.settings.insert(setting.name.to_owned(), setting.value(&value));
                given.origins.insert(setting.name.to_owned(), Origin::Variable(variable.to_owned()));
            }
            None if OTHER_VARIABLES.contains(&name) => {}
            None => {
                let unknown = Unknown { name: variable.to_owned(), is_variable: true, near: nearest(name) };
                given.unknown.push(unknown);
            }
        }
    }
}

/// The keys that are not a setting's name, in order.
fn unknown_keys(given: &Given) -> Vec<Unknown> {
    let is_unknown = |key: &&String| {
        !key.starts_with('_')
            && !SINGER_KEYS.contains(&key.as_str())
            && !SETTINGS.iter().any(|setting| setting.name == *key)
    };
    let mut keys: Vec<_> = given.settings.keys().filter(is_unknown).collect();
    keys.sort_unstable();
    let unknown = |key: &String| Unknown { name: given.name(key), is_variable: false, near: nearest(key) };
    keys.into_iter().map(unknown).collect()
}

#[cfg(test)]
impl Given {
    /// What a single file sets.
    pub(super) fn from_object(settings: Map<String, Value>) -> Given {
        Given { settings, files: 1, ..Given::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        let mut given = Given::default();
        from_environment(variables.iter().map(|(name, value)| (name.into(), value.into())), &mut given);
        assert_eq!(Value::Object(given.settings), json!({"clientSecret": "s", "pageSize": 7, "maxRetries": "many"}));
    }
}
