//! Log lines on stderr as singer-python writes them (`INFO message`), and its METRIC lines; or, where the Singer SDK's log
//! configuration asks for it, as the SDK's structured JSON, so that Meltano keeps levels and metrics apart.
//!
//! One line an event, whatever a message holds: control characters are replaced by spaces.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, process};

use log::{Level, LevelFilter, Record, debug, info, warn};
use serde::Serialize;
use serde_json::{Value, json};

/// The tap's name.
const NAME: &str = env!("CARGO_PKG_NAME");

/// What a metric's message begins with.
const METRIC: &str = "METRIC: ";

/// The target of a fatal error's line; it is written at whatever level was chosen.
const FATAL: &str = "fatal";

/// How often a long run says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The environment variables that choose the level, first come first served.
const LEVEL_VARIABLES: [&str; 3] = ["TAP_STREAMDUO_LOGLEVEL", "LOGLEVEL", "RUST_LOG"];

/// Starts logging at the level that the environment asks for, or the Singer SDK's log configuration; INFO by default.
pub fn init() {
    let chosen = LEVEL_VARIABLES
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()).map(|value| (*name, value)));
    let mut builder = env_logger::Builder::new();
    let sdk = env::var_os("SINGER_SDK_LOG_CONFIG").and_then(|path| fs::read_to_string(path).ok());
    let structured = sdk.as_deref().is_some_and(asks_for_structure);
    builder.format(move |out, record| {
        writeln!(out, "{}", if structured { structured_line(record) } else { line(record) })
    });
    let mut unknown = None;
    match &chosen {
        // RUST_LOG may name modules, as in `RUST_LOG=tap_streamduo=debug,hyper=info`.
        Some((name, value)) if *name == "RUST_LOG" => {
            builder.parse_filters(value);
        }
        Some((name, value)) => {
            let level = level(value);
            unknown = level.is_none().then(|| format!("{name}: no level {value:?}; INFO it is"));
            builder.filter_module(env!("CARGO_CRATE_NAME"), level.unwrap_or(LevelFilter::Info));
        }
        None => {
            let level = sdk.as_deref().and_then(root_level).unwrap_or(LevelFilter::Info);
            builder.filter_module(env!("CARGO_CRATE_NAME"), level);
        }
    }
    builder.filter_module(FATAL, LevelFilter::Error).init();
    if let Some(unknown) = unknown {
        warn!("{unknown}");
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

/// Whether a log configuration of the Singer SDK formats with its `StructuredFormatter`, as Meltano's does. Of such a file no
/// more is looked at than this and the level: the rest is Python's.
fn asks_for_structure(config: &str) -> bool {
    config.contains("singer_sdk.logging.StructuredFormatter")
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

fn line(record: &Record<'_>) -> String {
    format!("{} {}", level_name(record), one_line(&record.args().to_string()))
}

/// The line as `singer_sdk.logging.StructuredFormatter` writes it.
fn structured_line(record: &Record<'_>) -> String {
    let message = one_line(&record.args().to_string());
    let metric: Option<Value> = message.strip_prefix(METRIC).and_then(|metric| serde_json::from_str(metric).ok());
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut line = json!({
        "level": level_name(record).to_ascii_lowercase(),
        "pid": process::id(),
        "logger_name": NAME,
        "ts": since_1970.as_secs_f64(),
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
    line.to_string()
}

/// The text with every control character replaced by a space, so that it cannot break out of its line.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Writes the line of the error that ends the run.
pub fn fatal(error: &anyhow::Error) {
    log::error!(target: FATAL, "{error:#}");
}

/// A point in singer-python's form: `METRIC: {"type": ..., "metric": ..., "value": ..., "tags": {...}}`.
/// Source: `singer/metrics.py` of singer-python 6.
#[derive(Serialize)]
struct Metric<'a> {
    r#type: &'a str,
    metric: &'a str,
    value: Value,
    tags: Value,
}

impl Metric<'_> {
    fn text(&self) -> String {
        // A metric is made of plain strings and numbers: it always serializes.
        format!("{METRIC}{}", serde_json::to_string(self).unwrap_or_default())
    }
}

fn timer(metric: &'static str, elapsed: Duration, tags: Value) -> String {
    Metric { r#type: "timer", metric, value: json!(elapsed.as_secs_f64()), tags }.text()
}

/// Writes the duration of one HTTP request, at DEBUG.
pub fn http_request(endpoint: &str, status: Option<u16>, elapsed: Duration) {
    let status = match status {
        Some(code) if (200..300).contains(&code) => "succeeded",
        _ => "failed",
    };
    debug!("{}", timer("http_request_duration", elapsed, json!({"endpoint": endpoint, "status": status})));
}

/// Counts the records of a run, and says at INFO how far it is and what came of it.
#[derive(Debug)]
pub struct Meter {
    stream: String,
    started: Instant,
    reported: Instant,
    /// Records written that no METRIC line has told yet.
    unreported: usize,
    written: usize,
    marked: usize,
}

impl Meter {
    /// Starts to count for the stream of this Singer name.
    pub fn start(stream: &str) -> Meter {
        let now = Instant::now();
        Meter { stream: stream.to_owned(), started: now, reported: now, unreported: 0, written: 0, marked: 0 }
    }

    /// Counts records written to stdout.
    pub fn wrote(&mut self, count: usize) {
        self.written += count;
        self.unreported += count;
        if self.unreported > 0 && self.reported.elapsed() >= PROGRESS_INTERVAL {
            self.report();
        }
    }

    /// Counts records that the service has marked as read.
    pub fn marked(&mut self, count: usize) {
        self.marked += count;
    }

    fn report(&mut self) {
        info!("{} so far", self.counts());
        self.record_count();
        self.reported = Instant::now();
    }

    fn counts(&self) -> String {
        format!(
            "{}: {} records written, {} marked as read in {:.1} s",
            self.stream,
            self.written,
            self.marked,
            self.started.elapsed().as_secs_f64()
        )
    }

    fn record_count(&mut self) {
        let value = json!(std::mem::take(&mut self.unreported));
        let tags = json!({"endpoint": self.stream});
        info!("{}", Metric { r#type: "counter", metric: "record_count", value, tags }.text());
    }

    /// Writes the summary of a run that has ended, well or not.
    pub fn finish(mut self, succeeded: bool) {
        info!("{}", self.counts());
        self.record_count();
        let status = if succeeded { "succeeded" } else { "failed" };
        info!("{}", timer("job_duration", self.started.elapsed(), json!({"job_type": self.stream, "status": status})));
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

    #[test]
    fn a_message_cannot_leave_its_line() {
        assert_eq!(one_line("a\nCRITICAL b\r\x1b[2Jc"), "a CRITICAL b  [2Jc");
    }

    #[test]
    fn a_metric_reads_like_singer_pythons() {
        assert_eq!(
            timer("job_duration", Duration::from_millis(1500), json!({"job_type": "records", "status": "succeeded"})),
            r#"METRIC: {"type":"timer","metric":"job_duration","value":1.5,"tags":{"job_type":"records","status":"succeeded"}}"#
        );
    }
}
