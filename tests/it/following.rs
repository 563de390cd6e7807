//! `--follow`, and the signals that end a run.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use streamduo_sandbox::{Endpoint, Rule, Sandbox};

use crate::tap::{EARLY, SCHEMA, Tap, record_lines};

#[test]
fn follow_goes_on_when_the_stream_is_drained_and_ends_with_a_signal() {
    for (signal, code, name) in [(Signal::TERM, 143, "SIGTERM"), (Signal::INT, 130, "SIGINT")] {
        let tap = Tap::with_records(1).set("pollIntervalSeconds", 0).args(&["--follow"]);
        let mut running = tap.start();
        let state = tap.state_line("write");
        let expected = tap.messages(&tap.records());
        assert_eq!(running.read_lines(3), expected);
        let late = tap.sandbox.write(&tap.stream, "\"late\"");
        assert_eq!(running.read_lines(2), format!("{}{state}", record_lines(&[late])));
        running.signal(signal);
        let run = running.wait(&tap);
        assert_eq!((run.code, run.stdout.as_str(), tap.unread()), (code, "", vec![]));
        assert_eq!(run.last_log_line(), format!("WARNING stopped by {name}: all that was written is marked as read"));
    }
}

#[test]
fn a_signal_ends_the_pause_between_polls() {
    let tap = Tap::with_records(1).set("pollIntervalSeconds", 86_400).args(&["--follow"]);
    let mut running = tap.start();
    assert_eq!(running.read_lines(3), tap.messages(&tap.records()));
    running.signal(Signal::TERM);
    assert_eq!(running.wait(&tap).code, 143);
}

#[test]
fn a_follower_says_once_that_the_stream_is_drained_and_how_often_it_looks() {
    for (acknowledge, records) in [("write", 2), ("never", 2)] {
        let tap = Tap::with_records(records).set("acknowledge", acknowledge).set("pollIntervalSeconds", 86_400);
        let tap = tap.args(&["--follow"]);
        let mut running = tap.start();
        // It comes before the pause.
        while !running.read_line().contains("STATE") {}
        running.signal(Signal::TERM);
        let run = running.wait(&tap);
        run.assert_logged("INFO the stream is drained: looking again every 86400 s (`pollIntervalSeconds`)");
        assert_eq!(run.stderr.matches("drained").count(), 1, "{acknowledge}: {}", run.stderr);
    }
}

#[test]
fn what_a_follower_says_of_a_drained_stream_is_said_once_however_often_it_polls() {
    for records in [0, 1] {
        let tap = Tap::with_records(records).set("pollIntervalSeconds", 0).args(&["--follow"]);
        let running = tap.start();
        tap.sandbox.wait_answered(Endpoint::Peek, 5);
        running.signal(Signal::TERM);
        let run = running.wait(&tap);
        run.assert_logged("INFO the stream is drained: looking again at once (`pollIntervalSeconds`)");
        assert_eq!(run.stderr.matches("drained").count(), 1, "{}", run.stderr);
        assert_eq!(run.stdout, tap.messages(&tap.records()));
    }
    // Without `--follow` the run ends there.
    assert!(!Tap::with_records(1).run().stderr.contains("drained"));
}

#[test]
fn a_signal_ends_a_peek_that_hangs() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().hold());
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Peek, 1);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, run.stdout), (143, tap.messages(&[])));
    assert_eq!(tap.read(), []);
}

#[test]
fn a_signal_ends_the_wait_for_a_retry() {
    let tap = Tap::with_records(1).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(503).header("retry-after", "600"));
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Peek, 1);
    running.signal(Signal::INT);
    let run = running.wait(&tap);
    assert_eq!((run.code, run.stdout, tap.read()), (130, tap.messages(&[]), vec![]));
}

#[test]
fn a_follower_waits_as_long_as_the_service_asks_and_says_so() {
    for endpoint in [Endpoint::Token, Endpoint::Peek] {
        let tap = Tap::with_records(1).set("maxRetries", 1).args(&["--follow"]);
        tap.sandbox.script(Rule::on(endpoint).every().status(503).header("retry-after", "86400"));
        let mut running = tap.start();
        let log = BufReader::new(running.child.stderr.take().unwrap());
        let mut warnings = log.lines().map(Result::unwrap).filter(|line| !line.contains("INFO"));
        let warning = warnings.next().unwrap();
        assert!(warning.ends_with("; trying again in 86400.0 s (1 of 1)"), "{warning}");
        running.signal(Signal::TERM);
        let rest: Vec<_> = warnings.collect();
        assert_eq!((rest.len(), running.child.wait().unwrap().code()), (1, Some(143)), "{rest:?}");
    }
}

#[test]
fn a_signal_lets_a_mark_in_flight_end_and_what_it_returns_is_delivered() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().hold().before(tap.write_late(EARLY, "1")));
    let cars = tap.records();
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Mark, 1);
    running.signal(Signal::TERM);
    tap.sandbox.release();
    let run = running.wait(&tap);
    let late = tap.late_record();
    assert_eq!(tap.read(), std::slice::from_ref(&late.identity));
    assert_eq!((run.code, run.stdout), (143, tap.messages(&[cars.as_slice(), &[late]].concat())));
}

#[test]
fn a_second_signal_ends_a_run_whose_target_does_not_read() {
    // The tap blocks in a write to stdout, and cannot react to the first signal.
    let tap = Tap::with_large_records(150);
    let mut running = tap.start();
    assert_eq!(running.read_line(), SCHEMA);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let status = running.child.wait().unwrap();
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
    assert_eq!(tap.read(), []);
}

#[test]
fn threads_and_descriptors_stay_the_same_over_many_polls() {
    let tap = Tap::with_records(0).set("pollIntervalSeconds", 0).args(&["--follow"]);
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).expires_in(0));
    let (stream, mut peeks) = (tap.stream.clone(), 0);
    // A record for every poll, and now and then the token ends.
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().before(move |service| {
        peeks += 1;
        service.write(&stream, "1");
        if peeks % 20 == 0 {
            service.revoke_tokens();
        }
    }));
    for mark in [50, 500] {
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(mark).hold());
    }
    let log = File::create(tap.path("log")).unwrap();
    let mut command = tap.command();
    command.stdin(Stdio::null()).stdout(File::create(tap.path("messages")).unwrap()).stderr(log);
    let mut child = command.spawn().unwrap();
    let held_at = |sandbox: &Sandbox, mark| {
        sandbox.wait_held(Endpoint::Mark, mark);
        let proc = format!("/proc/{}", child.id());
        let entries = |name: &str| fs::read_dir(format!("{proc}/{name}")).unwrap().count();
        (entries("task"), entries("fd"))
    };
    let few = held_at(&tap.sandbox, 50);
    tap.sandbox.release();
    let many = held_at(&tap.sandbox, 500);
    assert_eq!(few, many, "threads and descriptors");
    assert!(tap.sandbox.count(Endpoint::Token) > 20);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    tap.sandbox.release();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
