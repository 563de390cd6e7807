//! A stop, and a failure, say what is true of what was written.

use rustix::process::Signal;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Run, Tap};

const SUMMARY: &str = "INFO records: ";

/// The lines of the log from the summary of the run on.
fn end_of(run: &Run) -> Vec<&str> {
    let is_before = |line: &&str| !line.starts_with(SUMMARY) && !line.starts_with("WARNING stopped");
    run.stderr.lines().skip_while(is_before).collect()
}

/// The `status` of the METRIC `job_duration`; `None` without one.
fn job_status(run: &Run) -> Option<&str> {
    let line = run.stderr.lines().find(|line| line.contains(r#""job_duration""#))?;
    line.rsplit_once(r#""status":""#)?.1.split('"').next()
}

/// A run that is stopped while it waits for the answer to this peek.
fn stopped_at_peek(tap: &Tap, nth: usize) -> Run {
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(nth).hold());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Peek, nth);
    running.signal(Signal::INT);
    running.wait(tap)
}

#[test]
fn a_stop_before_the_first_record_says_only_that() {
    for acknowledge in ["write", "commit"] {
        let tap = Tap::with_records(3).set("acknowledge", acknowledge);
        let run = stopped_at_peek(&tap, 1);
        assert_eq!((run.code, tap.read()), (130, vec![]));
        assert_eq!(end_of(&run), ["WARNING stopped by SIGINT: no record was written"], "{acknowledge}");
    }
}

#[test]
fn an_interrupted_job_has_failed_even_if_all_pages_that_were_written_are_marked() {
    let tap = Tap::with_records(250);
    let run = stopped_at_peek(&tap, 2);
    assert_eq!((run.code, tap.read().len()), (130, 99), "the last record of a full page is the fence");
    assert_eq!(
        end_of(&run),
        [
            "INFO records: 100 records written, 99 marked as read in # s",
            r#"INFO METRIC: {"type":"counter","metric":"record_count","value":100,"tags":{"endpoint":"records"}}"#,
            r#"INFO METRIC: {"type":"timer","metric":"job_duration","value":#,"tags":{"job_type":"records","status":"failed"}}"#,
            "WARNING stopped by SIGINT: what was written last may not be marked as read yet, and comes again",
        ]
    );
}

#[test]
fn a_stop_between_two_polls_ends_a_job_well() {
    let tap = Tap::with_records(2).set("pollIntervalSeconds", 86_400).args(&["--follow"]);
    let mut running = tap.start();
    running.read_lines(4);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, job_status(&run)), (143, Some("succeeded")));
    assert_eq!(run.last_log_line(), "WARNING stopped by SIGTERM: all that was written is marked as read");
}

#[test]
fn an_interrupt_of_a_follower_while_the_service_is_away_is_a_failure() {
    let tap = Tap::with_records(2).set("pollIntervalSeconds", 0).set("maxRetries", 9).args(&["--follow"]);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(503).header("retry-after", "600"));
    let mut running = tap.start();
    running.read_lines(4);
    tap.sandbox.wait_answered(Endpoint::Peek, 2);
    running.signal(Signal::INT);
    let run = running.wait(&tap);
    assert_eq!((run.code, job_status(&run)), (130, Some("failed")));
    assert_eq!(run.last_log_line(), "WARNING stopped by SIGINT: all that was written is marked as read");
}

#[test]
fn a_stop_says_that_what_was_written_may_come_again_only_if_it_may() {
    let tap = Tap::with_records(3).set("maxRetries", 9);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(503).header("retry-after", "600"));
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Mark, 1);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.read()), (143, vec![]));
    let line = "WARNING stopped by SIGTERM: what was written last may not be marked as read yet, and comes again";
    assert_eq!((run.last_log_line(), job_status(&run)), (line, Some("failed")));
}

#[test]
fn a_page_that_was_written_in_part_comes_again() {
    // Ctrl-C ends the target, too, while the tap is writing its first page.
    let tap = Tap::with_large_records(150);
    let mut running = tap.start();
    running.read_line();
    running.signal(Signal::INT);
    let run = running.close_stdout().wait(&tap);
    assert_eq!((run.code, tap.read()), (130, vec![]));
    let line = "WARNING stopped by SIGINT: what was written last may not be marked as read yet, and comes again";
    assert_eq!((run.last_log_line(), job_status(&run)), (line, None));
}

#[test]
fn a_stop_in_commit_mode_leaves_the_marks_to_the_next_run() {
    let tap = Tap::with_records(250).set("acknowledge", "commit");
    let run = stopped_at_peek(&tap, 2);
    assert_eq!((run.code, tap.read()), (130, vec![]));
    let line = "WARNING stopped by SIGINT: the next run marks what the target has committed, by its STATE, and writes the \
                rest again";
    assert_eq!(run.last_log_line(), line);
}

#[test]
fn a_run_that_fails_before_its_first_record_logs_only_its_error() {
    for acknowledge in ["write", "commit"] {
        let tap = Tap::with_records(3).set("acknowledge", acknowledge);
        tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(404).body("no"));
        let run = tap.run();
        assert_eq!(
            run.stderr,
            "INFO reading the unread records of stream STREAM from http://HOST/\n\
             CRITICAL there is no stream STREAM: check `streamId` and `apiUrl`: HOST answers 404: no\n"
        );
    }
}

#[test]
fn a_run_that_fails_later_logs_what_it_has_written() {
    let tap = Tap::with_records(250);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(404).body("no"));
    let run = tap.run();
    assert_eq!(end_of(&run).first(), Some(&"INFO records: 100 records written, 99 marked as read in # s"));
    assert_eq!(job_status(&run), Some("failed"));
}

#[test]
fn a_run_in_commit_mode_says_that_the_next_run_marks() {
    let tap = Tap::with_records(102).set("acknowledge", "commit");
    let run = tap.run();
    run.assert_logged("INFO the next run marks what the target has committed, by its STATE");
    // Nothing is written: there is nothing to mark next.
    let tap = Tap::with_records(0).set("acknowledge", "commit");
    tap.run().assert_logged("INFO records: 0 records written, 0 marked as read in # s");
}

#[test]
fn a_signal_that_is_ignored_at_the_start_stays_ignored() {
    let tap = Tap::with_records(1).set("pollIntervalSeconds", 0).args(&["--follow"]);
    let mut running = tap.start_command(&mut tap.shell("trap '' INT; exec \"$0\" \"$@\""));
    running.read_lines(3);
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    tap.sandbox.wait_for(Endpoint::Peek, tap.sandbox.count(Endpoint::Peek) + 5);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.unread()), (143, vec![]), "{}", run.stderr);
}
