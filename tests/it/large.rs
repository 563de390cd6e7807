//! Slow links, large records, and a service that refuses what is too much: pages shrink until they get across.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Run, Tap, identities, schema_and, written_identity};

/// A tap on records of this size. It forgives no failure.
fn tap_on_records_of(bytes: usize, records: usize) -> Tap {
    let tap = Tap::with_records(0);
    tap.sandbox.fill_sized(&tap.stream, records, bytes);
    tap
}

/// Before this mark a record appears behind the first unread one.
fn slip_in(tap: &Tap, rule: Rule) {
    let stream = tap.stream.clone();
    tap.sandbox.script(rule.before(move |service| {
        service.slip_in(&stream);
    }));
}

/// The run has written every record once, in whatever order, and they are marked as read.
#[track_caller]
fn assert_each_once(run: &Run, tap: &Tap, case: &str) {
    let written: Vec<_> = run.stdout.lines().filter_map(written_identity).collect();
    let expected: BTreeSet<_> = identities(&tap.records()).into_iter().collect();
    assert_eq!((run.code, written.len()), (0, expected.len()), "{case}\n{}", run.stderr);
    assert_eq!(written.into_iter().collect::<BTreeSet<_>>(), expected, "{case}");
    assert_eq!(tap.unread(), [], "{case}");
}

/// The `recordCount` of each request to an endpoint.
fn asked(tap: &Tap, endpoint: Endpoint) -> Vec<u64> {
    let journal = tap.sandbox.journal();
    journal.iter().filter(|call| call.endpoint == endpoint).filter_map(|call| call.record_count).collect()
}

#[test]
fn a_stream_is_drained_although_its_first_page_takes_longer_than_the_time_out() {
    let tap = tap_on_records_of(4_000, 20).set("requestTimeoutSeconds", 1);
    // The first page would take 2 s.
    tap.sandbox.set_bandwidth(Some(40_000));
    slip_in(&tap, Rule::on(Endpoint::Mark).call(2));
    assert_each_once(&tap.run(), &tap, "a slow link");
}

/// A service that refuses to read more than this with a status. Its own trouble asks for no pause.
fn limit(tap: &Tap, records: usize, bytes: usize, status: u16) {
    tap.sandbox.limit_records(records, status);
    tap.sandbox.limit_bytes(bytes, status);
    for endpoint in [Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).every().header("retry-after", "0"));
    }
}

/// Limits in records and in bytes.
const LIMITS: [(usize, usize); 4] = [(usize::MAX, 30_000), (150, usize::MAX), (7, usize::MAX), (1, usize::MAX)];

#[test]
fn a_stream_is_drained_although_the_service_limits_reads() {
    for status in [400, 413, 422, 500, 503] {
        for (records, bytes) in LIMITS {
            let tap = Tap::with_records(250).set("maxRetries", 1);
            limit(&tap, records, bytes, status);
            tap.run()
                .assert_all_delivered_when(&tap, &format!("{status} for more than {records} records, {bytes} bytes"));
        }
    }
}

#[test]
fn a_stream_is_drained_with_commit_although_the_service_limits_reads() {
    for (status, (records, bytes)) in [400, 413, 500, 503].into_iter().zip(LIMITS) {
        let tap = Tap::with_records(20 * records.min(10)).set("acknowledge", "commit").set("maxRetries", 1);
        limit(&tap, records, bytes, status);
        drain_with_commit(&tap);
    }
}

/// Runs the tap with the last STATE until the stream is drained. Nothing is marked that a STATE does not cover.
#[track_caller]
fn drain_with_commit(tap: &Tap) {
    let (mut state, mut committed) = (Value::Null, BTreeSet::new());
    while !tap.unread().is_empty() {
        let before = tap.unread().len();
        let path = tap.write_file("state.json", &if state.is_null() { "{}".to_owned() } else { state.to_string() });
        let run = tap.run_with("--state", path);
        assert_eq!(run.code, 0, "{}", run.stderr);
        for identity in tap.read() {
            assert!(committed.contains(&identity), "{identity:?} is read and was not committed");
        }
        assert!(state.is_null() || tap.unread().len() < before, "no progress:\n{}", run.stderr);
        committed.extend(run.stdout.lines().filter_map(written_identity));
        let last: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
        state = last["value"].clone();
    }
}

#[test]
fn a_look_back_asks_for_no_more_than_the_service_serves() {
    for limit in [150, 500] {
        let tap = Tap::with_records(1300).set("maxRetries", 1);
        tap.sandbox.limit_records(limit, 400);
        for mark in [2, 4] {
            slip_in(&tap, Rule::on(Endpoint::Mark).call(mark).applied().close());
        }
        let run = tap.run();
        assert_each_once(&run, &tap, &format!("limit {limit}"));
        assert!(tap.sandbox.count(Endpoint::Since) > 0);
    }
}

#[test]
fn a_mark_that_is_refused_for_its_size_is_repeated_in_parts() {
    let tap = Tap::with_records(100);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(413).body("too many"));
    let run = tap.run();
    run.assert_all_delivered(&tap);
    assert_eq!(asked(&tap, Endpoint::Mark), [100, 50, 50]);
    run.assert_logged(
        "INFO mark: 100 records are too many for one request, 50 are asked for from now on: read stream STREAM: HOST answers \
         413: too many",
    );
}

#[test]
fn a_window_that_was_served_before_and_is_not_any_more_is_delivered_again_in_part() {
    let tap = Tap::with_records(300).set("acknowledge", "commit");
    let run = tap.run();
    let last = run.stdout.lines().last().unwrap();
    let state = serde_json::from_str::<Value>(last).unwrap()["value"].clone();
    assert_eq!(state["bookmarks"]["records"]["count"], 300);
    tap.sandbox.limit_records(150, 413);
    let second = tap.run_with("--state", tap.write_file("state.json", &state.to_string()));
    assert_eq!((second.code, tap.read()), (0, vec![]), "{}", second.stderr);
    second.assert_logged(
        "INFO the state covers 300 records, but it does not match what is unread now: marking nothing, delivering again",
    );
    drain_with_commit(&tap);
}

#[test]
fn a_record_that_is_too_large_ends_the_run_with_the_setting_to_raise() {
    let tap = Tap::with_records(2).set("maxAnswerMegabytes", 1);
    tap.sandbox.write(&tap.stream, &json!("x".repeat(1_500_000)).to_string());
    let run = tap.run();
    let fatal = "CRITICAL a single record of stream STREAM is too large: raise `maxAnswerMegabytes`: the answer of HOST is \
                 larger than 1000000 bytes";
    assert_eq!((run.code, run.last_log_line()), (1, fatal));
    // What is in front of it is delivered.
    assert_eq!((run.stdout, tap.read()), (schema_and(&tap.records()[..2]), identities(&tap.records()[..2])));
    let tap = tap.set("maxAnswerMegabytes", 2);
    assert_eq!(tap.run().stdout, tap.messages(&tap.records()[2..]));
}

#[test]
fn a_record_that_takes_too_long_ends_the_run_with_the_setting_to_raise() {
    let tap = tap_on_records_of(20_000, 1).set("requestTimeoutSeconds", 1).set("pageSize", 1);
    tap.sandbox.set_bandwidth(Some(1_000));
    tap.run().assert_refused(
        &tap,
        1,
        "a single record of stream STREAM takes too long to arrive: raise `requestTimeoutSeconds`: the answer of HOST did not \
         arrive within 1 s",
    );
}

#[test]
fn an_answer_is_bounded_after_decompression() {
    let tap = Tap::with_records(1).set("maxAnswerMegabytes", 1);
    // A gzip bomb: 30 MB in 30 KB.
    let bomb = format!("[\"{}\"]", " ".repeat(30_000_000));
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().json(bomb).gzip());
    tap.run().assert_refused(
        &tap,
        1,
        "a single record of stream STREAM is too large: raise `maxAnswerMegabytes`: the answer of HOST is larger than 1000000 \
         bytes",
    );
    assert_eq!(asked(&tap, Endpoint::Peek), [100, 50, 25, 12, 6, 3, 1]);
}

#[test]
fn the_answer_of_the_token_endpoint_and_an_error_text_are_bounded() {
    let tap = Tap::with_records(1);
    let token = json!({"access_token": "t", "token_type": "Bearer", "scope": "x".repeat(1_000_000)});
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).json(token.to_string()));
    tap.run().assert_refused(
        &tap,
        1,
        "fetch an access token: check `authUrl` and the network: the answer of HOST is larger than 262144 bytes",
    );
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(403).body("no".repeat(10_000_000)));
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(run.last_log_line().len() < 600, "{}", run.last_log_line());
}

#[test]
fn an_answer_with_more_records_than_any_request_asks_for_is_refused() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().json(format!("[{}0]", "0,".repeat(100_000))));
    tap.run().assert_refused(&tap, 1, "the answer is not an array of records but a large value");
}

#[test]
fn every_request_after_a_lost_mark_has_a_fresh_connection_until_a_mark_is_answered() {
    let tap = Tap::with_records(6).set("pageSize", 1).set("maxRetries", 2);
    tap.sandbox.script(Rule::on(Endpoint::Mark).calls(2..=3).close());
    tap.run().assert_all_delivered(&tap);
    let journal = tap.sandbox.journal();
    let connections = |endpoint| {
        let calls = journal.iter().filter(move |call| call.endpoint == endpoint);
        calls.map(|call| call.connection).collect::<Vec<_>>()
    };
    let (peeks, marks) = (connections(Endpoint::Peek), connections(Endpoint::Mark));
    assert_eq!((peeks[0], peeks[1], marks[0], marks[1]), (1, 1, 1, 1), "kept alive");
    let fresh: Vec<_> = [peeks[2], marks[2], peeks[3], marks[3]].to_vec();
    assert_eq!(fresh.iter().collect::<BTreeSet<_>>().len(), 4, "each its own: {fresh:?}");
    assert_eq!(BTreeSet::from_iter(&peeks[4..]), BTreeSet::from_iter(&marks[4..]), "kept alive again");
}
