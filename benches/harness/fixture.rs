//! A sandbox with the records of a scenario, and the check that a run has read and marked them.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use streamduo_sandbox::{Endpoint, Rule, Sandbox, Tls};
use tempfile::{TempDir, tempfile_in};

use super::measure::{MEASURE, Sample};

/// The records to read, and how the service answers.
#[derive(Clone, Copy, Default)]
pub struct Workload {
    pub records: usize,
    /// The length of a payload that is padded; 0 for sample payloads as they are.
    pub record_bytes: usize,
    pub latency: Duration,
    /// The most that is added to the latency, at random.
    pub jitter: Duration,
    /// The seed of what is added.
    pub seed: u64,
    /// What the first request on a connection takes in addition.
    pub connect: Duration,
    /// The bytes of answers that are sent in a second.
    pub bandwidth: Option<u64>,
    /// The most records in an answer, whatever the request asks for.
    pub page_cap: Option<usize>,
    /// A mark's answer shows its records as read, so it differs from the peek's.
    pub marks_show_read: bool,
    /// Over https.
    pub tls: bool,
}

/// A sandbox for one run, and the folder for that run's files.
pub struct Fixture {
    pub sandbox: Sandbox,
    pub stream: String,
    pub records: usize,
    record_bytes: usize,
    dir: TempDir,
}

/// What a run took, and what it wrote.
pub struct Output {
    pub sample: Sample,
    /// The number of RECORD lines.
    pub records: usize,
    /// The value of the last STATE.
    pub state: Option<Value>,
}

impl Fixture {
    pub fn start(workload: &Workload) -> Result<Fixture> {
        let Workload { records, record_bytes, latency, jitter, seed, connect, bandwidth, tls, .. } = *workload;
        let builder = Sandbox::builder().latency(latency).jitter(jitter).seed(seed).connect(connect);
        let builder = if tls { builder.tls(Tls::Good) } else { builder };
        let sandbox = builder.start().context("start the sandbox")?;
        sandbox.set_bandwidth(bandwidth);
        let stream = sandbox.create_stream("cars");
        sandbox.fill_sized(&stream, records, record_bytes);
        if let Some(cap) = workload.page_cap {
            sandbox.script(Rule::on(Endpoint::Peek).every().cap(cap));
            sandbox.script(Rule::on(Endpoint::Mark).every().cap(cap));
        }
        if workload.marks_show_read {
            sandbox.script(Rule::on(Endpoint::Mark).every().as_read());
        }
        // In memory where possible, so that no disk is measured.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Ok(Fixture { sandbox, stream, records, record_bytes, dir: dir.context("make a temporary folder")? })
    }

    /// Writes an input file of the run.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, content).with_context(|| format!("write {name}"))?;
        Ok(path)
    }

    /// The settings of a tap.
    pub fn config(&self) -> Value {
        self.sandbox.config(&self.stream)
    }

    /// Runs a program without this process's environment, which may set proxies and log levels.
    /// Fails with the program's stderr unless it exits with 0.
    pub fn run(&self, command: &Command) -> Result<Output> {
        let sample = self.dir.path().join("sample.json");
        let mut stdout = self.stdout().context("make a file for stdout")?;
        let mut stderr = tempfile_in(&self.dir)?;
        let ca = self.sandbox.ca_pem().map(|ca| self.write("ca.pem", ca)).transpose()?;
        let status = Command::new(env::current_exe()?)
            .arg(MEASURE)
            .args([sample.as_os_str(), command.get_program()])
            .args(command.get_args())
            .env_clear()
            .env("LC_ALL", "C")
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            // For programs that use OpenSSL's variable, and for Python's requests.
            .envs(ca.iter().flat_map(|ca| [("SSL_CERT_FILE", ca), ("REQUESTS_CA_BUNDLE", ca)]))
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .status()?;
        if !status.success() {
            stderr.rewind()?;
            anyhow::bail!("{} failed: {}", command.get_program().display(), io::read_to_string(stderr)?);
        }
        // The program shares the file's offset: what it wrote ends there.
        let written = stdout.stream_position()?;
        stdout.set_len(written)?;
        stdout.rewind()?;
        let sample = serde_json::from_slice(&fs::read(sample)?).context("read the sample")?;
        let (records, state) = read_messages(stdout).context("read what the program wrote")?;
        Ok(Output { sample, records, state })
    }

    /// A file that is longer than the output will be: growing a file takes time.
    fn stdout(&self) -> Result<File> {
        /// More than a RECORD line of the sandbox's sample takes, without its padding.
        const LINE: u64 = 512;
        let mut file = tempfile_in(&self.dir)?;
        io::copy(&mut io::repeat(0).take((LINE + self.record_bytes as u64) * (self.records as u64 + 8)), &mut file)?;
        file.rewind()?;
        Ok(file)
    }

    /// An error unless the run wrote this many RECORD lines and left this many records unread.
    pub fn check(&self, output: &Output, written: usize, unread: usize) -> Result<()> {
        ensure!(output.records == written, "{} RECORD lines instead of {written}", output.records);
        self.check_unread(unread)
    }

    /// An error unless the sandbox has all its records, and this many of them are unread.
    pub fn check_unread(&self, expected: usize) -> Result<()> {
        let (records, unread) = self.sandbox.tally(&self.stream);
        ensure!(records == self.records, "the sandbox has {records} records instead of {}", self.records);
        ensure!(unread == expected, "{unread} of {records} records are unread instead of {expected}");
        Ok(())
    }
}

/// Counts the RECORD lines and finds the value of the last STATE.
fn read_messages(stdout: File) -> Result<(usize, Option<Value>)> {
    let mut reader = BufReader::with_capacity(1 << 20, stdout);
    let (mut records, mut state) = (0, None);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        ensure!(line.ends_with(b"}\n"), "a line is cut off");
        // singer-python writes a space after the colon.
        if line.starts_with(br#"{"type":"RECORD""#) || line.starts_with(br#"{"type": "RECORD""#) {
            records += 1;
        } else {
            let mut message: Value = serde_json::from_slice(&line)?;
            if message["type"] == "STATE" {
                state = Some(message["value"].take());
            }
        }
        line.clear();
    }
    Ok((records, state))
}
