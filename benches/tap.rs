//! Runs the release binary against its rivals, and prints what each takes: wall time, CPU time, memory.
//!
//! What is measured, how, and what came out is in `benches/README.md`. Every run is checked: an exit code, a record that is
//! missing or one that is not marked ends the benchmark with an error. A target that is missed does not.
//!
//! ```text
//! cargo bench                               all scenarios, 5 runs each
//! cargo bench -- start loopback --runs 1    these two, once
//! cargo bench -- --tap FILE                 another binary than the one just built
//! ```

mod harness;

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use harness::client::Client;
use harness::process::{BETWEEN, measure};
use harness::report::{Report, Row, megabytes, milliseconds};
use harness::rival::{Commit, Curl, Tap, Vendor};
use harness::scene::{Scene, Stage};

/// Runs, prints a table, and notes what its targets are held against.
type Scenario = fn(&mut Bench) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 7] = [
    ("size", size),
    ("sandbox", sandbox),
    ("start", start),
    ("loopback", loopback),
    ("latency", latency),
    ("growth", growth),
    ("commit", commit),
];

/// The latency of the scenario of that name: a service on the same continent.
const LATENCY: Duration = Duration::from_millis(25);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == BETWEEN) {
        return measure(&arguments.collect::<Vec<_>>());
    }
    let Some(Options { chosen, runs, tap }) = options()? else {
        writeln!(io::stdout(), "a benchmark: `cargo bench` runs it")?;
        return Ok(());
    };
    let mut bench = Bench {
        runs,
        tap: Tap::at(tap),
        curl: Curl::find(),
        vendor: env::var_os("STREAMDUO_VENDOR_PYTHON").map(|python| Vendor::with(PathBuf::from(python))).transpose()?,
        report: Report::new()?,
    };
    for scenario in chosen {
        scenario(&mut bench)?;
    }
    bench.report.end()
}

/// What the command line asks for.
struct Options {
    chosen: Vec<Scenario>,
    runs: usize,
    tap: PathBuf,
}

/// Reads the command line; `None` where Cargo only tries whether the benchmark starts.
fn options() -> Result<Option<Options>> {
    let (mut chosen, mut runs, mut asked) = (Vec::new(), 5, false);
    let mut tap = PathBuf::from(env!("CARGO_BIN_EXE_tap-streamduo"));
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => asked = true,
            "--runs" => {
                let value = args.next().context("--runs takes a number")?;
                runs = value.parse().with_context(|| format!("--runs takes a number, not {value:?}"))?;
                ensure!(runs > 0, "--runs takes a number of at least 1");
            }
            "--tap" => tap = args.next().context("--tap takes a file")?.into(),
            name => match SCENARIOS.iter().find(|(known, _)| *known == name) {
                Some((_, scenario)) => chosen.push(*scenario),
                None => {
                    bail!("there is no scenario {name:?} but: {}", SCENARIOS.map(|(name, _)| name).join(", "))
                }
            },
        }
    }
    if chosen.is_empty() {
        chosen = SCENARIOS.map(|(_, scenario)| scenario).to_vec();
    }
    Ok(asked.then_some(Options { chosen, runs, tap }))
}

/// Who runs, how often, and where the outcome goes.
struct Bench {
    runs: usize,
    tap: Tap,
    /// `None` where there is no curl.
    curl: Option<Curl>,
    /// `None` where no Python with the vendor's tap is named.
    vendor: Option<Vendor>,
    report: Report,
}

/// What the contenders of one scene took.
struct Contest {
    tap: Row,
    curl: Option<Row>,
    vendor: Option<Row>,
}

impl Bench {
    /// Runs the tap alone, so many times.
    fn solo(&self, name: &str, scene: &Scene, runs: usize) -> Result<Row> {
        let mut row = Row::new(name);
        for _ in 0..runs {
            row.add(self.tap.drain(&Stage::set(scene)?)?);
        }
        Ok(row)
    }

    /// Runs the tap and its rivals in turns, each on a sandbox of its own with the same records.
    fn contest(&mut self, scene: &Scene) -> Result<Contest> {
        let mut tap = Row::new("tap-streamduo");
        let mut curl = self.curl.as_ref().map(|_| Row::new("curl, the same requests"));
        let mut vendor = self.vendor.as_ref().map(|_| Row::new("the vendor's tap 0.1.0"));
        let mut alone = Row::new("the sandbox alone, the same requests");
        let (mut requests, mut connections) = (0, 0);
        for _ in 0..self.runs {
            let stage = Stage::set(scene)?;
            tap.add(self.tap.drain(&stage)?);
            let asked = stage.requests();
            (requests, connections) = (asked.len(), stage.connections());
            if let (Some(row), Some(curl)) = (&mut curl, &self.curl) {
                row.add(curl.repeat(&asked, &Stage::set(scene)?)?);
            }
            if let (Some(row), Some(vendor)) = (&mut vendor, &self.vendor) {
                row.add(vendor.drain(&Stage::set(scene)?)?);
            }
            let stage = Stage::set(scene)?;
            alone.add_wall(Client::connect(&stage)?.repeat(&asked)?);
            stage.check_drained()?;
        }
        let rows: Vec<&Row> =
            [Some(&tap), curl.as_ref(), vendor.as_ref(), Some(&alone)].into_iter().flatten().collect();
        self.report.table(&scene.title(), &rows)?;
        self.report.note(&format!("Requests of the tap: {requests}, connections: {connections}."))?;
        if curl.is_none() {
            self.report.note("Without curl: there is none here.")?;
        }
        if vendor.is_none() {
            self.report.note("Without the vendor's tap: STREAMDUO_VENDOR_PYTHON names no Python that has it.")?;
        }
        Ok(Contest { tap, curl, vendor })
    }
}

/// The binary, as `cargo build --release` makes it.
fn size(bench: &mut Bench) -> Result<()> {
    let bytes = bench.tap.size()?;
    bench.report.section("The binary")?;
    bench.report.note(&format!("{} MB ({bytes} bytes), stripped.", megabytes(bytes)))?;
    bench.report.target("binary, stripped, MB", bytes as f64 / 1e6, 5.0);
    Ok(())
}

/// How fast the sandbox can serve.
fn sandbox(bench: &mut Bench) -> Result<()> {
    const PEEKS: usize = 200;
    let stage = Stage::set(&Scene::of(1_000))?;
    let mut client = Client::connect(&stage)?;
    let mut row = Row::new("200 peeks of 1,000 records");
    let mut bytes = 0;
    for _ in 0..bench.runs {
        let (wall, read) = client.peek(PEEKS, 1_000)?;
        row.add_wall(wall);
        bytes = read;
    }
    bench.report.table("How fast the sandbox alone can serve", &[&row])?;
    let seconds = row.wall().median / 1e3;
    bench.report.note(&format!(
        "{:.0} requests, {:.0} records and {:.0} MB a second.",
        PEEKS as f64 / seconds,
        PEEKS as f64 * 1e3 / seconds,
        bytes as f64 / 1e6 / seconds,
    ))
}

/// One record, from start to exit.
fn start(bench: &mut Bench) -> Result<()> {
    // It takes next to no time, and is the noisiest.
    let row = bench.solo("tap-streamduo", &Scene::of(1), 4 * bench.runs)?;
    bench.report.table("One record, from start to exit", &[&row])?;
    bench.report.target("one record: wall, ms", row.wall().median, 15.0);
    Ok(())
}

/// 50,000 records on loopback; and what the tap takes where a mark's answer is not what the peek has shown.
fn loopback(bench: &mut Bench) -> Result<()> {
    let scene = Scene::of(50_000);
    let contest = bench.contest(&scene)?;
    let scene = scene.answering_as_read();
    let row = bench.solo("tap-streamduo", &scene, bench.runs)?;
    bench.report.table(&scene.title(), &[&row])?;
    if let Some(curl) = &contest.curl {
        bench.report.target("50,000 on loopback: wall, times curl's", contest.tap.wall_to(curl), 1.15);
        bench.report.target("50,000 on loopback: CPU, times curl's", contest.tap.cpu_to(curl), 2.0);
    }
    if let Some(vendor) = &contest.vendor {
        bench.report.target_at_least(
            "50,000 on loopback: times faster than the vendor's",
            vendor.wall_to(&contest.tap),
            15.0,
        );
        bench.report.target_at_least(
            "50,000 on loopback: times less CPU than the vendor's",
            vendor.cpu_to(&contest.tap),
            25.0,
        );
    }
    Ok(())
}

/// 20,000 records behind 25 ms, with pages as large as asked for, and capped at 100.
fn latency(bench: &mut Bench) -> Result<()> {
    let scene = Scene::of(20_000).behind(LATENCY);
    let contest = bench.contest(&scene)?;
    if let Some(vendor) = &contest.vendor {
        bench.report.target_at_least(
            "20,000 at 25 ms: times faster than the vendor's",
            vendor.wall_to(&contest.tap),
            5.0,
        );
    }
    let contest = bench.contest(&scene.capped(100))?;
    if let Some(vendor) = &contest.vendor {
        bench.report.target(
            "20,000 at 25 ms, capped at 100: wall, times the vendor's",
            contest.tap.wall_to(vendor),
            1.0,
        );
    }
    Ok(())
}

/// Time and memory as the work grows.
fn growth(bench: &mut Bench) -> Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for (name, records) in [("10 records", 10), ("100,000 records", 100_000), ("1,000,000 records", 1_000_000)] {
        rows.push(bench.solo(name, &Scene::of(records), bench.runs)?);
    }
    bench.report.table("tap-streamduo, as the work grows", &rows.iter().collect::<Vec<_>>())?;
    let [_, some, many] = &rows[..] else { bail!("three sizes make three rows") };
    bench.report.target("1,000,000 records: wall, times that of 100,000", many.wall_to(some), 10.5);
    if let (Some(of_some), Some(of_many)) = (some.memory(), many.memory()) {
        bench.report.target("1,000,000 records: memory, times that of 100,000", of_many.median / of_some.median, 1.1);
        bench.report.target("1,000,000 records: most memory, MB", of_many.max, 12.0);
    }
    Ok(())
}

/// `acknowledge: commit` beside `write`.
fn commit(bench: &mut Bench) -> Result<()> {
    let scene = Scene::of(10_000);
    let mut write = Row::new("`write`");
    let mut first = Row::new("`commit`, the run that writes");
    let mut second = Row::new("`commit`, the run that marks");
    for _ in 0..bench.runs {
        write.add(bench.tap.drain(&Stage::set(&scene)?)?);
        let Commit { writes, marks } = bench.tap.commit(&Stage::set(&scene)?)?;
        first.add(writes);
        second.add(marks);
    }
    bench.report.table("10,000 records: `acknowledge`", &[&write, &first, &second])?;
    let both = first.wall().median + second.wall().median;
    bench.report.note(&format!(
        "Both runs of `commit` take {} ms, {:.2} times `write`.",
        milliseconds(both),
        both / write.wall().median
    ))
}
