//! METRIC lines as singer-python writes them, and the counts of a run: as lines of the log, or at a
//! terminal as a live line.

use std::time::{Duration, Instant};

use log::{Level, debug, info, log};
use serde_json::{Value, json};

use crate::logging::METRIC;
use crate::progress::{self, LiveLine};

/// How often a long run logs its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The word for one thing, or for several.
pub fn plural(count: usize, one: &'static str, other: &'static str) -> &'static str {
    if count == 1 { one } else { other }
}

/// A number of records, with its noun.
pub fn records(count: usize) -> String {
    format!("{count} {}", plural(count, "record", "records"))
}

/// A point as `singer/metrics.py` of singer-python 6 writes it.
fn metric(kind: &str, metric: &str, value: impl Into<Value>, tags: Value) -> String {
    let value = value.into();
    format!("{METRIC}{}", json!({"type": kind, "metric": metric, "value": value, "tags": tags}))
}

fn timer(name: &str, elapsed: Duration, tags: Value) -> String {
    metric("timer", name, elapsed.as_secs_f64(), tags)
}

fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "succeeded" } else { "failed" }
}

/// The level of a run's METRIC lines. They are for programs: at a terminal, only DEBUG shows them.
fn level() -> Level {
    if progress::is_watched() { Level::Debug } else { Level::Info }
}

/// Logs the duration of one HTTP request, at DEBUG.
pub fn http_request(endpoint: &str, status: Option<u16>, elapsed: Duration) {
    let status = outcome(status.is_some_and(|code| (200..300).contains(&code)));
    debug!("{}", timer("http_request_duration", elapsed, json!({"endpoint": endpoint, "status": status})));
}

/// Counts the records of a run, and tells its progress and its outcome.
#[derive(Debug)]
pub struct RunMetrics {
    stream: String,
    /// What became of the records that no target could load.
    put: &'static str,
    /// Shows the progress, in place of lines in the log.
    live: Option<LiveLine>,
    started: Instant,
    reported: Instant,
    /// Records written since the last METRIC line.
    unreported: usize,
    /// How many records this run has written: to stdout, or to the target that the tap runs.
    pub written: usize,
    /// How many of them have something in `dataPayloadRest`.
    pub with_rest: usize,
    /// How many it has put aside in the file that `deadLetterFile` names, or left out.
    pub put_aside: usize,
    /// How many the service has marked as read.
    pub marked: usize,
}

impl RunMetrics {
    /// Starts to count for the Singer stream of this name. The progress is shown in the live line,
    /// or else logged.
    pub fn start(stream: &str, put: &'static str, live: Option<LiveLine>) -> RunMetrics {
        let now = Instant::now();
        let mut metrics = RunMetrics {
            stream: stream.to_owned(),
            put,
            live,
            started: now,
            reported: now,
            unreported: 0,
            written: 0,
            with_rest: 0,
            put_aside: 0,
            marked: 0,
        };
        metrics.show();
        metrics
    }

    /// Counts records that are written.
    pub fn count_written(&mut self, count: usize) {
        self.written += count;
        self.unreported += count;
        self.show();
        if self.live.is_none() && self.unreported > 0 && self.reported.elapsed() >= PROGRESS_INTERVAL {
            info!("{} so far", self.summary());
            self.log_record_count();
            self.reported = Instant::now();
        }
    }

    /// Counts records no longer as written: a target has failed with them.
    pub fn take_back(&mut self, count: usize) {
        self.written = self.written.saturating_sub(count);
        self.unreported = self.unreported.saturating_sub(count);
        self.show();
    }

    /// Counts records that are marked as read.
    pub fn count_marked(&mut self, count: usize) {
        self.marked += count;
        self.show();
    }

    /// Tells that the run waits for new records.
    pub fn wait(&mut self) {
        self.live.iter_mut().for_each(LiveLine::wait);
    }

    /// Shows the counts in the live line, if there is one.
    pub fn show(&mut self) {
        let counts = self.counts();
        if let Some(live) = &mut self.live {
            live.show(counts, self.written);
        }
    }

    fn counts(&self) -> String {
        let put_aside = match self.put_aside {
            0 => String::new(),
            count => format!(", {count} {}", self.put),
        };
        let with_rest = match self.with_rest {
            0 => String::new(),
            count => format!(" ({count} with `dataPayloadRest`)"),
        };
        format!("{} written{with_rest}{put_aside}, {} marked as read", records(self.written), self.marked)
    }

    fn summary(&self) -> String {
        format!("{}: {} in {:.1} s", self.stream, self.counts(), self.started.elapsed().as_secs_f64())
    }

    fn log_record_count(&mut self) {
        let count = std::mem::take(&mut self.unreported);
        let tags = json!({"endpoint": self.stream});
        log!(level(), "{}", metric("counter", "record_count", count, tags));
    }

    /// Logs the summary of a run that has ended, in place of the live line. A run that
    /// failed before it did anything has none.
    pub fn finish(mut self, succeeded: bool) {
        self.live = None;
        if !succeeded && self.written + self.put_aside + self.marked == 0 {
            return;
        }
        info!("{}", self.summary());
        self.log_record_count();
        let tags = json!({"job_type": self.stream, "status": outcome(succeeded)});
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
