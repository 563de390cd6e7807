//! Shows a tap at work: the end of `cargo quickstart`.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use streamduo_sandbox::Sandbox;

use crate::{config_file, count, exit_code, log};

/// Payloads that are short enough to take in. A number keeps its zeros on its way through the tap.
const PAYLOADS: [&str; 5] = [
    r#"{"Make":"Toyota","Price":6250.00}"#,
    r#"{"Make":"Honda","Price":7000.00}"#,
    r#"{"Make":"BMW","Price":22000.50}"#,
    r#"{"Make":"Škoda","Price":4700.00}"#,
    r#"{"Make":"Citroën","Price":null}"#,
];

/// The options of `quickstart`.
#[derive(Args)]
pub(crate) struct Quickstart {
    /// The tap's program
    tap: PathBuf,
}

impl Quickstart {
    /// Runs the tap into a pipe, and copies its output to stdout: what the tap shows at a terminal
    /// it would not mark.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let sandbox = Sandbox::builder().start().context("cannot listen on 127.0.0.1")?;
        let stream = sandbox.create_stream("cars");
        for payload in PAYLOADS {
            sandbox.write(&stream, payload);
        }
        let config = config_file(&format!("{:#}", sandbox.config(&stream)))?;
        let output = Command::new(&self.tap).arg("--config").arg(config.path()).output();
        let output = output.with_context(|| format!("cannot run {}", self.tap.display()))?;
        // One after the other: at a terminal, the log would mix with the records.
        let mut stdout = io::stdout();
        stdout.write_all(&output.stdout).and_then(|()| stdout.flush()).context("cannot write to stdout")?;
        let _ = io::stderr().write_all(&output.stderr);

        let (records, unread) = sandbox.tally(&stream);
        log(&format!("\n{}", what_happened(&output.stdout, records, unread)));
        if output.status.success() && unread == 0 {
            log(&self.what_next());
            return Ok(ExitCode::SUCCESS);
        }
        log(&format!("The tap has failed: {}.", output.status));
        Ok(if output.status.success() { ExitCode::FAILURE } else { exit_code(output.status) })
    }

    fn what_next(&self) -> String {
        let sandbox = env::current_exe().unwrap_or_else(|_| "streamduo-sandbox".into());
        let (sandbox, tap) = (from_here(&sandbox), from_here(&self.tap));
        format!(
            "Try next:\n  \
               A stream that grows, in one terminal:\n    \
                 {sandbox} serve --every 1s > sandbox.json\n  \
               Look at it, in another. A terminal shows records, and marks nothing:\n    \
                 {tap} -c sandbox.json --follow\n  \
               Load it into a target. What the target commits is marked as read:\n    \
                 {tap} -c sandbox.json -- {sandbox} target --out sandbox.jsonl\n  \
               A stream of your own: README.md, from \"Install\" on.",
        )
    }
}

/// What the tap has written, and what the sandbox says of it.
fn what_happened(stdout: &[u8], records: usize, unread: usize) -> String {
    let lines = stdout.split(|byte| *byte == b'\n');
    let written = lines.filter(|line| line.starts_with(br#"{"type":"RECORD""#)).count();
    let was = if written == 1 { "was" } else { "were" };
    let marked = if unread == 0 { ", and then marked as read" } else { "" };
    format!(
        "{written} {was} written to stdout as Singer messages{marked}.\n\
         The stand-in for StreamDuo counts {read} as read and {unread} as unread.\n",
        written = count(written, "record"),
        read = count(records - unread, "record"),
    )
}

/// The path, from the current folder if the file is in it.
fn from_here(path: &Path) -> String {
    let here = env::current_dir().ok();
    let short = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    short.unwrap_or(path).display().to_string()
}
