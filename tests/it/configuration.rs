//! Settings: where they come from, and which are refused before any request.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::tap::{STRUCTURED_LOGS, Tap, bare_command, schema_and};

/// What to do about a config file that cannot be read.
const REMEDY: &str = "; name a JSON file with the settings, which --about lists";

/// A run with this text as its only configuration fails before any request.
#[track_caller]
fn assert_config_refused(text: &str, fatal: &str) {
    let tap = Tap::with_records(1);
    let config = tap.write_file("wrong.json", text);
    tap.run_command(bare_command().arg("-c").arg(config)).assert_refused(&tap, 2, fatal);
    assert!(tap.sandbox.journal().is_empty());
}

/// Mistakes of many kinds, and two settings that are right.
const MISTAKES: &str = r#"{
    "streamId": 7, "clientID": "x", "clientSecret": " ", "streamName": "cars", "acknowledge": "never", "markBy": "id",
    "pageSize": "many", "maxRetries": 1000, "apiUrl": "http://api.example.com", "flavour": "sweet"
}"#;

const MISTAKES_LOGGED: &str = "\
WARNING unknown setting `clientID`: did you mean `clientId`?
WARNING unknown setting `flavour`: it is not used; remove it
CRITICAL `streamId` must be a string, not 7
CRITICAL `clientId` is missing: add it to the config file
CRITICAL `clientSecret` is empty: give it a value
CRITICAL `pageSize` must be a whole number from 1 to 100000, not \"many\"
CRITICAL `apiUrl` must begin with https:// unless it leads to this machine itself, not \"http://api.example.com\"
CRITICAL `maxRetries` must be a whole number from 0 to 100, not 1000
CRITICAL `markBy` `id` does not go with `acknowledge` `never`, which marks nothing: remove one of them
";

#[test]
fn a_url_that_holds_a_password_or_a_token_is_not_quoted_whatever_else_is_wrong_with_it() {
    for (url, problem) in [
        (" https://me:hunter2@example.com", "must not begin or end with white space"),
        ("https://me:hunter2@example.com\n", "must not begin or end with white space"),
        ("nowhere#hunter2", "must be a URL that begins with https:// (relative URL without a base)"),
    ] {
        for setting in ["apiUrl", "authUrl"] {
            let tap = Tap::with_records(0).set(setting, url);
            tap.run().assert_refused(&tap, 2, &format!("`{setting}` {problem}"));
        }
    }
}

#[test]
fn a_file_that_is_named_for_two_things_is_refused() {
    let refused = |tap: Tap, roles: &str, path: &str| {
        let problem = format!("{roles} are one file, {path}: name another one for one of them");
        for args in [&[][..], &["--test"], &["--peek", "1"], &["--", "cat"]] {
            let run = tap.run_command(tap.command().args(args));
            run.assert_refused(&tap, 2, &problem);
        }
        assert!(tap.sandbox.journal().is_empty());
    };
    let tap = || Tap::with_records(1).set("acknowledge", "never");
    let named = |tap: &Tap, name: &str| tap.path(name).display().to_string();
    let with_columns = |tap: Tap, file: String| tap.set("payloadSchema", "sampled").set("columnsFile", file);

    let both = tap();
    let config = named(&both, "config.json");
    refused(with_columns(both, config), "--config and `columnsFile`", "DIR/config.json");
    let both = tap();
    let config = named(&both, "./config.json");
    refused(both.set("deadLetterFile", config), "--config and `deadLetterFile`", "DIR/./config.json");
    // Neither is there yet.
    let both = tap();
    let file = named(&both, "new.json");
    let name = both.path("").file_name().unwrap().to_str().unwrap().to_owned();
    let other = named(&both, &format!("../{name}/new.json"));
    let path = format!("DIR/../{name}/new.json");
    refused(with_columns(both, file).set("deadLetterFile", other), "`columnsFile` and `deadLetterFile`", &path);
    // By way of links.
    let both = tap();
    let file = named(&both, "state.json");
    std::os::unix::fs::symlink("state.json", both.path("first.json")).unwrap();
    std::os::unix::fs::symlink("first.json", both.path("link.json")).unwrap();
    let link = named(&both, "link.json");
    refused(with_columns(both, link).args(&["--state", &file]), "--state and `columnsFile`", "DIR/link.json");
    let both = tap();
    let file = both.write_file("catalog.json", "{}").display().to_string();
    fs::hard_link(both.path("catalog.json"), both.path("hard.json")).unwrap();
    let link = named(&both, "hard.json");
    refused(
        both.args(&["--catalog", &file]).set("deadLetterFile", link),
        "--catalog and `deadLetterFile`",
        "DIR/hard.json",
    );
    // A file that is given twice for the same is not.
    let tap = Tap::with_records(1);
    assert_eq!(tap.run_with("-c", tap.path("config.json")).code, 0);
}

#[test]
fn only_the_beginning_of_a_long_unknown_key_is_shown() {
    let secret = "1h57kf5cpq17m0eml12efocs4pqsh6t1u8a0p8vv0kc5sr2v8q2";
    let tap = Tap::with_records(0).set(secret, "clientSecret");
    let run = tap.run();
    run.assert_logged("WARNING unknown setting `1h57kf5c…`: it is not used; remove it");
    assert!(!run.stderr.contains(secret));
    let variable = format!("TAP_STREAMDUO_{}", secret.to_uppercase());
    let run = tap.run_command(tap.command().env(variable, "x").args(["-c", "ENV"]));
    assert!(!run.stderr.to_lowercase().contains(secret), "{}", run.stderr);
}

#[test]
fn a_misspelt_setting_that_has_no_default_is_not_ignored() {
    let tap = Tap::with_records(0).set("deadLeterFile", "aside.jsonl");
    let problem = "unknown setting `deadLeterFile`: did you mean `deadLetterFile`?";
    tap.run().assert_logged(&format!("WARNING {problem}"));
    tap.args(&["--test"]).run().assert_logged(&format!("CRITICAL {problem}"));
}

#[test]
fn an_empty_setting_that_has_no_default_can_be_removed() {
    let tap = Tap::with_records(0).set("deadLetterFile", "");
    tap.run().assert_refused(&tap, 2, "`deadLetterFile` is empty: give it a value, or remove it");
}

#[test]
fn each_mistake_is_reported_on_a_line_of_its_own_that_says_how_to_fix_it() {
    let tap = Tap::with_records(1);
    let config = tap.write_file("wrong.json", MISTAKES);
    let run = tap.run_command(bare_command().arg("-c").arg(config));
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (2, "", MISTAKES_LOGGED));
    assert_eq!(tap.sandbox.requests(), 0);
}

#[test]
fn with_test_and_with_a_target_too_each_mistake_is_reported() {
    let tap = Tap::with_records(1);
    let config =
        tap.write_file("wrong.json", r#"{"streamid": "x", "page_size": 1, "scope": 7, "acknowledge": "write"}"#);
    let given = |arguments: &[&str]| tap.run_command(bare_command().arg("-c").arg(&config).args(arguments));
    given(&["--test"]).assert_refused(
        &tap,
        2,
        "`streamId` is missing: add it to the config file\n\
         `clientId` is missing: add it to the config file\n\
         `clientSecret` is missing: add it to the config file\n\
         `scope` must be a string, not 7\n\
         unknown setting `page_size`: did you mean `pageSize`?\n\
         unknown setting `streamid`: did you mean `streamId`?",
    );
    let run = given(&["--", "cat"]);
    run.assert_refused(
        &tap,
        2,
        "`streamId` is missing: add it to the config file\n\
         `clientId` is missing: add it to the config file\n\
         `clientSecret` is missing: add it to the config file\n\
         `scope` must be a string, not 7\n\
         `acknowledge` `write` does not go with a target: what the target has committed is marked; remove the setting, or set it \
         to `never` to mark nothing",
    );
    assert_eq!(
        run.stderr.lines().take(2).collect::<Vec<_>>(),
        [
            "WARNING unknown setting `page_size`: did you mean `pageSize`?",
            "WARNING unknown setting `streamid`: did you mean `streamId`?"
        ]
    );
}

#[test]
fn in_structured_logs_too_each_mistake_is_a_line_of_its_own() {
    let tap = Tap::with_records(1);
    let config = tap.write_file("wrong.json", MISTAKES);
    let logging = tap.write_file("logging.yml", STRUCTURED_LOGS);
    let output = bare_command().arg("-c").arg(config).env("SINGER_SDK_LOG_CONFIG", logging).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        format!("{} {}\n", line["level"].as_str().unwrap().to_uppercase(), line["message"].as_str().unwrap())
    };
    assert_eq!(stderr.lines().map(line).collect::<String>(), MISTAKES_LOGGED);
}

#[test]
fn a_mistake_in_one_of_several_files_names_the_file() {
    let tap = Tap::with_records(1).set("pageSize", 0).set("flavor", 1).set("maxRetries", -1);
    let second = tap.write_file("second.json", r#"{"maxRetries": 1.5, "flavour": "sweet"}"#);
    let run = tap.run_with("-c", second);
    run.assert_refused(
        &tap,
        2,
        "`pageSize` in DIR/config.json must be a whole number from 1 to 100000, not 0\n\
         `maxRetries` in DIR/second.json must be a whole number from 0 to 100, not 1.5",
    );
    assert_eq!(
        run.stderr.lines().take(2).collect::<Vec<_>>(),
        [
            "WARNING unknown setting `flavor` in DIR/config.json: it is not used; remove it",
            "WARNING unknown setting `flavour` in DIR/second.json: it is not used; remove it"
        ]
    );
}

#[test]
fn every_file_that_is_none_is_named() {
    let tap = Tap::with_records(1);
    let list = tap.write_file("list.json", "[]");
    tap.run_command(bare_command().args(["-c", "/no/such/config.json", "-c"]).arg(list)).assert_refused(
        &tap,
        2,
        &format!(
            "config /no/such/config.json: read the file: No such file or directory (os error 2){REMEDY}\n\
             config DIR/list.json: not a JSON object{REMEDY}"
        ),
    );
}

#[test]
fn a_config_may_be_stdin_or_utf_16_and_hold_numbers_as_text() {
    let tap = Tap::with_records(3).set("pageSize", "2").set("maxRetries", "0");
    tap.command();
    let text = fs::read_to_string(tap.path("config.json")).unwrap();
    let utf_16 = |mark: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("{mark}{text}").encode_utf16().flat_map(bytes).collect()
    };
    for bytes in [
        text.clone().into_bytes(),
        format!("\u{feff}{text}").into_bytes(),
        utf_16("\u{feff}", u16::to_le_bytes),
        utf_16("\u{feff}", u16::to_be_bytes),
        utf_16("", u16::to_le_bytes),
        utf_16("", u16::to_be_bytes),
    ] {
        let path = tap.path("other.json");
        fs::write(&path, bytes).unwrap();
        let stdin = fs::File::open(&path).unwrap();
        for config in [path.to_str().unwrap(), "-"] {
            let mut command = bare_command();
            command.args(["--peek", "3", "-c", config]).stdin(stdin.try_clone().unwrap());
            let run = tap.finished(command.output().unwrap());
            assert_eq!((run.code, run.stdout), (0, schema_and(&tap.records())), "{}", run.stderr);
        }
    }
    fs::write(tap.path("other.json"), b"\xff\xfe{\0\"\0\x00\xd8").unwrap();
    let problem = &format!("config DIR/other.json: read the file: it begins like UTF-16 text, but is not{REMEDY}");
    tap.run_command(bare_command().arg("-c").arg(tap.path("other.json"))).assert_refused(&tap, 2, problem);
    let tap = Tap::with_records(1).set("pageSize", "0");
    tap.run().assert_refused(&tap, 2, "`pageSize` must be a whole number from 1 to 100000, not 0");
}

#[test]
fn values_that_kept_their_quotes_are_named_and_not_shown() {
    let problem = "begins and ends with quotes, which are a part of the value: remove them";
    for (setting, value) in [
        ("clientId", "\"x\""),
        ("clientSecret", "'hunter2'"),
        ("pageSize", "\"7\""),
        ("acknowledge", "'write'"),
        ("apiUrl", "\"https://api.example.com\""),
    ] {
        let tap = Tap::with_records(1).set(setting, value);
        tap.run().assert_refused(&tap, 2, &format!("`{setting}` {problem}"));
        let variable = format!("TAP_STREAMDUO_{}", setting.to_uppercase());
        let tap = Tap::with_records(1).env(&variable, value).args(&["-c", "ENV"]);
        tap.run().assert_refused(&tap, 2, &format!("{variable} {problem}"));
    }
}

#[test]
fn an_empty_object_lacks_the_required_settings() {
    assert_config_refused(
        "{}",
        "`streamId` is missing: add it to the config file\n\
         `clientId` is missing: add it to the config file\n\
         `clientSecret` is missing: add it to the config file",
    );
}

#[test]
fn a_mistake_in_the_environment_names_the_variable_and_what_it_holds() {
    let tap = Tap::with_records(1);
    let run = tap.run_command(bare_command().args(["--config", "ENV"]).envs([
        ("TAP_STREAMDUO_STREAMID", "a/b"),
        ("TAP_STREAMDUO_CLIENT_ID", "x"),
        ("TAP_STREAMDUO_STREAMNAME", " cars"),
        ("TAP_STREAMDUO_ACKNOWLEDGE", "never"),
        ("TAP_STREAMDUO_MARKBY", "id"),
        ("TAP_STREAMDUO_pageSize", "many"),
        ("TAP_STREAMDUO_STARTTIMESTAMP", "yesterday"),
        ("TAP_STREAMDUO_APIURL", "https://me:hunter2@example.com"),
        ("TAP_STREAMDUO_AUTHURL", "nowhere"),
        ("TAP_STREAMDUO_MAXRETRIES", "1000"),
        ("TAP_STREAMDUO_USERAGENT", "t\u{e9}"),
        ("TAP_STREAMDUO_FLAVOUR", "sweet"),
    ]));
    run.assert_refused(
        &tap,
        2,
        "TAP_STREAMDUO_STREAMID must be the id alone, such as 60c49e86-9db3-414a-87a1-f51ccee4ec0c, not \"a/b\"\n\
         TAP_STREAMDUO_CLIENTID is missing: set it\n\
         TAP_STREAMDUO_CLIENTSECRET is missing: set it\n\
         TAP_STREAMDUO_STREAMNAME must not begin or end with white space: \" cars\"\n\
         TAP_STREAMDUO_pageSize must be a whole number from 1 to 100000, not \"many\"\n\
         TAP_STREAMDUO_STARTTIMESTAMP must be a time stamp with an offset, such as 2026-01-31T08:00:00Z or \
         2026-01-31T08:00:00.5-05:00[America/New_York], not \"yesterday\"\n\
         TAP_STREAMDUO_APIURL must not hold a user name or password: use clientId and clientSecret\n\
         TAP_STREAMDUO_AUTHURL must be a URL that begins with https://, not \"nowhere\" (relative URL without a base)\n\
         TAP_STREAMDUO_MAXRETRIES must be a whole number from 0 to 100, not 1000\n\
         TAP_STREAMDUO_USERAGENT must be plain ASCII text to go into a header, not \"t\u{e9}\"\n\
         TAP_STREAMDUO_MARKBY `id` does not go with TAP_STREAMDUO_ACKNOWLEDGE `never`, which marks nothing: remove one of them",
    );
    assert_eq!(
        run.stderr.lines().take(2).collect::<Vec<_>>(),
        [
            "WARNING unknown setting TAP_STREAMDUO_CLIENT_ID: did you mean TAP_STREAMDUO_CLIENTID?",
            "WARNING unknown setting TAP_STREAMDUO_FLAVOUR: it is not used; remove it"
        ]
    );
}

#[test]
fn a_wrong_secret_is_named_and_never_shown() {
    let tap = Tap::with_records(1).set("clientSecret", 12_345);
    tap.run().assert_refused(&tap, 2, "`clientSecret` must be a string: write it in quotes");
    for (secret, problem) in
        [("hunter2\n", "must not begin or end with white space"), (" ", "is empty: give it a value")]
    {
        let tap = Tap::with_records(1).env("TAP_STREAMDUO_CLIENTSECRET", secret).args(&["-c", "ENV"]);
        let run = tap.run();
        run.assert_refused(&tap, 2, &format!("TAP_STREAMDUO_CLIENTSECRET {problem}"));
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
}

#[test]
fn a_file_and_the_environment_each_name_their_own_mistakes() {
    let tap = Tap::with_records(1).set("pageSize", 0).set("maxRetries", "5").set("clientSecret", Value::Null);
    let tap = tap.env("TAP_STREAMDUO_MAXRETRIES", "-1");
    tap.run_with("-c", "ENV").assert_refused(
        &tap,
        2,
        "`clientSecret` is missing: add it to the config file, or set TAP_STREAMDUO_CLIENTSECRET\n\
         `pageSize` must be a whole number from 1 to 100000, not 0\n\
         TAP_STREAMDUO_MAXRETRIES must be a whole number from 0 to 100, not \"-1\"",
    );
}

#[test]
fn a_variable_that_is_set_and_not_read_is_named() {
    let tap = Tap::with_records(1).set("clientSecret", Value::Null).env("TAP_STREAMDUO_CLIENTSECRET", "hunter2");
    tap.run().assert_refused(
        &tap,
        2,
        "`clientSecret` is missing: TAP_STREAMDUO_CLIENTSECRET is set, but read only with --config ENV: add that",
    );
}

#[test]
fn only_the_beginning_of_a_long_value_is_shown() {
    let long = "x".repeat(1_000);
    let tap = Tap::with_records(1).set("acknowledge", long.as_str());
    let found = format!("\"{}\" and so on", &long[..100]);
    let fatal = format!("`acknowledge` must be one of \"write\", \"commit\", \"never\", not {found}");
    tap.run().assert_refused(&tap, 2, &fatal);
}

#[test]
fn a_mode_that_is_gone_names_the_one_to_take() {
    let fatal = "`acknowledge` `read` is gone, because it lost records: use `write`";
    for (arguments, target) in [(&[][..], &[][..]), (&["--test"], &[]), (&["--discover"], &[]), (&[], &["cat"])] {
        let tap = Tap::with_records(1).set("acknowledge", "read").args(arguments).target(target);
        tap.run().assert_refused(&tap, 2, fatal);
        assert_eq!(tap.sandbox.requests(), 0);
    }
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
        &format!("config /no/such/config.json: read the file: No such file or directory (os error 2){REMEDY}"),
    );
}

#[test]
fn a_config_that_is_not_json_is_named_and_not_quoted() {
    assert_config_refused(
        "{\"clientSecret\": hunter2}",
        &format!("config DIR/wrong.json: not JSON: expected value at line 1 column 18{REMEDY}"),
    );
    let problem = "config DIR/wrong.json: not JSON: EOF while parsing a value at line 1 column 0";
    assert_config_refused("", &format!("{problem}{REMEDY}"));
}

#[test]
fn a_config_that_is_not_an_object_is_named() {
    for text in ["[]", "7", "\"x\"", "null"] {
        assert_config_refused(text, &format!("config DIR/wrong.json: not a JSON object{REMEDY}"));
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
            &format!("`streamId` must be the id alone, such as 60c49e86-9db3-414a-87a1-f51ccee4ec0c, not {id:?}"),
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
    assert_eq!(tap.sandbox.journal()[1].record_count, Some(2), "one more, which is the fence");
    let warning = "WARNING unknown setting TAP_STREAMDUO_PAGE_SIZE: did you mean TAP_STREAMDUO_PAGESIZE?";
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
        "`streamId` must not begin or end with white space: \" x\"\n\
         `clientSecret` must not begin or end with white space",
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
    let problem = "TAP_STREAMDUO_ACKNOWLEDGE must be one of \"write\", \"commit\", \"never\", not \"\u{fffd}\"";
    let run = run_with_variable("TAP_STREAMDUO_ACKNOWLEDGE");
    assert_eq!(run.last_log_line(), format!("CRITICAL {problem}"));
}
