//! The sandbox as a program: `serve` for trying things by hand, `run` for one command against a sandbox of its own, and
//! `target` for a target that crashes.

mod target;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use streamduo_sandbox::Sandbox;

/// Stands in for the StreamDuo service on loopback, with one stream of sample records.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serve until SIGINT or SIGTERM; the tap's settings go to stdout
    Serve {
        /// The port to listen on; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        #[command(flatten)]
        sample: Sample,
    },
    /// Run a command against a sandbox of its own, and say how many records it has marked as read
    Run {
        #[command(flatten)]
        sample: Sample,
        /// The command; {config} in it becomes the path of a file with the tap's settings
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Be a Singer target that commits in batches, prints the STATE lines it has committed, and crashes at random
    Target(target::Target),
}

#[derive(Args)]
struct Sample {
    /// How many sample records the stream holds
    #[arg(long, value_name = "N", default_value_t = 12)]
    records: usize,
    /// A pause before every answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,
}

/// A sandbox with its one stream.
struct Stage {
    sandbox: Sandbox,
    stream: String,
}

fn main() -> ExitCode {
    let done = match Cli::parse().action {
        Action::Serve { port, sample } => serve(port, &sample),
        Action::Run { sample, command } => run(&sample, &command),
        Action::Target(target) => target.run().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        tell(&format!("sandbox: {error:#}"));
        ExitCode::FAILURE
    })
}

fn serve(port: u16, sample: &Sample) -> Result<ExitCode> {
    // Before a word is said, so that whoever reads it can end this program in order.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot wait for signals")?;
    let stage = Stage::set(port, sample)?;
    writeln!(io::stdout(), "{}", stage.config()).context("cannot write the settings to stdout")?;
    tell(&stage.introduction());
    signals.forever().next();
    tell(&stage.summary());
    Ok(ExitCode::SUCCESS)
}

fn run(sample: &Sample, command: &[String]) -> Result<ExitCode> {
    // SIGINT comes to the command as well, from the terminal; SIGTERM is handed on. The sandbox outlives the command.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot wait for signals")?;
    let stage = Stage::set(0, sample)?;
    let mut config = tempfile::Builder::new()
        .prefix("streamduo-sandbox-")
        .suffix(".json")
        .tempfile()
        .context("cannot create a file for the settings")?;
    writeln!(config, "{}", stage.config()).context("cannot write the settings")?;

    let path = config.path().to_string_lossy();
    let words: Vec<String> = command.iter().map(|word| word.replace("{config}", &path)).collect();
    let (program, args) = words.split_first().context("there is no command to run")?;
    let mut command = Command::new(program);
    command.args(args).env("STREAMDUO_SDK_URL", stage.sandbox.url());
    for name in cargo_variables() {
        command.env_remove(name);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            tell(&format!("sandbox: cannot run {program:?}: {error}"));
            return Ok(ExitCode::from(127));
        }
    };
    let pid = Pid::from_child(&child);
    thread::spawn(move || hand_on(&mut signals, pid));
    let status = child.wait().context("cannot wait for the command")?;
    tell(&stage.summary());
    Ok(exit_code(status))
}

/// Writes to stderr; where that is closed, there is nobody to tell.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn hand_on(signals: &mut Signals, pid: Pid) {
    for signal in signals.forever() {
        if signal == SIGTERM {
            // Fails only when the command has ended, and then so does this program.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// As shells put it: the code, or 128 and the signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// What cargo sets for the package whose program it runs. A `cargo run` within this one would take it for a change of
/// the environment, and build the crates anew that look at it.
fn cargo_variables() -> impl Iterator<Item = OsString> {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"];
    const NAMES: [&str; 5] =
        ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "OUT_DIR"];
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        NAMES.contains(&name.as_ref()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

impl Stage {
    fn set(port: u16, sample: &Sample) -> Result<Stage> {
        let latency = Duration::from_millis(sample.latency_ms);
        let sandbox = Sandbox::builder().port(port).latency(latency).start();
        let sandbox = sandbox.with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        let stream = sandbox.create_stream("cars");
        sandbox.fill(&stream, sample.records);
        Ok(Stage { sandbox, stream })
    }

    fn config(&self) -> String {
        format!("{:#}", self.sandbox.config(&self.stream))
    }

    fn introduction(&self) -> String {
        let (records, _) = self.sandbox.tally(&self.stream);
        format!(
            "sandbox: serving {url}, {records} records in stream {stream}; Ctrl-C ends it\n\
             sandbox: the tap's settings are on stdout\n\
             sandbox: for the vendor's Python SDK:\n  \
               export STREAMDUO_SDK_URL={url}\n  \
               Client.auth_endpoint = {auth:?}\n  \
               client = Client({id:?}, {secret:?})",
            url = self.sandbox.url(),
            stream = self.stream,
            auth = self.sandbox.auth_url(),
            id = self.sandbox.client_id(),
            secret = self.sandbox.client_secret(),
        )
    }

    fn summary(&self) -> String {
        let requests = self.sandbox.requests();
        let plural = if requests == 1 { "" } else { "s" };
        let (records, unread) = self.sandbox.tally(&self.stream);
        let read = records - unread;
        format!("sandbox: {records} records, {read} marked as read, {unread} unread; {requests} request{plural}")
    }
}
