//! A stdout that cannot be written: no record is marked.

use std::fs::{self, File};
use std::io::Read;
use std::thread;

use rustix::fs::{OFlags, fcntl_setfl};
use streamduo_sandbox::Endpoint;

use crate::tap::{Run, Tap, without_times};

const STAYS_UNREAD: &str = "what was not delivered stays unread for the next run";

/// The run has ended with code 1 and this fatal line, and no mark was requested.
#[track_caller]
fn assert_failed_unmarked(tap: &Tap, run: &Run, fatal: &str) {
    assert_eq!((run.code, run.last_log_line()), (1, fatal));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
}

#[test]
fn a_full_disk_ends_the_run_and_marks_nothing() {
    let tap = Tap::with_records(3);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = tap.finished(tap.command().stdout(full).output().unwrap());
    let problem = "the disk behind stdout is full: make room";
    let fatal = format!("CRITICAL {problem}; {STAYS_UNREAD}: No space left on device (os error 28)");
    assert_failed_unmarked(&tap, &run, &fatal);
}

#[test]
fn a_target_that_has_ended_ends_the_run_and_marks_nothing() {
    let tap = Tap::with_records(3);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = tap.finished(tap.command().stdout(writer).output().unwrap());
    let problem = "the target has ended: look at its own error";
    assert_failed_unmarked(&tap, &run, &format!("CRITICAL {problem}; {STAYS_UNREAD}: Broken pipe (os error 32)"));
}

/// Runs the tap in a shell, with this redirection.
fn run_redirected(tap: &Tap, redirection: &str) -> Run {
    tap.run_command(&mut tap.shell(&format!("exec \"$0\" \"$@\" {redirection}")))
}

#[test]
fn a_closed_stdout_is_refused_before_any_request() {
    let tap = Tap::with_records(3);
    for redirection in [">&-", "<>/dev/null >&0"] {
        let run = run_redirected(&tap, redirection);
        assert_eq!(
            (run.code, run.stderr.as_str()),
            (
                1,
                "CRITICAL stdout is closed, or is /dev/null opened to read and write: records written \
                 there would be lost; give the tap a stdout, as in `tap-streamduo -c config.json | target-x`\n"
            ),
            "{redirection}"
        );
    }
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn a_stdout_that_is_open_only_for_reading_marks_nothing() {
    let tap = Tap::with_records(3);
    let run = run_redirected(&tap, "1</dev/null");
    let fatal = format!("CRITICAL cannot write to stdout; {STAYS_UNREAD}: Bad file descriptor (os error 9)");
    assert_failed_unmarked(&tap, &run, &fatal);
}

#[test]
fn a_stdout_redirected_to_dev_null_is_accepted() {
    let tap = Tap::with_records(3);
    let run = run_redirected(&tap, ">/dev/null");
    run.assert_drains(&tap);
}

#[test]
fn a_pipe_that_does_not_block_is_waited_for() {
    let tap = Tap::with_large_records(150);
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let mut command = tap.command();
    let child = command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(command);
    // The pipe is full before anything is read.
    while rustix::io::ioctl_fionread(&reader).unwrap() < 60_000 {
        thread::yield_now();
    }
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let run = tap.finished(child.wait_with_output().unwrap());
    assert_eq!((run.code, without_times(&text).0), (0, tap.messages(&tap.records())), "{}", run.stderr);
    run.assert_drains(&tap);
}

#[test]
fn a_file_that_ends_within_a_line_goes_on_with_a_new_one() {
    for (before, expected) in [("{\"type\":\"REC", "{\"type\":\"REC\n"), ("{}\n", "{}\n"), ("", "")] {
        let tap = Tap::with_records(2);
        let path = tap.write_file("out.jsonl", before);
        run_redirected(&tap, &format!(">> {}", path.display())).assert_drains(&tap);
        let text = without_times(&fs::read_to_string(path).unwrap()).0;
        assert_eq!(text, format!("{expected}{}", tap.messages(&tap.records())));
    }
}

#[test]
fn write_marks_nothing_that_a_regular_file_has_not_synced() {
    // A regular file that takes every write of its own process, and cannot be synced.
    let file = ">/proc/self/comm";
    let tap = Tap::with_records(3);
    let run = run_redirected(&tap, file);
    let fatal = format!("CRITICAL cannot write to stdout; {STAYS_UNREAD}: Invalid argument (os error 22)");
    assert_failed_unmarked(&tap, &run, &fatal);
    let tap = Tap::with_records(3).set("acknowledge", "never");
    assert_eq!(run_redirected(&tap, file).code, 0);
}
