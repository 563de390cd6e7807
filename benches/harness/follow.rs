//! What followers take while there are no records. Linux only: it reads `/proc` (proc(5)).

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use streamduo_sandbox::Endpoint;

use super::fixture::Fixture;

/// Taps that run with `--follow` on one drained stream. Dropping them ends them.
pub struct Followers<'a> {
    taps: Vec<Child>,
    fixture: &'a Fixture,
}

/// What one follower takes, on average.
pub struct Usage {
    /// User and system time a second, in ms.
    pub cpu_ms: f64,
    /// How often one of its threads goes to sleep a second, and so how often one wakes.
    pub wakeups: f64,
    /// Polls a second.
    pub polls: f64,
    /// Resident memory that it shares with no other process, in 1,000,000 bytes.
    pub own_memory_mb: f64,
    /// All of its resident memory, in 1,000,000 bytes.
    pub memory_mb: f64,
}

impl Followers<'_> {
    /// Starts this many taps, and waits until each has polled once.
    pub fn start<'a>(tap: &Path, fixture: &'a Fixture, count: usize, poll_interval: Duration) -> Result<Followers<'a>> {
        let mut config = fixture.config();
        config["pollIntervalSeconds"] = poll_interval.as_secs().into();
        let config = fixture.write("config.json", config.to_string())?;
        let mut followers = Followers { taps: Vec::new(), fixture };
        for _ in 0..count {
            let messages = File::create(fixture.write("messages", "")?)?;
            let mut command = Command::new(tap);
            command.arg("--follow").arg("--config").arg(&config).env_clear();
            command.stdin(Stdio::null()).stdout(messages).stderr(Stdio::null());
            followers.taps.push(command.spawn().context("start a follower")?);
        }
        fixture.sandbox.wait_answered(Endpoint::Peek, count);
        // What follows a first poll is over, too.
        thread::sleep(Duration::from_millis(500));
        Ok(followers)
    }

    /// What each takes while this time passes.
    pub fn observe(&self, time: Duration) -> Result<Usage> {
        let polls = || self.fixture.sandbox.count(Endpoint::Peek) as f64;
        // The time on the CPU in ns is the first number in schedstat.
        let cpu = || self.sum("task/*/schedstat", |text| text.split(' ').next()?.parse().ok());
        let wakeups = || self.sum("task/*/status", |text| field(text, "voluntary_ctxt_switches:"));
        let before = (polls(), cpu()?, wakeups()?);
        thread::sleep(time);
        let after = (polls(), cpu()?, wakeups()?);
        let memory = |name| self.sum("smaps_rollup", move |text| field(text, name));
        let each = |sum: f64| sum / self.taps.len() as f64;
        let rate = |before: f64, after: f64| each(after - before) / time.as_secs_f64();
        Ok(Usage {
            cpu_ms: rate(before.1, after.1) / 1e6,
            wakeups: rate(before.2, after.2),
            polls: rate(before.0, after.0),
            own_memory_mb: each(memory("Private_Clean:")? + memory("Private_Dirty:")?) * 1024.0 / 1e6,
            memory_mb: each(memory("Rss:")?) * 1024.0 / 1e6,
        })
    }

    /// The sum of a number over a file of each tap, or of each of its threads.
    fn sum(&self, file: &str, number: impl Fn(&str) -> Option<f64>) -> Result<f64> {
        let mut sum = 0.0;
        for tap in &self.taps {
            let process = format!("/proc/{}", tap.id());
            let files = match file.strip_prefix("task/*/") {
                None => vec![Path::new(&process).join(file)],
                Some(file) => fs::read_dir(format!("{process}/task"))?
                    .map(|task| Ok(task?.path().join(file)))
                    .collect::<Result<_>>()?,
            };
            for file in files {
                let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
                sum += number(&text).with_context(|| format!("understand {}", file.display()))?;
            }
        }
        Ok(sum)
    }
}

impl Drop for Followers<'_> {
    fn drop(&mut self) {
        for tap in &mut self.taps {
            // Ignore the error: the tap has ended.
            let _ = tap.kill();
            let _ = tap.wait();
        }
    }
}

/// The number behind a name, in a file of lines.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
