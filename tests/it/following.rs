//! `--follow`, and the signals that end it.

use rustix::process::Signal;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{SCHEMA, Tap, record_lines};

#[test]
fn follow_goes_on_when_the_stream_is_drained_and_ends_with_a_signal() {
    for (signal, code, name) in [(Signal::TERM, 143, "SIGTERM"), (Signal::INT, 130, "SIGINT")] {
        let tap = Tap::on(1).set("pollIntervalSeconds", 0).args(&["--follow"]);
        let mut running = tap.start();
        let state = tap.state_line("write");
        let expected = tap.messages(&tap.records());
        let first: String = (0..3).map(|_| running.line()).collect();
        assert_eq!(first, expected);
        let late = tap.sandbox.write(&tap.stream, "\"late\"");
        let second: String = (0..2).map(|_| running.line()).collect();
        assert_eq!(second, format!("{}{state}", record_lines(&[late])));
        running.signal(signal);
        let run = running.end(&tap);
        assert_eq!((run.code, run.stdout.as_str(), tap.unread()), (code, "", vec![]));
        assert_eq!(
            run.last_words(),
            format!("WARNING stopped by {name}: what was written last may not be marked as read yet, and comes again")
        );
    }
}

#[test]
fn a_pause_between_polls_ends_with_a_signal() {
    let tap = Tap::on(1).set("pollIntervalSeconds", 86_400).args(&["--follow"]);
    let mut running = tap.start();
    let output: String = (0..3).map(|_| running.line()).collect();
    assert_eq!(output, tap.messages(&tap.records()));
    running.signal(Signal::TERM);
    assert_eq!(running.end(&tap).code, 143);
}

#[test]
fn a_peek_that_hangs_ends_with_a_signal() {
    let tap = Tap::on(1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().hold());
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Peek, 1);
    running.signal(Signal::TERM);
    let run = running.end(&tap);
    assert_eq!((run.code, run.stdout), (143, tap.messages(&[])));
    assert_eq!(tap.read(), []);
}

#[test]
fn a_retry_that_waits_ends_with_a_signal() {
    let tap = Tap::on(1).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(503).header("retry-after", "600"));
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Peek, 1);
    running.signal(Signal::INT);
    let run = running.end(&tap);
    assert_eq!((run.code, run.stdout, tap.read()), (130, tap.messages(&[]), vec![]));
}

#[test]
fn a_mark_that_is_under_way_is_waited_for_and_what_it_shows_is_delivered() {
    let tap = Tap::on(1);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().hold().before(move |service| {
        service.write_as(&stream, "late", "2001-01-01T00:00:00-05:00[America/New_York]", "1");
    }));
    let car = tap.records();
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Mark, 1);
    running.signal(Signal::TERM);
    tap.sandbox.release();
    let run = running.end(&tap);
    let late = tap.records().into_iter().find(|record| record.identity.record_id == "late").unwrap();
    assert_eq!(tap.read(), std::slice::from_ref(&late.identity));
    assert_eq!((run.code, run.stdout), (143, tap.messages(&[car.as_slice(), &[late]].concat())));
}

#[test]
fn a_second_signal_ends_a_run_whose_target_does_not_read() {
    // The run blocks on stdout and cannot look at its flag.
    let tap = Tap::on_large(150);
    let mut running = tap.start();
    assert_eq!(running.line(), SCHEMA);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let status = running.child.wait().unwrap();
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
    assert_eq!(tap.read(), []);
}
