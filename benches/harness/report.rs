//! Tables, ratios and targets, as Markdown on stdout.

use std::fmt;
use std::fs;
use std::thread;

use super::measure::Sample;

/// The samples of one competitor.
pub struct Series {
    name: &'static str,
    samples: Vec<Sample>,
}

impl Series {
    pub fn new(name: &'static str) -> Series {
        Series { name, samples: Vec::new() }
    }

    pub fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub fn wall_ms(&self) -> Summary {
        self.summary(|sample| sample.wall_ms)
    }

    pub fn cpu_ms(&self) -> Summary {
        self.summary(|sample| sample.cpu_ms)
    }

    pub fn memory_mb(&self) -> Summary {
        self.summary(|sample| sample.memory_mb)
    }

    /// The ratio of the medians of wall time.
    pub fn wall_to(&self, other: &Series) -> f64 {
        self.wall_ms().median / other.wall_ms().median
    }

    /// The ratio of the medians of CPU time.
    pub fn cpu_to(&self, other: &Series) -> f64 {
        self.cpu_ms().median / other.cpu_ms().median
    }

    fn summary(&self, metric: fn(&Sample) -> f64) -> Summary {
        let mut values: Vec<f64> = self.samples.iter().map(metric).collect();
        values.sort_by(f64::total_cmp);
        let value = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Summary { median: f64::midpoint(value(last / 2), value(last.div_ceil(2))), min: value(0), max: value(last) }
    }
}

/// NaN throughout where nothing was measured.
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { median, min, max } = *self;
        if median.is_nan() {
            f.write_str("-")
        } else {
            write!(f, "{} ({} to {})", short(median), short(min), short(max))
        }
    }
}

/// With a decimal where there are few digits.
pub fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// Prints the series that have samples, with ratios to the first.
pub fn print_table(title: &str, series: &[&Series]) {
    println!("\n### {title}\n");
    println!("| median (min to max) | runs | wall, ms | CPU, ms | peak memory, MB | wall | CPU |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let ratio = |ratio: f64| if ratio.is_nan() { "-".to_owned() } else { format!("{ratio:.2}") };
    for row in series.iter().filter(|row| !row.samples.is_empty()) {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.samples.len(),
            row.wall_ms(),
            row.cpu_ms(),
            row.memory_mb(),
            ratio(row.wall_to(series[0])),
            ratio(row.cpu_to(series[0])),
        );
    }
    println!();
}

/// Which values meet a target.
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// The rows of the table of targets.
#[derive(Default)]
pub struct Targets(Vec<String>);

impl Targets {
    /// Leaves out what was not measured, NaN.
    pub fn check(&mut self, name: &str, limit: Limit, measured: f64) {
        let (bound, limit, met) = match limit {
            Limit::AtMost(limit) => ("at most", limit, measured <= limit),
            Limit::AtLeast(limit) => ("at least", limit, measured >= limit),
        };
        let met = if met { "met" } else { "**missed**" };
        if !measured.is_nan() {
            self.0.push(format!("| {name} | {bound} {limit} | {measured:.2} | {met} |"));
        }
    }

    pub fn print(&self) {
        println!("\n### Targets\n\n| target | limit | measured | |\n|---|---:|---:|---|\n{}\n", self.0.join("\n"));
    }
}

/// Cores, processor and memory.
pub fn machine() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (processor, memory) = (proc_field("cpuinfo", "model name"), proc_field("meminfo", "MemTotal"));
    format!("{cores} cores, {processor}, {memory} of memory")
}

/// The load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn proc_field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
    let field = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'));
    field.unwrap_or("unknown").trim().to_owned()
}
