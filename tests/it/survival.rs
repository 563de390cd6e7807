//! What becomes of the records when requests fail, processes are killed or other consumers
//! interfere.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::thread;

use rustix::process::Signal;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{EARLY, SCHEMA, Tap, assert_nothing_lost, identities, record_lines, schema_and, written_identities};

/// A tap on 5 records in pages of 2: a first, a middle and a last page.
fn three_pages() -> Tap {
    Tap::with_records(5).set("pageSize", 2).set("maxRetries", 5)
}

/// Runs the taps at the same time, because each waits for a retry most of the time. Each must
/// deliver all its records.
fn assert_all_deliver(cases: Vec<(String, Tap)>) {
    thread::scope(|scope| {
        for (case, tap) in cases {
            scope.spawn(move || tap.run().assert_all_delivered_when(&tap, &case));
        }
    });
}

/// The name of a fault, and the rule that causes it.
type Fault = (&'static str, fn(Rule) -> Rule);

/// Ways in which the answer to a mark gets lost.
const LOST_ANSWERS: [Fault; 7] = [
    ("closed", Rule::close),
    ("cut with a length", Rule::cut),
    ("cut without a length", Rule::cut_chunked),
    ("500", |rule| rule.status(500)),
    ("502", |rule| rule.status(502)),
    ("504", |rule| rule.status(504)),
    ("not JSON", Rule::not_json),
];

#[test]
fn a_lost_answer_to_a_mark_costs_no_record_and_no_duplicate() {
    let mut cases = Vec::new();
    for (fault, lose_answer) in LOST_ANSWERS {
        for applied in [true, false] {
            for page in 1..=3 {
                for times in [1, 2] {
                    let tap = three_pages();
                    let rule = Rule::on(Endpoint::Mark).calls(page..=page + times - 1);
                    tap.sandbox.script(lose_answer(if applied { rule.applied() } else { rule }));
                    cases.push((format!("{fault}, applied: {applied}, mark {page}, {times} times"), tap));
                }
            }
        }
    }
    assert_all_deliver(cases);
}

#[test]
fn a_mark_that_times_out_costs_no_record_and_no_duplicate() {
    let mut cases = Vec::new();
    for applied in [true, false] {
        for page in 1..=3 {
            let tap = three_pages().set("requestTimeoutSeconds", 1);
            let rule = Rule::on(Endpoint::Mark).call(page);
            tap.sandbox.script(if applied { rule.applied().hold() } else { rule.hold() });
            cases.push((format!("applied: {applied}, mark {page}"), tap));
        }
    }
    assert_all_deliver(cases);
}

#[test]
fn a_record_that_slips_in_when_the_answer_is_lost_is_found_by_looking_back() {
    let tap = three_pages();
    let between_records_of_the_page = "2022-02-01T15:16:25-05:00[America/New_York]";
    let late = tap.write_late(between_records_of_the_page, "\"late\"");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().close().before(late));
    let run = tap.run();
    run.assert_drains(&tap);
    let written = run.written();
    assert_eq!(written.len(), 6, "each once");
    assert_eq!(written.into_iter().collect::<BTreeSet<_>>(), tap.read().into_iter().collect());
}

/// The first mark, of `count` records, fails, and is not applied yet when the next peek is
/// answered. The service applies it only after a later mark, to records that the tap has not read.
#[track_caller]
fn assert_late_mark_costs_nothing(tap: &Tap, later_mark: usize, count: usize) {
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(504).header("retry-after", "0"));
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(later_mark).after(move |service| {
        service.mark_oldest(&stream, count);
    }));
    let run = tap.run();
    run.assert_drains(tap);
    assert_nothing_lost(tap, &run.written(), &format!("applied after mark {later_mark}"));
    assert_eq!(run.written().len(), tap.records().len(), "each once");
}

#[test]
fn a_mark_that_is_applied_after_a_later_mark_costs_no_record() {
    for later_mark in [2, 3] {
        let tap = Tap::with_records(8).set("pageSize", 2).set("maxRetries", 5);
        assert_late_mark_costs_nothing(&tap, later_mark, 2);
    }
}

#[test]
fn a_mark_that_is_applied_late_costs_no_record_while_pages_grow() {
    for later_mark in [2, 3, 4] {
        let tap = Tap::with_records(2000).set("maxRetries", 5);
        assert_late_mark_costs_nothing(&tap, later_mark, 100);
    }
}

#[test]
fn a_look_back_asks_for_no_more_than_was_served() {
    // 100 records of a page are marked, and the answer is lost; 60 of them slipped in just before,
    // all at the time stamp of the page's second record.
    let tap = Tap::with_records(300).set("pageSize", 100).set("maxRetries", 5);
    let (stream, second) = (tap.stream.clone(), tap.records()[1].identity.timestamp.clone());
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().close().before(move |service| {
        for n in 0..60 {
            service.write_as(&stream, &format!("late-{n}"), &second, "1");
        }
    }));
    let run = tap.run();
    run.assert_drains(&tap);
    assert_nothing_lost(&tap, &run.written(), "slipped in");
    assert_eq!(run.written().len(), 360, "each once");
    let journal = tap.sandbox.journal();
    let asked: Vec<_> =
        journal.iter().filter(|call| call.endpoint == Endpoint::Since).map(|call| call.record_count).collect();
    assert!(asked.len() > 1 && asked.iter().all(|count| *count <= Some(100)), "{asked:?}");
}

#[test]
fn a_kill_during_a_request_costs_no_record_and_at_most_a_page_of_duplicates() {
    for applied in [true, false] {
        let tap = Tap::with_records(60).set("pageSize", 2);
        let mut stdout = String::new();
        let requests =
            [(Endpoint::Token, 1), (Endpoint::Peek, 1), (Endpoint::Mark, 1), (Endpoint::Peek, 2), (Endpoint::Mark, 2)];
        for (endpoint, nth) in requests.into_iter().cycle().take(3 * requests.len()) {
            let call = tap.sandbox.count(endpoint) + nth;
            let rule = Rule::on(endpoint).call(call);
            tap.sandbox.script(if applied { rule.applied().hold() } else { rule.hold() });
            let running = tap.start();
            tap.sandbox.wait_held(endpoint, call);
            stdout.push_str(&running.kill());
            assert_nothing_lost(
                &tap,
                &written_identities(&stdout),
                &format!("applied: {applied}, killed at {endpoint:?} {nth}"),
            );
        }
        stdout.push_str(&tap.run().stdout);
        assert_nothing_lost(&tap, &written_identities(&stdout), "the last run");
        let written = written_identities(&stdout);
        let distinct: BTreeSet<_> = written.iter().cloned().collect();
        assert_eq!(distinct, identities(&tap.records()).into_iter().collect());
        assert_eq!(tap.unread(), []);
        assert!(written.len() <= 60 + 2 * 3 * requests.len(), "more than a page of duplicates per kill");
    }
}

#[test]
fn a_target_that_dies_inside_a_page_leaves_everything_unread() {
    let tap = Tap::with_large_records(150);
    let mut running = tap.start();
    assert_eq!(running.read_line(), SCHEMA);
    let run = running.close_stdout().wait(&tap);
    assert_eq!((run.code, tap.read()), (1, vec![]), "{}", run.stderr);
    assert!(run.stderr.contains("CRITICAL the target has ended: look at its own error; "), "{}", run.stderr);
}

#[test]
fn a_target_that_dies_after_a_page_costs_no_record() {
    let tap = three_pages();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().hold());
    let mut running = tap.start();
    let stdout = running.read_lines(3);
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    let running = running.close_stdout();
    tap.sandbox.release();
    let run = running.wait(&tap);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(tap.read(), identities(&tap.records()[..1]), "the second one is the fence");
    assert_nothing_lost(&tap, &written_identities(&stdout), "the first page");
}

#[test]
fn a_record_that_slipped_in_and_cannot_be_written_is_named() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().hold().before(tap.write_late(EARLY, "1")));
    let mut running = tap.start();
    running.read_lines(2);
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    let running = running.close_stdout();
    tap.sandbox.release();
    let run = running.wait(&tap);
    let fatal = "CRITICAL 1 record is marked as read and could not be written (Broken pipe (os error 32)): \
                 recordId late; a replay (`acknowledge` `never`) reads what is lost";
    assert_eq!((run.code, run.last_log_line()), (1, fatal));
}

#[test]
fn a_target_that_sends_sigterm_and_stops_reading_is_not_an_error() {
    let tap = Tap::with_large_records(150);
    let mut running = tap.start();
    assert_eq!(running.read_lines(2), schema_and(&tap.records()[..1]));
    running.signal(Signal::TERM);
    let run = running.close_stdout().wait(&tap);
    assert_eq!((run.code, tap.read()), (143, vec![]), "{}", run.stderr);
    assert!(!run.stderr.contains("CRITICAL"), "{}", run.stderr);
}

#[test]
fn a_signal_while_the_target_does_not_read_ends_the_run_after_the_page_and_marks_nothing() {
    let tap = Tap::with_large_records(150);
    let mut running = tap.start();
    assert_eq!(running.read_line(), SCHEMA);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.read()), (143, vec![]));
    assert_eq!(run.stdout, format!("{}{}", record_lines(&tap.records()[..100]), tap.state_line("write")));
}

#[test]
fn a_ctrl_c_that_ends_the_target_too_is_not_an_error() {
    let tap = Tap::with_records(1).set("pollIntervalSeconds", 86_400).args(&["--follow"]);
    let mut running = tap.start();
    running.read_lines(3);
    let running = running.close_stdout();
    running.signal(Signal::INT);
    let run = running.wait(&tap);
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert!(!run.stderr.contains("CRITICAL"), "{}", run.stderr);
}

#[test]
fn a_signal_during_the_request_for_a_token_ends_the_run() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Token).every().hold());
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Token, 1);
    running.signal(Signal::INT);
    assert_eq!((running.wait(&tap).code, tap.read()), (130, vec![]));
}

#[test]
fn two_taps_on_one_stream_lose_no_record() {
    let tap = Tap::with_records(10).set("pageSize", 3);
    // The first tap has peeked, and its mark is held. Meanwhile the second tap reads the whole
    // stream.
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).hold());
    let first = tap.start();
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    let second = tap.run();
    tap.sandbox.release();
    let first = first.wait(&tap);
    second.assert_succeeds(&tap.messages(&tap.records()));
    let written = [first.written(), second.written()].concat();
    assert_nothing_lost(&tap, &written, &first.stderr);
}

#[test]
fn another_consumer_that_marks_between_peek_and_mark_costs_no_record() {
    let tap = Tap::with_records(6).set("pageSize", 2);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(move |service| {
        service.mark_oldest(&stream, 1);
    }));
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn records_that_appear_before_the_oldest_unread_are_written_once_each() {
    let tap = Tap::with_records(7).set("pageSize", 2);
    let stream = tap.stream.clone();
    let mut late = 0;
    tap.sandbox.script(Rule::on(Endpoint::Mark).calls(1..=20).before(move |service| {
        late += 1;
        let stamp = format!("2001-01-01T00:00:{late:02}-05:00[America/New_York]");
        service.write_as(&stream, &format!("late-{late}"), &stamp, "1");
    }));
    let run = tap.run();
    run.assert_drains(&tap);
    assert_eq!(run.written().len(), tap.records().len(), "each once");
    assert_nothing_lost(&tap, &run.written(), "late records");
}

#[test]
fn several_records_at_one_time_stamp_are_written_once_each() {
    let tap = Tap::with_records(0).set("pageSize", 2);
    let stamp = "2022-02-01T15:16:23-05:00[America/New_York]";
    for id in 0..7 {
        tap.sandbox.write_as(&tap.stream, &id.to_string(), stamp, "1");
    }
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn a_service_that_caps_peeks_or_marks_or_both_is_drained() {
    for (peeks, marks) in [(Some(100), None), (None, Some(7)), (Some(100), Some(30)), (Some(120), Some(100))] {
        let tap = Tap::with_records(250);
        for (endpoint, cap) in [(Endpoint::Peek, peeks), (Endpoint::Mark, marks)] {
            if let Some(cap) = cap {
                tap.sandbox.script(Rule::on(endpoint).every().cap(cap));
            }
        }
        tap.run().assert_all_delivered_when(&tap, &format!("peeks {peeks:?}, marks {marks:?}"));
    }
}

#[test]
fn a_token_that_is_revoked_between_peek_and_mark_is_renewed() {
    let tap = three_pages().set("maxRetries", 0);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(2).revoke_token());
    tap.run().assert_all_delivered(&tap);
    assert_eq!(tap.sandbox.count(Endpoint::Token), 2);
}

#[test]
fn a_service_that_comes_back_after_a_few_failed_calls_is_drained() {
    let tap = three_pages().set("maxRetries", 3);
    for endpoint in [Endpoint::Token, Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).calls(1..=2).status(503).header("retry-after", "0"));
    }
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn a_429_for_a_peek_or_a_mark_is_retried() {
    let tap = three_pages();
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(429).header("retry-after", "1"));
    tap.sandbox
        .script(Rule::on(Endpoint::Mark).call(2).status(429).header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"));
    let run = tap.run();
    run.assert_all_delivered(&tap);
    assert!(run.stderr.contains("trying again in # s (1 of 5)"), "{}", run.stderr);
}

#[test]
fn slow_answers_are_awaited() {
    let tap = three_pages();
    for endpoint in [Endpoint::Token, Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).call(1).applied().hold());
    }
    let running = tap.start();
    for endpoint in [Endpoint::Token, Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.wait_held(endpoint, 1);
        tap.sandbox.release();
    }
    running.wait(&tap).assert_all_delivered(&tap);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_page_leaves_everything_unread() {
    let tap = Tap::with_large_records(150);
    let path = tap.path("out.jsonl");
    // `ulimit -f` counts blocks of 512 bytes (POSIX): 100 of them are less than the first page.
    let mut shell = tap.shell("trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"");
    let run = tap.finished(shell.stdout(File::create(&path).unwrap()).output().unwrap());
    run.assert_fails(1, "CRITICAL the disk behind stdout is full: make room; ");
    assert_eq!(tap.read(), []);
    assert!(fs::read_to_string(&path).unwrap().starts_with(SCHEMA));
}
