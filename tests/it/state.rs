//! `--state`: what comes in goes out again, with this stream's bookmark.

use serde_json::{Value, json};

use crate::tap::Tap;

fn state_after(tap: &Tap, state: &str) -> Value {
    let path = tap.file("state.json", state);
    let mut command = tap.command();
    command.arg("--state").arg(path);
    let run = tap.run_command(command);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let message: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    message["value"].clone()
}

#[test]
fn bookmarks_of_other_streams_pass_on() {
    let tap = Tap::on(1);
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
fn no_state_yet_is_said_and_is_no_error() {
    let tap = Tap::on(1);
    tap.file("empty.json", "");
    for name in ["missing.json", "empty.json"] {
        let mut command = tap.command();
        command.arg("--state").arg(tap.path(name));
        let run = tap.run_command(command);
        assert_eq!(run.code, 0);
        assert_eq!(run.stderr.lines().next(), Some(format!("WARNING state DIR/{name}: there is none yet").as_str()));
    }
}

#[test]
fn a_damaged_state_is_refused() {
    let tap = Tap::on(1);
    for (text, problem) in [
        ("{\"bookmarks\": {", "not JSON: EOF while parsing an object at line 1 column 15"),
        ("[]", "not a JSON object"),
        (r#"{"type":"STATE"}"#, "a STATE message without a value"),
    ] {
        let path = tap.file("state.json", text);
        let mut command = tap.command();
        command.arg("-s").arg(path);
        let run = tap.run_command(command);
        run.refused(&tap, 2, &format!("state DIR/state.json: {problem}"));
    }
    assert!(tap.sandbox.journal().is_empty());
}
