//! `acknowledge: commit`: what the target has committed is marked, and nothing else.

use std::io::Write;

use rustix::process::Signal;
use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Record, Rule};

use crate::tap::{Run, SCHEMA, Tap, identities, record_lines};

fn committing(records: usize) -> Tap {
    Tap::on(records).set("acknowledge", "commit")
}

/// Runs the tap with this state, if there is one.
fn run_with(tap: &Tap, state: Option<&Value>) -> Run {
    let mut command = tap.command();
    if let Some(state) = state {
        command.arg("--state").arg(tap.file("state.json", &state.to_string()));
    }
    tap.run_command(command)
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

fn schema_and(records: &[Record]) -> String {
    format!("{SCHEMA}{}", record_lines(records))
}

#[test]
fn without_a_state_everything_is_written_and_nothing_marked() {
    let tap = committing(3);
    let run = run_with(&tap, None);
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
    let bookmark = last_state(&run)["bookmarks"]["records"].clone();
    assert_eq!(bookmark["streamId"], tap.stream.as_str());
    assert_eq!((&bookmark["acknowledge"], &bookmark["count"]), (&json!("commit"), &json!(3)));
    assert_eq!(bookmark["digest"].as_str().unwrap().len(), 64);
    assert_eq!(bookmark.as_object().unwrap().len(), 4);
}

#[test]
fn a_state_that_came_back_marks_what_it_covers_and_the_rest_follows() {
    let tap = committing(3);
    let first = run_with(&tap, None);
    let late = tap.sandbox.write(&tap.stream, "\"late\"");
    let second = run_with(&tap, Some(&last_state(&first)));
    assert_eq!((second.code, without_states(&second)), (0, schema_and(std::slice::from_ref(&late))));
    assert_eq!(tap.read(), identities(&tap.records()[..3]));
    assert_eq!(count(&last_state(&second)), 1);
    let third = run_with(&tap, Some(&last_state(&second)));
    assert_eq!((without_states(&third), tap.unread()), (SCHEMA.to_owned(), vec![]));
    let fourth = run_with(&tap, Some(&last_state(&third)));
    assert_eq!((fourth.code, last_state(&fourth)), (0, last_state(&third)));
}

#[test]
fn the_window_grows_and_every_window_has_its_state() {
    let tap = committing(1000).set("maxPending", 500);
    let run = run_with(&tap, None);
    assert_eq!(without_states(&run), schema_and(&tap.records()[..500]));
    assert_eq!(states(&run).iter().map(count).collect::<Vec<_>>(), [100, 200, 400, 500]);
    let asked: Vec<_> = tap.sandbox.journal().iter().filter_map(|call| call.record_count).collect();
    assert_eq!(asked, [100, 200, 400, 500]);
    let more = "INFO 500 records are out (`maxPending`): if there are more, they follow in the next run";
    assert!(run.stderr.lines().any(|line| line == more), "{}", run.stderr);
    // The STATE of a window that was not the last is as good.
    let second = run_with(&tap, Some(&states(&run)[1]));
    assert_eq!(tap.read(), identities(&tap.records()[..200]));
    assert_eq!(without_states(&second), schema_and(&tap.records()[200..700]));
}

#[test]
fn a_state_is_small_however_many_records_it_covers() {
    let tap = committing(10_000);
    let run = run_with(&tap, None);
    let line = run.stdout.lines().last().unwrap();
    assert_eq!(count(&last_state(&run)), 10_000);
    assert!(line.len() < 1024, "{line}");
    run_with(&tap, Some(&last_state(&run)));
    assert_eq!(tap.unread(), []);
}

/// A state that proves nothing: nothing is marked, and everything delivered again, with a reason.
#[track_caller]
fn proves_nothing(tap: &Tap, state: &Value, reason: &str) {
    let before = tap.read();
    let run = run_with(tap, Some(state));
    let unread: Vec<_> = tap.records().into_iter().filter(|record| tap.unread().contains(&record.identity)).collect();
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&unread)), "{}", run.stderr);
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (before, 0));
    assert!(run.stderr.lines().any(|line| line == format!("INFO {reason}")), "{}", run.stderr);
}

#[test]
fn a_state_that_does_not_match_marks_nothing() {
    let no_match =
        "the state covers 3 records, but it does not match what is unread now: marking nothing, delivering again";
    let tap = committing(3);
    let state = last_state(&run_with(&tap, None));
    // A record that appeared before those of the state.
    tap.sandbox.write_as(&tap.stream, "late", "2001-01-01T00:00:00-05:00[America/New_York]", "1");
    proves_nothing(&tap, &state, no_match);
    // Records that somebody else has marked meanwhile.
    let tap = committing(5);
    let state = json!({"bookmarks": {"records": {
        "streamId": tap.stream, "acknowledge": "commit", "count": 3,
        "digest": last_state(&run_with(&tap, None))["bookmarks"]["records"]["digest"]
    }}});
    tap.sandbox.mark_oldest(&tap.stream, 1);
    proves_nothing(&tap, &state, no_match);
}

#[test]
fn a_state_of_something_else_marks_nothing() {
    let tap = committing(2);
    let own = last_state(&run_with(&tap, None));
    let bookmark = |name: &str, value: Value| {
        let mut state = own.clone();
        state["bookmarks"]["records"][name] = value;
        state
    };
    let says = |problem: &str| format!("the state's bookmark of \"records\" {problem}: nothing is marked by it");
    proves_nothing(&tap, &bookmark("streamId", json!("other")), &says("is of stream other"));
    proves_nothing(&tap, &bookmark("acknowledge", json!("write")), &says("is not of `acknowledge` `commit`"));
    proves_nothing(&tap, &bookmark("count", json!(1_000_000)), &says("covers 1000000 records, more than a run can"));
    proves_nothing(
        &tap,
        &json!({"bookmarks": {"records": 7}}),
        &says("cannot be read (invalid type: integer `7`, expected a bookmark)"),
    );
    proves_nothing(
        &tap,
        &bookmark("count", json!("2")),
        &says("cannot be read (invalid type: string \"2\", expected usize)"),
    );
}

#[test]
fn a_state_without_this_streams_bookmark_is_none() {
    let tap = committing(2);
    for state in [json!({}), json!({"bookmarks": {"other": {"x": 1}}}), json!({"bookmarks": null})] {
        let run = run_with(&tap, Some(&state));
        assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    }
    assert_eq!(tap.sandbox.count(Endpoint::Mark), 0);
}

#[test]
fn a_service_that_caps_the_window_ends_the_run_with_what_is_out() {
    let tap = committing(300);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().cap(150));
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().cap(60));
    let run = run_with(&tap, None);
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records()[..150])));
    assert_eq!(count(&last_state(&run)), 150);
    // The marks are capped as well: they are made until all is marked that the state covers, and no more.
    let second = run_with(&tap, Some(&last_state(&run)));
    assert_eq!(tap.read(), identities(&tap.records()[..150]));
    assert_eq!(without_states(&second), schema_and(&tap.records()[150..]));
}

#[test]
fn a_service_that_refuses_the_window_ends_the_run_with_what_is_out() {
    let tap = committing(300);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(413).body("too many"));
    let run = run_with(&tap, None);
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records()[..100])));
    assert_eq!(count(&last_state(&run)), 100);
    let told = "INFO 100 records are out, the rest follows in the next run: more cannot be shown: the service refuses to \
                read 200 records of stream STREAM: ";
    assert!(run.stderr.lines().any(|line| line.starts_with(told)), "{}", run.stderr);
}

#[test]
fn a_lost_answer_to_a_mark_that_was_applied() {
    let tap = committing(3).set("maxRetries", 1);
    let state = last_state(&run_with(&tap, None));
    let late = tap.sandbox.write(&tap.stream, "\"late\"");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().status(503).header("retry-after", "0"));
    let run = run_with(&tap, Some(&state));
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&[late])));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (identities(&tap.records()[..3]), 1));
}

#[test]
fn a_lost_answer_to_a_mark_that_may_still_be_applied_is_left_to_the_next_run() {
    let tap = committing(3).set("maxRetries", 1);
    let state = last_state(&run_with(&tap, None));
    tap.sandbox.write(&tap.stream, "\"late\"");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(503).header("retry-after", "0"));
    let run = run_with(&tap, Some(&state));
    assert_eq!((run.code, without_states(&run), last_state(&run)), (0, SCHEMA.to_owned(), state.clone()));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 1));
    let told = "INFO the answer to a mark was lost, and it is not applied yet: the next run marks what is left";
    assert!(run.stderr.lines().any(|line| line == told), "{}", run.stderr);
    // Whether the mark is applied after all or not: it hits what is committed, and the next run sees.
    let next = run_with(&tap, Some(&last_state(&run)));
    assert_eq!((next.code, without_states(&next)), (0, schema_and(&tap.records()[3..])));
    assert_eq!(tap.read(), identities(&tap.records()[..3]));
}

#[test]
fn a_record_that_slips_in_when_the_answer_to_the_mark_is_lost_is_found_by_looking_back() {
    let tap = committing(5).set("maxRetries", 1);
    let state = last_state(&run_with(&tap, None));
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().close().before(move |service| {
        service.write_as(&stream, "late", "2022-02-01T15:16:25-05:00[America/New_York]", "1");
    }));
    let run = run_with(&tap, Some(&state));
    assert_eq!((run.code, tap.unread()), (0, vec![]), "{}", run.stderr);
    assert_eq!(without_states(&run).matches(r#""recordId":"late""#).count(), 1, "{}", run.stdout);
}

#[test]
fn a_signal_marks_nothing_more_and_tells_only_what_was_written() {
    let tap = committing(3);
    let state = last_state(&run_with(&tap, None));
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).hold());
    let path = tap.file("state.json", &state.to_string());
    let mut command = tap.command();
    command.arg("--state").arg(path);
    let running = tap.start_command(command);
    tap.sandbox.wait_held(Endpoint::Peek, 2);
    running.signal(Signal::TERM);
    let run = running.end(&tap);
    assert_eq!((run.code, without_states(&run), last_state(&run)), (143, SCHEMA.to_owned(), state));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
}

#[test]
fn a_signal_between_two_windows_leaves_the_state_of_the_first() {
    let tap = committing(250);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).hold());
    let mut running = tap.start();
    let mut written = String::new();
    while !written.contains(r#""type":"STATE""#) {
        written.push_str(&running.line());
    }
    tap.sandbox.wait_held(Endpoint::Peek, 2);
    running.signal(Signal::INT);
    let run = running.end(&tap);
    assert_eq!((run.code, run.stdout.as_str()), (130, ""), "{}", run.stderr);
    let first = Run { code: 0, stdout: written, stderr: String::new() };
    assert_eq!((without_states(&first), count(&last_state(&first))), (schema_and(&tap.records()[..100]), &json!(100)));
}

#[test]
fn a_state_from_a_pipe_is_read() {
    let tap = committing(2);
    let state = last_state(&run_with(&tap, None));
    let mut command = tap.command();
    command.args(["--state", "/dev/stdin"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{state}").unwrap();
    drop(writer);
    let output = command.stdin(reader).output().unwrap();
    assert_eq!((output.status.code(), tap.unread()), (Some(0), vec![]), "{}", tap.tidy(&output.stderr));
}

#[test]
fn a_record_that_slips_in_before_the_mark_is_delivered_at_once() {
    let tap = committing(3);
    let state = last_state(&run_with(&tap, None));
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(move |service| {
        service.write_as(&stream, "late", "2001-01-01T00:00:00-05:00[America/New_York]", "1");
    }));
    let run = run_with(&tap, Some(&state));
    let late = tap.records().into_iter().find(|record| record.identity.record_id == "late").unwrap();
    assert_eq!((run.code, without_states(&run), tap.unread()), (0, schema_and(&[late]), vec![]));
}

#[test]
fn a_state_file_that_is_not_there_yet_is_said() {
    let tap = committing(1);
    let mut command = tap.command();
    command.arg("--state").arg(tap.path("state.json"));
    let run = tap.run_command(command);
    assert_eq!((run.code, without_states(&run)), (0, schema_and(&tap.records())));
    assert_eq!(run.stderr.lines().next(), Some("WARNING state DIR/state.json: there is none yet"));
}

#[test]
fn what_is_committed_is_marked_also_where_the_answer_shows_it_as_read() {
    let tap = committing(3);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().as_read());
    let first = run_with(&tap, None);
    let second = run_with(&tap, Some(&last_state(&first)));
    assert_eq!((second.code, without_states(&second).as_str(), tap.unread()), (0, SCHEMA, vec![]));
}

#[test]
fn follow_does_not_go_with_commit() {
    let tap = committing(1).args(&["--follow"]);
    tap.run().refused(&tap, 2, "--follow does not go with `acknowledge` `commit` yet: run the tap from cron instead");
}

#[test]
fn bookmarks_of_other_streams_pass_on() {
    let tap = committing(1);
    let state = json!({"bookmarks": {"other": {"x": 1}}});
    assert_eq!(last_state(&run_with(&tap, Some(&state)))["bookmarks"]["other"], json!({"x": 1}));
}

#[test]
fn a_target_that_ends_leaves_everything_unread() {
    let tap = Tap::on_large(150).set("acknowledge", "commit");
    let mut running = tap.start();
    running.line();
    let (code, _) = running.drop_reader().end(&tap);
    assert_eq!((code, tap.read()), (1, vec![]));
}
