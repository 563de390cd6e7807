//! Runs the binary and checks what it writes.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use streamduo_sandbox::{Identity, Record, Sandbox, Service};
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

/// A time stamp before those of all sample records.
pub const EARLY: &str = "2001-01-01T00:00:00-05:00[America/New_York]";

/// A log configuration of the Singer SDK that asks for structured logs, as Meltano's does.
pub const STRUCTURED_LOGS: &str = "formatters: {structured: {(): singer_sdk.logging.StructuredFormatter}}";

/// The end of a RECORD message, with a placeholder for the time at which its page arrived.
pub const EXTRACTED: &str = r#","time_extracted":"TIME"}"#;

/// A sandbox with one stream, and the command line of a tap that reads it.
pub struct Tap {
    pub sandbox: Sandbox,
    pub stream: String,
    settings: Value,
    args: Vec<String>,
    /// The target that the tap runs, and its arguments.
    target: Vec<String>,
    env: Vec<(String, String)>,
    dir: TempDir,
}

/// How a run ended and what it wrote.
#[derive(Debug)]
pub struct Run {
    /// The exit code.
    pub code: i32,
    /// What the test has not read before, see [`without_times`].
    pub stdout: String,
    /// The `time_extracted` of each RECORD there.
    pub times: Vec<String>,
    /// stderr, see [`Tap::normalize`].
    pub stderr: String,
}

impl Tap {
    /// A tap on a stream of sample records. It makes no retries (`maxRetries` 0) unless the test
    /// sets them.
    pub fn with_records(records: usize) -> Tap {
        Tap::on(Sandbox::start(), records)
    }

    /// Like [`with_records`](Tap::with_records), on this sandbox.
    pub fn on(sandbox: Sandbox, records: usize) -> Tap {
        let stream = sandbox.create_stream("cars");
        sandbox.fill(&stream, records);
        let mut settings = sandbox.config(&stream);
        settings["maxRetries"] = json!(0);
        Tap {
            sandbox,
            stream,
            settings,
            args: Vec::new(),
            target: Vec::new(),
            env: Vec::new(),
            dir: TempDir::new().unwrap(),
        }
    }

    /// A tap on a stream of large records. The first page of 100 is larger than a pipe's buffer, so
    /// that the tap blocks in the middle of it if its target does not read.
    pub fn with_large_records(records: usize) -> Tap {
        let tap = Tap::with_records(0);
        for n in 0..records {
            tap.sandbox.write(&tap.stream, &format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(2000)));
        }
        tap
    }

    /// Changes a setting. `Value::Null` removes it.
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Tap {
        let settings = self.settings.as_object_mut().unwrap();
        match value.into() {
            Value::Null => settings.remove(name),
            value => settings.insert(name.to_owned(), value),
        };
        self
    }

    /// Fetches the token from another host name, so that the HTTP client opens another connection
    /// for it.
    pub fn with_token_from_another_host(self) -> Tap {
        let auth_url = self.sandbox.auth_url().replace("127.0.0.1", "localhost");
        self.set("authUrl", auth_url)
    }

    /// Adds arguments after `--config`.
    pub fn args(mut self, args: &[&str]) -> Tap {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Has the tap run this target.
    pub fn target(mut self, words: &[&str]) -> Tap {
        self.target = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Tap {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has the tap write structured logs.
    pub fn with_structured_logs(self) -> Tap {
        let path = self.write_file("logging.yml", STRUCTURED_LOGS).display().to_string();
        self.env("SINGER_SDK_LOG_CONFIG", &path)
    }

    /// Writes a file to this tap's folder, and returns its path.
    pub fn write_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The path of a file in this tap's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The tap's command, with its settings in a config file.
    pub fn command(&self) -> Command {
        let config = self.write_file("config.json", &self.settings.to_string());
        let mut command = bare_command();
        command.arg("--config").arg(config).args(&self.args).envs(self.env.iter().cloned());
        if !self.target.is_empty() {
            command.arg("--").args(&self.target);
        }
        command
    }

    /// A shell script in which `"$0" "$@"` is the tap's command.
    pub fn shell(&self, script: &str) -> Command {
        let command = self.command();
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args()).env_clear();
        shell
    }

    /// Runs the tap's command to its end.
    pub fn run(&self) -> Run {
        self.run_command(&mut self.command())
    }

    /// Runs the tap's command with one more option.
    pub fn run_with(&self, option: &str, value: impl AsRef<OsStr>) -> Run {
        self.run_command(self.command().arg(option).arg(value))
    }

    pub fn run_command(&self, command: &mut Command) -> Run {
        self.finished(command.stdin(Stdio::null()).output().unwrap())
    }

    /// Starts the tap's command. The test can read its stdout line by line.
    pub fn start(&self) -> Running {
        self.start_command(&mut self.command())
    }

    pub fn start_command(&self, command: &mut Command) -> Running {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Running { child, stdout }
    }

    /// The result of a command that has ended by itself.
    pub fn finished(&self, output: Output) -> Run {
        let (stdout, times) = without_times(str::from_utf8(&output.stdout).unwrap());
        Run { code: output.status.code().unwrap(), stdout, times, stderr: self.normalize(&output.stderr) }
    }

    /// stderr without the time of each line, and with placeholders for what else differs from run
    /// to run: address, ids, paths and durations.
    pub fn normalize(&self, stderr: &[u8]) -> String {
        let text = without_line_times(str::from_utf8(stderr).unwrap());
        let (_, host) = self.sandbox.url().split_once("://").unwrap();
        let text = text
            .replace(host, "HOST")
            .replace(&self.stream, "STREAM")
            .replace(self.sandbox.client_id(), "CLIENT")
            .replace(&self.dir.path().display().to_string(), "DIR");
        assert!(!text.contains(self.sandbox.client_secret()), "the secret is in a log: {text}");
        let number = Regex::new(r"\d+\.\d+(e-\d+)?( s\b|,)").unwrap();
        number.replace_all(&text, "#$2").into_owned()
    }

    /// The output of a run in `write` mode that delivers these records: SCHEMA, RECORDs and STATE.
    pub fn messages(&self, records: &[Record]) -> String {
        schema_and(records) + &self.state_line("write")
    }

    /// The STATE message of a run in this mode.
    pub fn state_line(&self, acknowledge: &str) -> String {
        let bookmark = json!({"streamId": self.stream, "acknowledge": acknowledge});
        format!("{}\n", json!({"type": "STATE", "value": {"bookmarks": {"records": bookmark}}}))
    }

    /// A hook that writes the record "late".
    pub fn write_late(
        &self,
        timestamp: &'static str,
        payload: &'static str,
    ) -> impl FnMut(&mut Service) + Send + use<> {
        let stream = self.stream.clone();
        move |service| {
            service.write_as(&stream, "late", timestamp, payload);
        }
    }

    /// The record that [`write_late`](Tap::write_late) has written.
    pub fn late_record(&self) -> Record {
        self.records().into_iter().find(|record| record.identity.record_id == "late").unwrap()
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
    /// The RECORD messages on stdout, each with its line break.
    pub fn record_lines(&self) -> String {
        self.stdout.split_inclusive('\n').filter(|line| line.starts_with(r#"{"type":"RECORD""#)).collect()
    }

    pub fn last_log_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    /// stderr has this line.
    #[track_caller]
    pub fn assert_logged(&self, expected: &str) {
        assert!(self.stderr.lines().any(|line| line == expected), "{}", self.stderr);
    }

    /// The run has succeeded, and this is all that it has written.
    #[track_caller]
    pub fn assert_succeeds(&self, stdout: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (0, stdout), "{}", self.stderr);
    }

    /// The run has succeeded, and no record is left unread.
    #[track_caller]
    pub fn assert_drains(&self, tap: &Tap) {
        self.assert_drains_when(tap, "");
    }

    /// Like [`assert_drains`](Run::assert_drains), for one of several cases in a test.
    #[track_caller]
    pub fn assert_drains_when(&self, tap: &Tap, case: &str) {
        assert_eq!((self.code, tap.unread()), (0, vec![]), "{case}\n{}", self.stderr);
    }

    /// The run has ended with this exit code, and its log has this text.
    #[track_caller]
    pub fn assert_fails(&self, code: i32, text: &str) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert!(self.stderr.contains(text), "{text:?} is not in the log:\n{}", self.stderr);
    }

    /// The identities of the records on stdout, with repetitions.
    pub fn written(&self) -> Vec<Identity> {
        written_identities(&self.stdout)
    }

    /// The run has succeeded, has written every record once, in whatever order, and all are marked
    /// as read.
    #[track_caller]
    pub fn assert_each_once(&self, tap: &Tap) {
        self.assert_each_once_when(tap, "");
    }

    /// Like [`assert_each_once`](Run::assert_each_once), for one of several cases in a test.
    #[track_caller]
    pub fn assert_each_once_when(&self, tap: &Tap, case: &str) {
        assert_nothing_lost(tap, &self.written(), &format!("{case}\n{}", self.stderr));
        assert_eq!(self.code, 0, "{case}\n{}", self.stderr);
        self.assert_drained_when(tap, case);
    }

    /// The run, however it ended, has written every record once, in whatever order, and all are
    /// marked as read.
    #[track_caller]
    pub fn assert_drained(&self, tap: &Tap) {
        self.assert_drained_when(tap, "");
    }

    /// Like [`assert_drained`](Run::assert_drained), for one of several cases in a test.
    #[track_caller]
    fn assert_drained_when(&self, tap: &Tap, case: &str) {
        let case = format!("{case}\n{}", self.stderr);
        let mut expected = identities(&once(tap.records()));
        let mut written = self.written();
        expected.sort();
        written.sort();
        assert_same(&written, &expected, &case);
        assert_eq!(tap.unread(), [], "{case}");
    }

    /// The run has written all records once, in order, and they are marked as read.
    #[track_caller]
    pub fn assert_all_delivered(&self, tap: &Tap) {
        self.assert_all_delivered_when(tap, "");
    }

    /// Like [`assert_all_delivered`](Run::assert_all_delivered), for one of several cases in a
    /// test.
    #[track_caller]
    pub fn assert_all_delivered_when(&self, tap: &Tap, case: &str) {
        let expected = tap.messages(&once(tap.records()));
        assert_eq!((self.code, &self.stdout), (0, &expected), "{case}\n{}", self.stderr);
        assert_eq!(tap.unread(), [], "{case}");
    }

    /// The run has failed with this exit code and only these fatal lines: one, unless the
    /// configuration is wrong. stdout is empty, and no record is marked.
    #[track_caller]
    pub fn assert_refused(&self, tap: &Tap, code: i32, fatal: &str) {
        let fatal_lines: Vec<_> = self.stderr.lines().filter_map(|line| line.strip_prefix("CRITICAL ")).collect();
        assert_eq!(fatal_lines, fatal.lines().collect::<Vec<_>>(), "{}", self.stderr);
        assert_eq!((self.code, self.stdout.as_str()), (code, ""));
        assert_eq!(tap.read(), [], "a record is marked");
    }
}

/// A running tap.
pub struct Running {
    pub child: Child,
    /// `None` once [`Running::close_stdout`] has closed it.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Waits for the next line on stdout. Empty at the end of stdout.
    pub fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        without_times(&line).0
    }

    /// Waits for the next `count` lines on stdout.
    pub fn read_lines(&mut self, count: usize) -> String {
        (0..count).map(|_| self.read_line()).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The most resident memory that the tap has held so far, in bytes (proc(5)).
    pub fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    }

    /// Closes the reading end of stdout, as happens when a target ends.
    pub fn close_stdout(mut self) -> Running {
        self.stdout = None;
        self
    }

    /// Kills the tap, and returns the unread rest of stdout.
    pub fn kill(self) -> String {
        self.signal(Signal::KILL);
        self.remaining_stdout()
    }

    /// Waits for the end, which may be by a signal. Returns the unread rest of stdout.
    pub fn remaining_stdout(mut self) -> String {
        let stdout = self.read_to_end();
        self.child.wait().unwrap();
        without_times(&stdout).0
    }

    /// Waits for the end, which must not be by a signal.
    pub fn wait(mut self, tap: &Tap) -> Run {
        let (stdout, times) = without_times(&self.read_to_end());
        Run { stdout, times, ..tap.finished(self.child.wait_with_output().unwrap()) }
    }

    fn read_to_end(&mut self) -> String {
        let mut text = String::new();
        if let Some(stdout) = &mut self.stdout {
            stdout.read_to_string(&mut text).unwrap();
        }
        text
    }
}

/// The same command, to be started in a terminal of its own.
pub fn in_terminal(command: &Command) -> pty_process::blocking::Command {
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    pty_process::blocking::Command::new(command.get_program()).args(command.get_args()).env_clear().envs(variables)
}

/// The binary without arguments, in an empty environment.
pub fn bare_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tap-streamduo"));
    command.env_clear();
    command
}

/// What a tap has written, with [`EXTRACTED`] at the end of each RECORD message; and the times that
/// stood there.
pub fn without_times(stdout: &str) -> (String, Vec<String>) {
    let (mut text, mut times) = (String::with_capacity(stdout.len()), Vec::new());
    for line in stdout.split_inclusive('\n') {
        // A line that a kill has cut has no such end.
        match line.strip_suffix("\"}\n").and_then(|line| line.rsplit_once(r#","time_extracted":""#)) {
            Some((record, time)) => {
                text.extend([record, EXTRACTED, "\n"]);
                times.push(time.to_owned());
            }
            None => text.push_str(line),
        }
    }
    (text, times)
}

/// The RECORD messages of these records.
pub fn record_lines(records: &[Record]) -> String {
    records
        .iter()
        .map(|record| format!("{{\"type\":\"RECORD\",\"stream\":\"records\",\"record\":{}{EXTRACTED}\n", record.json))
        .collect()
}

/// SCHEMA and the RECORD messages of these records.
pub fn schema_and(records: &[Record]) -> String {
    format!("{SCHEMA}{}", record_lines(records))
}

/// These records, without those that are equal to an earlier one in everything.
pub fn once(mut records: Vec<Record>) -> Vec<Record> {
    let mut seen = HashSet::new();
    records.retain(|record| seen.insert(record.json.clone()));
    records
}

pub fn identities(records: &[Record]) -> Vec<Identity> {
    records.iter().map(|record| record.identity.clone()).collect()
}

/// The identity of the record in a RECORD message. `None` for other messages, and for a line that a
/// kill has cut.
pub fn written_identity(line: &str) -> Option<Identity> {
    let message: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| Some(message["record"][name].as_str()?.to_owned());
    Some(Identity { record_id: text("recordId")?, timestamp: text("recordTimeStampISO")? })
}

/// The identities of the records in these messages, with repetitions.
pub fn written_identities(stdout: &str) -> Vec<Identity> {
    stdout.lines().filter_map(written_identity).collect()
}

/// All that the service has as read was delivered.
#[track_caller]
pub fn assert_nothing_lost<'a>(tap: &Tap, delivered: impl IntoIterator<Item = &'a Identity>, case: &str) {
    let delivered: BTreeSet<_> = delivered.into_iter().collect();
    let read = tap.read();
    let lost: Vec<_> = read.iter().filter(|identity| !delivered.contains(identity)).collect();
    let (count, all) = (lost.len(), read.len());
    assert!(lost.is_empty(), "{count} of {all} read records were not delivered, such as {:?}: {case}", lost[0]);
}

/// The two sorted lists are equal.
#[track_caller]
fn assert_same(found: &[Identity], expected: &[Identity], case: &str) {
    let count = |list: &[Identity], identity: &Identity| list.iter().filter(|other| *other == identity).count();
    if found != expected {
        let odd = found.iter().chain(expected).find(|odd| count(found, odd) != count(expected, odd)).unwrap();
        let (found_times, expected_times) = (count(found, odd), count(expected, odd));
        let (found, expected) = (found.len(), expected.len());
        panic!(
            "{found} records instead of {expected}; {odd:?} is there {found_times} times, not {expected_times}: {case}"
        );
    }
}

/// The path of a file in the repository.
pub fn repository_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A log without the time at the beginning of each line.
pub fn without_line_times(log: &str) -> String {
    let time = Regex::new(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ").unwrap();
    time.replace_all(log, "").into_owned()
}
