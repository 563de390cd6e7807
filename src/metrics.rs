//! METRIC lines as singer-python writes them, and the counts of a run.

use std::time::{Duration, Instant};

use log::{debug, info};
use serde::Serialize;
use serde_json::{Value, json};

use crate::logging::METRIC;

/// How often a long run logs its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A number of records, with its noun.
pub fn records(count: usize) -> String {
    if count == 1 { "1 record".to_owned() } else { format!("{count} records") }
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

/// Logs the duration of one HTTP request, at DEBUG.
pub fn http_request(endpoint: &str, status: Option<u16>, elapsed: Duration) {
    let status = match status {
        Some(code) if (200..300).contains(&code) => "succeeded",
        _ => "failed",
    };
    debug!("{}", timer("http_request_duration", elapsed, json!({"endpoint": endpoint, "status": status})));
}

/// Counts the records of a run, and logs its progress and its outcome at INFO.
#[derive(Debug)]
pub struct RunMetrics {
    stream: String,
    started: Instant,
    reported: Instant,
    /// Records written since the last METRIC line.
    unreported: usize,
    written: usize,
    put_aside: usize,
    marked: usize,
}

impl RunMetrics {
    /// Starts to count for the Singer stream of this name.
    pub fn start(stream: &str) -> RunMetrics {
        let now = Instant::now();
        RunMetrics {
            stream: stream.to_owned(),
            started: now,
            reported: now,
            unreported: 0,
            written: 0,
            put_aside: 0,
            marked: 0,
        }
    }

    /// Counts records written to stdout.
    pub fn count_written(&mut self, count: usize) {
        self.written += count;
        self.unreported += count;
        if self.unreported > 0 && self.reported.elapsed() >= PROGRESS_INTERVAL {
            self.report();
        }
    }

    /// How many records this run has written.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Counts records that were put aside in the file that `deadLetterFile` names.
    pub fn count_put_aside(&mut self, count: usize) {
        self.put_aside += count;
    }

    /// How many records this run has put aside.
    pub fn put_aside(&self) -> usize {
        self.put_aside
    }

    /// Counts records that the service has marked as read.
    pub fn count_marked(&mut self, count: usize) {
        self.marked += count;
    }

    fn report(&mut self) {
        info!("{} so far", self.counts());
        self.log_record_count();
        self.reported = Instant::now();
    }

    fn counts(&self) -> String {
        let (written, marked, elapsed) = (records(self.written), self.marked, self.started.elapsed().as_secs_f64());
        let put_aside = if self.put_aside > 0 { format!(", {} put aside", self.put_aside) } else { String::new() };
        format!("{}: {written} written{put_aside}, {marked} marked as read in {elapsed:.1} s", self.stream)
    }

    fn log_record_count(&mut self) {
        let value = json!(std::mem::take(&mut self.unreported));
        let tags = json!({"endpoint": self.stream});
        info!("{}", Metric { r#type: "counter", metric: "record_count", value, tags }.text());
    }

    /// Logs the summary of a run that has ended, with a remark on records that are written. Says nothing of a run that has failed
    /// before it came to anything.
    pub fn finish(mut self, succeeded: bool, remark: &str) {
        if !succeeded && self.written + self.put_aside + self.marked == 0 {
            return;
        }
        info!("{}{}", self.counts(), if self.written > 0 { remark } else { "" });
        self.log_record_count();
        let status = if succeeded { "succeeded" } else { "failed" };
        info!("{}", timer("job_duration", self.started.elapsed(), json!({"job_type": self.stream, "status": status})));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_reads_like_singer_pythons() {
        assert_eq!(
            timer("job_duration", Duration::from_millis(1500), json!({"job_type": "records", "status": "succeeded"})),
            r#"METRIC: {"type":"timer","metric":"job_duration","value":1.5,"tags":{"job_type":"records","status":"succeeded"}}"#
        );
    }
}
