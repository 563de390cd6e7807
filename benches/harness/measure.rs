//! What one run of a program took.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// The first argument that makes the benchmark [`measure`] one program and exit.
pub const MEASURE: &str = "--measure";

/// What one run took; NaN where it was not measured.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// From start to exit.
    pub wall_ms: f64,
    /// User and system time of all threads.
    pub cpu_ms: f64,
    /// Peak resident memory, in 1,000,000 bytes.
    pub memory_mb: f64,
}

impl Sample {
    pub fn wall_only(wall: Duration) -> Sample {
        Sample { wall_ms: wall.as_secs_f64() * 1e3, cpu_ms: f64::NAN, memory_mb: f64::NAN }
    }
}

/// Runs a program with the stdout and stderr of this process, and writes its sample to a file.
///
/// getrusage(2) sums up all children of a process, so each run calls this in a process of its own.
/// Fails unless the program exits with 0.
pub fn measure(sample: &OsStr, program: &OsStr, args: &[OsString]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args);
    let started = Instant::now();
    let status = command.status().context("start it")?;
    let wall = started.elapsed();
    ensure!(status.success(), "{status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time() + usage.system_time();
    let taken = Sample {
        cpu_ms: cpu.num_microseconds() as f64 / 1e3,
        // Linux counts in 1,024 bytes.
        memory_mb: usage.max_rss() as f64 * 1024.0 / 1e6,
        ..Sample::wall_only(wall)
    };
    fs::write(sample, serde_json::to_vec(&taken)?).context("write the sample")
}
