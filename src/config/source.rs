//! What the user has set: JSON files and environment variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, Result, bail};
use log::warn;
use serde_json::{Map, Value, json};

use super::Invalid;
use super::settings::{ENV_PREFIX, SETTINGS, Setting, nearest};

/// The value of `--config` that stands for the environment.
const ENV: &str = "ENV";

/// Keys that Singer configurations share and that mean nothing here.
const SINGER_KEYS: [&str; 4] = ["start_date", "end_date", "disable_collection", "metrics_log_level"];

/// What the user has set, by the setting's name: how an error names it (a variable, or a key in
/// backquotes), and the value. Names that are not a setting's are there, too.
pub(super) type UserSettings = BTreeMap<String, (String, Value)>;

/// Reads what is set in the files, or in the environment if the path is `ENV`; later ones win.
///
/// # Errors
/// All that is wrong with the files.
pub(super) fn read(sources: &[PathBuf]) -> Result<UserSettings, Invalid> {
    if sources.is_empty() {
        let problem =
            "no configuration: name it with --config config.json, or take it from the environment with --config ENV";
        return Err(Invalid::new(problem));
    }
    let mut settings = UserSettings::new();
    let mut problems = Vec::new();
    for source in sources {
        if source == Path::new(ENV) {
            settings.extend(from_environment(env::vars_os()));
            continue;
        }
        let path = source.display();
        let place = if files(sources) > 1 { format!(" in {path}") } else { String::new() };
        match read_object(source) {
            Ok(object) => {
                // A null stands for a setting that is not set.
                let set = object.into_iter().filter(|(_, value)| !value.is_null());
                settings.extend(set.map(|(key, value)| (key.clone(), (format!("`{key}`{place}"), value))));
            }
            Err(error) => problems
                .push(format!("config {path}: {error:#}; name a JSON file with the settings, which --about lists")),
        }
    }
    if problems.is_empty() { Ok(settings) } else { Err(Invalid(problems)) }
}

/// How many of the sources are files.
fn files(sources: &[PathBuf]) -> usize {
    sources.iter().filter(|source| source.as_path() != Path::new(ENV)).count()
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().read_to_end(&mut bytes).and_then(|_| decode(bytes)),
        _ => read_text(path),
    };
    // `serde_json` quotes no values in its syntax errors, so no secret leaks here.
    match serde_json::from_str(&read.context("read the file")?).context("not JSON")? {
        Value::Object(object) => Ok(object),
        _ => bail!("not a JSON object"),
    }
}

/// Reads a JSON file, without the byte order mark that some editors write (RFC 8259 section 8.1).
pub fn read_text(path: &Path) -> io::Result<String> {
    decode(fs::read(path)?)
}

/// The text of a JSON file in UTF-8, or in UTF-16, which PowerShell writes. JSON begins with ASCII.
fn decode(bytes: Vec<u8>) -> io::Result<String> {
    let unit = match bytes[..] {
        [0xff, 0xfe, ..] | [_, 0, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] | [0, _, ..] => u16::from_be_bytes,
        _ => {
            let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))?;
            return Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text));
        }
    };
    let units = bytes.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
    let text = char::decode_utf16(units).collect::<Result<String, _>>();
    let text = text.map_err(|_| io::Error::other("it begins like UTF-16 text, but is not"))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// The settings that the environment holds. An empty variable counts as not set.
fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> UserSettings {
    let setting = |(variable, text): (OsString, OsString)| {
        let variable = variable.to_str()?;
        // The log's level is not a setting.
        let name = variable.strip_prefix(ENV_PREFIX).filter(|name| *name != "LOGLEVEL")?;
        let setting = SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name));
        let key = setting.map_or(variable, |setting| setting.name);
        // What is not Unicode becomes U+FFFD; the service refuses such credentials.
        Some((key.to_owned(), (variable.to_owned(), json!(text.to_string_lossy()))))
    };
    variables.filter(|(_, text)| !text.is_empty()).filter_map(setting).collect()
}

/// What to say of a required setting that is not set.
pub(super) fn missing(setting: &Setting, sources: &[PathBuf]) -> String {
    let name = setting.name;
    let variable = setting.variable();
    match files(sources) {
        0 => format!("{variable} is missing: set it"),
        files if files < sources.len() => format!("`{name}` is missing: add it to the config file, or set {variable}"),
        _ if env::var_os(&variable).is_some_and(|text| !text.is_empty()) => {
            format!("`{name}` is missing: {variable} is set, but read only with --config ENV: add that")
        }
        _ => format!("`{name}` is missing: add it to the config file"),
    }
}

/// Warns of the names that are not a setting's. In a test of the settings, one that was probably
/// meant for a setting is a mistake instead: returns what to say of each.
pub(super) fn report_unknown(settings: &UserSettings, is_test: bool) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (key, (name, _)) in settings {
        let is_known = SETTINGS.iter().any(|setting| setting.name == key);
        if is_known || key.starts_with('_') || SINGER_KEYS.contains(&key.as_str()) {
            continue;
        }
        let Some(near) = nearest(key.strip_prefix(ENV_PREFIX).unwrap_or(key)) else {
            let name = name.replacen(key, &beginning(key), 1);
            warn!("unknown setting {name}: it is not used; remove it");
            continue;
        };
        let meant = if name.starts_with('`') { format!("`{}`", near.name) } else { near.variable() };
        let problem = format!("unknown setting {name}: did you mean {meant}?");
        if is_test {
            mistakes.push(problem);
        } else {
            warn!("{problem}");
        }
    }
    mistakes
}

/// A name that is no setting's, or the beginning of a long one: it may be a secret.
fn beginning(key: &str) -> String {
    const MAX_SHOWN: usize = 24;
    let shown: String = key.chars().take(8 + key.strip_prefix(ENV_PREFIX).map_or(0, |_| ENV_PREFIX.len())).collect();
    if key.len() <= MAX_SHOWN { key.to_owned() } else { shown + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let settings = from_environment(variables.iter().map(|(name, text)| (name.into(), text.into())));
        let values: Map<_, _> = settings.into_iter().map(|(name, (_, value))| (name, value)).collect();
        assert_eq!(Value::Object(values), json!({"clientSecret": "s", "pageSize": "7", "maxRetries": "many"}));
    }
}
