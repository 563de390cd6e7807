//! Runs the release binary and its competitors as whole processes, and prints what each takes.
//!
//! `benches/README.md` says how to run it and what it measures; `benches/results/` has what came
//! out.

#![allow(clippy::print_stdout, reason = "the report goes to stdout")]

mod harness;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::json;

use harness::benchmark::{Benchmark, Comparison, Race, TAP};
use harness::client::{Client, Request};
use harness::competitor::{Curl, Tap, Vendor};
use harness::fixture::{Fixture, Workload};
use harness::follow::Followers;
use harness::measure::{MEASURE, measure};
use harness::report::Limit::{AtLeast, AtMost};
use harness::report::{Series, Targets, load, machine, print_table, short};
use harness::target::{SLOW_TARGET, TARGET, acknowledge, acknowledge_at_end};

type Scenario = fn(&mut Benchmark) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 15] = [
    ("size", size),
    ("sandbox", sandbox),
    ("start", start),
    ("loopback", loopback),
    ("columns", columns),
    ("latency", latency),
    ("jitter", jitter),
    ("large", large),
    ("tls", tls),
    ("growth", growth),
    ("commit", commit),
    ("target", target),
    ("starts", starts),
    ("mark_by_id", mark_by_id),
    ("follow", follow),
];

/// Runs the release binary and its competitors, and prints what each takes.
#[derive(Parser)]
struct Options {
    /// The scenarios to run; all if none is named.
    #[arg(value_parser = SCENARIOS.map(|(name, _)| name))]
    scenarios: Vec<String>,
    /// The number of runs of each program.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
    /// The tap's binary, instead of the one just built.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_tap-streamduo"), hide_default_value = true)]
    tap: PathBuf,
    /// Cargo passes this for `cargo bench` but not for `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args: Vec<OsString> = env::args_os().collect();
    if let [_, first, sample, program, args @ ..] = &args[..]
        && first == MEASURE
    {
        return measure(sample, program, args);
    }
    if args.get(1).is_some_and(|first| first == TARGET) {
        return acknowledge();
    }
    if args.get(1).is_some_and(|first| first == SLOW_TARGET) {
        return acknowledge_at_end();
    }
    let options = Options::parse_from(args);
    if !options.bench {
        println!("a benchmark: `cargo bench` runs it");
        return Ok(());
    }
    let mut benchmark = Benchmark {
        runs: options.runs.get(),
        tap: Tap { binary: options.tap },
        curl: Curl::find(),
        vendor: env::var_os("STREAMDUO_VENDOR_PYTHON").map(|python| Vendor::with(python.into())).transpose()?,
        targets: Targets::default(),
    };
    println!("Machine: {}. Load at the start: {}.", machine(), load());
    for (name, scenario) in SCENARIOS {
        if options.scenarios.is_empty() || options.scenarios.iter().any(|chosen| chosen == name) {
            scenario(&mut benchmark)?;
        }
    }
    benchmark.targets.print();
    println!("Load at the end: {}.", load());
    Ok(())
}

/// The size of the binary.
fn size(benchmark: &mut Benchmark) -> Result<()> {
    let bytes = fs::metadata(&benchmark.tap.binary).context("look at the binary")?.len();
    let megabytes = bytes as f64 / 1e6;
    println!("\n### The binary\n\n{megabytes:.2} MB ({bytes} bytes), stripped.");
    benchmark.targets.check("binary, stripped, MB", AtMost(5.0), megabytes);
    Ok(())
}

/// How fast the sandbox serves.
fn sandbox(benchmark: &mut Benchmark) -> Result<()> {
    const PEEKS: usize = 200;
    let fixture = Fixture::start(&Workload { records: 1_000, ..Workload::default() })?;
    let body = json!({
        "readRecordRequestType": "UNREAD",
        "recordCount": fixture.records,
        "recordId": null,
        "markAsRead": false,
        "recordTimeStampISO": null,
    });
    let peeks = vec![Request::json(&format!("/stream/{}/record-request", fixture.stream), body); PEEKS];
    let mut client = Client::connect(&fixture.sandbox)?;
    let mut series = Series::new("200 peeks of 1,000 records");
    let mut bytes = 0;
    for _ in 0..benchmark.runs {
        let (sample, received) = client.send_all(&peeks)?;
        series.push(sample);
        bytes = received;
    }
    print_table("How fast the sandbox alone can serve", &[&series]);
    let seconds = series.wall_ms().median / 1e3;
    println!(
        "{:.0} requests, {:.0} records and {:.0} MB a second.",
        PEEKS as f64 / seconds,
        (PEEKS * fixture.records) as f64 / seconds,
        bytes as f64 / 1e6 / seconds,
    );
    Ok(())
}

/// One record, from start to exit.
fn start(benchmark: &mut Benchmark) -> Result<()> {
    // More runs, because these are short and vary the most.
    let workload = Workload { records: 1, ..Workload::default() };
    let series = benchmark.run_tap(TAP, &workload, 4 * benchmark.runs)?;
    print_table("One record, from start to exit", &[&series]);
    benchmark.targets.check("one record: wall, ms", AtMost(15.0), series.wall_ms().median);
    Ok(())
}

/// Many records without latency.
fn loopback(benchmark: &mut Benchmark) -> Result<()> {
    let workload = Workload { records: 50_000, ..Workload::default() };
    let title = "50,000 records on loopback";
    let Comparison { tap, curl, vendor } = benchmark.compare(title, &workload)?;
    let workload = Workload { marks_show_read: true, ..workload };
    let series = benchmark.run_tap(TAP, &workload, benchmark.runs)?;
    print_table(&format!("{title}, marks answered as read"), &[&series]);
    let targets = &mut benchmark.targets;
    targets.check("50,000 on loopback: wall, times curl's", AtMost(1.15), tap.wall_to(&curl));
    targets.check("50,000 on loopback: CPU, times curl's", AtMost(2.0), tap.cpu_to(&curl));
    targets.check("50,000 on loopback: times faster than the vendor's", AtLeast(15.0), vendor.wall_to(&tap));
    targets.check("50,000 on loopback: times less CPU than the vendor's", AtLeast(25.0), vendor.cpu_to(&tap));
    Ok(())
}

/// The payload as columns, beside the payload as it is.
fn columns(benchmark: &mut Benchmark) -> Result<()> {
    let workload = Workload { records: 50_000, ..Workload::default() };
    let mut any = Series::new("`any`");
    let mut columns = Series::new("`sampled`");
    for _ in 0..benchmark.runs {
        any.push(benchmark.tap.run(&Fixture::start(&workload)?)?);
        columns.push(benchmark.tap.run_with_columns(&Fixture::start(&workload)?)?);
    }
    print_table("50,000 records on loopback: `payloadSchema`", &[&any, &columns]);
    benchmark.targets.check("50,000 on loopback, `sampled`: wall, times `any`", AtMost(2.0), columns.wall_to(&any));
    Ok(())
}

/// The latency of a service on the same continent, with pages as large as asked for and with capped
/// pages.
fn latency(benchmark: &mut Benchmark) -> Result<()> {
    let workload = Workload { records: 20_000, latency: Duration::from_millis(25), ..Workload::default() };
    let title = "20,000 records at 25 ms latency";
    let Comparison { tap, vendor, .. } = benchmark.compare(title, &workload)?;
    benchmark.targets.check("20,000 at 25 ms: times faster than the vendor's", AtLeast(5.0), vendor.wall_to(&tap));
    let workload = Workload { page_cap: Some(100), ..workload };
    let Comparison { tap, vendor, .. } = benchmark.compare(&format!("{title}, pages capped at 100"), &workload)?;
    let name = "20,000 at 25 ms, capped at 100: wall, times the vendor's";
    benchmark.targets.check(name, AtMost(1.0), tap.wall_to(&vendor));
    Ok(())
}

/// The same latency and capped pages where requests overtake each other, and where a new connection
/// costs two round trips.
fn jitter(benchmark: &mut Benchmark) -> Result<()> {
    for (jitter, price) in [(0, 0), (2, 0), (5, 0), (0, 50), (2, 50), (5, 50)] {
        let workload = Workload {
            records: 20_000,
            page_cap: Some(100),
            latency: Duration::from_millis(25),
            jitter: Duration::from_millis(jitter),
            connect: Duration::from_millis(price),
            ..Workload::default()
        };
        let connections = if price > 0 { format!(", {price} ms for a new connection") } else { String::new() };
        let name = format!("20,000 at 25 ms, capped at 100, jitter {jitter} ms{connections}");
        let title = name.replacen("20,000 at 25 ms", "20,000 records at 25 ms latency", 1);
        let Race { tap, vendor } = benchmark.race(&title, &workload, benchmark.few_runs())?;
        let targets = &mut benchmark.targets;
        if price == 0 && jitter <= 2 {
            targets.check(&format!("{name}: wall, times the vendor's"), AtMost(1.0), tap.wall_to(&vendor));
        } else if price > 0 && jitter == 5 {
            targets.check(&format!("{name}: times faster than the vendor's"), AtLeast(2.2), vendor.wall_to(&tap));
        }
    }
    Ok(())
}

/// Large records: over a slow link, and as fast as they come.
fn large(benchmark: &mut Benchmark) -> Result<()> {
    let runs = benchmark.few_runs();
    let slow = Workload { records: 300, record_bytes: 20_000, bandwidth: Some(1_000_000), ..Workload::default() };
    benchmark.race("300 records of 20 KB at 1 MB/s", &slow, runs)?;
    let workload = Workload { records: 2_000, record_bytes: 200_000, ..Workload::default() };
    let Race { tap, .. } = benchmark.race("2,000 records of 200 KB", &workload, runs)?;
    benchmark.targets.check("2,000 records of 200 KB: most memory, MB", AtMost(64.0), tap.memory_mb().max);
    let mut commit = Series::new("`commit`, each of the runs until all is marked");
    for _ in 0..runs {
        benchmark
            .tap
            .drain_with_commit(&Fixture::start(&workload)?)?
            .into_iter()
            .for_each(|sample| commit.push(sample));
    }
    print_table("2,000 records of 200 KB: `acknowledge` `commit`", &[&commit]);
    let name = "2,000 records of 200 KB, `commit`: most memory, MB";
    benchmark.targets.check(name, AtMost(64.0), commit.memory_mb().max);
    Ok(())
}

/// The latency scenario over https. The sandbox's latency is that of requests: TLS handshakes have
/// none.
fn tls(benchmark: &mut Benchmark) -> Result<()> {
    let workload = Workload { records: 20_000, latency: Duration::from_millis(25), tls: true, ..Workload::default() };
    let title = "20,000 records over https at 25 ms latency";
    let Race { tap, vendor } = benchmark.race(title, &workload, benchmark.runs)?;
    let name = "20,000 over https at 25 ms: times faster than the vendor's";
    benchmark.targets.check(name, AtLeast(5.0), vendor.wall_to(&tap));
    Ok(())
}

/// Time and memory as the number of records grows.
fn growth(benchmark: &mut Benchmark) -> Result<()> {
    let run = |name, records| benchmark.run_tap(name, &Workload { records, ..Workload::default() }, benchmark.runs);
    let few = run("10 records", 10)?;
    let some = run("100,000 records", 100_000)?;
    let many = run("1,000,000 records", 1_000_000)?;
    print_table("tap-streamduo, as the work grows", &[&few, &some, &many]);
    let targets = &mut benchmark.targets;
    targets.check("1,000,000 records: wall, times that of 100,000", AtMost(10.5), many.wall_to(&some));
    let memory = many.memory_mb();
    let growth = memory.median / some.memory_mb().median;
    targets.check("1,000,000 records: memory, times that of 100,000", AtMost(1.1), growth);
    targets.check("1,000,000 records: most memory, MB", AtMost(12.0), memory.max);
    Ok(())
}

/// `acknowledge: commit` beside `write`.
fn commit(benchmark: &mut Benchmark) -> Result<()> {
    let workload = Workload { records: 10_000, ..Workload::default() };
    let mut write = Series::new("`write`");
    let mut first = Series::new("`commit`, the run that writes");
    let mut second = Series::new("`commit`, the run that marks");
    for _ in 0..benchmark.runs {
        write.push(benchmark.tap.run(&Fixture::start(&workload)?)?);
        let [writes, marks] = benchmark.tap.run_commit(&Fixture::start(&workload)?)?;
        first.push(writes);
        second.push(marks);
    }
    print_table("10,000 records: `acknowledge`", &[&write, &first, &second]);
    let both = first.wall_ms().median + second.wall_ms().median;
    let times = both / write.wall_ms().median;
    println!("Both runs of `commit` take {} ms, {times:.2} times `write`.", short(both));
    Ok(())
}

/// A target that the tap runs, beside `write`.
fn target(benchmark: &mut Benchmark) -> Result<()> {
    for (records, runs) in [(50_000, benchmark.runs), (1_000_000, benchmark.few_runs())] {
        let workload = Workload { records, ..Workload::default() };
        let mut write = Series::new("`write`, to a file");
        let mut target = Series::new("into a target that acknowledges at once");
        for _ in 0..runs {
            write.push(benchmark.tap.run(&Fixture::start(&workload)?)?);
            target.push(benchmark.tap.run_target(&Fixture::start(&workload)?)?);
        }
        print_table(&format!("{records} records into a target"), &[&write, &target]);
        if records == 50_000 {
            let times = target.wall_to(&write);
            benchmark.targets.check("50,000 into a target: wall, times `write`", AtMost(2.5), times);
        } else {
            let more = target.memory_mb().max - write.memory_mb().max;
            benchmark.targets.check("1,000,000 into a target: most memory, MB more than `write`", AtMost(12.0), more);
        }
    }
    Ok(())
}

/// Into a target that takes a second to start and acknowledges at its end: each window is a start.
fn starts(benchmark: &mut Benchmark) -> Result<()> {
    for (records, runs) in [(50_000, benchmark.runs), (500_000, benchmark.few_runs())] {
        let workload = Workload { records, ..Workload::default() };
        let mut pipe = Series::new("into a pipe");
        let mut target = Series::new("into a target that the tap runs");
        for _ in 0..runs {
            pipe.push(benchmark.tap.run_slow_pipe(&Fixture::start(&workload)?)?);
            target.push(benchmark.tap.run_slow_target(&Fixture::start(&workload)?)?);
        }
        print_table(&format!("{records} records into a target that starts in a second"), &[&pipe, &target]);
        if records == 50_000 {
            let times = target.wall_to(&pipe);
            benchmark.targets.check("50,000 into a target with a slow start: wall, times a pipe", AtMost(1.15), times);
        } else {
            let memory = target.memory_mb().max;
            benchmark.targets.check("500,000 into a target with a slow start: most memory, MB", AtMost(64.0), memory);
        }
    }
    Ok(())
}

/// `markBy: id` at the latency of a service on the same continent.
fn mark_by_id(benchmark: &mut Benchmark) -> Result<()> {
    let workload = Workload { records: 400, latency: Duration::from_millis(25), ..Workload::default() };
    let position = benchmark.run_tap("`position`", &workload, benchmark.runs)?;
    let mut id = Series::new("`id`");
    for _ in 0..benchmark.runs {
        id.push(benchmark.tap.run_by_id(&Fixture::start(&workload)?)?);
    }
    print_table("400 records at 25 ms latency: `markBy`", &[&position, &id]);
    benchmark.targets.check("400 at 25 ms, `markBy` `id`: wall, s", AtMost(2.5), id.wall_ms().median / 1e3);
    Ok(())
}

/// Followers of a drained stream.
fn follow(benchmark: &mut Benchmark) -> Result<()> {
    const FOLLOWERS: usize = 20;
    const TIME: Duration = Duration::from_secs(10);
    println!("\n### {FOLLOWERS} followers of a drained stream, for {} s\n", TIME.as_secs());
    println!(
        "| each, on average | polls/s | wake-ups/s | CPU, ms/s | CPU, ms/poll | its own memory, MB | memory, MB |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let pauses = [("polls without a pause", 0), ("polls every second", 1), ("waits between two polls", 86_400)];
    for (name, poll_interval) in pauses {
        let fixture = Fixture::start(&Workload::default())?;
        let followers =
            Followers::start(&benchmark.tap.binary, &fixture, FOLLOWERS, Duration::from_secs(poll_interval))?;
        let usage = followers.observe(TIME)?;
        let per_poll = usage.cpu_ms / usage.polls;
        println!(
            "| {name} | {:.2} | {:.2} | {:.3} | {} | {:.2} | {:.2} |",
            usage.polls,
            usage.wakeups,
            usage.cpu_ms,
            if usage.polls > 0.0 { format!("{per_poll:.3}") } else { "-".to_owned() },
            usage.own_memory_mb,
            usage.memory_mb,
        );
        let targets = &mut benchmark.targets;
        match poll_interval {
            // Hundreds of polls: what each of them leaves behind would show.
            0 => targets.check("a follower after many polls: its own memory, MB", AtMost(1.0), usage.own_memory_mb),
            1 => {
                targets.check("a follower: CPU, ms/poll", AtMost(1.0), per_poll);
                targets.check("a follower: its own memory, MB", AtMost(1.0), usage.own_memory_mb);
            }
            _ => targets.check("a follower between polls: wake-ups/s", AtMost(0.1), usage.wakeups),
        }
    }
    Ok(())
}
