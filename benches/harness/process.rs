//! Runs a program and says what it took.
//!
//! bash's `time` reports what `wait4` says of the program: safe Rust has no call for that, and `/proc` counts in hundredths of
//! a second. The clock runs in bash too, right around the program, so that bash's own start is not in it. The peak of
//! resident memory is read from `/proc` while the program runs, time and again: it only rises, so the last look counts.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Leaves the file for stdout as long as it is, and writes four numbers, in seconds, to stderr: user and system time, the clock
/// before and after. bash before 5.3 has milliseconds of the first two.
const SCRIPT: &str = r#"
out=$1 err=$2
shift 2
TIMEFORMAT='%6U %6S'
before=$EPOCHREALTIME
time "$@" 1<>"$out" 2>"$err"
code=$?
after=$EPOCHREALTIME
echo "$before $after" >&2
exit "$code"
"#;

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From start to exit.
    pub wall: Duration,
    /// User and system time, of all threads.
    pub cpu: Duration,
    /// The peak of resident memory, in bytes; `None` where the system does not say.
    pub memory: Option<u64>,
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
        let mut command = Command::new("bash");
        command.args(["-c", SCRIPT, "bash"]).arg(stdout).arg(&stderr).arg(&self.name).args(&self.args);
        for (name, _) in std::env::vars_os() {
            if disturbs(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut bash = command.spawn().context("start bash, whose `time` measures")?;
        let memory = peak(bash.id(), || !matches!(bash.try_wait(), Ok(None)));
        let ended = bash.wait_with_output().context("wait for bash")?;
        let told = String::from_utf8_lossy(&ended.stderr);
        let said = fs::read_to_string(&stderr).unwrap_or_default();
        ensure!(ended.status.success(), "{} ended with {}: {}{}", self.name.display(), ended.status, told, tail(&said));
        let numbers: Vec<f64> = told.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [user, system, before, after] = numbers[..] else { anyhow::bail!("bash says {told:?}, not four numbers") };
        Ok(Cost { wall: Duration::from_secs_f64(after - before), cpu: Duration::from_secs_f64(user + system), memory })
    }
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

/// The peak of resident memory of the one child that `bash` has, until it is done.
fn peak(bash: u32, mut done: impl FnMut() -> bool) -> Option<u64> {
    let started = Instant::now();
    let mut peak = None;
    let mut child: Option<PathBuf> = None;
    while !done() {
        match &child {
            None => {
                let children = fs::read_to_string(format!("/proc/{bash}/task/{bash}/children")).unwrap_or_default();
                child = children.split_whitespace().next().map(|id| Path::new("/proc").join(id).join("status"));
            }
            Some(status) => peak = high_water(&fs::read_to_string(status).unwrap_or_default()).or(peak),
        }
        // Often at first, for what is over soon; seldom later, to leave the machine to what is measured.
        let pause = (started.elapsed() / 20).clamp(Duration::from_micros(400), Duration::from_millis(5));
        thread::sleep(pause);
    }
    peak
}

/// `VmHWM` of a `/proc/…/status` (proc_pid_status(5)), in bytes; `None` for a child that is still bash itself.
fn high_water(status: &str) -> Option<u64> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("Name:")? == "bash" {
        return None;
    }
    let kilobytes: u64 = field("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kilobytes)
}

/// The last lines of what a program said.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
