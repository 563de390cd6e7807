//! Runs the binary, and says what it has to write.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use streamduo_sandbox::{Identity, Record, Sandbox};
use tempfile::TempDir;

/// The SCHEMA message of the default schema.
pub const SCHEMA: &str = concat!(
    r#"{"type":"SCHEMA","stream":"records","schema":{"type":"object","properties":{"#,
    r#""recordId":{"type":"string"},"#,
    r#""streamId":{"type":["null","string"]},"#,
    r#""recordTimeStampISO":{"type":"string"},"#,
    r#""readStatus":{"type":["null","string","boolean"]},"#,
    r#""dataPayload":{"type":["null","object","array","string","number","boolean"],"additionalProperties":true}},"#,
    r#""additionalProperties":true},"key_properties":["recordId","recordTimeStampISO"]}"#,
    "\n"
);

/// A sandbox with one stream, and a tap configured for it.
pub struct Tap {
    pub sandbox: Sandbox,
    pub stream: String,
    settings: Value,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: TempDir,
}

/// How a run ended and what it wrote.
#[derive(Debug)]
pub struct Run {
    /// The exit code.
    pub code: i32,
    pub stdout: String,
    /// stderr with what differs from run to run replaced: see [`tidy`].
    pub stderr: String,
}

impl Tap {
    /// A tap on a stream of sample records. It forgives no failure unless a test asks for it.
    pub fn on(records: usize) -> Tap {
        let sandbox = Sandbox::start();
        let stream = sandbox.create_stream("cars");
        sandbox.fill(&stream, records);
        let mut settings = sandbox.config(&stream);
        settings["maxRetries"] = json!(0);
        Tap { sandbox, stream, settings, args: Vec::new(), env: Vec::new(), dir: TempDir::new().unwrap() }
    }

    /// A tap on a stream of large records: the first page of a hundred is more than a pipe holds, so that the tap blocks in
    /// the middle of it when its target does not read.
    pub fn on_large(records: usize) -> Tap {
        let tap = Tap::on(0);
        for n in 0..records {
            tap.sandbox.write(&tap.stream, &format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(2000)));
        }
        tap
    }

    /// With this setting; `Value::Null` takes it away.
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Tap {
        let settings = self.settings.as_object_mut().unwrap();
        match value.into() {
            Value::Null => settings.remove(name),
            value => settings.insert(name.to_owned(), value),
        };
        self
    }

    /// With a token from another host: the same machine, by a name that an HTTP client cannot tell from another one's.
    pub fn token_from_elsewhere(self) -> Tap {
        let elsewhere = self.sandbox.auth_url().replace("127.0.0.1", "localhost");
        self.set("authUrl", elsewhere)
    }

    /// With these arguments beside `--config`.
    pub fn args(mut self, args: &[&str]) -> Tap {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Tap {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes a file for the tap to read, and returns its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Where a file of this name would lie.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command, configured by a file.
    pub fn command(&self) -> Command {
        let config = self.file("config.json", &self.settings.to_string());
        let mut command = bare_command();
        command.arg("--config").arg(config).args(&self.args).envs(self.env.iter().cloned());
        command
    }

    /// Runs it to its end.
    pub fn run(&self) -> Run {
        self.run_command(self.command())
    }

    pub fn run_command(&self, mut command: Command) -> Run {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Run {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: self.tidy(&output.stderr),
        }
    }

    /// Starts it, to be talked to.
    pub fn start(&self) -> Running {
        self.start_command(self.command())
    }

    pub fn start_command(&self, mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running { child, stdout }
    }

    /// stderr with this run's address, ids, paths and durations replaced.
    pub fn tidy(&self, stderr: &[u8]) -> String {
        let text = String::from_utf8(stderr.to_vec()).unwrap();
        let host = self.sandbox.url().trim_start_matches("http://");
        let text = text
            .replace(host, "HOST")
            .replace(&self.stream, "STREAM")
            .replace(self.sandbox.client_id(), "CLIENT")
            .replace(&self.dir.path().display().to_string(), "DIR");
        assert!(!text.contains(self.sandbox.client_secret()), "the secret is in a log: {text}");
        let number = Regex::new(r"\d+\.\d+(e-\d+)?( s\b|,)").unwrap();
        number.replace_all(&text, "#$2").into_owned()
    }

    /// What a run writes for these records: SCHEMA, RECORD and STATE.
    pub fn messages(&self, records: &[Record]) -> String {
        [SCHEMA.to_owned(), record_lines(records), self.state_line("write")].concat()
    }

    /// The STATE message of a run in this mode.
    pub fn state_line(&self, acknowledge: &str) -> String {
        let bookmark = json!({"streamId": self.stream, "acknowledge": acknowledge});
        format!("{}\n", json!({"type": "STATE", "value": {"bookmarks": {"records": bookmark}}}))
    }

    pub fn records(&self) -> Vec<Record> {
        self.sandbox.records(&self.stream)
    }

    pub fn unread(&self) -> Vec<Identity> {
        self.sandbox.unread(&self.stream)
    }

    pub fn read(&self) -> Vec<Identity> {
        self.sandbox.read(&self.stream)
    }
}

impl Run {
    /// The last line of stderr.
    pub fn last_words(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    /// The run failed with this code and this one fatal line, wrote nothing to stdout, and the stream is untouched.
    #[track_caller]
    pub fn refused(&self, tap: &Tap, code: i32, fatal: &str) {
        let fatal_lines: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("CRITICAL")).collect();
        assert_eq!(fatal_lines, [format!("CRITICAL {fatal}")], "{}", self.stderr);
        assert_eq!((self.code, self.stdout.as_str()), (code, ""));
        assert_eq!(tap.read(), [], "the stream is touched");
    }
}

/// A tap that runs while the test goes on.
pub struct Running {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// Waits for the next line on stdout.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Closes the reading end of its stdout.
    pub fn drop_reader(self) -> Dying {
        Dying { child: self.child }
    }

    /// Kills it, and returns what it had written.
    pub fn kill(self) -> String {
        self.signal(Signal::KILL);
        self.rest()
    }

    /// Waits for its end, however it ends; returns what was written and not read before.
    pub fn rest(mut self) -> String {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.child.wait().unwrap();
        stdout
    }

    /// Waits for its end; stdout is what was not read before.
    pub fn end(mut self, tap: &Tap) -> Run {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Run { code: output.status.code().unwrap(), stdout, stderr: tap.tidy(&output.stderr) }
    }
}

/// A tap whose target has stopped reading.
pub struct Dying {
    child: Child,
}

impl Dying {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: the exit code and stderr.
    pub fn end(self, tap: &Tap) -> (i32, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.code().unwrap(), tap.tidy(&output.stderr))
    }
}

/// The binary, in an environment that says nothing.
pub fn bare_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tap-streamduo"));
    command.env_clear();
    command
}

/// The RECORD messages of these records.
pub fn record_lines(records: &[Record]) -> String {
    records
        .iter()
        .map(|record| format!("{{\"type\":\"RECORD\",\"stream\":\"records\",\"record\":{}}}\n", record.json))
        .collect()
}

/// Who the records are.
pub fn identities(records: &[Record]) -> Vec<Identity> {
    records.iter().map(|record| record.identity.clone()).collect()
}

/// The file of this name at the top of the repository.
pub fn top_level(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
