//! Slow links, large records, and a service that refuses what is too much: pages shrink until they
//! get across.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Tap, identities, schema_and, written_identity};

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

/// The `recordCount` of each request to an endpoint.
fn asked(tap: &Tap, endpoint: Endpoint) -> Vec<u64> {
    let journal = tap.sandbox.journal();
    journal.iter().filter(|call| call.endpoint == endpoint).filter_map(|call| call.record_count).collect()
}

#[test]
fn a_stream_is_drained_although_its_first_page_takes_longer_than_the_time_out() {
    let tap = tap_on_records_of(4_000, 40).set("requestTimeoutSeconds", 2);
    // The first page would take minutes. The link gets quick once pages are small.
    tap.sandbox.set_bandwidth(Some(1_000));
    slip_in(&tap, Rule::on(Endpoint::Mark).call(2));
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Peek, 3);
    tap.sandbox.set_bandwidth(None);
    running.wait(&tap).assert_each_once_when(&tap, "a slow link");
    assert_eq!(asked(&tap, Endpoint::Peek)[..3], [100, 50, 25]);
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
    let drain = |status, (records, bytes)| {
        let tap = Tap::with_records(250).set("maxRetries", 1);
        limit(&tap, records, bytes, status);
        tap.run().assert_all_delivered_when(&tap, &format!("{status} for more than {records} records, {bytes} bytes"));
    };
    let limits = [400, 413, 422, 500, 503].into_iter().flat_map(|status| LIMITS.map(|limit| (status, limit)));
    // A run that meets an outage spends its time in pauses.
    thread::scope(|scope| limits.for_each(|(status, limit)| drop(scope.spawn(move || drain(status, limit)))));
}

#[test]
fn a_stream_is_drained_with_commit_although_the_service_limits_reads() {
    let drain = |status, (records, bytes): (usize, usize)| {
        let tap = Tap::with_records(4 * records.min(30)).set("acknowledge", "commit").set("maxRetries", 1);
        limit(&tap, records, bytes, status);
        drain_with_commit(&tap);
    };
    let limits = [400, 413, 500, 503].into_iter().zip(LIMITS);
    thread::scope(|scope| limits.for_each(|(status, limit)| drop(scope.spawn(move || drain(status, limit)))));
}

/// Runs the tap with the last STATE until the stream is drained. Nothing is marked that a STATE
/// does not cover.
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
        run.assert_each_once_when(&tap, &format!("limit {limit}"));
        assert!(tap.sandbox.count(Endpoint::Since) > 0);
    }
}

#[test]
fn a_look_back_grows_again_after_an_outage() {
    let tap = Tap::with_records(400).set("pageSize", 100).set("maxRetries", 1);
    slip_in(&tap, Rule::on(Endpoint::Mark).call(1).applied().close());
    // Pages of 1 record are all that is left of the outage.
    tap.sandbox.script(Rule::on(Endpoint::Peek).calls(2..=8).status(503).header("retry-after", "0"));
    tap.run().assert_each_once(&tap);
    assert_eq!(asked(&tap, Endpoint::Peek)[1..9], [100, 100, 50, 25, 12, 6, 3, 1]);
    let asked = asked(&tap, Endpoint::Since);
    assert!(asked.contains(&64) && asked.len() < 30 && asked.iter().all(|count| *count <= 100), "{asked:?}");
}

/// Before the first mark, whose answer is lost, so many records appear at the time stamp of the
/// second record.
fn crowd_in(tap: &Tap, count: usize) {
    let (stream, second) = (tap.stream.clone(), tap.records()[1].identity.timestamp.clone());
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().close().before(move |service| {
        for n in 0..count {
            service.write_as(&stream, &format!("late-{n}"), &second, "1");
        }
    }));
}

#[test]
fn a_look_back_finds_all_records_of_a_time_stamp_although_pages_are_small() {
    let tap = Tap::with_records(400).set("pageSize", 100).set("maxRetries", 1);
    crowd_in(&tap, 30);
    tap.sandbox.script(Rule::on(Endpoint::Peek).calls(2..=8).status(503).header("retry-after", "0"));
    let run = tap.run();
    run.assert_each_once(&tap);
    assert!(!run.stderr.contains("does not show all records"), "{}", run.stderr);
}

#[test]
fn a_look_back_says_where_it_cannot_see_all_records_of_a_time_stamp() {
    let tap = Tap::with_records(400).set("pageSize", 50).set("maxRetries", 1);
    tap.sandbox.limit_records(50, 413);
    crowd_in(&tap, 60);
    let second = tap.records()[1].identity.timestamp.clone();
    let run = tap.run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let warning = format!("the service does not show all records at {second} at once: one that slipped in there ");
    assert!(run.stderr.contains(&warning), "{}", run.stderr);
}

#[test]
fn a_mark_that_is_refused_for_its_size_is_repeated_in_parts() {
    let tap = Tap::with_records(100);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(413).body("too many"));
    let run = tap.run();
    run.assert_all_delivered(&tap);
    let asked = asked(&tap, Endpoint::Mark);
    assert!(asked[0] == 99 && asked[1..].iter().sum::<u64>() == 100, "{asked:?}");
    assert!(asked[1..].iter().all(|count| *count <= 51), "{asked:?}");
    assert_eq!(tap.sandbox.count(Endpoint::Since), 0);
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
    let tap = Tap::with_records(2).set("maxAnswerMegabytes", 1).set("maxRetries", 5);
    tap.sandbox.write(&tap.stream, &json!("x".repeat(1_500_000)).to_string());
    let run = tap.run();
    let fatal = "CRITICAL not even a single record of stream STREAM gets across: raise `maxAnswerMegabytes`: the answer of HOST is \
                 larger than 1000000 bytes";
    assert_eq!((run.code, run.last_log_line()), (1, fatal));
    // What is in front of it is delivered.
    assert_eq!((run.stdout, tap.read()), (schema_and(&tap.records()[..2]), identities(&tap.records()[..2])));
    // Another try would bring the same answer.
    assert!(!run.stderr.contains("trying again"), "{}", run.stderr);
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
        "not even a single record of stream STREAM gets across: raise `requestTimeoutSeconds`: the answer of HOST did not \
         arrive within 1 s",
    );
}

#[test]
fn a_record_that_is_cut_off_again_and_again_ends_the_run_with_what_to_check() {
    let tap = Tap::with_records(1).set("pageSize", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().cut());
    tap.run().assert_refused(
        &tap,
        1,
        "not even a single record of stream STREAM gets across: check the network, the proxy and `apiUrl`: the answer of \
         HOST was cut off: end of file before message length reached",
    );
}

#[test]
fn a_record_that_is_too_large_for_the_service_ends_the_run_with_who_can_help() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(413).body("too large"));
    tap.run().assert_refused(
        &tap,
        1,
        "not even a single record of stream STREAM gets across: no setting changes that, ask the service's operator: \
         HOST answers 413: too large",
    );
}

#[test]
fn an_endless_answer_is_bounded_in_time_and_memory() {
    for endless in [Rule::endless, Rule::endless_chunked] {
        let tap = Tap::with_records(3).set("maxAnswerMegabytes", 8);
        tap.sandbox.script(endless(Rule::on(Endpoint::Peek).call(1)));
        tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).hold());
        let running = tap.start();
        tap.sandbox.wait_held(Endpoint::Peek, 2);
        let peak = running.peak_memory();
        assert!(peak < 48_000_000, "{peak} bytes");
        tap.sandbox.release();
        let run = running.wait(&tap);
        run.assert_all_delivered(&tap);
        run.assert_logged(
            "INFO peek: asking for 50 records instead of 100: read stream STREAM: the answer of HOST is larger than 8000000 \
             bytes",
        );
    }
}

#[test]
fn a_long_answer_that_is_no_text_takes_little_more_memory_than_its_bytes() {
    const BYTES: usize = 31_000_000;
    let tap = Tap::with_records(3).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).body(vec![0xFF; BYTES]));
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).hold());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Peek, 2);
    let peak = running.peak_memory();
    assert!(peak < 2 * BYTES, "{peak} bytes");
    tap.sandbox.release();
    running.wait(&tap).assert_all_delivered(&tap);
}

#[test]
fn an_answer_is_bounded_after_decompression() {
    let tap = Tap::with_records(1).set("maxAnswerMegabytes", 1).set("maxRetries", 5);
    // A gzip bomb: 30 MB in 30 KB.
    let bomb = format!("[\"{}\"]", " ".repeat(30_000_000));
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().json(bomb).gzip());
    tap.run().assert_refused(
        &tap,
        1,
        "not even a single record of stream STREAM gets across: raise `maxAnswerMegabytes`: the answer of HOST is larger than 1000000 \
         bytes",
    );
    assert_eq!(asked(&tap, Endpoint::Peek), [100, 50, 25, 12, 6, 3, 1]);
}

#[test]
fn the_answer_of_the_token_endpoint_and_an_error_text_are_bounded() {
    let tap = Tap::with_records(1).set("maxAnswerMegabytes", 1);
    let token = json!({"access_token": "t", "token_type": "Bearer", "scope": "x".repeat(2_000_000)});
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).json(token.to_string()));
    tap.run().assert_refused(
        &tap,
        1,
        "fetch an access token: check `authUrl`, the network and the proxy: the answer of HOST is larger than 1000000 bytes",
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
    tap.run().assert_refused(&tap, 1, "check `apiUrl`, or ask the service's operator: HOST answers 200 (application/json): the answer is not an array of records");
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

#[test]
fn a_token_that_is_fetched_after_a_lost_mark_has_a_fresh_connection_too() {
    let tap = Tap::with_records(3).set("maxRetries", 1);
    // The connection stays usable.
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().status(503).header("retry-after", "0"));
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).revoke_token());
    tap.run().assert_all_delivered(&tap);
    let journal = tap.sandbox.journal();
    let tokens: Vec<_> = journal.iter().filter(|call| call.endpoint == Endpoint::Token).collect();
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0].connection, tokens[1].connection);
}

#[test]
fn a_mark_that_is_refused_keeps_its_connection() {
    let tap = Tap::with_records(3).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(429).header("retry-after", "0"));
    tap.run().assert_all_delivered(&tap);
    assert!(tap.sandbox.journal().iter().all(|call| call.connection == 1));
}
