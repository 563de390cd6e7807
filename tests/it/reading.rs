//! The main job: unread records are written once each, in order and unchanged, and are marked as
//! read.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{EARLY, EXTRACTED, SCHEMA, Tap, identities};

#[test]
fn the_vendors_example_record_is_written_unchanged() {
    let tap = Tap::with_records(0);
    let payload = r#"{"carData": {"Make": "Toyota", "Price": "$6,250.00", "Odometer (KM)": "60000", "Colour": "White", "Doors": "4"}}"#;
    let id = "506d0a86-8f84-417a-a989-a995e6e40e23";
    let stamp = "2022-02-01T15:16:23.716848-05:00[America/New_York]";
    tap.sandbox.write_as(&tap.stream, id, stamp, payload);
    let run = tap.run();
    let stream = &tap.stream;
    let record = format!(
        r#"{{"type":"RECORD","stream":"records","record":{{"recordId":"{id}","streamId":"{stream}","recordTimeStampISO":"{stamp}","readStatus":"false","dataPayload":{payload}}}{EXTRACTED}"#
    );
    assert_eq!(run.stdout, format!("{SCHEMA}{record}\n{}", tap.state_line("write")));
    run.assert_drains(&tap);
}

#[test]
fn an_empty_stream_yields_a_schema_and_a_state_after_one_peek() {
    let tap = Tap::with_records(0);
    let run = tap.run();
    run.assert_succeeds(&tap.messages(&[]));
    assert_eq!((tap.sandbox.count(Endpoint::Peek), tap.sandbox.count(Endpoint::Mark)), (1, 0));
}

#[test]
fn a_short_page_needs_no_second_peek() {
    let tap = Tap::with_records(37);
    let run = tap.run();
    run.assert_succeeds(&tap.messages(&tap.records()));
    assert_eq!(tap.unread(), []);
    assert_eq!((tap.sandbox.count(Endpoint::Peek), tap.sandbox.count(Endpoint::Mark)), (1, 1));
}

#[test]
fn pages_are_written_once_each_in_order_over_one_connection() {
    let tap = Tap::with_records(25).set("pageSize", 10);
    let run = tap.run();
    run.assert_succeeds(&tap.messages(&tap.records()));
    assert_eq!((tap.read(), tap.unread()), (identities(&tap.records()), vec![]));
    let journal = tap.sandbox.journal();
    let asked: Vec<_> = journal.iter().map(|call| (call.endpoint, call.record_count, call.returned)).collect();
    assert_eq!(
        asked,
        [
            (Endpoint::Token, None, 0),
            (Endpoint::Peek, Some(10), 10),
            (Endpoint::Mark, Some(9), 9),
            (Endpoint::Peek, Some(10), 10),
            (Endpoint::Mark, Some(9), 9),
            (Endpoint::Peek, Some(10), 7),
            (Endpoint::Mark, Some(7), 7),
        ]
    );
    assert!(journal.iter().all(|call| call.connection == journal[0].connection));
}

#[test]
fn the_second_run_continues_where_the_first_ended() {
    let tap = Tap::with_records(3);
    tap.run();
    assert_eq!(tap.run().stdout, tap.messages(&[]));
    let late = tap.sandbox.write(&tap.stream, "7");
    assert_eq!(tap.run().stdout, tap.messages(&[late]));
}

#[test]
fn payloads_are_written_byte_for_byte() {
    let tap = Tap::with_records(0);
    let payloads = [
        r#"{"price":10.00,"big":123456789012345678901234567890,"huge":1e400,"tiny":-0.0,"exp":1E+2}"#,
        r#"{"z":1,"a":{"z":[],"a":{}},"é":"\u00e9\/\"\\","emoji":"😀","pair":"\ud83d\ude00","lone":"\ud800"}"#,
        r#"{ "spaces" : [ 1 , 2 ] ,  "line break": "a\nb\u2028c" }"#,
        r#"[1,[2,[3]]]"#,
        r#""text""#,
        "true",
        "null",
        "0.1000000000000000055511151231257827",
    ];
    let records: Vec<_> = payloads.iter().map(|payload| tap.sandbox.write(&tap.stream, payload)).collect();
    for (record, payload) in records.iter().zip(payloads) {
        assert!(record.json.contains(payload), "{}", record.json);
    }
    assert_eq!(tap.run().stdout, tap.messages(&records));
}

#[test]
fn a_payload_sent_twice_is_two_records() {
    let tap = Tap::with_records(0);
    let records = [tap.sandbox.write(&tap.stream, "{}"), tap.sandbox.write(&tap.stream, "{}")];
    assert_ne!(records[0].identity, records[1].identity);
    assert_eq!(tap.run().stdout, tap.messages(&records));
}

#[test]
fn every_version_of_a_record_id_is_written() {
    let tap = Tap::with_records(0);
    let stamp = |second| format!("2022-02-01T15:16:{second:02}-05:00[America/New_York]");
    let records = [1, 2, 3].map(|n| tap.sandbox.write_as(&tap.stream, "same", &stamp(n), &n.to_string()));
    let tap = tap.set("pageSize", 2);
    assert_eq!(tap.run().stdout, tap.messages(&records));
}

#[test]
fn a_pretty_printed_answer_becomes_one_line_per_record() {
    let tap = Tap::with_records(0);
    for endpoint in [Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).every().pretty());
    }
    let record = tap.sandbox.write(&tap.stream, r#"{"a b":[1.0,{}],"c":"x\ny"}"#);
    assert_eq!(tap.run().stdout, tap.messages(&[record]));
}

#[test]
fn a_compressed_answer_is_read() {
    let tap = Tap::with_records(50);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().gzip());
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().gzip());
    assert_eq!(tap.run().stdout, tap.messages(&tap.records()));
    let journal = tap.sandbox.journal();
    let accepts = journal[1].headers.iter().find(|(name, _)| name == "accept-encoding");
    assert_eq!(accepts.map(|(_, value)| value.as_str()), Some("gzip"));
}

#[test]
fn a_service_that_caps_pages_silently_is_still_drained() {
    for cap in [100, 101, 150] {
        let tap = Tap::with_records(320);
        tap.sandbox.script(Rule::on(Endpoint::Peek).every().cap(cap));
        tap.sandbox.script(Rule::on(Endpoint::Mark).every().cap(cap));
        let run = tap.run();
        assert_eq!((run.stdout, tap.unread()), (tap.messages(&tap.records()), vec![]), "capped at {cap}");
    }
}

#[test]
fn a_capped_mark_is_completed_without_a_duplicate() {
    let tap = Tap::with_records(25);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().cap(10));
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn a_mark_whose_answer_shows_its_records_as_read_counts_as_applied() {
    let tap = Tap::with_records(150);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().as_read());
    tap.run().assert_all_delivered(&tap);
    assert_eq!(requested_counts(&tap), (vec![100, 200], vec![99, 51]));
}

#[test]
fn a_record_that_slips_in_between_peek_and_mark_is_delivered_at_once() {
    let tap = Tap::with_records(3);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(tap.write_late(EARLY, r#""late""#)));
    let cars = tap.records();
    let run = tap.run();
    let expected = [cars.as_slice(), &[tap.late_record()]].concat();
    run.assert_succeeds(&tap.messages(&expected));
    assert_eq!(tap.unread(), []);
}

#[test]
fn only_the_configured_stream_is_read() {
    let tap = Tap::with_records(2);
    let other = tap.sandbox.create_stream("other");
    tap.sandbox.fill(&other, 2);
    tap.run();
    assert_eq!((tap.unread().len(), tap.sandbox.unread(&other).len()), (0, 2));
}

#[test]
fn stream_name_sets_the_name_in_every_message() {
    let tap = Tap::with_records(1).set("streamName", "used \"cars\"");
    let expected = tap.messages(&tap.records()).replace(r#""records""#, r#""used \"cars\"""#);
    assert_eq!(tap.run().stdout, expected);
}

#[test]
fn a_hundred_thousand_records_are_written_once_each_in_order_and_are_marked() {
    let tap = Tap::with_records(100_000).set("pageSize", 10_000);
    let run = tap.run();
    assert_eq!(run.code, 0);
    assert!(run.stdout == tap.messages(&tap.records()), "the output differs");
    assert_eq!((tap.unread().len(), tap.read().len()), (0, 100_000));
}

#[test]
fn requests_have_the_user_agent_and_the_body_of_the_vendors_sdk() {
    let tap = Tap::with_records(1).set("userAgent", "acme/1 (data@example.com)");
    tap.run();
    let journal = tap.sandbox.journal();
    let header = |call: usize, name: &str| {
        journal[call].headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone())
    };
    assert_eq!(header(0, "user-agent").as_deref(), Some("acme/1 (data@example.com)"));
    assert_eq!(header(0, "content-type").as_deref(), Some("application/x-www-form-urlencoded"));
    assert_eq!(header(1, "content-type").as_deref(), Some("application/json"));
    assert_eq!(journal[1].path, format!("/stream/{}/record-request", tap.stream));
    let body: serde_json::Value = serde_json::from_str(&journal[1].body).unwrap();
    let expected = json!({
        "readRecordRequestType": "UNREAD", "recordCount": 100, "recordId": null, "markAsRead": false,
        "recordTimeStampISO": null
    });
    assert_eq!(body, expected);
}

/// The `recordCount` of every peek, and of every mark.
fn requested_counts(tap: &Tap) -> (Vec<u64>, Vec<u64>) {
    let counts = |endpoint| {
        let journal = tap.sandbox.journal();
        journal.iter().filter(|call| call.endpoint == endpoint).filter_map(|call| call.record_count).collect()
    };
    (counts(Endpoint::Peek), counts(Endpoint::Mark))
}

#[test]
fn pages_grow_as_long_as_they_are_full() {
    let tap = Tap::with_records(1700).set("pageSize", 600);
    tap.run().assert_all_delivered(&tap);
    assert_eq!(requested_counts(&tap), (vec![100, 200, 400, 600, 600], vec![99, 199, 399, 599, 404]));
}

#[test]
fn a_page_that_is_too_large_for_the_service_is_halved() {
    for fault in [
        Rule::on(Endpoint::Peek).call(3).status(413).body("too large"),
        Rule::on(Endpoint::Peek).call(3).status(400).body("too many"),
        Rule::on(Endpoint::Peek).call(3).status(502).body("bad gateway"),
        Rule::on(Endpoint::Peek).call(3).cut(),
        Rule::on(Endpoint::Peek).call(3).close(),
    ] {
        let tap = Tap::with_records(900);
        tap.sandbox.script(fault);
        let run = tap.run();
        run.assert_all_delivered(&tap);
        let marks = vec![99, 199, 199, 199, 199, 5];
        assert_eq!(requested_counts(&tap), (vec![100, 200, 400, 200, 200, 200, 200], marks));
        let info = "INFO peek: asking for 200 records instead of 400: ";
        assert!(run.stderr.lines().any(|line| line.starts_with(info)), "{}", run.stderr);
    }
}

#[test]
fn a_429_is_retried_with_the_same_page_size() {
    let tap = Tap::with_records(350).set("maxRetries", 2);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(429).header("retry-after", "0"));
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(3).status(429).header("retry-after", "0"));
    tap.run().assert_all_delivered(&tap);
    assert_eq!(requested_counts(&tap), (vec![100, 200, 200, 200, 400], vec![99, 199, 52]));
}

/// A tap on a service whose answers take so long that the tap prefetches. `rules` go before the
/// delays.
fn tap_on_slow_service(records: usize, rules: Vec<Rule>) -> Tap {
    let tap = Tap::with_records(records).set("pageSize", 20);
    rules.into_iter().for_each(|rule| tap.sandbox.script(rule));
    for endpoint in [Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).every().delay(Duration::from_millis(20)));
    }
    tap
}

#[test]
fn the_next_page_is_prefetched_while_one_is_marked() {
    // The third mark is answered only after the peek for the fourth page has arrived.
    let tap = tap_on_slow_service(110, vec![Rule::on(Endpoint::Mark).call(3).applied().hold()]);
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Mark, 3);
    tap.sandbox.wait_for(Endpoint::Peek, 4);
    tap.sandbox.release();
    running.wait(&tap).assert_all_delivered(&tap);
    let connections: BTreeSet<_> = tap.sandbox.journal().iter().map(|call| call.connection).collect();
    assert_eq!(connections.len(), 2);
}

#[test]
fn a_prefetch_that_overtakes_its_mark_costs_no_duplicate_and_prefetching_stops() {
    // Each mark is applied only after the peek that is sent with it has been answered, as long as
    // the tap prefetches.
    let tap = tap_on_slow_service(130, (2..=4).map(|mark| Rule::on(Endpoint::Mark).call(mark).hold()).collect());
    let running = tap.start();
    for (mark, peek) in [(2, 3), (3, 5), (4, 7)] {
        tap.sandbox.wait_held(Endpoint::Mark, mark);
        tap.sandbox.wait_answered(Endpoint::Peek, peek);
        tap.sandbox.release();
    }
    running.wait(&tap).assert_all_delivered(&tap);
    assert_eq!(requested_counts(&tap), (vec![20; 10], vec![19, 19, 19, 19, 19, 19, 16]));
}
