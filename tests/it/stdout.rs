//! An output that cannot be written: nothing that was not delivered is marked.

use std::fs::File;
use std::process::Stdio;

use streamduo_sandbox::Endpoint;

use crate::tap::Tap;

const UNREAD: &str = "what was not delivered stays unread, so run again then";

#[test]
fn a_full_disk_ends_the_run_and_marks_nothing() {
    let tap = Tap::on(3);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = tap.command().stdout(full).output().unwrap();
    let stderr = tap.tidy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr.lines().last().unwrap(),
        format!("CRITICAL the disk behind stdout is full: make room; {UNREAD}: No space left on device (os error 28)")
    );
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
}

#[test]
fn a_target_that_has_ended_ends_the_run_and_marks_nothing() {
    let tap = Tap::on(3);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = tap.command().stdout(writer).output().unwrap();
    let stderr = tap.tidy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr.lines().last().unwrap(),
        format!("CRITICAL the target has ended: look at its own error; {UNREAD}: Broken pipe (os error 32)")
    );
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
}

/// Runs the tap through a shell that treats its stdout so.
fn with_stdout(tap: &Tap, redirection: &str) -> (Option<i32>, String) {
    let command = tap.command();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirection}"));
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    let output = shell.stdin(Stdio::null()).output().unwrap();
    (output.status.code(), tap.tidy(&output.stderr))
}

#[test]
fn a_closed_stdout_is_refused_before_any_request() {
    let tap = Tap::on(3);
    for redirection in [">&-", "<>/dev/null >&0"] {
        let (code, stderr) = with_stdout(&tap, redirection);
        assert_eq!(
            (code, stderr.as_str()),
            (
                Some(1),
                "CRITICAL stdout is closed, or stands for nothing (/dev/null opened to read and write): records written \
                 there would be lost; give the tap a stdout, as in `tap-streamduo -c config.json | target-x`\n"
            ),
            "{redirection}"
        );
    }
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn a_stdout_that_is_open_to_read_only_marks_nothing() {
    let tap = Tap::on(3);
    let (code, stderr) = with_stdout(&tap, "1</dev/null");
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr.lines().last().unwrap(),
        format!("CRITICAL cannot write to stdout; {UNREAD}: Bad file descriptor (os error 9)")
    );
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
}

#[test]
fn whoever_throws_the_records_away_on_purpose_may() {
    let tap = Tap::on(3);
    let (code, _) = with_stdout(&tap, ">/dev/null");
    assert_eq!((code, tap.unread()), (Some(0), vec![]));
}
