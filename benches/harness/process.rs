//! Runs a program and says what it took.
//!
//! A process is told what its children have taken, all together (getrusage(2)). So each run has a process of its own between it
//! and the benchmark, which starts the program, waits for it and tells.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// The first argument of the process between: then the files for stdout and stderr, the program and its arguments.
pub const BETWEEN: &str = "--measure";

/// What a run took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// From start to exit.
    pub wall: Duration,
    /// User and system time, of all threads.
    pub cpu: Duration,
    /// The peak of resident memory, in bytes.
    pub memory: u64,
}

/// A program to run.
#[derive(Debug)]
pub struct Program {
    name: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, String)>,
}

impl Program {
    pub fn new(name: impl Into<PathBuf>) -> Program {
        Program { name: name.into(), args: Vec::new(), env: Vec::new() }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Program {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Program {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it to its end, with its stdout at the beginning of this file.
    ///
    /// # Errors
    /// When it does not end with 0: what it says on stderr.
    pub fn run(&self, stdout: &Path) -> Result<Cost> {
        let stderr = stdout.with_extension("err");
        let mut command = Command::new(env::current_exe().context("find the benchmark itself")?);
        command.arg(BETWEEN).arg(stdout).arg(&stderr).arg(&self.name).args(&self.args);
        for (name, _) in env::vars_os() {
            if disturbs(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").envs(self.env.iter().map(|(name, value)| (name, value)));
        let told = command.stdin(Stdio::null()).output().context("start the process that measures")?;
        let said = fs::read_to_string(&stderr).unwrap_or_default();
        let problem = String::from_utf8_lossy(&told.stderr);
        ensure!(told.status.success(), "{} failed: {problem}{}", self.name.display(), tail(&said));
        serde_json::from_slice(&told.stdout).context("read what was measured")
    }
}

/// The process between: runs the program and tells what it took.
///
/// # Errors
/// When the program cannot be started, or does not end with 0.
pub fn measure(arguments: &[OsString]) -> Result<()> {
    let [stdout, stderr, name, arguments @ ..] = arguments else {
        anyhow::bail!("{BETWEEN} is for the benchmark itself")
    };
    let mut command = Command::new(name);
    // The file for stdout keeps its length.
    command.args(arguments).stdout(OpenOptions::new().write(true).open(stdout)?).stderr(File::create(stderr)?);
    let started = Instant::now();
    let status = command.status().with_context(|| format!("start {}", Path::new(name).display()))?;
    let wall = started.elapsed();
    ensure!(status.success(), "it ended with {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    let cost = Cost {
        wall,
        cpu: Duration::from_micros(u64::try_from(micros)?),
        // Kilobytes, on Linux.
        memory: 1024 * u64::try_from(usage.max_rss())?,
    };
    serde_json::to_writer(io::stdout(), &cost)?;
    io::stdout().flush().context("tell what was measured")
}

/// Whether a variable of the environment changes what a program does: proxies, log levels, settings of taps and of Python.
fn disturbs(name: &str) -> bool {
    let name = name.to_uppercase();
    name.ends_with("_PROXY")
        || name.ends_with("LOGLEVEL")
        || name.starts_with("TAP_STREAMDUO")
        || name.starts_with("PYTHON")
        || name == "RUST_LOG"
}

/// The last lines of what a program said.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
