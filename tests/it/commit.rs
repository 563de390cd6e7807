//! `acknowledge: commit`: only what the target has committed is marked.

use std::io::Write;

use rustix::process::Signal;
use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{EARLY, Run, SCHEMA, Tap, identities, schema_and};

fn commit_tap(records: usize) -> Tap {
    Tap::with_records(records).set("acknowledge", "commit")
}

/// Runs the tap with this state.
fn run_with_state(tap: &Tap, state: &Value) -> Run {
    tap.run_with("--state", tap.write_file("state.json", &state.to_string()))
}

/// The values of the STATE messages, in order.
fn states(run: &Run) -> Vec<Value> {
    let messages = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    messages.filter(|message| message["type"] == "STATE").map(|message| message["value"].clone()).collect()
}

fn last_state(run: &Run) -> Value {
    states(run).pop().unwrap()
}

fn count(state: &Value) -> &Value {
    &state["bookmarks"]["records"]["count"]
}

/// stdout without its STATE messages.
fn without_states(run: &Run) -> String {
    run.stdout.lines().filter(|line| !line.starts_with(r#"{"type":"STATE""#)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn without_a_state_everything_is_written_and_nothing_marked() {
    let tap = commit_tap(3);
    let run = tap.run();
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
    let bookmark = last_state(&run)["bookmarks"]["records"].clone();
    assert_eq!(bookmark["streamId"], tap.stream.as_str());
    assert_eq!((&bookmark["acknowledge"], &bookmark["count"]), (&json!("commit"), &json!(3)));
    assert_eq!(bookmark["digest"].as_str().unwrap().len(), 64);
    assert_eq!(bookmark.as_object().unwrap().len(), 4);
}

#[test]
fn a_returned_state_marks_what_it_covers_and_the_rest_is_written() {
    let tap = commit_tap(3);
    let first = tap.run();
    let late = tap.sandbox.write(&tap.stream, "\"late\"");
    let second = run_with_state(&tap, &last_state(&first));
    assert_eq!((second.code, without_states(&second)), (0, schema_and(std::slice::from_ref(&late))));
    assert_eq!(tap.read(), identities(&tap.records()[..3]));
    assert_eq!(count(&last_state(&second)), 1);
    let third = run_with_state(&tap, &last_state(&second));
    assert_eq!((without_states(&third), tap.unread()), (SCHEMA.to_owned(), vec![]));
    let fourth = run_with_state(&tap, &last_state(&third));
    assert_eq!((fourth.code, last_state(&fourth)), (0, last_state(&third)));
}

#[test]
fn the_window_grows_and_every_window_has_its_state() {
    let tap = commit_tap(1000).set("maxPending", 500);
    let run = tap.run();
    assert_eq!(without_states(&run), schema_and(&tap.records()[..500]));
    assert_eq!(states(&run).iter().map(count).collect::<Vec<_>>(), [100, 200, 400, 500]);
    assert_eq!(requested_counts(&tap), [100, 200, 400, 500]);
    run.assert_logged("INFO 500 records are out (`maxPending`): if there are more, they follow in the next run");
    // The STATE of an earlier window is valid, too.
    let second = run_with_state(&tap, &states(&run)[1]);
    assert_eq!(tap.read(), identities(&tap.records()[..200]));
    assert_eq!(without_states(&second), schema_and(&tap.records()[200..700]));
}

/// How many records each peek asked for.
fn requested_counts(tap: &Tap) -> Vec<u64> {
    tap.sandbox.journal().iter().filter_map(|call| call.record_count).collect()
}

#[test]
fn a_window_that_shows_everything_is_the_last() {
    let tap = commit_tap(150);
    let run = tap.run();
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    assert_eq!(states(&run).iter().map(count).collect::<Vec<_>>(), [100, 150]);
    assert_eq!(requested_counts(&tap), [100, 200]);
    assert!(!run.stderr.contains(" are out"), "{}", run.stderr);
}

#[test]
fn a_run_ends_although_records_keep_arriving() {
    let tap = commit_tap(150).set("maxPending", 400);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().before(move |service| service.fill(&stream, 1)));
    let run = tap.run();
    assert_eq!((run.code, requested_counts(&tap)), (0, vec![100, 200]));
    assert_eq!(states(&run).iter().map(count).collect::<Vec<_>>(), [100, 152]);
}

#[test]
fn a_failed_peek_does_not_keep_the_window_from_growing() {
    let tap = commit_tap(1000).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(503).header("retry-after", "0"));
    let run = tap.run();
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    assert_eq!(requested_counts(&tap), [100, 200, 200, 400, 800, 1600]);
}

#[test]
fn a_state_that_covers_10_000_records_is_small() {
    let tap = commit_tap(10_000);
    let run = tap.run();
    let line = run.stdout.lines().last().unwrap();
    assert_eq!(count(&last_state(&run)), 10_000);
    assert!(line.len() < 1024, "{line}");
    run_with_state(&tap, &last_state(&run));
    assert_eq!(tap.unread(), []);
}

/// A run with this state marks nothing, writes all unread records again and logs this reason.
#[track_caller]
fn assert_proves_nothing(tap: &Tap, state: &Value, reason: &str) {
    let before = tap.read();
    let run = run_with_state(tap, state);
    let unread: Vec<_> = tap.records().into_iter().filter(|record| tap.unread().contains(&record.identity)).collect();
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&unread)), "{}", run.stderr);
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (before, 0));
    assert!(run.stderr.lines().any(|line| line.ends_with(reason)), "{}", run.stderr);
}

#[test]
fn a_state_that_does_not_match_marks_nothing() {
    let no_match =
        "the state covers 3 records, but it does not match what is unread now: marking nothing, delivering again";
    let tap = commit_tap(3);
    let state = last_state(&tap.run());
    // A record has appeared before those of the state.
    tap.sandbox.write_as(&tap.stream, "late", EARLY, "1");
    assert_proves_nothing(&tap, &state, no_match);
    // Another consumer has marked a record meanwhile.
    let tap = commit_tap(5);
    let state = json!({"bookmarks": {"records": {
        "streamId": tap.stream, "acknowledge": "commit", "count": 3,
        "digest": last_state(&tap.run())["bookmarks"]["records"]["digest"]
    }}});
    tap.sandbox.mark_oldest(&tap.stream, 1);
    assert_proves_nothing(&tap, &state, no_match);
}

#[test]
fn a_state_of_another_stream_or_mode_or_with_invalid_values_marks_nothing() {
    let tap = commit_tap(2);
    let own = last_state(&tap.run());
    let bookmark = |name: &str, value: Value| {
        let mut state = own.clone();
        state["bookmarks"]["records"][name] = value;
        state
    };
    let reason = |problem: &str| format!("the state's bookmark of \"records\" {problem}: nothing is marked by it");
    assert_proves_nothing(&tap, &bookmark("streamId", json!("other")), &reason("is of stream other"));
    assert_proves_nothing(
        &tap,
        &bookmark("acknowledge", json!("write")),
        &reason("was not made with `acknowledge` `commit`"),
    );
    assert_proves_nothing(
        &tap,
        &bookmark("count", json!(1_000_000)),
        &reason("covers 1000000 records, which is more than a run can deliver"),
    );
    assert_proves_nothing(
        &tap,
        &json!({"bookmarks": {"records": 7}}),
        &reason("cannot be read (invalid type: integer `7`, expected a bookmark)"),
    );
    assert_proves_nothing(
        &tap,
        &bookmark("count", json!("2")),
        &reason("cannot be read (invalid type: string \"2\", expected usize)"),
    );
}

#[test]
fn a_state_without_this_streams_bookmark_marks_nothing() {
    let tap = commit_tap(2);
    for state in [json!({}), json!({"bookmarks": {"other": {"x": 1}}}), json!({"bookmarks": null})] {
        let run = run_with_state(&tap, &state);
        assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    }
    assert_eq!(tap.sandbox.count(Endpoint::Mark), 0);
}

#[test]
fn a_run_ends_with_what_is_written_if_the_service_caps_the_window() {
    let tap = commit_tap(300);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().cap(150));
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().cap(60));
    let run = tap.run();
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records()[..150])));
    assert_eq!(count(&last_state(&run)), 150);
    // The marks are capped as well. They are repeated until exactly the records that the state
    // covers are marked.
    let second = run_with_state(&tap, &last_state(&run));
    assert_eq!(tap.read(), identities(&tap.records()[..150]));
    assert_eq!(without_states(&second), schema_and(&tap.records()[150..]));
}

#[test]
fn a_run_ends_with_what_is_written_if_the_service_refuses_the_window() {
    let tap = commit_tap(300);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(413).body("too many"));
    let run = tap.run();
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records()[..100])));
    assert_eq!(count(&last_state(&run)), 100);
    run.assert_logged(
        "INFO peek: asking for 100 records instead of 200: read stream STREAM: HOST answers 413: too many",
    );
    run.assert_logged(
        "INFO 100 records are out, and the service shows no more at once: if there are more, they follow in the next run",
    );
}

#[test]
fn a_mark_that_is_refused_is_sent_again_and_nothing_is_looked_for() {
    for (status, asked) in [(429, [2, 3].as_slice()), (413, &[2, 1, 1, 1])] {
        let tap = commit_tap(3).set("maxRetries", 1);
        let state = last_state(&tap.run());
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(status).header("retry-after", "0"));
        let run = run_with_state(&tap, &state);
        assert_eq!((run.code, without_states(&run).as_str(), tap.unread()), (0, SCHEMA, vec![]), "{}", run.stderr);
        let journal = tap.sandbox.journal();
        let marks = journal.iter().filter(|call| call.endpoint == Endpoint::Mark);
        assert_eq!(marks.filter_map(|call| call.record_count).collect::<Vec<_>>(), asked);
        assert_eq!(tap.sandbox.count(Endpoint::Since), 0);
        assert!(!run.stderr.contains("lost"), "{}", run.stderr);
    }
}

#[test]
fn a_mark_that_was_applied_is_not_repeated_if_its_answer_is_lost() {
    let tap = commit_tap(3).set("maxRetries", 1);
    let state = last_state(&tap.run());
    let late = tap.sandbox.write(&tap.stream, "\"late\"");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().status(503).header("retry-after", "0"));
    let run = run_with_state(&tap, &state);
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&[late])));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (identities(&tap.records()[..3]), 2));
}

#[test]
fn a_mark_that_may_still_be_applied_is_left_to_the_next_run() {
    let tap = commit_tap(3).set("maxRetries", 1);
    let state = last_state(&tap.run());
    tap.sandbox.write(&tap.stream, "\"late\"");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(503).header("retry-after", "0"));
    let run = run_with_state(&tap, &state);
    assert_eq!((run.code, without_states(&run), last_state(&run)), (0, SCHEMA.to_owned(), state.clone()));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 1));
    run.assert_logged(
        "INFO the answer to a mark was lost, and the mark may still be applied: the next run marks what \
         is left",
    );
    // The mark may still be applied, but only to committed records. The next run sees whether it
    // was.
    let next = run_with_state(&tap, &last_state(&run));
    assert_eq!((next.code, without_states(&next)), (0, schema_and(&tap.records()[3..])));
    assert_eq!(tap.read(), identities(&tap.records()[..3]));
}

#[test]
fn a_record_that_slips_in_when_the_answer_to_the_mark_is_lost_is_found_by_looking_back() {
    let tap = commit_tap(5).set("maxRetries", 1);
    let state = last_state(&tap.run());
    let between_records = "2022-02-01T15:16:25-05:00[America/New_York]";
    let late = tap.write_late(between_records, "1");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().close().before(late));
    let run = run_with_state(&tap, &state);
    run.assert_drains(&tap);
    assert_eq!(without_states(&run).matches(r#""recordId":"late""#).count(), 1, "{}", run.stdout);
}

#[test]
fn a_signal_stops_marking_and_the_state_covers_only_what_was_written() {
    let tap = commit_tap(3);
    let state = last_state(&tap.run());
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).hold());
    let path = tap.write_file("state.json", &state.to_string());
    let running = tap.start_command(tap.command().arg("--state").arg(path));
    tap.sandbox.wait_held(Endpoint::Peek, 2);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, without_states(&run), last_state(&run)), (143, SCHEMA.to_owned(), state));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
}

#[test]
fn a_signal_between_two_windows_leaves_the_state_of_the_first() {
    let tap = commit_tap(250);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).hold());
    let mut running = tap.start();
    let mut written = String::new();
    while !written.contains(r#""type":"STATE""#) {
        written.push_str(&running.read_line());
    }
    tap.sandbox.wait_held(Endpoint::Peek, 2);
    running.signal(Signal::INT);
    let run = running.wait(&tap);
    assert_eq!((run.code, run.stdout.as_str()), (130, ""), "{}", run.stderr);
    let first = Run { code: 0, stdout: written, times: Vec::new(), stderr: String::new() };
    assert_eq!((without_states(&first), count(&last_state(&first))), (schema_and(&tap.records()[..100]), &json!(100)));
}

#[test]
fn a_state_from_a_pipe_is_read() {
    let tap = commit_tap(2);
    let state = last_state(&tap.run());
    let (reader, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{state}").unwrap();
    drop(writer);
    let run = tap.finished(tap.command().args(["--state", "/dev/stdin"]).stdin(reader).output().unwrap());
    run.assert_drains(&tap);
}

#[test]
fn a_record_that_slips_in_before_the_mark_is_delivered_at_once() {
    let tap = commit_tap(3);
    let state = last_state(&tap.run());
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(tap.write_late(EARLY, "1")));
    let run = run_with_state(&tap, &state);
    assert_eq!((run.code, without_states(&run), tap.unread()), (0, schema_and(&[tap.late_record()]), vec![]));
}

#[test]
fn a_missing_state_file_is_a_warning() {
    let tap = commit_tap(1);
    let run = tap.run_with("--state", tap.path("state.json"));
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    assert_eq!(run.stderr.lines().next(), Some("WARNING state DIR/state.json: there is no state yet"));
}

#[test]
fn what_is_committed_is_marked_even_if_the_answer_shows_it_as_read() {
    let tap = commit_tap(3);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().as_read());
    let first = tap.run();
    let second = run_with_state(&tap, &last_state(&first));
    assert_eq!((second.code, without_states(&second).as_str(), tap.unread()), (0, SCHEMA, vec![]));
}

#[test]
fn follow_is_refused_in_commit_mode() {
    let tap = commit_tap(1).args(&["--follow"]);
    tap.run().assert_refused(
        &tap,
        2,
        "--follow does not go with `acknowledge` `commit`, unless the tap runs the target: `tap-streamduo -c config.json \
         --follow -- target-x`",
    );
}

#[test]
fn bookmarks_of_other_streams_pass_on() {
    let tap = commit_tap(1);
    let state = json!({"bookmarks": {"other": {"x": 1}}});
    assert_eq!(last_state(&run_with_state(&tap, &state))["bookmarks"]["other"], json!({"x": 1}));
}

#[test]
fn a_target_that_ends_leaves_everything_unread() {
    let tap = Tap::with_large_records(150).set("acknowledge", "commit");
    let mut running = tap.start();
    running.read_line();
    let run = running.close_stdout().wait(&tap);
    assert_eq!((run.code, tap.read()), (1, vec![]));
}
