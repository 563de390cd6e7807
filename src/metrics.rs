//! METRIC lines as singer-python writes them, and the counts of a run: as lines of the log, or at a terminal as a live line.

use std::time::{Duration, Instant};

use log::{Level, debug, info, log};
use serde::Serialize;
use serde_json::{Value, json};

use crate::logging::METRIC;
use crate::progress::{self, Counts, LiveLine};

/// How often a long run logs its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A number of records, with its noun.
pub fn records(count: usize) -> String {
    if count == 1 { "1 record".to_owned() } else { format!("{count} records") }
}

/// What a run has done.
fn describe(Counts { written, put_aside, marked }: Counts, put: &str) -> String {
    let put_aside = if put_aside > 0 { format!(", {put_aside} {put}") } else { String::new() };
    format!("{} written{put_aside}, {marked} marked as read", records(written))
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

/// The level of a run's METRIC lines. They are for programs: at a terminal, only DEBUG shows them.
fn level() -> Level {
    if progress::is_watched() { Level::Debug } else { Level::Info }
}

/// Logs the duration of one HTTP request, at DEBUG.
pub fn http_request(endpoint: &str, status: Option<u16>, elapsed: Duration) {
    let status = match status {
        Some(code) if (200..300).contains(&code) => "succeeded",
        _ => "failed",
    };
    debug!("{}", timer("http_request_duration", elapsed, json!({"endpoint": endpoint, "status": status})));
}

/// Counts the records of a run, and tells its progress and its outcome.
#[derive(Debug)]
pub struct RunMetrics {
    stream: String,
    /// Shows the progress, in place of lines in the log.
    live: Option<LiveLine>,
    started: Instant,
    reported: Instant,
    /// Records written since the last METRIC line.
    unreported: usize,
    counts: Counts,
    /// What became of the records that no target could load.
    put: &'static str,
}

impl RunMetrics {
    /// Starts to count for the Singer stream of this name. Logs the progress.
    pub fn start(stream: &str) -> RunMetrics {
        let (stream, now) = (stream.to_owned(), Instant::now());
        let (live, counts, put) = (None, Counts::default(), "put aside");
        RunMetrics { stream, live, started: now, reported: now, unreported: 0, counts, put }
    }

    /// Says of records that no target could load that they are left out.
    pub fn leaving_out(self) -> RunMetrics {
        RunMetrics { put: "left out", ..self }
    }

    /// Shows the progress in a live line where somebody watches.
    pub fn live(self) -> RunMetrics {
        RunMetrics { live: LiveLine::start(|counts| describe(counts, "put aside")), ..self }
    }

    /// Counts records that are written.
    pub fn count_written(&mut self, count: usize) {
        self.counts.written += count;
        self.unreported += count;
        if self.live.is_some() {
            self.show();
        } else if self.unreported > 0 && self.reported.elapsed() >= PROGRESS_INTERVAL {
            self.report();
        }
    }

    /// How many records this run has written.
    pub fn written(&self) -> usize {
        self.counts.written
    }

    /// Counts records that were put aside in the file that `deadLetterFile` names.
    pub fn count_put_aside(&mut self, count: usize) {
        self.counts.put_aside += count;
        self.show();
    }

    /// How many records this run has put aside.
    pub fn marked(&self) -> usize {
        self.counts.marked
    }

    /// How many records were put aside.
    pub fn put_aside(&self) -> usize {
        self.counts.put_aside
    }

    /// Counts records that the service has marked as read.
    pub fn count_marked(&mut self, count: usize) {
        self.counts.marked += count;
        self.show();
    }

    /// Tells that the run waits for new records.
    pub fn wait(&mut self) {
        self.live.iter_mut().for_each(LiveLine::wait);
    }

    fn show(&mut self) {
        if let Some(live) = &mut self.live {
            live.show(self.counts);
        }
    }

    fn report(&mut self) {
        info!("{} so far", self.summary());
        self.log_record_count();
        self.reported = Instant::now();
    }

    fn summary(&self) -> String {
        format!("{}: {} in {:.1} s", self.stream, describe(self.counts, self.put), self.started.elapsed().as_secs_f64())
    }

    fn log_record_count(&mut self) {
        let value = json!(std::mem::take(&mut self.unreported));
        let tags = json!({"endpoint": self.stream});
        log!(level(), "{}", Metric { r#type: "counter", metric: "record_count", value, tags }.text());
    }

    /// Logs the summary of a run that has ended, with a remark on records that are written, in place of the live line. Says nothing of a
    /// run that has failed before it came to anything.
    pub fn finish(mut self, succeeded: bool) {
        self.live = None;
        if !succeeded && self.counts == Counts::default() {
            return;
        }
        info!("{}", self.summary());
        self.log_record_count();
        let status = if succeeded { "succeeded" } else { "failed" };
        let tags = json!({"job_type": self.stream, "status": status});
        log!(level(), "{}", timer("job_duration", self.started.elapsed(), tags));
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
