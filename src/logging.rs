//! Log lines on stderr: the time (RFC 3339, UTC), then level and message as singer-python writes
//! them (`INFO message`). If the Singer SDK's log configuration asks for that, its structured JSON
//! instead, so that Meltano keeps levels and metrics apart.
//!
//! An event is one line, whatever its message holds: control characters are replaced by spaces. If
//! stderr is a terminal, the level has a colour; anywhere else no escape code is written.

use std::io::Write;
use std::{env, fs, process};

use env_logger::{Target, WriteStyle};
use jiff::Timestamp;
use log::{Level, LevelFilter, Record, warn};
use serde_json::{Value, json};

use crate::config::Invalid;
use crate::progress::{self, Screen};

/// The tap's name.
const NAME: &str = env!("CARGO_PKG_NAME");

/// What a metric's message begins with.
pub(crate) const METRIC: &str = "METRIC: ";

/// The target of a fatal error's line; it is written at whatever level was chosen.
const FATAL: &str = "fatal";

/// The environment variables that choose the level, the first one that is set counts.
const LEVEL_VARIABLES: [&str; 3] = ["TAP_STREAMDUO_LOGLEVEL", "LOGLEVEL", "RUST_LOG"];

/// What a log configuration names that asks for structured lines, as Meltano's does. Only this and
/// the level are read from the file: the rest is Python's.
const STRUCTURED: &str = "singer_sdk.logging.StructuredFormatter";

/// How much of a text is quoted, in characters.
pub const MAX_QUOTED: usize = 300;

/// Starts logging at the level that the environment asks for, or the Singer SDK's log
/// configuration; INFO by default.
pub fn init() {
    let value = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let chosen = LEVEL_VARIABLES.into_iter().find_map(|name| Some((name, value(name)?)));
    let sdk = env::var_os("SINGER_SDK_LOG_CONFIG").and_then(|path| fs::read_to_string(path).ok());
    let is_structured = sdk.as_ref().is_some_and(|sdk| sdk.contains(STRUCTURED));
    let has_colors = !is_structured && progress::watch() && progress::has_colors();
    let mut builder = env_logger::Builder::new();
    builder.write_style(if has_colors { WriteStyle::Always } else { WriteStyle::Never });
    builder.target(Target::Pipe(Box::new(Screen)));
    builder.format(move |out, record| {
        let message = record.args().to_string().replace(char::is_control, " ");
        if is_structured {
            return writeln!(out, "{}", structured(record, &message));
        }
        let style = out.default_level_style(record.level());
        writeln!(out, "{:.0} {style}{}{style:#} {message}", Timestamp::now(), level_name(record))
    });
    let configured = || sdk.as_deref().and_then(root_level);
    let asked = chosen.as_ref().map_or_else(configured, |(_, value)| level(value));
    match &chosen {
        // It may name modules, as in `RUST_LOG=tap_streamduo=debug,hyper=info`.
        Some(("RUST_LOG", filters)) => builder.parse_filters(filters),
        _ => builder.filter_module(env!("CARGO_CRATE_NAME"), asked.unwrap_or(LevelFilter::Info)),
    };
    builder.filter_module(FATAL, LevelFilter::Error).init();
    if let Some((name, value)) = chosen
        && name != "RUST_LOG"
        && asked.is_none()
    {
        warn!("{name}: {value:?} is not a level, so INFO is used");
    }
}

/// A level by the name that Python's logging or the log crate gives it.
fn level(name: &str) -> Option<LevelFilter> {
    match name.to_ascii_uppercase().as_str() {
        "CRITICAL" | "FATAL" | "OFF" => Some(LevelFilter::Off),
        "WARNING" => Some(LevelFilter::Warn),
        other => other.parse().ok(),
    }
}

/// The root logger's level in a log configuration that is JSON, as Meltano's is.
fn root_level(config: &str) -> Option<LevelFilter> {
    let config: Value = serde_json::from_str(config).ok()?;
    level(config["root"]["level"].as_str()?)
}

/// The level's name in Python.
fn level_name(record: &Record<'_>) -> &'static str {
    match record.level() {
        Level::Error if record.target() == FATAL => "CRITICAL",
        Level::Warn => "WARNING",
        other => other.as_str(),
    }
}

/// The line as the Singer SDK's `StructuredFormatter` writes it.
fn structured(record: &Record<'_>, message: &str) -> Value {
    let metric: Option<Value> = message.strip_prefix(METRIC).and_then(|metric| serde_json::from_str(metric).ok());
    let mut line = json!({
        "level": level_name(record).to_ascii_lowercase(),
        "pid": process::id(),
        "logger_name": NAME,
        "ts": Timestamp::now().as_duration().as_secs_f64(),
        "thread_name": "MainThread",
        "app_name": NAME,
        "stream_name": null,
        "message": message,
        "extra": {},
    });
    if let Some(metric) = metric {
        line["message"] = json!("METRIC");
        line["metric_info"] = metric;
    }
    line
}

/// The beginning of a text that may hold a whole record or answer, to quote it.
pub fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_QUOTED) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Writes the line of the error that ends the run. Of a configuration, each thing that is wrong
/// gets a line of its own.
pub fn fatal(error: &anyhow::Error) {
    match error.downcast_ref::<Invalid>() {
        Some(Invalid(problems)) if problems.len() > 1 => {
            problems.iter().for_each(|problem| log::error!(target: FATAL, "{problem}"))
        }
        _ => log::error!(target: FATAL, "{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_goes_by_its_python_or_its_rust_name() {
        assert_eq!(level("WARNING"), Some(LevelFilter::Warn));
        assert_eq!(level("warn"), Some(LevelFilter::Warn));
        assert_eq!(level("debug"), Some(LevelFilter::Debug));
        assert_eq!(level("CRITICAL"), Some(LevelFilter::Off));
        assert_eq!(level("loud"), None);
    }
}
