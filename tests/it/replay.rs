//! `acknowledge: never`: the stream is read by time, and nothing is ever marked.

use std::collections::BTreeSet;
use std::fs;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Identity, Record, Rule, Samples, Stamps};

use crate::tap::{EARLY, Run, SCHEMA, Tap, identities, record_lines, schema_and, written_identity};
use crate::target::{committed, with_target};

fn replay(records: usize) -> Tap {
    Tap::with_records(records).set("acknowledge", "never")
}

/// A tap on records of which so many share each time stamp.
fn replay_of_ties(records: usize, ties: usize, stamps: Stamps) -> Tap {
    let tap = replay(0);
    tap.sandbox.fill_with(&tap.stream, records, Samples { ties, stamps, ..Samples::default() });
    tap
}

/// The value of a STATE that covers everything up to this time stamp.
fn state_at(tap: &Tap, timestamp: &str) -> Value {
    json!({"bookmarks": {"records": {
        "streamId": tap.stream, "acknowledge": "never",
        "replication_key": "recordTimeStampISO", "replication_key_value": timestamp
    }}})
}

/// The STATE message that covers these records.
fn state_line(tap: &Tap, records: &[Record]) -> String {
    let state = state_at(tap, &records.last().unwrap().identity.timestamp);
    format!("{}\n", json!({"type": "STATE", "value": state}))
}

fn run_from(tap: &Tap, state: &Value) -> Run {
    tap.run_with("--state", tap.write_file("state.json", &state.to_string()))
}

fn written(stdout: &str) -> Vec<Identity> {
    stdout.lines().filter_map(written_identity).collect()
}

/// Each STATE of a run, and the records before it.
fn states(stdout: &str) -> Vec<(Value, Vec<Identity>)> {
    let (mut before, mut states) = (Vec::new(), Vec::new());
    for line in stdout.lines() {
        before.extend(written_identity(line));
        let message: Value = serde_json::from_str(line).unwrap();
        if message["type"] == "STATE" {
            states.push((message["value"].clone(), before.clone()));
        }
    }
    states
}

/// The tap has asked to mark nothing.
#[track_caller]
fn assert_nothing_marked(tap: &Tap) {
    let marks = tap.sandbox.journal().iter().filter(|call| call.mark_as_read == Some(true)).count();
    assert_eq!((marks, tap.sandbox.count(Endpoint::Mark)), (0, 0));
}

#[test]
fn records_are_written_in_time_order_whether_they_are_read_or_not_and_none_is_marked() {
    let tap = replay(3);
    let read = tap.sandbox.mark_oldest(&tap.stream, 2);
    let run = tap.run();
    let records = tap.records();
    let as_read = |record: &Record| record.json.replace(r#""readStatus":"false""#, r#""readStatus":"true""#);
    let [first, second] = [as_read(&records[0]), as_read(&records[1])];
    let expected = schema_and(&records) + &state_line(&tap, &records);
    let expected = expected.replace(&records[0].json, &first).replace(&records[1].json, &second);
    assert_eq!((run.code, run.stdout.as_str()), (0, expected.as_str()), "{}", run.stderr);
    assert_eq!(tap.read(), read);
    assert_nothing_marked(&tap);
    run.assert_logged("INFO reading stream STREAM by time from http://HOST/, and marking nothing");
}

#[test]
fn an_empty_stream_leaves_a_state_without_a_time_stamp() {
    let tap = replay(0);
    let run = tap.run();
    assert_eq!((run.code, run.stdout), (0, format!("{SCHEMA}{}", tap.state_line("never"))));
    let record = tap.sandbox.write(&tap.stream, "1");
    let state = json!({"bookmarks": {"records": {"streamId": tap.stream, "acknowledge": "never"}}});
    assert_eq!(written(&run_from(&tap, &state).stdout), [record.identity]);
}

#[test]
fn a_run_that_is_resumed_from_any_of_its_states_misses_nothing_and_repeats_nothing() {
    for stamps in [Stamps::Example, Stamps::Mixed] {
        let tap = replay_of_ties(130, 3, stamps).set("pageSize", 7);
        let run = tap.run();
        let all = identities(&tap.records());
        assert_eq!((run.code, written(&run.stdout)), (0, all.clone()), "{}", run.stderr);
        let states = states(&run.stdout);
        assert!(states.len() > 10, "{}", states.len());
        for (state, before) in states {
            let rest = run_from(&tap, &state);
            assert_eq!((rest.code, [before, written(&rest.stdout)].concat()), (0, all.clone()), "{state}");
        }
        assert_nothing_marked(&tap);
    }
}

#[test]
fn a_state_covers_all_records_at_its_time_stamp() {
    let tap = replay_of_ties(100, 3, Stamps::Example).set("pageSize", 7);
    for (state, before) in states(&tap.run().stdout) {
        let timestamp = state["bookmarks"]["records"]["replication_key_value"].as_str().unwrap();
        let covered: Vec<_> = tap.records().into_iter().map(|record| record.identity).collect();
        let covered: Vec<_> = covered.into_iter().filter(|identity| identity.timestamp.as_str() <= timestamp).collect();
        assert_eq!(before, covered);
    }
}

#[test]
fn a_service_that_shows_a_record_after_its_own_time_stamp_is_read_to_its_end() {
    for (page_size, ties) in [(1, 1), (1, 3), (2, 3), (3, 3), (50, 3)] {
        let tap = replay_of_ties(20, ties, Stamps::Cut).set("pageSize", page_size);
        let run = tap.run();
        assert_eq!(
            (run.code, run.record_lines()),
            (0, record_lines(&tap.records())),
            "{page_size} {ties} {}",
            run.stderr
        );
    }
}

#[test]
fn time_stamps_of_every_form_are_compared_as_instants() {
    let tap = replay(0).set("pageSize", 2);
    let stamps = [
        "2022-02-01T15:16-05:00[America/New_York]",
        "2022-02-01T20:16:00.000Z[UTC]",
        "2022-02-02T01:46:00.001+05:30",
        "2022-02-01T15:16:00.001000-05:00[America/New_York]",
        "2022-02-01T20:16:00.001000001Z",
        "2022-02-01T22:16:01+02:00[Europe/Helsinki]",
    ];
    for (number, stamp) in stamps.iter().enumerate() {
        tap.sandbox.write_as(&tap.stream, &number.to_string(), stamp, "1");
    }
    let run = tap.run();
    let all = identities(&tap.records());
    assert_eq!((run.code, written(&run.stdout)), (0, all.clone()), "{}", run.stderr);
    for (state, before) in states(&run.stdout) {
        assert_eq!([before, written(&run_from(&tap, &state).stdout)].concat(), all, "{state}");
    }
}

#[test]
fn a_fixed_offset_as_java_writes_it_and_the_last_day_of_9999_are_time_stamps() {
    let tap = replay(0).set("timestampFormat", "rfc3339");
    for (stamp, utc) in [
        ("2022-02-02T06:16:01+10:00[GMT+10:00]", "2022-02-01T20:16:01Z"),
        ("2022-02-02T06:16:02+10:00[UTC+10:00]", "2022-02-01T20:16:02Z"),
        ("2022-02-01T17:16:03.5-03:00[UT-03:00]", "2022-02-01T20:16:03.5Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ] {
        tap.sandbox.write_as(&tap.stream, utc, stamp, "1");
    }
    let run = tap.run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let written = run.written();
    assert_eq!(written.len(), 4, "{}", run.stdout);
    assert!(written.iter().all(|identity| identity.record_id == identity.timestamp), "{}", run.stdout);
    let state = states(&run.stdout).pop().unwrap().0;
    assert_eq!(state, state_at(&tap, "9999-12-31T23:59:59.999Z"));
    assert_eq!(run_from(&tap, &state).written(), []);
}

/// Writes records that share a time stamp, and one after them.
fn write_crowd(tap: &Tap, count: usize, with_next: bool) {
    for number in 0..count {
        tap.sandbox.write_as(&tap.stream, &format!("crowd-{number}"), "2030-01-01T00:00:00Z", "1");
    }
    if with_next {
        tap.sandbox.write_as(&tap.stream, "next", "2030-01-01T00:00:01Z", "1");
    }
}

#[test]
fn a_page_of_a_single_time_stamp_grows_until_it_shows_the_next_one() {
    let tap = replay(20).set("pageSize", 10);
    write_crowd(&tap, 250, true);
    let run = tap.run();
    assert_eq!((run.code, written(&run.stdout)), (0, identities(&tap.records())), "{}", run.stderr);
    let asked: Vec<_> = tap.sandbox.journal().iter().filter_map(|call| call.record_count).collect();
    assert_eq!(asked, [10, 1, 10, 10, 10, 20, 40, 80, 160, 320, 10]);
}

#[test]
fn a_page_of_a_single_time_stamp_that_cannot_grow_ends_the_run_before_it() {
    type Limit = fn(&Tap);
    let refused: Limit = |tap| tap.sandbox.limit_records(100, 413);
    let capped: Limit = |tap| tap.sandbox.script(Rule::on(Endpoint::Since).every().cap(100));
    for limit in [refused, capped] {
        let tap = replay(20);
        let before = tap.records();
        write_crowd(&tap, 150, true);
        limit(&tap);
        let run = tap.run();
        // The tap has asked for 100 records, of which the last ones are not known to be all at
        // their time stamp.
        let expected = schema_and(&before) + &state_line(&tap, &before);
        assert_eq!((run.code, run.stdout), (1, expected), "{}", run.stderr);
        assert_eq!(
            run.stderr.lines().find(|line| line.starts_with("CRITICAL")),
            Some(
                "CRITICAL the service shows 100 records at 2030-01-01T00:00:00Z at once and nothing after them, so \
                 reading by time would skip the records that it does not show: raise `maxAnswerMegabytes` or \
                 `requestTimeoutSeconds`"
            )
        );
    }
}

#[test]
fn many_records_at_the_last_time_stamp_are_written_once_by_however_many_runs() {
    for (before, start) in [(20, EARLY), (0, EARLY), (3, "2029-12-31T23:59:59Z")] {
        let tap = replay(before).set("startTimestamp", start).set("pageSize", 60);
        write_crowd(&tap, 150, false);
        let mut state = json!({});
        let mut received = Vec::new();
        for after in 0..4 {
            let run = run_from(&tap, &state);
            assert_eq!(run.code, 0, "{}", run.stderr);
            received.push(run.written().len());
            state = states(&run.stdout).pop().unwrap().0;
            // More at that time stamp, and then one behind it.
            match after {
                1 => drop(tap.sandbox.write_as(&tap.stream, "more", "2030-01-01T00:00:00Z", "1")),
                2 => drop(tap.sandbox.write_as(&tap.stream, "next", "2030-01-01T00:00:01Z", "1")),
                _ => {}
            }
        }
        let first = if start == EARLY { 150 + before } else { 150 };
        assert_eq!(received, [first, 0, 1, 1], "{before} {start}");
        assert_eq!(state, state_at(&tap, "2030-01-01T00:00:01Z"));
    }
}

#[test]
fn many_records_at_the_last_time_stamp_are_committed_once_by_a_target_that_the_tap_runs() {
    let tap = replay_into_target(replay(5).set("pageSize", 40), &["--every", "1"]);
    write_crowd(&tap, 150, false);
    for _ in 0..3 {
        tap.run().assert_succeeds("");
        assert_eq!(committed(&tap), identities(&tap.records()));
    }
    let bookmark = &kept_state(&tap)["bookmarks"]["records"];
    assert_eq!(
        (&bookmark["count"], &bookmark["replication_key_value"]),
        (&json!(150), &json!(tap.records()[4].identity.timestamp))
    );
}

#[test]
fn a_run_that_follows_writes_many_records_at_the_last_time_stamp_once() {
    let tap = replay(20).set("pollIntervalSeconds", 0).args(&["--follow"]);
    write_crowd(&tap, 150, false);
    let mut running = tap.start();
    running.read_lines(1 + 20 + 1 + 150 + 1);
    let polls = tap.sandbox.count(Endpoint::Since);
    tap.sandbox.wait_for(Endpoint::Since, polls + 6);
    let new = tap.sandbox.write_as(&tap.stream, "next", "2030-01-01T00:00:01Z", "1");
    // The STATE at the time stamp may come before it or not.
    let news = running.read_lines(2);
    assert!(news.contains(&record_lines(std::slice::from_ref(&new))), "{news}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(&tap).code, 143);
}

#[test]
fn a_service_that_returns_the_newest_records_is_refused_before_anything_is_written() {
    for ties in [1, 3, 400] {
        let tap = replay_of_ties(900, ties, Stamps::Example);
        tap.sandbox.return_newest_since(&tap.stream);
        tap.run().assert_refused(
            &tap,
            1,
            "the service does not show the oldest records after a time stamp first, so reading by time would skip records: \
             set `acknowledge` to `write` or `commit`, which read what is unread",
        );
        assert_nothing_marked(&tap);
    }
    // A page that shows everything skips nothing, whatever the order.
    let tap = replay(99);
    tap.sandbox.return_newest_since(&tap.stream);
    assert_eq!(written(&tap.run().stdout), identities(&tap.records()));
}

#[test]
fn the_order_is_checked_once_a_run() {
    let tap = replay(1_000).set("pageSize", 100);
    let run = tap.run();
    assert_eq!((run.code, written(&run.stdout)), (0, identities(&tap.records())));
    let asked: Vec<_> = tap.sandbox.journal().iter().filter_map(|call| call.record_count).collect();
    assert_eq!(asked, [vec![100, 1], vec![100; 10]].concat());
}

#[test]
fn it_begins_after_the_start_or_where_the_state_says() {
    let tap = replay(5);
    let records = tap.records();
    let stamp = |index: usize| records[index].identity.timestamp.clone();
    let tap = tap.set("startTimestamp", stamp(1));
    assert_eq!(written(&tap.run().stdout), identities(&records[2..]));
    assert_eq!(written(&run_from(&tap, &state_at(&tap, &stamp(3))).stdout), identities(&records[4..]));
    assert_eq!(written(&run_from(&tap, &state_at(&tap, &stamp(0))).stdout), identities(&records[1..]));
    let none = run_from(&tap, &state_at(&tap, &stamp(4)));
    assert_eq!(none.stdout, format!("{SCHEMA}{}", state_line(&tap, &records)));
    let tap = tap.set("startTimestamp", "2022-02-01T20:16:24Z");
    assert_eq!(written(&tap.run().stdout), identities(&records[1..]));
    let run = tap.set("startTimestamp", "2022-02-01").run();
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
}

#[test]
fn the_state_of_another_stream_or_mode_is_not_taken() {
    let tap = replay(2);
    let last = tap.records()[1].identity.timestamp.clone();
    let mut other = state_at(&tap, &last);
    other["bookmarks"]["records"]["streamId"] = json!("other");
    let mut commit = state_at(&tap, &last);
    commit["bookmarks"]["records"]["acknowledge"] = json!("commit");
    for (state, problem) in [
        (other, "is of stream other"),
        (commit, "was not made with `acknowledge` `never`"),
        (state_at(&tap, "2022-02-01"), "holds no time stamp with an offset"),
        (json!({"bookmarks": {"records": {"partitions": []}}}), "holds no time stamp with an offset"),
        (json!({"bookmarks": {"cars": {}}}), "is missing"),
        (json!({"records": last}), "is missing"),
    ] {
        let run = run_from(&tap, &state);
        let bookmark = &states(&run.stdout).pop().unwrap().0["bookmarks"]["records"];
        assert_eq!(
            (bookmark, run.written()),
            (&state_at(&tap, &last)["bookmarks"]["records"], identities(&tap.records()))
        );
        run.assert_logged(&format!(
            "WARNING the state's bookmark of \"records\" {problem}: reading from `startTimestamp` on"
        ));
    }
    // Nor is its state by another mode.
    let state = state_at(&tap, &last);
    let tap = tap.set("acknowledge", "commit");
    run_from(&tap, &state).assert_logged(
        "WARNING the state's bookmark of \"records\" was not made with `acknowledge` `commit`: nothing is marked by \
         it",
    );
}

#[test]
fn a_state_is_taken_in_every_form_that_it_is_kept_in() {
    let tap = replay(3);
    let stamp = |index: usize| tap.records()[index].identity.timestamp.clone();
    let own = state_at(&tap, &stamp(1));
    let of = |bookmark: Value| json!({"bookmarks": {"records": bookmark}});
    let message = json!({"type": "STATE", "value": own});
    for text in [
        json!({"singer_state": own}).to_string(),
        format!("{:#}", json!({"completed": {"singer_state": own}, "partial": {}})),
        of(json!({"replication_key": "recordTimeStampISO", "replication_key_value": stamp(1)})).to_string(),
        of(json!({"recordTimeStampISO": stamp(1)})).to_string(),
        of(json!(stamp(1))).to_string(),
        format!("{}\n{own:#}\n\n", state_at(&tap, EARLY)),
        format!("{}\n{message}", state_at(&tap, EARLY)),
    ] {
        let run = tap.run_with("--state", tap.write_file("state.json", &text));
        assert_eq!((run.code, run.written()), (0, identities(&tap.records()[2..])), "{text}\n{}", run.stderr);
        assert!(!run.stderr.contains("WARNING"), "{text}\n{}", run.stderr);
    }
    let partial = json!({"completed": {"singer_state": own}, "partial": {"singer_state": own}});
    run_from(&tap, &partial).assert_logged(
        "WARNING the state holds a `partial` state of Meltano's, which is not used: only `completed` counts",
    );
    let cut = tap.write_file("state.json", &format!("{own}\n{{\"bookmarks\":"));
    let problem = "not JSON: EOF while parsing a value at line 2 column 13; keep the last STATE of a run there, or remove \
                   the file to begin anew";
    tap.run_with("--state", cut).assert_refused(&tap, 2, &format!("state DIR/state.json: {problem}"));
}

#[test]
fn a_target_that_the_tap_runs_does_not_get_the_bookmarks_of_other_streams_which_stay() {
    let tap = replay_into_target(replay(3), &["--every", "1"]);
    let other = json!({"x": "x".repeat(80_000)});
    tap.write_file("state.json", &json!({"bookmarks": {"other": other}}).to_string());
    tap.run().assert_succeeds("");
    let mut expected = state_at(&tap, &tap.records()[2].identity.timestamp);
    expected["bookmarks"]["other"] = other;
    assert_eq!((committed(&tap), kept_state(&tap)), (identities(&tap.records()), expected));
}

#[test]
fn bookmarks_of_other_streams_pass_on() {
    let tap = replay(1);
    let mut state = state_at(&tap, EARLY);
    state["bookmarks"]["other"] = json!({"x": 1.0});
    let run = run_from(&tap, &state);
    let (last, _) = states(&run.stdout).pop().unwrap();
    assert_eq!(last["bookmarks"]["other"], json!({"x": 1.0}));
}

#[test]
fn what_cannot_be_placed_in_time_ends_the_run() {
    for (text, fatal) in [
        (
            r#"{"recordId":"x","recordTimeStampISO":"2022-02-01T15:16:23"}"#,
            "cannot read by time after recordTimeStampISO \"2022-02-01T15:16:23\": ",
        ),
        (r#"{"recordId":"x"}"#, "record 2 of the answer has no identity: `recordTimeStampISO` is missing"),
    ] {
        let tap = replay(1);
        tap.sandbox.write_text(&tap.stream, text);
        let run = tap.run();
        assert_eq!((run.code, run.stdout.as_str()), (1, ""));
        assert!(run.stderr.contains(&format!("CRITICAL {fatal}")), "{}", run.stderr);
    }
}

#[test]
fn follow_goes_on_by_time() {
    let tap = replay(2).set("pollIntervalSeconds", 0).args(&["--follow"]);
    let mut running = tap.start();
    let records = tap.records();
    assert_eq!(running.read_lines(4), schema_and(&records) + &state_line(&tap, &records));
    // An older record is not seen.
    tap.sandbox.write_as(&tap.stream, "late", EARLY, "1");
    let polls = tap.sandbox.count(Endpoint::Since);
    tap.sandbox.wait_for(Endpoint::Since, polls + 2);
    let new = [tap.sandbox.write(&tap.stream, "\"new\"")];
    assert_eq!(running.read_lines(2), record_lines(&new) + &state_line(&tap, &new));
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, run.stdout.as_str()), (143, ""));
    assert_nothing_marked(&tap);
}

#[test]
fn an_overlap_finds_what_has_arrived_late_and_a_run_writes_it_once() {
    // The sample records are 7.0137 s apart.
    let tap = replay(10).set("replayOverlapSeconds", 15).set("pollIntervalSeconds", 0);
    let records = tap.records();
    let resumed = run_from(&tap, &state_at(&tap, &records[9].identity.timestamp));
    assert_eq!(resumed.stdout, schema_and(&records[7..]) + &state_line(&tap, &records));
    let tap = tap.args(&["--follow"]);
    let mut running = tap.start();
    assert_eq!(running.read_lines(12), schema_and(&records) + &state_line(&tap, &records));
    let second = |index: usize| format!("{}.5-05:00[America/New_York]", &records[index].identity.timestamp[..19]);
    tap.sandbox.write_as(&tap.stream, "too late", &second(3), "1");
    let late = tap.sandbox.write_as(&tap.stream, "late", &second(9), "1");
    let is_behind = late.identity.timestamp > records[9].identity.timestamp;
    let state = if is_behind { state_line(&tap, std::slice::from_ref(&late)) } else { state_line(&tap, &records) };
    assert_eq!(running.read_lines(2), record_lines(&[late]) + &state);
    let polls = tap.sandbox.count(Endpoint::Since);
    tap.sandbox.wait_for(Endpoint::Since, polls + 2);
    running.signal(Signal::TERM);
    assert_eq!(running.wait(&tap).stdout, "");
}

#[test]
fn an_overlap_does_not_reach_behind_the_start() {
    let tap = replay(10).set("replayOverlapSeconds", 2_592_000);
    let records = tap.records();
    let tap = tap.set("startTimestamp", records[4].identity.timestamp.clone());
    let run = run_from(&tap, &state_at(&tap, &records[7].identity.timestamp));
    assert_eq!(written(&run.stdout), identities(&records[5..]));
}

#[test]
fn lost_answers_and_errors_are_asked_for_again() {
    let tap = replay_of_ties(300, 3, Stamps::Mixed).set("pageSize", 20).set("maxRetries", 3);
    let rule = |call| Rule::on(Endpoint::Since).call(call);
    tap.sandbox.script(rule(1).close());
    tap.sandbox.script(rule(3).cut());
    tap.sandbox.script(rule(5).status(503).header("retry-after", "0"));
    tap.sandbox.script(rule(7).not_json());
    tap.sandbox.script(rule(9).revoke_token());
    let run = tap.run();
    assert_eq!((run.code, written(&run.stdout)), (0, identities(&tap.records())), "{}", run.stderr);
    assert!(run.stderr.contains("WARNING read since: "), "{}", run.stderr);
    assert_nothing_marked(&tap);
}

#[test]
fn runs_that_are_killed_anywhere_miss_nothing() {
    let mut random = Rng::with_seed(1);
    let tap = replay_of_ties(400, 3, Stamps::Mixed).set("pageSize", 9);
    let (mut received, mut state) = (Vec::new(), json!({}));
    for _ in 0..12 {
        let mut command = tap.command();
        command.arg("--state").arg(tap.write_file("state.json", &state.to_string()));
        let mut running = tap.start_command(&mut command);
        // The target commits what comes before a STATE, if it reads that far.
        let mut waiting = Vec::new();
        for _ in 0..random.usize(1..80) {
            let line = running.read_line();
            waiting.extend(written_identity(&line));
            if let Ok(message) = serde_json::from_str::<Value>(&line)
                && message["type"] == "STATE"
            {
                received.append(&mut waiting);
                state = message["value"].clone();
            }
        }
        running.kill();
    }
    let run = run_from(&tap, &state);
    received.extend(written(&run.stdout));
    assert_eq!((run.code, received), (0, identities(&tap.records())));
    assert_nothing_marked(&tap);
}

#[test]
fn the_catalog_says_that_the_stream_is_incremental() {
    let catalog = |acknowledge: &str| {
        let tap = Tap::with_records(0).set("acknowledge", acknowledge).args(&["--discover"]);
        let catalog: Value = serde_json::from_str(&tap.run().stdout).unwrap();
        assert!(tap.sandbox.journal().is_empty());
        catalog["streams"][0].clone()
    };
    let (mut expected, replayed) = (catalog("write"), catalog("never"));
    expected["replication_method"] = json!("INCREMENTAL");
    expected["replication_key"] = json!("recordTimeStampISO");
    let root = &mut expected["metadata"][0]["metadata"];
    root["replication-method"] = json!("INCREMENTAL");
    root["replication-key"] = json!("recordTimeStampISO");
    root["valid-replication-keys"] = json!(["recordTimeStampISO"]);
    assert_eq!(replayed, expected);
    let tap = replay(3);
    let run = tap.run_with("--catalog", tap.write_file("catalog.json", &json!({"streams": [replayed]}).to_string()));
    assert_eq!(run.stdout, schema_and(&tap.records()) + &state_line(&tap, &tap.records()));
}

/// A tap that runs the sandbox's target, and keeps its state in a file.
fn replay_into_target(tap: Tap, options: &[&str]) -> Tap {
    let state = tap.path("state.json");
    with_target(tap.args(&["--state", state.to_str().unwrap()]), options)
}

fn kept_state(tap: &Tap) -> Value {
    serde_json::from_str(&fs::read_to_string(tap.path("state.json")).unwrap()).unwrap()
}

#[test]
fn a_target_that_the_tap_runs_gets_what_came_since_its_last_run() {
    for (proof, options) in
        [("state", &["--every", "1"][..]), ("state", &["--every", "0"]), ("exit", &["--silent", "--every", "0"])]
    {
        let tap = replay(1_000).set("maxPending", 300).set("targetProof", proof);
        let tap = replay_into_target(tap, options);
        for _ in 0..3 {
            let run = tap.run();
            run.assert_succeeds("");
            let records = tap.records();
            assert_eq!(committed(&tap), identities(&records), "{options:?}");
            assert_eq!(kept_state(&tap), state_at(&tap, &records.last().unwrap().identity.timestamp));
            tap.sandbox.fill(&tap.stream, 200);
        }
        assert_nothing_marked(&tap);
    }
}

#[test]
fn a_target_that_fails_loses_nothing() {
    let tap = replay_of_ties(2_000, 3, Stamps::Example).set("pageSize", 50).set("maxPending", 400);
    let (mut random, mut failures) = (Rng::with_seed(1), 0);
    for run in 0..12 {
        let (program, rows, state) = (crate::target::target_program(), tap.path("rows"), tap.path("state.json"));
        let mut command = tap.command();
        command.arg("--state").arg(state).arg("--").arg(program).args(["target", "--out"]).arg(rows);
        command.args(["--every", &random.usize(..4).to_string()]);
        if run < 11 {
            command.args(["--crash-at", &random.usize(1..900).to_string()]);
            command.args(["--crash-by", random.choice(&["fail", "exit", "kill"]).unwrap()]);
        }
        let ended = tap.run_command(&mut command);
        let all_committed: BTreeSet<_> = committed(&tap).into_iter().collect();
        if tap.path("state.json").exists() {
            let state = kept_state(&tap);
            let bookmark = state["bookmarks"]["records"]["replication_key_value"].as_str().unwrap().to_owned();
            let covered = tap.records().into_iter().filter(|record| record.identity.timestamp <= bookmark);
            assert!(covered.into_iter().all(|record| all_committed.contains(&record.identity)), "{bookmark}");
        }
        assert!(matches!(ended.code, 0 | 3), "{}", ended.stderr);
        failures += ended.code;
    }
    let distinct: BTreeSet<_> = committed(&tap).into_iter().collect();
    assert_eq!((failures > 0, distinct), (true, identities(&tap.records()).into_iter().collect()));
    assert_nothing_marked(&tap);
}

#[test]
fn follow_into_a_target_starts_it_only_for_news_and_a_stop_keeps_what_it_has_committed() {
    let tap = replay(2).set("pollIntervalSeconds", 0).args(&["--follow"]);
    let tap = replay_into_target(tap, &["--every", "1"]);
    let running = tap.start();
    let poll = |tap: &Tap| {
        let polls = tap.sandbox.count(Endpoint::Since);
        tap.sandbox.wait_for(Endpoint::Since, polls + 3);
    };
    poll(&tap);
    let new = tap.sandbox.write(&tap.stream, "\"new\"");
    poll(&tap);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, committed(&tap)), (143, identities(&tap.records())), "{}", run.stderr);
    assert_eq!(run.stderr.matches("INFO streamduo-sandbox is started\n").count(), 2, "{}", run.stderr);
    assert_eq!(kept_state(&tap), state_at(&tap, &new.identity.timestamp));
    assert_nothing_marked(&tap);
}

#[test]
fn without_a_state_file_a_target_gets_everything_each_time() {
    let tap = with_target(replay(3), &["--every", "1"]);
    for times in 1..3 {
        let run = tap.run();
        assert_eq!((run.code, committed(&tap).len()), (0, 3 * times));
        run.assert_logged("INFO no --state: the next run begins at `startTimestamp` again");
    }
}

#[test]
fn a_state_file_that_cannot_be_written_is_refused_before_anything_is_read_or_started() {
    let tap = replay(3);
    let state = tap.path("no-such-folder/state.json");
    let tap = with_target(tap.args(&["--state", state.to_str().unwrap()]), &["--every", "1"]);
    let problem = "state DIR/no-such-folder/state.json: no file can be made in DIR/no-such-folder: No such file or directory \
                   (os error 2); make that folder writable, or name a file in another one";
    let run = tap.run();
    run.assert_refused(&tap, 2, problem);
    assert!(!run.stderr.contains("is started") && tap.sandbox.journal().is_empty(), "{}", run.stderr);
}

#[test]
fn a_state_file_keeps_its_permissions_and_is_replaced_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let tap = replay_into_target(replay(3), &["--every", "1"]);
    let state = tap.write_file("state.json", "{}");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o600)).unwrap();
    let left = tap.write_file(".state.json.new", "{");
    tap.run().assert_succeeds("");
    assert_eq!((fs::metadata(&state).unwrap().permissions().mode() & 0o777, left.exists()), (0o600, false));
    assert_eq!(kept_state(&tap), state_at(&tap, &tap.records()[2].identity.timestamp));
}

#[test]
fn a_state_that_is_a_link_stays_one_and_what_is_not_a_regular_file_is_refused() {
    for exists in [true, false] {
        let tap = replay_into_target(replay(3), &["--every", "1"]);
        fs::create_dir(tap.path("real")).unwrap();
        if exists {
            tap.write_file("real/state.json", "{}");
        }
        std::os::unix::fs::symlink("real/state.json", tap.path("state.json")).unwrap();
        tap.run().assert_succeeds("");
        assert!(tap.path("state.json").is_symlink());
        assert_eq!(kept_state(&tap), state_at(&tap, &tap.records()[2].identity.timestamp));
    }
    let other = replay(0);
    let fifo = crate::target::make_fifo(&other);
    for path in ["/dev/null", "/tmp", fifo.to_str().unwrap()] {
        let tap = replay(3).args(&["--state", path]).target(&["cat"]);
        let problem = format!("state {path}: it is not a regular file: name another one");
        tap.run().assert_refused(&tap, 2, &problem);
    }
}
