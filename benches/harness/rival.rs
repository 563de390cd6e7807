//! The tap and those it is held against. Each run is checked.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use streamduo_sandbox::Endpoint;

use super::client;
use super::process::{Cost, Program};
use super::scene::{Asked, Stage};

/// The release binary.
#[derive(Debug)]
pub struct Tap {
    binary: PathBuf,
}

/// What the two runs of `acknowledge: commit` took.
#[derive(Debug)]
pub struct Commit {
    pub writes: Cost,
    pub marks: Cost,
}

impl Tap {
    pub fn at(binary: impl Into<PathBuf>) -> Tap {
        Tap { binary: binary.into() }
    }

    /// The binary's size in bytes.
    pub fn size(&self) -> Result<u64> {
        Ok(fs::metadata(&self.binary).context("look at the binary")?.len())
    }

    /// Reads the stream with the default settings.
    pub fn drain(&self, stage: &Stage) -> Result<Cost> {
        let config = write_config(stage, &stage.config())?;
        let stdout = stage.stdout("tap")?;
        let cost = self.program(&config).run(&stdout)?;
        stage.check_delivered(Messages::read(&stdout)?.records).context("run the tap")?;
        Ok(cost)
    }

    /// Reads the stream with `acknowledge: commit`, and runs once more with the STATE that came out.
    pub fn commit(&self, stage: &Stage) -> Result<Commit> {
        let mut settings = stage.config();
        settings["acknowledge"] = "commit".into();
        let config = write_config(stage, &settings)?;
        let (stdout, state) = (stage.stdout("tap")?, stage.dir.path().join("state.json"));
        let writes = self.program(&config).run(&stdout)?;
        let messages = Messages::read(&stdout)?;
        stage.check_out(messages.records).context("run the tap with `commit`, to write")?;
        let value = messages.state.context("the tap has written no STATE")?;
        fs::write(&state, value.to_string()).context("write the state")?;
        let stdout = stage.stdout("tap, again")?;
        let marks = self.program(&config).arg("--state").arg(&state).run(&stdout)?;
        let again = Messages::read(&stdout)?.records;
        ensure!(again == 0, "{again} records came again with their STATE");
        stage.check_drained().context("run the tap with `commit`, to mark")?;
        Ok(Commit { writes, marks })
    }

    fn program(&self, config: &Path) -> Program {
        Program::new(&self.binary).arg("--config").arg(config)
    }
}

/// One curl that makes the same requests, in order, on one connection, and throws the answers away: the floor.
#[derive(Debug)]
pub struct Curl(());

impl Curl {
    /// `None` where there is no curl.
    pub fn find() -> Option<Curl> {
        let version = Command::new("curl").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success()).then_some(Curl(()))
    }

    /// Makes these requests, the one for a token among them.
    pub fn repeat(&self, asked: &[Asked], stage: &Stage) -> Result<Cost> {
        // Of a token that is issued before the clock starts: a request cannot use what the one before it brought.
        let token = client::token(stage)?;
        let before = stage.sandbox.requests();
        let mut config = String::new();
        for (index, Asked { endpoint, path, body }) in asked.iter().enumerate() {
            if index > 0 {
                config += "next\n";
            }
            let url = Value::from(format!("{}{path}", stage.sandbox.url()));
            writeln!(config, "silent\nshow-error\nfail\noutput = \"/dev/null\"\nurl = {url}")?;
            if *endpoint == Endpoint::Token {
                writeln!(config, "data = {}", Value::from(client::token_form(stage)))?;
            } else {
                writeln!(config, "header = \"authorization: Bearer {token}\"")?;
                writeln!(config, "header = \"content-type: application/json\"")?;
                // A JSON string is a curl string as well, as long as it holds nothing but quotes to escape.
                writeln!(config, "data = {}", Value::from(body.as_str()))?;
            }
        }
        let file = stage.dir.path().join("curl.config");
        fs::write(&file, config).context("write curl's config")?;
        let stdout = stage.stdout("curl")?;
        let cost = Program::new("curl").arg("--disable").arg("--config").arg(&file).run(&stdout)?;
        let calls = stage.sandbox.journal().split_off(before);
        ensure!(calls.len() == asked.len(), "curl made {} requests instead of {}", calls.len(), asked.len());
        let one = calls.iter().all(|call| call.connection == calls[0].connection && call.status == Some(200));
        ensure!(one, "curl has not made all requests on one connection, or not all were served");
        stage.check_drained().context("run curl")?;
        Ok(cost)
    }
}

/// The vendor's tap: a Python in whose environment it is installed.
#[derive(Debug)]
pub struct Vendor {
    python: PathBuf,
}

impl Vendor {
    /// Uses this Python.
    ///
    /// # Errors
    /// When it does not have the vendor's tap: whoever names one wants it to run.
    pub fn with(python: PathBuf) -> Result<Vendor> {
        let status = Command::new(&python)
            .args(["-c", "import tap_streamduo"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("run STREAMDUO_VENDOR_PYTHON, {}", python.display()))?;
        ensure!(
            status.success(),
            "STREAMDUO_VENDOR_PYTHON, {}, has no tap_streamduo: install benches/requirements-vendor.txt",
            python.display()
        );
        Ok(Vendor { python })
    }

    /// Reads the stream.
    pub fn drain(&self, stage: &Stage) -> Result<Cost> {
        let config = write_config(stage, &stage.config())?;
        let stdout = stage.stdout("vendor")?;
        let cost = Program::new(&self.python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/vendor.py"))
            .arg("--config")
            .arg(&config)
            .env("STREAMDUO_SDK_URL", stage.sandbox.url())
            .env("STREAMDUO_AUTH_URL", stage.sandbox.auth_url())
            .run(&stdout)?;
        stage.check_delivered(Messages::read(&stdout)?.records).context("run the vendor's tap")?;
        Ok(cost)
    }
}

fn write_config(stage: &Stage, settings: &Value) -> Result<PathBuf> {
    let file = stage.dir.path().join("config.json");
    fs::write(&file, settings.to_string()).context("write a config")?;
    Ok(file)
}

/// What a tap has written.
struct Messages {
    records: usize,
    /// The value of the last STATE.
    state: Option<Value>,
}

impl Messages {
    fn read(file: &Path) -> Result<Messages> {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(file).context("read what a tap has written")?);
        let mut messages = Messages { records: 0, state: None };
        let mut line = Vec::new();
        // Behind the last line is what the file was filled with.
        while reader.fill_buf()?.first().is_some_and(|byte| *byte != 0) {
            reader.read_until(b'\n', &mut line)?;
            ensure!(line.ends_with(b"}\n"), "a line is cut off");
            // singer-python puts a space behind the colon.
            if line.starts_with(br#"{"type":"RECORD""#) || line.starts_with(br#"{"type": "RECORD""#) {
                messages.records += 1;
            } else {
                let mut message: Value = serde_json::from_slice(&line).context("read a message")?;
                if message["type"] == "STATE" {
                    messages.state = Some(message["value"].take());
                }
            }
            line.clear();
        }
        Ok(messages)
    }
}
