//! Tables, ratios, and targets met or missed, as Markdown on stdout.

use std::fs;
use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::process::Cost;

/// The median and the ends of some numbers.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(numbers: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median =
            if numbers.len() % 2 == 1 { numbers[middle] } else { f64::midpoint(numbers[middle - 1], numbers[middle]) };
        Some(Spread { median, min, max })
    }

    fn show(spread: Option<Spread>, unit: impl Fn(f64) -> String) -> String {
        spread.map_or_else(
            || "-".to_owned(),
            |Spread { median, min, max }| format!("{} ({} to {})", unit(median), unit(min), unit(max)),
        )
    }
}

/// What all runs of one contender took.
#[derive(Debug)]
pub struct Row {
    name: String,
    /// In milliseconds.
    wall: Vec<f64>,
    cpu: Vec<f64>,
    /// In MB, 1,000,000 bytes.
    memory: Vec<f64>,
}

impl Row {
    pub fn new(name: &str) -> Row {
        Row { name: name.to_owned(), wall: Vec::new(), cpu: Vec::new(), memory: Vec::new() }
    }

    pub fn add(&mut self, cost: Cost) {
        self.add_wall(cost.wall);
        self.cpu.push(cost.cpu.as_secs_f64() * 1e3);
        self.memory.push(cost.memory as f64 / 1e6);
    }

    /// Adds a run that is no process of its own.
    pub fn add_wall(&mut self, wall: Duration) {
        self.wall.push(wall.as_secs_f64() * 1e3);
    }

    /// In milliseconds.
    ///
    /// # Panics
    /// Without a run.
    pub fn wall(&self) -> Spread {
        Spread::of(self.wall.iter().copied()).expect("a row has runs")
    }

    fn cpu(&self) -> Option<Spread> {
        Spread::of(self.cpu.iter().copied())
    }

    /// In MB.
    pub fn memory(&self) -> Option<Spread> {
        Spread::of(self.memory.iter().copied())
    }

    /// How many times the other's time this takes, by their medians.
    pub fn wall_to(&self, other: &Row) -> f64 {
        self.wall().median / other.wall().median
    }

    /// How many times the other's CPU time this takes, by their medians.
    pub fn cpu_to(&self, other: &Row) -> f64 {
        match (self.cpu(), other.cpu()) {
            (Some(cpu), Some(others)) => cpu.median / others.median,
            _ => f64::NAN,
        }
    }
}

/// What is printed.
#[derive(Debug)]
pub struct Report {
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    name: String,
    got: f64,
    limit: f64,
    at_least: bool,
}

impl Report {
    pub fn new() -> Result<Report> {
        let report = Report { targets: Vec::new() };
        report.say(&format!("Machine: {}. Load at the start: {}.", machine(), load()))?;
        Ok(report)
    }

    pub fn section(&self, title: &str) -> Result<()> {
        self.say(&format!("\n### {title}\n"))
    }

    pub fn note(&self, text: &str) -> Result<()> {
        self.say(text)
    }

    pub fn table(&self, title: &str, rows: &[&Row]) -> Result<()> {
        self.section(title)?;
        self.say("| median (min to max) | runs | wall, ms | CPU, ms | peak memory, MB | wall | CPU |")?;
        self.say("|---|---:|---:|---:|---:|---:|---:|")?;
        for row in rows {
            let first = rows[0];
            let times = |ratio: f64| if ratio.is_nan() { "-".to_owned() } else { format!("{ratio:.2}") };
            self.say(&format!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.name,
                row.wall.len(),
                Spread::show(Some(row.wall()), milliseconds),
                Spread::show(row.cpu(), milliseconds),
                Spread::show(row.memory(), |megabytes| format!("{megabytes:.1}")),
                times(row.wall_to(first)),
                times(row.cpu_to(first)),
            ))?;
        }
        self.say("")
    }

    /// Notes a number that is to be at most so large.
    pub fn target(&mut self, name: &str, got: f64, limit: f64) {
        self.targets.push(Target { name: name.to_owned(), got, limit, at_least: false });
    }

    /// Notes a number that is to be at least so large.
    pub fn target_at_least(&mut self, name: &str, got: f64, limit: f64) {
        self.targets.push(Target { name: name.to_owned(), got, limit, at_least: true });
    }

    /// Says which targets are met.
    pub fn end(&self) -> Result<()> {
        self.section("Targets")?;
        self.say("| target | limit | measured | |\n|---|---:|---:|---|")?;
        for Target { name, got, limit, at_least } in &self.targets {
            let met = if *at_least { got >= limit } else { got <= limit };
            let bound = if *at_least { "at least" } else { "at most" };
            self.say(&format!("| {name} | {bound} {limit} | {got:.2} | {} |", if met { "met" } else { "**missed**" }))?;
        }
        self.say(&format!("\nLoad at the end: {}.", load()))
    }

    fn say(&self, line: &str) -> Result<()> {
        Ok(writeln!(io::stdout(), "{line}")?)
    }
}

/// Cores, processor and memory, as far as the system says.
fn machine() -> String {
    let value = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':').map(str::trim));
        line.unwrap_or("unknown").to_owned()
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let kilobytes: Option<u64> = value("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().ok();
    let memory = kilobytes.map_or("unknown".to_owned(), |kilobytes| format!("{} GB", kilobytes * 1024 / 1_000_000_000));
    format!("{cores} cores, {}, {memory} of memory", value("/proc/cpuinfo", "model name"))
}

/// The load averages.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Bytes in MB.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}

/// With a digit behind the point where there are few.
pub fn milliseconds(milliseconds: f64) -> String {
    if milliseconds < 100.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

/// 50000 as 50,000.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
