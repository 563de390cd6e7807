//! Runs of the tap and its competitors, in turns.

use std::collections::BTreeSet;

use anyhow::Result;

use super::client::{Client, Request};
use super::competitor::{Curl, Tap, Vendor};
use super::fixture::{Fixture, Workload};
use super::report::{Series, Targets, print_table};

/// The tap in the tables.
pub const TAP: &str = "tap-streamduo";
const VENDOR: &str = "the vendor's tap 0.1.0";

/// What the scenarios run, and what they found.
pub struct Benchmark {
    /// The number of runs of each program.
    pub runs: usize,
    pub tap: Tap,
    pub curl: Option<Curl>,
    pub vendor: Option<Vendor>,
    pub targets: Targets,
}

/// Series of the same workload; a series is empty where its program is missing.
pub struct Comparison {
    pub tap: Series,
    pub curl: Series,
    pub vendor: Series,
}

/// Series of the tap and, where it is there, of the vendor's, of the same workload.
pub struct Race {
    pub tap: Series,
    pub vendor: Series,
}

impl Benchmark {
    /// The number of runs of each program where one takes many seconds.
    pub fn few_runs(&self) -> usize {
        self.runs.div_ceil(3)
    }

    /// Runs the tap alone.
    pub fn run_tap(&self, name: &'static str, workload: &Workload, runs: usize) -> Result<Series> {
        let mut series = Series::new(name);
        for _ in 0..runs {
            series.push(self.tap.run(&Fixture::start(workload)?)?);
        }
        Ok(series)
    }

    /// Runs the tap and its competitors in turns, each on a sandbox of its own with the same
    /// records.
    pub fn compare(&self, title: &str, workload: &Workload) -> Result<Comparison> {
        let mut tap = Series::new(TAP);
        let mut curl = Series::new("curl, the same requests");
        let mut vendor = Series::new(VENDOR);
        let mut sandbox = Series::new("the sandbox alone, the same requests");
        let mut calls = Vec::new();
        for _ in 0..self.runs {
            let fixture = Fixture::start(workload)?;
            tap.push(self.tap.run(&fixture)?);
            calls = fixture.sandbox.journal();
            if let Some(program) = &self.curl {
                curl.push(program.run(&Fixture::start(workload)?, &calls)?);
            }
            if let Some(program) = &self.vendor {
                vendor.push(program.run(&Fixture::start(workload)?)?);
            }
            let fixture = Fixture::start(workload)?;
            let requests = Request::replay(&calls, &fixture.sandbox);
            sandbox.push(Client::connect(&fixture.sandbox)?.send_all(&requests)?.0);
            fixture.check_unread(0)?;
        }
        print_table(title, &[&tap, &curl, &vendor, &sandbox]);
        let connections = calls.iter().map(|call| call.connection).collect::<BTreeSet<_>>().len();
        println!("Requests of the tap: {}, connections: {connections}.", calls.len());
        if self.curl.is_none() {
            println!("Without curl: there is none here.");
        }
        self.note_missing_vendor();
        Ok(Comparison { tap, curl, vendor })
    }

    /// Runs the tap and the vendor's in turns, this many times, each time with a jitter of its own.
    pub fn race(&self, title: &str, workload: &Workload, runs: usize) -> Result<Race> {
        let (mut tap, mut vendor) = (Series::new(TAP), Series::new(VENDOR));
        for seed in 0..runs as u64 {
            let workload = Workload { seed, ..*workload };
            tap.push(self.tap.run(&Fixture::start(&workload)?)?);
            if let Some(program) = &self.vendor {
                vendor.push(program.run(&Fixture::start(&workload)?)?);
            }
        }
        print_table(title, &[&tap, &vendor]);
        self.note_missing_vendor();
        Ok(Race { tap, vendor })
    }

    fn note_missing_vendor(&self) {
        if self.vendor.is_none() {
            println!("Without the vendor's tap: STREAMDUO_VENDOR_PYTHON names no Python that has it.");
        }
    }
}
