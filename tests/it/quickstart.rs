//! The first minutes: what `cargo quickstart` shows, and a stream that grows.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};

use crate::tap::{bare_command, in_terminal};
use crate::target::target_program;

/// The sandbox's `quickstart` with this tap.
fn quickstart() -> Command {
    let mut command = Command::new(target_program());
    command.args(["quickstart", env!("CARGO_BIN_EXE_tap-streamduo")]).env_clear();
    command
}

/// The types of the messages, and the text behind them.
fn types_and_rest(output: &str) -> (Vec<&str>, String) {
    let message = Regex::new(r#"(?m)^\{"type":"([A-Z]+)".*\n"#).unwrap();
    let types = message.captures_iter(output).map(|found| found.get(1).unwrap().as_str()).collect();
    (types, message.replace_all(output, "").into_owned())
}

#[track_caller]
fn assert_shown(output: &str) {
    let (types, rest) = types_and_rest(output);
    assert_eq!(types, ["SCHEMA", "RECORD", "RECORD", "RECORD", "RECORD", "RECORD", "STATE"], "{output}");
    let (_, summary) = rest.split_once("\n\n").expect("an empty line between the log and the summary");
    let happened = "5 records were written to stdout as Singer messages, and then marked as read.\n\
                    The stand-in for StreamDuo counts 5 records as read and 0 as unread.\n\nTry next:\n";
    assert!(summary.starts_with(happened), "{summary}");
}

#[test]
fn the_quickstart_shows_records_and_marks_them_and_says_so() {
    let output = quickstart().output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_shown(&format!("{stdout}{stderr}"));
    assert_eq!((output.status.code(), types_and_rest(&stdout).1), (Some(0), String::new()));
    assert!(stdout.lines().all(|line| line.len() < 420), "too long to take in:\n{stdout}");
}

#[test]
fn the_quickstart_shows_the_same_at_a_terminal() {
    let (mut terminal, pts) = pty_process::blocking::open().unwrap();
    let mut child = in_terminal(&quickstart()).spawn(pts).unwrap();
    let mut screen = Vec::new();
    // Linux reports the end of a terminal's other side as an error.
    let _ = terminal.read_to_end(&mut screen);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_shown(&String::from_utf8(screen).unwrap().replace("\r\n", "\n"));
}

#[test]
fn the_commands_that_the_quickstart_proposes_work() {
    let dir = tempfile::tempdir().unwrap();
    let output = quickstart().current_dir(dir.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let proposed: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let [serve, follow, load] = proposed[..] else { panic!("{stderr}") };
    let shell = |line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {line}")]).current_dir(dir.path()).stdin(Stdio::null());
        shell
    };
    let mut serving = shell(serve).stderr(Stdio::piped()).spawn().unwrap();
    // It writes the settings before its first line.
    BufReader::new(serving.stderr.as_mut().unwrap()).read_line(&mut String::new()).unwrap();

    // Into a pipe: what it shows is marked.
    let mut following = shell(follow).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    let records = lines.filter(|line| line.starts_with(r#"{"type":"RECORD""#));
    // 12 from the start, and 2 that the sandbox has added.
    assert_eq!(records.take(14).count(), 14);
    end(following);

    let loaded = shell(load).output().unwrap();
    assert_eq!(loaded.status.code(), Some(0), "{}", String::from_utf8_lossy(&loaded.stderr));
    end(serving);
}

fn end(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn follow_delivers_what_a_growing_stream_gets_until_it_is_stopped() {
    let mut serving = Command::new(target_program())
        .args(["serve", "--records", "2", "--every", "20ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut config = String::new();
    let mut stdout = BufReader::new(serving.stdout.take().unwrap());
    while !config.ends_with("}\n") {
        stdout.read_line(&mut config).unwrap();
    }
    assert!(config.contains(r#""pollIntervalSeconds": 1"#), "{config}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();

    let mut tap = bare_command()
        .arg("-c")
        .arg(file.path())
        .args(["-c", "ENV", "--follow"])
        .env("TAP_STREAMDUO_POLLINTERVALSECONDS", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tap.stdout.take().unwrap()).lines().map(Result::unwrap);
    let records: Vec<_> = lines.filter(|line| line.starts_with(r#"{"type":"RECORD""#)).take(7).collect();
    let mut distinct = records.clone();
    distinct.dedup();
    assert_eq!((records.len(), distinct), (7, records));
    end(tap);
    end(serving);
}
