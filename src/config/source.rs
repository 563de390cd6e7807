//! What the user has set: JSON files and environment variables.

use std::ffi::OsString;
use std::path::Path;
use std::{env, fs, io};

use anyhow::{Context, Result};
use log::warn;
use serde_json::{Map, Value};

use super::Invalid;
use super::settings::{ENV_PREFIX, Kind, SETTINGS, named, nearest};

/// The value of `--config` that stands for the environment.
const ENV: &str = "ENV";

/// Variables with the prefix that are no settings.
const OTHER_VARIABLES: [&str; 1] = ["LOGLEVEL"];

/// Keys that Singer configurations share and that mean nothing here.
const SINGER_KEYS: [&str; 4] = ["start_date", "end_date", "disable_collection", "metrics_log_level"];

/// What the user has set.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The settings by their names, and keys that are none.
    pub(super) settings: Map<String, Value>,
    /// What looks like a setting and is none.
    unknown: Vec<Unknown>,
}

/// A name that is no setting's.
#[derive(Debug)]
struct Unknown {
    /// What to say of it.
    problem: String,
    /// Whether a setting has a name that is much like it.
    is_misspelt: bool,
}

impl Given {
    /// Warns of every name that is no setting's.
    pub(super) fn warn_of_unknown(&self) {
        for Unknown { problem, .. } in &self.unknown {
            warn!("{problem}");
        }
    }

    /// What to say of the names that were probably meant for a setting.
    pub(super) fn misspelt(&self) -> Vec<&str> {
        let misspelt = self.unknown.iter().filter(|unknown| unknown.is_misspelt);
        misspelt.map(|unknown| unknown.problem.as_str()).collect()
    }
}

/// Reads what is set in the files, or in the environment where the path is `ENV`; later ones win.
///
/// # Errors
/// [`Invalid`] when there is no source, or a file is not a JSON object.
pub(super) fn read(sources: &[impl AsRef<Path>]) -> Result<Given, Invalid> {
    if sources.is_empty() {
        return Err(Invalid::new(
            "no configuration: name it with --config config.json, or take it from the environment with --config ENV",
        ));
    }
    let mut given = Given::default();
    for source in sources.iter().map(AsRef::as_ref) {
        if source == Path::new(ENV) {
            from_environment(env::vars_os(), &mut given);
        } else {
            let file = read_object(source).with_context(|| format!("config {}", source.display()));
            let file = file.map_err(|error| Invalid(format!("{error:#}")))?;
            // A null stands for a setting that is not given.
            given.settings.extend(file.into_iter().filter(|(_, value)| !value.is_null()));
        }
    }
    let keys = unknown_keys(&given.settings);
    given.unknown.extend(keys);
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

/// Adds the settings that the environment holds. An empty variable counts as not set; a number may be written as such.
fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>, given: &mut Given) {
    for (variable, value) in variables.filter(|(_, value)| !value.is_empty()) {
        let Some(name) = variable.to_str().and_then(|variable| variable.strip_prefix(ENV_PREFIX)) else { continue };
        // What is not Unicode becomes U+FFFD; the service refuses such credentials.
        let value = value.to_string_lossy().into_owned();
        match SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name)) {
            Some(setting) => {
                let number = value.parse::<u64>().ok().filter(|_| matches!(setting.kind, Kind::Integer { .. }));
                given.settings.insert(setting.name.to_owned(), number.map_or(Value::String(value), Value::from));
            }
            None if OTHER_VARIABLES.contains(&name) => {}
            None => {
                let near = nearest(name);
                let meant = near.map_or_else(String::new, |near| format!(": did you mean {}?", near.variable()));
                let problem = format!("the environment variable {ENV_PREFIX}{name} is no setting{meant}");
                given.unknown.push(Unknown { problem, is_misspelt: near.is_some() });
            }
        }
    }
}

/// The keys that are not a setting's name, in order.
fn unknown_keys(settings: &Map<String, Value>) -> Vec<Unknown> {
    let is_unknown =
        |key: &&String| !key.starts_with('_') && !SINGER_KEYS.contains(&key.as_str()) && named(key).is_none();
    let mut keys: Vec<_> = settings.keys().filter(is_unknown).collect();
    keys.sort_unstable();
    let unknown = keys.into_iter().map(|key| match nearest(key) {
        Some(near) => (format!("unknown setting `{key}`: did you mean `{}`?", near.name), true),
        None => (format!("unknown setting `{key}`: it is not used"), false),
    });
    unknown.map(|(problem, is_misspelt)| Unknown { problem, is_misspelt }).collect()
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
