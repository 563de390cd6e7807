//! `--state`: the state that the run starts from, and the one that it writes.

use serde_json::{Value, json};

use crate::tap::Tap;

/// Runs the tap with this state, and returns the last STATE that it writes.
fn state_after(tap: &Tap, state: &str) -> Value {
    let run = tap.run_with("--state", tap.write_file("state.json", state));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let message: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    message["value"].clone()
}

#[test]
fn bookmarks_of_other_streams_pass_on() {
    let tap = Tap::with_records(1);
    let own = json!({"streamId": tap.stream, "acknowledge": "write"});
    let state = json!({"bookmarks": {"other": {"x": 1}, "records": {"old": true}}, "more": [1]});
    let expected = json!({"bookmarks": {"other": {"x": 1}, "records": own}, "more": [1]});
    assert_eq!(state_after(&tap, &state.to_string()), expected);
    let message = json!({"type": "STATE", "value": state});
    assert_eq!(state_after(&tap, &message.to_string()), expected);
    assert_eq!(state_after(&tap, "{}"), json!({"bookmarks": {"records": own}}));
    assert_eq!(state_after(&tap, "{\"bookmarks\": 7}"), json!({"bookmarks": {"records": own}}));
}

#[test]
fn numbers_in_bookmarks_of_other_streams_pass_to_the_digit() {
    let tap = Tap::with_records(1);
    let state = r#"{"bookmarks":{"other":{"x":12345678901234567890.10,"y":[1E400,-0.0]}"#;
    let run = tap.run_with("--state", tap.write_file("state.json", &format!("{state}}}}}")));
    let own = json!({"streamId": tap.stream, "acknowledge": "write"});
    let expected = format!(r#"{{"type":"STATE","value":{state},"records":{own}}}}}}}"#);
    assert_eq!((run.code, run.stdout.lines().last()), (0, Some(expected.as_str())), "{}", run.stderr);
}

#[test]
fn a_missing_or_empty_state_is_a_warning() {
    let tap = Tap::with_records(1);
    tap.write_file("empty.json", "");
    for name in ["missing.json", "empty.json"] {
        let run = tap.run_with("--state", tap.path(name));
        assert_eq!(run.code, 0);
        assert_eq!(
            run.stderr.lines().next(),
            Some(format!("WARNING state DIR/{name}: there is no state yet").as_str())
        );
    }
}

#[test]
fn a_damaged_state_is_refused() {
    let tap = Tap::with_records(1);
    let remedy = "; keep the last STATE of a run there, or remove the file to begin anew";
    for (text, problem) in [
        ("{\"bookmarks\": {", "not JSON: EOF while parsing an object at line 1 column 15"),
        ("[]", "not a JSON object"),
        (r#"{"type":"STATE"}"#, "a STATE message without a value"),
    ] {
        let run = tap.run_with("-s", tap.write_file("state.json", text));
        run.assert_refused(&tap, 2, &format!("state DIR/state.json: {problem}{remedy}"));
    }
    assert!(tap.sandbox.journal().is_empty());
}
