//! The sandbox as a program. `serve` is for trying things by hand, `run` runs one command against a
//! sandbox of its own, `quickstart` shows a tap at work, and `target` is a Singer target that fails
//! on request.

mod cargo_variables;
mod options;
mod quickstart;
mod target;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use options::Options;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use streamduo_sandbox::{Sandbox, Tls};
use tempfile::NamedTempFile;

/// A stand-in for the StreamDuo service on loopback, with one stream of sample records
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print the tap's settings to stdout, and serve until SIGINT or SIGTERM
    Serve {
        /// The port to listen on; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Serve https, and write the certificate of its CA to DIR/sandbox-ca.pem
        #[arg(long, value_name = "DIR")]
        tls: Option<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
    /// Run a command against a sandbox of its own, and print how many records it has marked as read
    Run {
        #[command(flatten)]
        options: Options,
        /// The command; {config} in it is replaced with the path of a file with the tap's settings
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Run this tap once, show its output, and say what has happened and what to try next
    Quickstart(quickstart::Quickstart),
    /// Run a Singer target that commits to a file, prints each STATE that it has committed, and
    /// fails on request
    Target(target::Target),
}

/// A sandbox with one stream of sample records.
struct SampleSandbox {
    sandbox: Sandbox,
    stream: String,
}

fn main() -> ExitCode {
    let result = match Cli::parse().action {
        Action::Serve { port, tls, options } => serve(port, tls.as_deref(), &options),
        Action::Run { options, command } => run(&options, &command),
        Action::Quickstart(quickstart) => quickstart.run(),
        Action::Target(target) => target.run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        log(&format!("sandbox: {error:#}"));
        ExitCode::FAILURE
    })
}

fn serve(port: u16, tls: Option<&Path>, options: &Options) -> Result<ExitCode> {
    // Before the first output: its reader may send a signal at once.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot wait for signals")?;
    let sandbox = SampleSandbox::start(port, tls.map(|_| Tls::Good), options)?;
    let ca = tls.map(|dir| sandbox.write_ca(dir)).transpose()?;
    writeln!(io::stdout(), "{}", options.config(&sandbox.sandbox, &sandbox.stream))
        .context("cannot write the settings to stdout")?;
    log(&sandbox.introduction());
    if let Some(ca) = ca {
        let ca = ca.display();
        log(&format!(
            "sandbox: to trust its CA, for the tap: export SSL_CERT_FILE={ca}; for Python: export REQUESTS_CA_BUNDLE={ca}"
        ));
    }
    signals.forever().next();
    log(&sandbox.summary());
    Ok(ExitCode::SUCCESS)
}

fn run(options: &Options, command: &[String]) -> Result<ExitCode> {
    // Neither signal ends the sandbox before the command. The terminal sends SIGINT to the command,
    // too.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot wait for signals")?;
    let sandbox = SampleSandbox::start(0, None, options)?;
    let config = config_file(&options.config(&sandbox.sandbox, &sandbox.stream))?;

    let path = config.path().to_string_lossy();
    let words: Vec<String> = command.iter().map(|word| word.replace("{config}", &path)).collect();
    let (program, args) = words.split_first().context("there is no command to run")?;
    let mut command = Command::new(program);
    command.args(args).env("STREAMDUO_SDK_URL", sandbox.sandbox.url());
    for name in cargo_variables::set_by_cargo_run() {
        command.env_remove(name);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            log(&format!("sandbox: cannot run {program:?}: {error}"));
            return Ok(ExitCode::from(127));
        }
    };
    let pid = Pid::from_child(&child);
    thread::spawn(move || forward_sigterm(&mut signals, pid));
    let status = child.wait().context("cannot wait for the command")?;
    log(&sandbox.summary());
    Ok(exit_code(status))
}

/// A file with the tap's settings, which is removed when it is dropped.
fn config_file(config: &str) -> Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix("streamduo-sandbox-")
        .suffix(".json")
        .tempfile()
        .context("cannot create a file for the settings")?;
    writeln!(file, "{config}").context("cannot write the settings")?;
    Ok(file)
}

/// Writes to stderr. Errors are ignored: there is no other place to report them.
fn log(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn forward_sigterm(signals: &mut Signals, pid: Pid) {
    for signal in signals.forever() {
        if signal == SIGTERM {
            // Ignore the error: the command has ended, and this program is about to end.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// The exit code that a shell would report: the command's own, or 128 plus the signal that killed
/// it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

impl SampleSandbox {
    fn start(port: u16, tls: Option<Tls>, options: &Options) -> Result<SampleSandbox> {
        let (sandbox, stream) = options.start(port, tls)?;
        Ok(SampleSandbox { sandbox, stream })
    }

    /// Writes the CA's certificate to a file in this folder, and returns its path.
    fn write_ca(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join("sandbox-ca.pem");
        let pem = self.sandbox.ca_pem().unwrap_or_default();
        fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn introduction(&self) -> String {
        let (records, _) = self.sandbox.tally(&self.stream);
        format!(
            "sandbox: serving {url} with {records} in stream {stream}; stop it with Ctrl-C\n\
             sandbox: the tap's settings are on stdout\n\
             sandbox: for the vendor's Python SDK:\n  \
               export STREAMDUO_SDK_URL={url}\n  \
               Client.auth_endpoint = {auth:?}\n  \
               client = Client({id:?}, {secret:?})",
            url = self.sandbox.url(),
            records = count(records, "record"),
            stream = self.stream,
            auth = self.sandbox.auth_url(),
            id = self.sandbox.client_id(),
            secret = self.sandbox.client_secret(),
        )
    }

    fn summary(&self) -> String {
        let (records, unread) = self.sandbox.tally(&self.stream);
        let read = records - unread;
        let (records, requests) = (count(records, "record"), count(self.sandbox.requests(), "request"));
        format!("sandbox: {records}, {read} marked as read, {unread} unread; {requests}")
    }
}

/// A number with its noun: `1 record`, `2 records`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
