//! Records with one id and one time stamp: with different payloads, and equal in everything.

use std::time::Duration;

use serde_json::Value;
use streamduo_sandbox::{Endpoint, Record, Rule, Sandbox};

use crate::tap::{Tap, once, record_lines};

const STAMP: &str = "2022-02-01T15:16:23.716848-05:00[America/New_York]";

/// A tap on records with one id and one time stamp, and these payloads.
fn tap_on(sandbox: Sandbox, payloads: &[&str], page_size: usize) -> Tap {
    let tap = Tap::on(sandbox, 0).set("pageSize", page_size).set("maxPending", page_size);
    for payload in payloads {
        tap.sandbox.write_as(&tap.stream, "twin", STAMP, payload);
    }
    tap
}

#[test]
fn records_that_differ_in_their_payloads_alone_are_all_written_wherever_a_page_ends() {
    for latency in [0, 25] {
        for page_size in 1..=4 {
            let sandbox = Sandbox::builder().latency(Duration::from_millis(latency)).start().unwrap();
            let tap = tap_on(sandbox, &["1", "2", "3", "\"3\"", "null", "4"], page_size);
            tap.run().assert_all_delivered_when(&tap, &format!("{latency} ms, pages of {page_size}"));
        }
    }
}

#[test]
fn records_that_are_equal_in_everything_are_written_once_and_all_are_marked() {
    for latency in [0, 25] {
        for page_size in 1..=4 {
            let sandbox = Sandbox::builder().latency(Duration::from_millis(latency)).start().unwrap();
            let tap = tap_on(sandbox, &["1", "1", "2", "1", "1", "1"], page_size);
            tap.run().assert_all_delivered_when(&tap, &format!("{latency} ms, pages of {page_size}"));
        }
    }
}

#[test]
fn later_versions_of_the_id_do_not_hide_its_equals() {
    let tap = tap_on(Sandbox::start(), &["1", "1"], 1);
    for payload in ["2", "3", "4", "5", "6"] {
        tap.sandbox.write(&tap.stream, payload);
        let later = format!("2022-02-02T00:00:0{payload}Z");
        tap.sandbox.write_as(&tap.stream, "twin", &later, payload);
    }
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn an_equal_record_that_arrives_later_is_marked_and_not_written_again() {
    let tap = tap_on(Sandbox::start(), &["1", "2"], 1);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(move |service| {
        service.write_as(&stream, "twin", STAMP, "1");
    }));
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn a_service_that_shows_a_marked_record_for_ever_ends_the_run() {
    // No mark is applied, and each is answered.
    let tap = tap_on(Sandbox::start(), &["1", "1"], 1).set("maxRetries", 2);
    let page = format!("[{}]", tap.records()[0].json);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().json(page).header("retry-after", "0"));
    let run = tap.run();
    assert_eq!((run.code, run.written().len()), (1, 1), "{}", run.stderr);
}

#[test]
fn a_record_that_another_payload_replaces_between_peek_and_mark_is_written() {
    let tap = tap_on(Sandbox::start(), &["1"], 1);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(move |service| {
        service.mark_oldest(&stream, 1);
        service.write_as(&stream, "twin", STAMP, "2");
    }));
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn with_commit_records_that_differ_are_committed_once_and_equal_ones_are_marked_with_them() {
    for payloads in [["1", "2", "3", "4", "5"], ["1", "1", "2", "1", "1"]] {
        for max_pending in 1..=3 {
            let tap = tap_on(Sandbox::start(), &payloads, max_pending).set("acknowledge", "commit");
            let (mut state, mut written) = (Value::Null, String::new());
            while !tap.unread().is_empty() {
                let path = tap.write_file("state.json", &state.to_string().replace("null", "{}"));
                let run = tap.run_with("--state", path);
                assert_eq!(run.code, 0, "{}", run.stderr);
                let last: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
                state = last["value"].clone();
                written += &run.record_lines();
            }
            // A run does not know what the one before has committed, once it has marked that.
            let mut written: Vec<_> = written.lines().collect();
            written.dedup();
            let mut seen = std::collections::HashSet::new();
            written.retain(|line| seen.insert(line.to_owned()));
            let expected = record_lines(&once(tap.records()));
            assert_eq!(written, expected.lines().collect::<Vec<_>>(), "{payloads:?}, {max_pending} at once");
        }
    }
}

#[test]
fn a_state_tells_twins_apart() {
    let tap = tap_on(Sandbox::start(), &["1", "2"], 1).set("acknowledge", "commit");
    let state: Value = serde_json::from_str(tap.run().stdout.lines().last().unwrap()).unwrap();
    // Somebody else marks the first one. The second is not what the state covers.
    tap.sandbox.mark_oldest(&tap.stream, 1);
    let run = tap.run_with("--state", tap.write_file("state.json", &state.to_string()));
    let second: Vec<Record> = tap.records()[1..].to_vec();
    assert_eq!((run.code, run.record_lines(), tap.unread().len()), (0, record_lines(&second), 1));
}
