//! `markBy: id`: exactly what was delivered is marked, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use streamduo_sandbox::{Endpoint, Identity, Rule, Sandbox};

use crate::tap::{EARLY, Tap, identities, record_lines, schema_and, written_identity};

fn by_id(records: usize) -> Tap {
    Tap::with_records(records).set("markBy", "id")
}

/// How many requests were under way at the same time at the most, if all connections are used at once.
fn connections(tap: &Tap, endpoint: Endpoint) -> usize {
    let journal = tap.sandbox.journal();
    let connections: BTreeSet<_> =
        journal.iter().filter(|call| call.endpoint == endpoint).map(|call| call.connection).collect();
    connections.len()
}

/// Everything is written once, and what the service has as read is among it.
#[track_caller]
fn assert_nothing_lost(tap: &Tap, stdout: &str, case: &str) {
    let written: BTreeSet<_> = stdout.lines().filter_map(written_identity).collect();
    for identity in tap.read() {
        assert!(written.contains(&identity), "{case}: {identity:?} is read but was not written");
    }
}

#[test]
fn every_record_is_marked_by_a_request_of_its_own() {
    let tap = by_id(250).set("pageSize", 200);
    tap.run().assert_all_delivered(&tap);
    let count = |endpoint| tap.sandbox.count(endpoint);
    assert_eq!((count(Endpoint::Mark), count(Endpoint::Single), count(Endpoint::Since)), (0, 250, 0));
    let body = r#"{"readRecordRequestType":"SINGLE","recordCount":1,"recordId":"ID","markAsRead":true,"recordTimeStampISO":null}"#;
    let journal = tap.sandbox.journal();
    let call = journal.iter().find(|call| call.body.contains(&tap.records()[0].identity.record_id)).unwrap();
    assert_eq!(call.body.replace(&tap.records()[0].identity.record_id, "ID"), body);
}

#[test]
fn eight_requests_are_under_way_at_once_on_kept_connections() {
    let sandbox = Sandbox::builder().latency(Duration::from_millis(25)).start().unwrap();
    let tap = Tap::on(sandbox, 400).set("markBy", "id");
    let started = Instant::now();
    tap.run().assert_all_delivered(&tap);
    assert_eq!(connections(&tap, Endpoint::Single), 8);
    // One after the other they would take 10 s. This bound is wide, for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[test]
fn with_commit_what_the_state_covers_is_marked_and_nothing_else() {
    let tap = by_id(300).set("acknowledge", "commit").set("maxPending", 120);
    let first = tap.run();
    assert_eq!((first.code, tap.read()), (0, vec![]));
    let state: Value = serde_json::from_str(first.stdout.lines().last().unwrap()).unwrap();
    tap.sandbox.script(Rule::on(Endpoint::Single).call(1).before(tap.write_late(EARLY, "1")));
    let second = tap.run_with("--state", tap.write_file("state.json", &state.to_string()));
    assert_eq!((second.code, tap.sandbox.count(Endpoint::Mark)), (0, 0), "{}", second.stderr);
    assert_eq!(tap.read(), identities(&tap.records()[1..121]));
    let records = tap.records();
    assert_eq!(second.record_lines(), record_lines(&[&records[..1], &records[121..240]].concat()));
}

#[test]
fn late_records_are_never_marked_before_they_are_written() {
    let tap = by_id(30).set("pageSize", 4);
    let (stream, mut late) = (tap.stream.clone(), 0);
    tap.sandbox.script(Rule::on(Endpoint::Single).calls(1..=20).before(move |service| {
        late += 1;
        let stamp = format!("2001-01-01T00:00:{late:02}-05:00[America/New_York]");
        service.write_as(&stream, &format!("late-{late}"), &stamp, "1");
    }));
    let run = tap.run();
    assert_eq!((run.code, tap.unread()), (0, vec![]), "{}", run.stderr);
    assert!(!run.stderr.contains("slipped in"), "{}", run.stderr);
    let written: Vec<Identity> = run.stdout.lines().filter_map(written_identity).collect();
    assert_eq!(written.len(), tap.records().len(), "each once");
    assert_nothing_lost(&tap, &run.stdout, "late records");
}

#[test]
fn another_consumer_takes_no_record_that_is_marked_for_it() {
    let tap = by_id(40).set("pageSize", 5);
    let (stream, taken) = (tap.stream.clone(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let consumer = std::sync::Arc::clone(&taken);
    tap.sandbox.script(Rule::on(Endpoint::Single).every_nth(3).before(move |service| {
        consumer.lock().unwrap().extend(service.mark_oldest(&stream, 1));
    }));
    let run = tap.run();
    assert_eq!((run.code, tap.unread()), (0, vec![]), "{}", run.stderr);
    let mut delivered: BTreeSet<_> = run.stdout.lines().filter_map(written_identity).collect();
    delivered.extend(taken.lock().unwrap().drain(..));
    assert_eq!(delivered, identities(&tap.records()).into_iter().collect());
}

#[test]
fn two_taps_on_one_stream_both_end_well() {
    let tap = by_id(10).set("pageSize", 3);
    tap.sandbox.script(Rule::on(Endpoint::Single).calls(1..=3).hold());
    let first = tap.start();
    tap.sandbox.wait_held(Endpoint::Single, 3);
    let second = tap.run();
    tap.sandbox.release();
    let first = first.wait(&tap);
    assert_eq!((second.code, second.stdout), (0, tap.messages(&tap.records())));
    assert_eq!((first.code, first.stdout), (0, tap.messages(&tap.records()[..3])), "{}", first.stderr);
}

/// The name of a fault, and the rule that causes it.
type Fault = (&'static str, fn(Rule) -> Rule);

#[test]
fn a_lost_answer_costs_nothing_whether_the_request_was_applied_or_not() {
    let faults: [Fault; 5] = [
        ("closed", Rule::close),
        ("cut", Rule::cut),
        ("503", |rule| rule.status(503).header("retry-after", "0")),
        ("429", |rule| rule.status(429).header("retry-after", "0")),
        ("not JSON", Rule::not_json),
    ];
    thread::scope(|scope| {
        for (fault, lose) in faults {
            for applied in [true, false] {
                scope.spawn(move || {
                    let tap = by_id(20).set("pageSize", 6).set("maxRetries", 5);
                    for nth in [2, 3, 8, 9, 10, 25] {
                        let rule = Rule::on(Endpoint::Single).call(nth);
                        tap.sandbox.script(lose(if applied { rule.applied() } else { rule }));
                    }
                    let run = tap.run();
                    run.assert_all_delivered_when(&tap, &format!("{fault}, applied: {applied}"));
                    assert_eq!(tap.sandbox.count(Endpoint::Since), 0, "no look back");
                });
            }
        }
    });
}

#[test]
fn a_token_that_is_revoked_meanwhile_is_renewed_once_for_all_requests() {
    let tap = by_id(100);
    tap.sandbox.script(Rule::on(Endpoint::Single).call(20).revoke_token());
    tap.run().assert_all_delivered(&tap);
    assert_eq!(tap.sandbox.count(Endpoint::Token), 2);
}

#[test]
fn a_record_that_cannot_be_marked_ends_the_run_with_an_error() {
    let tap = by_id(3).set("maxRetries", 2);
    tap.sandbox.script(Rule::on(Endpoint::Single).every_nth(2).status(503).header("retry-after", "0"));
    tap.sandbox.script(Rule::on(Endpoint::Single).calls(4..=99).status(503).header("retry-after", "0"));
    let run = tap.run();
    let fatal = "CRITICAL read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"} (still so after 2 retries: `maxRetries`)";
    assert_eq!((run.code, run.last_log_line()), (1, fatal), "{}", run.stderr);
    assert_eq!((run.stdout, tap.read().len()), (schema_and(&tap.records()), 2));
}

#[test]
fn a_refusal_ends_the_run_at_once() {
    let tap = by_id(3).set("maxRetries", 5);
    tap.sandbox.script(Rule::on(Endpoint::Single).every().status(403).body("no"));
    let run = tap.run();
    let fatal = "CRITICAL this client may not read stream STREAM: check `clientId` and `scope`, or ask the stream's owner to make the \
                 client a consumer of it: HOST answers 403: no";
    assert_eq!((run.code, run.last_log_line(), tap.read()), (1, fatal, vec![]), "{}", run.stderr);
}

#[test]
fn a_kill_costs_no_record_and_at_most_a_page_of_duplicates() {
    for applied in [true, false] {
        let tap = by_id(60).set("pageSize", 4);
        let (mut stdout, mut kills) = (String::new(), 0);
        for nth in [1, 2, 5, 6, 11] {
            let call = tap.sandbox.count(Endpoint::Single) + nth;
            let rule = Rule::on(Endpoint::Single).call(call);
            tap.sandbox.script(if applied { rule.applied().hold() } else { rule.hold() });
            tap.sandbox.script(Rule::on(Endpoint::Single).call(call + 1).before(tap.write_late(EARLY, "1")));
            let running = tap.start();
            tap.sandbox.wait_held(Endpoint::Single, call);
            stdout.push_str(&running.kill());
            kills += 1;
            assert_nothing_lost(&tap, &stdout, &format!("applied: {applied}, killed at request {nth}"));
        }
        tap.sandbox.release();
        stdout.push_str(&tap.run().stdout);
        assert_nothing_lost(&tap, &stdout, "the last run");
        let written: Vec<_> = stdout.lines().filter_map(written_identity).collect();
        let distinct: BTreeSet<_> = written.iter().cloned().collect();
        assert_eq!(distinct, identities(&tap.records()).into_iter().collect());
        assert!(written.len() <= tap.records().len() + 4 * kills, "more than a page of duplicates per kill");
        assert_eq!(tap.unread(), []);
    }
}

#[test]
fn a_signal_is_honoured_between_two_requests() {
    let tap = by_id(100);
    tap.sandbox.script(Rule::on(Endpoint::Single).every().applied().hold());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Single, 8);
    running.signal(Signal::TERM);
    tap.sandbox.release();
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.read().len()), (143, 8), "{}", run.stderr);
    assert_eq!(run.stdout, tap.messages(&tap.records()));
    assert!(!run.stderr.contains("CRITICAL"), "{}", run.stderr);
}

#[test]
fn a_version_that_is_written_between_peek_and_mark_is_delivered_at_once() {
    let tap = by_id(3);
    let (id, stream) = (tap.records()[0].identity.record_id.clone(), tap.stream.clone());
    let newest = "2030-01-01T00:00:00Z";
    tap.sandbox.script(Rule::on(Endpoint::Single).call(1).before(move |service| {
        service.write_as(&stream, &id, newest, "\"newest\"");
    }));
    let run = tap.run();
    run.assert_all_delivered(&tap);
    run.assert_logged("INFO 1 record slipped in between peek and mark, and was written at once");
}

#[test]
fn all_versions_of_an_id_are_delivered_and_marked() {
    for page_size in [1, 2, 3, 7] {
        for answers_show_read in [false, true] {
            let tap = by_id(0).set("pageSize", page_size);
            if answers_show_read {
                tap.sandbox.script(Rule::on(Endpoint::Single).every().as_read());
            }
            for n in 10..30 {
                let stamp = format!("2022-02-01T15:16:{n}-05:00[America/New_York]");
                tap.sandbox.write_as(&tap.stream, &format!("id-{}", n % 3), &stamp, &n.to_string());
            }
            let run = tap.run();
            assert_eq!((run.code, tap.unread()), (0, vec![]), "{}", run.stderr);
            let written: Vec<_> = run.stdout.lines().filter_map(written_identity).collect();
            assert_eq!(written.len(), 20, "pages of {page_size}: each once");
            assert_nothing_lost(&tap, &run.stdout, "versions");
        }
    }
}

#[test]
fn records_that_are_equal_in_everything_are_written_as_often_as_they_are_there() {
    for page_size in 1..=4 {
        let tap = by_id(0).set("pageSize", page_size);
        for payload in [1, 1, 2, 1, 1] {
            tap.sandbox.write_as(&tap.stream, "twin", EARLY, &payload.to_string());
        }
        let run = tap.run();
        let (mut written, mut expected): (Vec<_>, Vec<_>) =
            (run.stdout.lines().map(str::to_owned).collect(), Vec::new());
        expected.extend(tap.messages(&tap.records()).lines().map(str::to_owned));
        written.sort();
        expected.sort();
        assert_eq!((run.code, written, tap.unread()), (0, expected, vec![]), "pages of {page_size}: {}", run.stderr);
    }
}

#[test]
fn a_record_that_is_gone_is_not_waited_for() {
    let tap = by_id(3);
    let (first, stream) = (tap.records()[0].identity.clone(), tap.stream.clone());
    tap.sandbox.script(Rule::on(Endpoint::Single).call(1).before(move |service| {
        service.remove(&stream, &first);
    }));
    let run = tap.run();
    assert_eq!((run.code, tap.unread(), tap.read().len()), (0, vec![], 2), "{}", run.stderr);
}

#[test]
fn where_nothing_delivered_is_marked_it_is_refused() {
    for (word, reason) in [("read", "marks records before they are known"), ("never", "marks nothing")] {
        let tap = by_id(1).set("acknowledge", word);
        let fatal =
            format!("`markBy` `id` does not go with `acknowledge` `{word}`, which {reason}: remove one of them");
        tap.run().assert_refused(&tap, 2, &fatal);
        assert_eq!(tap.sandbox.requests(), 0);
    }
    let tap = by_id(0).set("markBy", "name");
    tap.run().assert_refused(&tap, 2, "`markBy` must be one of \"position\", \"id\", not \"name\"");
}
