//! `markBy: id`: exactly what was delivered is marked, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use streamduo_sandbox::{Endpoint, Rule, Sandbox};

use crate::tap::{EARLY, Run, Tap, assert_nothing_lost, identities, record_lines, schema_and, written_identities};

fn by_id(records: usize) -> Tap {
    Tap::with_records(records).set("markBy", "id")
}

/// How many requests were under way at the same time at the most, if all connections are used at
/// once.
fn connections(tap: &Tap, endpoint: Endpoint) -> usize {
    let journal = tap.sandbox.journal();
    let connections: BTreeSet<_> =
        journal.iter().filter(|call| call.endpoint == endpoint).map(|call| call.connection).collect();
    connections.len()
}

/// The run has said once, and only once, that it goes on by position.
#[track_caller]
fn assert_goes_on_by_position(run: &Run, case: &str) {
    assert_eq!(run.stderr.matches("by position").count(), 1, "{case}\n{}", run.stderr);
}

/// Writes so many versions of each of these ids: first the first version of each, then the second
/// ones, and so on.
fn write_versions(tap: &Tap, ids: usize, versions: usize) {
    let minute = |n: usize| format!("2022-02-01T{:02}:{:02}:00", n / 60, n % 60);
    for version in 0..versions {
        for id in 0..ids {
            let stamp = format!("{}.{id:03}-05:00[America/New_York]", minute(version));
            tap.sandbox.write_as(&tap.stream, &format!("id-{id}"), &stamp, &version.to_string());
        }
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
    run.assert_drains(&tap);
    assert!(!run.stderr.contains("slipped in"), "{}", run.stderr);
    assert_eq!(run.written().len(), tap.records().len(), "each once");
    assert_nothing_lost(&tap, &run.written(), "late records");
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
    run.assert_drains(&tap);
    let mut delivered: BTreeSet<_> = run.written().into_iter().collect();
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
    second.assert_succeeds(&tap.messages(&tap.records()));
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stdout.starts_with(&schema_and(&tap.records()[..3])), "{}", first.stdout);
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
                    assert_eq!(tap.sandbox.count(Endpoint::Mark), 0, "nothing is marked by position");
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
    let fatal = "check the network; a replay (`acknowledge` `never`) reads it: HOST answers 503: \
                 {\"message\":\"Service Unavailable\"} (still failing after 2 retries: `maxRetries`)";
    assert!(run.code == 1 && run.last_log_line().ends_with(fatal), "{}", run.stderr);
    assert_eq!((run.stdout, tap.read().len()), (schema_and(&tap.records()), 2));
}

#[test]
fn a_refusal_ends_the_run_at_once() {
    let tap = by_id(3);
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
            let running = tap.start();
            tap.sandbox.wait_held(Endpoint::Single, call);
            stdout.push_str(&running.kill());
            kills += 1;
            assert_nothing_lost(
                &tap,
                &written_identities(&stdout),
                &format!("applied: {applied}, killed at request {nth}"),
            );
        }
        tap.sandbox.release();
        stdout.push_str(&tap.run().stdout);
        assert_nothing_lost(&tap, &written_identities(&stdout), "the last run");
        let written = written_identities(&stdout);
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
fn a_version_that_is_written_between_peek_and_mark_is_delivered_and_the_run_goes_on_by_position() {
    let tap = by_id(3);
    let (id, stream) = (tap.records()[0].identity.record_id.clone(), tap.stream.clone());
    tap.sandbox.script(Rule::on(Endpoint::Single).call(1).before(move |service| {
        service.write_as(&stream, &id, "2030-01-01T00:00:00Z", "\"newest\"");
    }));
    let run = tap.run();
    run.assert_each_once(&tap);
    assert_goes_on_by_position(&run, "");
}

#[test]
fn all_versions_of_an_id_are_delivered_and_marked() {
    for page_size in [1, 2, 3, 7] {
        for answers_show_read in [false, true] {
            let tap = by_id(0).set("pageSize", page_size);
            if answers_show_read {
                tap.sandbox.script(Rule::on(Endpoint::Single).every().as_read());
            }
            write_versions(&tap, 3, 7);
            let run = tap.run();
            let case = format!("pages of {page_size}, answers show the status after the mark: {answers_show_read}");
            run.assert_each_once_when(&tap, &case);
            assert_goes_on_by_position(&run, &case);
        }
    }
}

#[test]
fn ids_with_very_many_versions_cost_no_record() {
    // The first page holds each id once.
    let tap = by_id(0);
    write_versions(&tap, 100, 1_001);
    let run = tap.run();
    run.assert_each_once(&tap);
    assert_goes_on_by_position(&run, "");
    let singles = tap.sandbox.count(Endpoint::Single);
    assert!(singles <= 100, "{singles} requests by id: more than the first page has records");
}

#[test]
fn an_id_with_more_versions_than_the_service_shows_at_once_does_not_hold_up_the_stream() {
    for page_size in [1, 10_000] {
        let tap = by_id(0).set("pageSize", page_size);
        tap.sandbox.limit_records(100, 400);
        write_versions(&tap, 1, 150);
        tap.sandbox.fill(&tap.stream, 3);
        let run = tap.run();
        run.assert_each_once_when(&tap, &format!("pages of {page_size}"));
        assert_goes_on_by_position(&run, &format!("pages of {page_size}"));
    }
}

#[test]
fn an_id_that_cannot_be_asked_for_does_not_hold_up_the_stream() {
    for id in ["", r"\ud800"] {
        for (before, after) in [(0, 0), (0, 2), (2, 2), (100, 2)] {
            let tap = by_id(before);
            let stamp = "2026-02-01T15:16:23.716848-05:00[America/New_York]";
            let record = format!(
                r#"{{"recordId":"{id}","recordTimeStampISO":"{stamp}","readStatus":"false","dataPayload":{{"n":1}}}}"#
            );
            tap.sandbox.write_text(&tap.stream, &record);
            tap.sandbox.fill(&tap.stream, after);
            let run = tap.run();
            let case = format!("the id {id:?} behind {before} others and before {after}\n{}", run.stderr);
            assert_eq!((run.code, tap.unread().len()), (0, 0), "{case}");
            assert_eq!(run.record_lines().lines().count(), before + 1 + after, "each once: {case}");
            assert_eq!(run.record_lines().matches(&record).count(), 1, "{case}");
            assert_goes_on_by_position(&run, &case);
        }
    }
}

#[test]
fn an_id_that_single_does_not_find_is_marked_by_position() {
    let tap = by_id(5);
    tap.sandbox.script(Rule::on(Endpoint::Single).call(2).json("[]"));
    let run = tap.run();
    run.assert_all_delivered(&tap);
    assert_goes_on_by_position(&run, "");
}

/// A stream of 100 records, and a later version of each that is not on the first page; the `nth` of
/// those has a payload of 2 MB. Runs the tap, which must fail. At most that version is read and not
/// written, and the error names its id and the way to read it.
#[track_caller]
fn assert_only_a_large_version_is_lost(tap: &Tap, nth: usize) {
    let ids: Vec<_> = tap.records().into_iter().map(|record| record.identity.record_id).collect();
    let large_payload = format!("\"{}\"", "x".repeat(2_000_000));
    let later = ids.iter().enumerate().map(|(n, id)| {
        let payload = if n == nth { &large_payload } else { "1" };
        tap.sandbox.write_as(&tap.stream, id, &format!("2030-01-01T00:00:00.{n:03}Z"), payload)
    });
    let large = later.collect::<Vec<_>>().swap_remove(nth);
    let id = &large.identity.record_id;
    let run = tap.run();
    assert_nothing_lost(tap, run.written().iter().chain([&large.identity]), &run.stderr);
    run.assert_fails(1, "CRITICAL ");
    if !tap.read().contains(&large.identity) {
        return;
    }
    assert!(run.last_log_line().contains(id), "the error does not name {id}: {}", run.stderr);
    let replay = ["replay", "`acknowledge`", "`never`"];
    assert!(replay.iter().all(|word| run.last_log_line().contains(word)), "{}", run.stderr);
}

#[test]
fn a_later_version_that_is_too_large_is_the_only_record_that_is_not_delivered_and_it_is_named() {
    for nth in [99, 40, 0] {
        assert_only_a_large_version_is_lost(&by_id(100).set("maxAnswerMegabytes", 1), nth);
    }
}

#[test]
fn a_later_version_that_takes_too_long_is_the_only_record_that_is_not_delivered_and_it_is_named() {
    let tap = by_id(100).set("requestTimeoutSeconds", 2);
    tap.sandbox.set_bandwidth(Some(200_000));
    assert_only_a_large_version_is_lost(&tap, 0);
}

#[test]
fn records_that_are_equal_in_everything_are_written_once() {
    for page_size in 1..=4 {
        let tap = by_id(0).set("pageSize", page_size);
        for payload in [1, 1, 2, 1, 1] {
            tap.sandbox.write_as(&tap.stream, "twin", EARLY, &payload.to_string());
        }
        let run = tap.run();
        run.assert_each_once_when(&tap, &format!("pages of {page_size}"));
        assert_eq!(run.written().len(), 2);
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
fn where_nothing_is_marked_it_is_refused() {
    let tap = by_id(1).set("acknowledge", "never");
    let fatal = "`markBy` `id` does not go with `acknowledge` `never`, which marks nothing: remove one of them";
    tap.run().assert_refused(&tap, 2, fatal);
    assert_eq!(tap.sandbox.requests(), 0);
    let tap = by_id(0).set("markBy", "name");
    tap.run().assert_refused(&tap, 2, "`markBy` must be one of \"position\", \"id\", not \"name\"");
}
