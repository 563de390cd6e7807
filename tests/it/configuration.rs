//! Settings: where they come from, and which are refused before any request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::tap::{Tap, bare_command};

const UNUSABLE: &str = "the configuration is not usable: ";

/// A run with this text as its only configuration fails before any request.
#[track_caller]
fn assert_config_refused(text: &str, fatal: &str) {
    let tap = Tap::with_records(1);
    let config = tap.write_file("wrong.json", text);
    tap.run_command(bare_command().arg("-c").arg(config)).assert_refused(&tap, 2, fatal);
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn all_problems_are_reported_together() {
    let tap = Tap::with_records(1)
        .set("clientId", Value::Null)
        .set("clientID", "x")
        .set("clientSecret", " ")
        .set("streamId", 7)
        .set("pageSize", "100")
        .set("maxRetries", 1000)
        .set("acknowledge", "maybe")
        .set("apiUrl", "http://api.example.com")
        .set("authUrl", "api.example.com")
        .set("flavour", "sweet");
    let run = tap.run();
    run.assert_refused(
        &tap,
        2,
        &format!(
            "{UNUSABLE}`streamId` must be a string, not a number; `clientId` is missing (`clientID` is there: a \
             misspelling?); `clientSecret` is empty; `acknowledge` must be one of \"write\", \"commit\", \"read\", \"never\", not \
             \"maybe\"; `pageSize` must be a whole number from 1 to 100000, not a string; `apiUrl` must begin with \
             https:// unless it leads to this machine itself, not \"http://api.example.com\"; `authUrl` is no URL \
             (relative URL without a base); `maxRetries` must be a whole number from 0 to 100, not 1000"
        ),
    );
    assert_eq!(
        run.stderr.lines().take(2).collect::<Vec<_>>(),
        [
            "WARNING unknown setting `clientID`: did you mean `clientId`?",
            "WARNING unknown setting `flavour`: it is not used"
        ]
    );
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn an_empty_object_lacks_the_required_settings() {
    assert_config_refused(
        "{}",
        &format!("{UNUSABLE}`streamId` is missing; `clientId` is missing; `clientSecret` is missing"),
    );
}

#[test]
fn an_unknown_setting_is_a_warning_unless_it_is_a_common_singer_key() {
    let tap = Tap::with_records(1)
        .set("pagesize", 5)
        .set("start_date", "2020-01-01T00:00:00Z")
        .set("_comment", "x")
        .set("disable_collection", true);
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (0, tap.messages(&tap.records()).as_str()));
    let warnings: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("WARNING")).collect();
    assert_eq!(warnings, ["WARNING unknown setting `pagesize`: did you mean `pageSize`?"]);
}

#[test]
fn a_missing_config_is_named() {
    let tap = Tap::with_records(1);
    tap.run_command(bare_command().args(["-c", "/no/such/config.json"])).assert_refused(
        &tap,
        2,
        "config /no/such/config.json: read the file: No such file or directory (os error 2)",
    );
}

#[test]
fn a_config_that_is_not_json_is_named_and_not_quoted() {
    assert_config_refused(
        "{\"clientSecret\": hunter2}",
        "config DIR/wrong.json: not JSON: expected value at line 1 column 18",
    );
    assert_config_refused("", "config DIR/wrong.json: not JSON: EOF while parsing a value at line 1 column 0");
}

#[test]
fn a_config_that_is_not_an_object_is_named() {
    for text in ["[]", "7", "\"x\"", "null"] {
        assert_config_refused(text, "config DIR/wrong.json: not a JSON object");
    }
}

#[test]
fn without_a_config_the_two_ways_to_give_one_are_named() {
    let tap = Tap::with_records(1);
    tap.run_command(&mut bare_command()).assert_refused(
        &tap,
        2,
        "no configuration: name it with --config config.json, or take it from the environment with --config ENV",
    );
}

#[test]
fn a_stream_id_with_characters_that_no_id_has_is_refused() {
    for id in ["a/b", "a?b", "a#b", "a b", "a\u{7}b", "..", "a%2fb", "a\\b"] {
        let tap = Tap::with_records(1).set("streamId", id);
        tap.run().assert_refused(
            &tap,
            2,
            &format!(
                "{UNUSABLE}`streamId` must be the id alone, such as 60c49e86-9db3-414a-87a1-f51ccee4ec0c, not {id:?}"
            ),
        );
        assert!(tap.sandbox.journal().is_empty());
    }
}

#[test]
fn a_later_config_wins() {
    let tap = Tap::with_records(1).set("streamName", "first");
    let second = tap.write_file("second.json", r#"{"streamName": "records"}"#);
    assert_eq!(tap.run_with("-c", second).stdout, tap.messages(&tap.records()));
}

#[test]
fn settings_can_come_from_the_environment() {
    let tap = Tap::with_records(1);
    let mut command = bare_command();
    command.args(["--config", "ENV"]);
    for (name, value) in tap.sandbox.config(&tap.stream).as_object().unwrap() {
        command.env(format!("TAP_STREAMDUO_{}", name.to_uppercase()), value.as_str().unwrap());
    }
    command.env("TAP_STREAMDUO_PAGESIZE", "1").env("TAP_STREAMDUO_PAGE_SIZE", "5").env("TAP_STREAMDUO_SCOPE", "");
    let run = tap.run_command(&mut command);
    assert_eq!((run.code, run.stdout.as_str()), (0, tap.messages(&tap.records()).as_str()));
    assert_eq!(tap.sandbox.journal()[1].record_count, Some(1));
    let warning = "WARNING the environment variable TAP_STREAMDUO_PAGE_SIZE is no setting: did you mean \
                   TAP_STREAMDUO_PAGESIZE?";
    assert_eq!(run.stderr.lines().next(), Some(warning));
}

#[test]
fn a_file_and_the_environment_are_merged() {
    let tap = Tap::with_records(1).set("clientSecret", Value::Null).args(&["-c", "ENV"]);
    let secret = tap.sandbox.client_secret().to_owned();
    let tap = tap.env("TAP_STREAMDUO_CLIENTSECRET", &secret);
    assert_eq!(tap.run().stdout, tap.messages(&tap.records()));
}

#[test]
fn a_wrong_argument_is_a_usage_error() {
    let tap = Tap::with_records(1);
    for wrong in [&["--frobnicate"][..], &["--catalog", "a", "--properties", "b"], &["stray"]] {
        let run = tap.run_command(tap.command().args(wrong));
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{wrong:?}");
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    }
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let tap = Tap::with_records(1);
    let mut settings = tap.sandbox.config(&tap.stream);
    settings["maxRetries"] = json!(0);
    let config = tap.write_file("bom.json", &format!("\u{feff}{settings}"));
    let run = tap.run_command(bare_command().arg("-c").arg(config));
    assert_eq!(run.stdout, tap.messages(&tap.records()));
}

#[test]
fn white_space_around_a_setting_is_refused() {
    let tap = Tap::with_records(1).set("clientSecret", "hunter2\n").set("streamId", " x");
    tap.run().assert_refused(
        &tap,
        2,
        &format!(
            "{UNUSABLE}`streamId` has white space at its beginning or end; `clientSecret` has white space at its beginning \
             or end"
        ),
    );
}

#[test]
fn a_null_does_not_override_an_earlier_config() {
    let tap = Tap::with_records(1);
    let nulls = tap.write_file("nulls.json", r#"{"clientSecret": null, "pageSize": null}"#);
    assert_eq!(tap.run_with("-c", nulls).stdout, tap.messages(&tap.records()));
}

#[test]
fn an_environment_variable_that_is_not_unicode_matters_only_if_it_is_a_setting() {
    let tap = Tap::with_records(1).args(&["-c", "ENV"]);
    let run_with_variable = |name| tap.run_command(tap.command().env(name, OsStr::from_bytes(b"\xff")));
    assert_eq!(run_with_variable("OTHER").code, 0);
    let problem = "`acknowledge` must be one of \"write\", \"commit\", \"read\", \"never\", not \"\u{fffd}\"";
    let run = run_with_variable("TAP_STREAMDUO_ACKNOWLEDGE");
    assert_eq!(run.last_log_line(), format!("CRITICAL {UNUSABLE}{problem}"));
}
