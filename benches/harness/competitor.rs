//! The tap and the programs that it is compared with. Each run is checked.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamduo_sandbox::Call;

use super::client::{Client, Request};
use super::fixture::{Fixture, Output};
use super::measure::Sample;
use super::target::{SLOW_TARGET, TARGET};

/// The tap under test.
pub struct Tap {
    pub binary: PathBuf,
}

impl Tap {
    /// Reads the stream with the default settings.
    pub fn run(&self, fixture: &Fixture) -> Result<Sample> {
        self.run_to_the_end(fixture, &fixture.config())
    }

    /// Reads the stream with `markBy: id`.
    pub fn run_by_id(&self, fixture: &Fixture) -> Result<Sample> {
        let mut config = fixture.config();
        config["markBy"] = "id".into();
        self.run_to_the_end(fixture, &config)
    }

    /// Reads the stream with `payloadSchema: sampled`.
    pub fn run_with_columns(&self, fixture: &Fixture) -> Result<Sample> {
        let mut config = fixture.config();
        config["payloadSchema"] = "sampled".into();
        // An empty file has no columns yet.
        config["columnsFile"] = json!(fixture.write("columns.json", "")?);
        self.run_to_the_end(fixture, &config)
    }

    fn run_to_the_end(&self, fixture: &Fixture, config: &Value) -> Result<Sample> {
        let output = self.run_with(fixture, config, None)?;
        fixture.check(&output, fixture.records, 0).context("run the tap")?;
        Ok(output.sample)
    }

    /// Reads the stream with `acknowledge: commit`, then runs again with the STATE written, which
    /// marks the records.
    pub fn run_commit(&self, fixture: &Fixture) -> Result<[Sample; 2]> {
        let mut config = fixture.config();
        config["acknowledge"] = "commit".into();
        let first = self.run_with(fixture, &config, None)?;
        fixture.check(&first, fixture.records, fixture.records).context("run the tap with `commit`, to write")?;
        let state = first.state.context("the tap wrote no STATE")?;
        let second = self.run_with(fixture, &config, Some(&state))?;
        fixture.check(&second, 0, 0).context("run the tap with `commit`, to mark")?;
        Ok([first.sample, second.sample])
    }

    /// Runs with `acknowledge: commit`, each time with the STATE of the run before, until nothing
    /// is unread.
    pub fn drain_with_commit(&self, fixture: &Fixture) -> Result<Vec<Sample>> {
        let mut config = fixture.config();
        config["acknowledge"] = "commit".into();
        let (mut samples, mut written, mut state) = (Vec::new(), 0, None);
        while fixture.sandbox.tally(&fixture.stream).1 > 0 {
            let output = self.run_with(fixture, &config, state.as_ref())?;
            samples.push(output.sample);
            written += output.records;
            state = output.state;
            ensure!(samples.len() <= fixture.records, "the runs with `commit` get nowhere");
        }
        ensure!(written == fixture.records, "{written} RECORD lines instead of {}", fixture.records);
        Ok(samples)
    }

    /// Reads the stream into a target that it runs, and that acknowledges at once.
    pub fn run_target(&self, fixture: &Fixture) -> Result<Sample> {
        self.run_into(fixture, TARGET)
    }

    /// Reads the stream into a target that it runs, and that takes a second to start and acknowledges at
    /// its end.
    pub fn run_slow_target(&self, fixture: &Fixture) -> Result<Sample> {
        self.run_into(fixture, SLOW_TARGET)
    }

    fn run_into(&self, fixture: &Fixture, target: &str) -> Result<Sample> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(fixture.write("config.json", fixture.config().to_string())?);
        command.arg("--").arg(env::current_exe()?).arg(target);
        let output = fixture.run(&command)?;
        fixture.check(&output, 0, 0).context("run the tap with a target")?;
        Ok(output.sample)
    }

    /// Reads the stream into a pipe to the same target.
    pub fn run_slow_pipe(&self, fixture: &Fixture) -> Result<Sample> {
        let mut command = Command::new("sh");
        command.args(["-c", r#""$0" --config "$1" | "$2" "$3""#]).arg(&self.binary);
        command.arg(fixture.write("config.json", fixture.config().to_string())?);
        command.arg(env::current_exe()?).arg(SLOW_TARGET);
        let output = fixture.run(&command)?;
        fixture.check(&output, 0, 0).context("run the tap and a target in a pipe")?;
        Ok(output.sample)
    }

    fn run_with(&self, fixture: &Fixture, config: &Value, state: Option<&Value>) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(fixture.write("config.json", config.to_string())?);
        if let Some(state) = state {
            command.arg("--state").arg(fixture.write("state.json", state.to_string())?);
        }
        fixture.run(&command)
    }
}

/// One curl process that repeats the tap's requests in order on one connection and throws the
/// answers away.
pub struct Curl;

impl Curl {
    /// `None` if there is no curl.
    pub fn find() -> Option<Curl> {
        Command::new("curl").arg("--version").output().is_ok_and(|version| version.status.success()).then_some(Curl)
    }

    pub fn run(&self, fixture: &Fixture, calls: &[Call]) -> Result<Sample> {
        // curl cannot use the token that its own first request fetches.
        let token = Client::connect(&fixture.sandbox)?.token;
        let before = fixture.sandbox.requests();
        let transfer = |Request { path, content_type, body }: Request| {
            let url = fixture.sandbox.url();
            // A JSON string is a curl string too, as long as quotes are all that it escapes.
            let body = Value::from(body);
            format!(
                "silent\nshow-error\nfail\noutput = /dev/null\nurl = {url}{path}\ndata = {body}\n\
                 header = \"authorization: Bearer {token}\"\nheader = \"content-type: {content_type}\"\n"
            )
        };
        let transfers: Vec<_> = Request::replay(calls, &fixture.sandbox).into_iter().map(transfer).collect();
        let config = fixture.write("curl.config", transfers.join("next\n"))?;
        let output = fixture.run(Command::new("curl").arg("--disable").arg("--config").arg(config))?;
        let replayed = fixture.sandbox.journal().split_off(before);
        ensure!(replayed.len() == calls.len(), "curl made {} requests instead of {}", replayed.len(), calls.len());
        let served = |call: &Call| call.status == Some(200) && call.connection == replayed[0].connection;
        ensure!(replayed.iter().all(served), "not all of curl's requests were served, or not on one connection");
        fixture.check_unread(0).context("run curl")?;
        Ok(output.sample)
    }
}

/// The vendor's tap.
pub struct Vendor {
    /// A Python that has it.
    python: PathBuf,
}

impl Vendor {
    /// Fails where this Python does not have the vendor's tap.
    pub fn with(python: PathBuf) -> Result<Vendor> {
        let import = Command::new(&python).args(["-c", "import tap_streamduo"]).output();
        let installed = import.with_context(|| format!("run STREAMDUO_VENDOR_PYTHON, {}", python.display()))?;
        ensure!(
            installed.status.success(),
            "STREAMDUO_VENDOR_PYTHON, {}, has no tap_streamduo: install benches/requirements-vendor.txt",
            python.display()
        );
        Ok(Vendor { python })
    }

    pub fn run(&self, fixture: &Fixture) -> Result<Sample> {
        let output = fixture.run(
            Command::new(&self.python)
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/vendor.py"))
                .arg("--config")
                .arg(fixture.write("config.json", fixture.config().to_string())?)
                .env("STREAMDUO_SDK_URL", fixture.sandbox.url())
                .env("STREAMDUO_AUTH_URL", fixture.sandbox.auth_url()),
        )?;
        fixture.check(&output, fixture.records, 0).context("run the vendor's tap")?;
        Ok(output.sample)
    }
}
