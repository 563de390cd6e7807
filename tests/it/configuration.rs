//! What is wrong with the settings is said at once, before any request.

use serde_json::{Value, json};

use crate::tap::{Tap, bare_command};

const UNUSABLE: &str = "the configuration is not usable: ";

/// Runs the tap with this text as its only configuration.
#[track_caller]
fn refused_config(text: &str, fatal: &str) {
    let tap = Tap::on(1);
    let path = tap.file("wrong.json", text);
    let mut command = bare_command();
    command.arg("-c").arg(&path);
    tap.run_command(command).refused(&tap, 2, fatal);
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn all_that_is_wrong_is_reported_together() {
    let tap = Tap::on(1)
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
    run.refused(
        &tap,
        2,
        &format!(
            "{UNUSABLE}`streamId` must be a string, not a number; `clientId` is missing (`clientID` is there: a \
             misspelling?); `clientSecret` is empty; `acknowledge` must be one of \"write\", \"commit\", \"read\", not \
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
fn an_empty_object_lacks_what_is_required() {
    refused_config("{}", &format!("{UNUSABLE}`streamId` is missing; `clientId` is missing; `clientSecret` is missing"));
}

#[test]
fn an_unknown_setting_is_a_warning_and_common_singer_keys_are_none() {
    let tap = Tap::on(1)
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
fn a_config_that_is_not_there_is_named() {
    let tap = Tap::on(1);
    let mut command = bare_command();
    command.args(["-c", "/no/such/config.json"]);
    tap.run_command(command).refused(
        &tap,
        2,
        "config /no/such/config.json: read the file: No such file or directory (os error 2)",
    );
}

#[test]
fn a_config_that_is_not_json_is_named_and_not_quoted() {
    refused_config(
        "{\"clientSecret\": hunter2}",
        "config DIR/wrong.json: not JSON: expected value at line 1 column 18",
    );
    refused_config("", "config DIR/wrong.json: not JSON: EOF while parsing a value at line 1 column 0");
}

#[test]
fn a_config_that_is_no_object_is_named() {
    for text in ["[]", "7", "\"x\"", "null"] {
        refused_config(text, "config DIR/wrong.json: not a JSON object");
    }
}

#[test]
fn without_a_config_the_two_ways_to_give_one_are_named() {
    let tap = Tap::on(1);
    tap.run_command(bare_command()).refused(
        &tap,
        2,
        "no configuration: name it with --config config.json, or take it from the environment with --config ENV",
    );
}

#[test]
fn a_stream_id_is_an_id_and_nothing_else() {
    for id in ["a/b", "a?b", "a#b", "a b", "a\u{7}b", "..", "a%2fb", "a\\b"] {
        let tap = Tap::on(1).set("streamId", id);
        tap.run().refused(
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
    let tap = Tap::on(1).set("streamName", "first");
    let second = tap.file("second.json", r#"{"streamName": "records"}"#);
    let mut command = tap.command();
    command.arg("-c").arg(second);
    assert_eq!(tap.run_command(command).stdout, tap.messages(&tap.records()));
}

#[test]
fn the_environment_is_a_config() {
    let tap = Tap::on(1);
    let mut command = bare_command();
    command.args(["--config", "ENV"]);
    for (name, value) in tap.sandbox.config(&tap.stream).as_object().unwrap() {
        command.env(format!("TAP_STREAMDUO_{}", name.to_uppercase()), value.as_str().unwrap());
    }
    command.env("TAP_STREAMDUO_PAGESIZE", "1").env("TAP_STREAMDUO_PAGE_SIZE", "5").env("TAP_STREAMDUO_SCOPE", "");
    let run = tap.run_command(command);
    assert_eq!((run.code, run.stdout.as_str()), (0, tap.messages(&tap.records()).as_str()));
    assert_eq!(tap.sandbox.journal()[1].record_count, Some(1));
    let warning = "WARNING the environment variable TAP_STREAMDUO_PAGE_SIZE is no setting: did you mean \
                   TAP_STREAMDUO_PAGESIZE?";
    assert_eq!(run.stderr.lines().next(), Some(warning));
}

#[test]
fn a_file_and_the_environment_add_up() {
    let tap = Tap::on(1).set("clientSecret", Value::Null).args(&["-c", "ENV"]);
    let secret = tap.sandbox.client_secret().to_owned();
    let tap = tap.env("TAP_STREAMDUO_CLIENTSECRET", &secret);
    assert_eq!(tap.run().stdout, tap.messages(&tap.records()));
}

#[test]
fn a_wrong_argument_is_a_usage_error() {
    let tap = Tap::on(1);
    for wrong in [&["--frobnicate"][..], &["--catalog", "a", "--properties", "b"], &["stray"]] {
        let mut command = tap.command();
        command.args(wrong);
        let run = tap.run_command(command);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{wrong:?}");
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    }
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let tap = Tap::on(1);
    let mut settings = tap.sandbox.config(&tap.stream);
    settings["maxRetries"] = json!(0);
    let path = tap.file("bom.json", &format!("\u{feff}{settings}"));
    let mut command = bare_command();
    command.arg("-c").arg(path);
    assert_eq!(tap.run_command(command).stdout, tap.messages(&tap.records()));
}

#[test]
fn white_space_that_was_copied_along_is_noticed() {
    let tap = Tap::on(1).set("clientSecret", "hunter2\n").set("streamId", " x");
    tap.run().refused(
        &tap,
        2,
        &format!(
            "{UNUSABLE}`streamId` has white space at its beginning or end; `clientSecret` has white space at its beginning \
             or end"
        ),
    );
}

#[test]
fn a_null_stands_for_a_setting_that_is_not_given() {
    let tap = Tap::on(1);
    let nulls = tap.file("nulls.json", r#"{"clientSecret": null, "pageSize": null}"#);
    let mut command = tap.command();
    command.arg("-c").arg(nulls);
    assert_eq!(tap.run_command(command).stdout, tap.messages(&tap.records()));
}

#[test]
fn an_environment_that_is_not_unicode_is_no_trouble() {
    use std::os::unix::ffi::OsStrExt;
    let tap = Tap::on(1).args(&["-c", "ENV"]);
    let mut command = tap.command();
    command.env("OTHER", std::ffi::OsStr::from_bytes(b"\xff"));
    assert_eq!(tap.run_command(command).code, 0);
    let mut command = tap.command();
    command.env("TAP_STREAMDUO_ACKNOWLEDGE", std::ffi::OsStr::from_bytes(b"\xff"));
    let problem = "`acknowledge` must be one of \"write\", \"commit\", \"read\", not \"\u{fffd}\"";
    assert_eq!(tap.run_command(command).last_words(), format!("CRITICAL {UNUSABLE}{problem}"));
}
