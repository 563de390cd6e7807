//! What users of the Singer SDK expect: `--about`, `--test` and structured logs.

use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Tap, bare_command};

fn about(format: &str) -> String {
    let output = bare_command().args(["--about", "--format", format]).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn about_as_json_has_the_fields_of_the_sdks() {
    let about: Value = serde_json::from_str(&about("json")).unwrap();
    assert_eq!((&about["name"], &about["version"]), (&json!("tap-streamduo"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(
        about["capabilities"],
        json!(["about", "catalog", "discover", "properties", "state", "structured-logging", "test"])
    );
    let settings = &about["settings"];
    assert_eq!(settings["required"], json!(["streamId", "clientId", "clientSecret"]));
    assert_eq!(settings["properties"].as_object().unwrap().len(), 24);
    assert_eq!(settings["properties"]["clientSecret"]["secret"], true);
    assert_eq!(settings["properties"]["pageSize"]["default"], 1000);
    assert_eq!(settings["properties"]["acknowledge"]["enum"], json!(["write", "commit", "never"]));
}

#[test]
fn about_prints_text_and_markdown_too() {
    let text = about("text");
    assert!(text.starts_with("Name: tap-streamduo\nDescription: Singer tap for StreamDuo: "));
    assert_eq!(text.matches("      TAP_STREAMDUO_").count(), 24);
    assert!(text.contains(
        "\n\n  clientSecret (required)\n      TAP_STREAMDUO_CLIENTSECRET\n      the machine client's secret\n\n"
    ));
    assert!(text.contains(
        "\n\n  markBy (default: position)\n      TAP_STREAMDUO_MARKBY\n      which records a mark hits:\n      - position: \
         as many of the oldest unread records as were delivered\n      - id: exactly the records that were delivered, \
         with a request for each (with write and commit)\n\n"
    ));
    assert!(text.lines().skip(2).all(|line| line.chars().count() <= 100), "{text}");
    assert!(!text.contains('`'), "{text}");
    assert!(about("markdown").contains("\n| `clientSecret` | required | the machine client's secret |\n"));
    let run = bare_command().args(["--format", "json"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
}

#[test]
fn completions_and_the_man_page_are_printed() {
    for (args, beginning) in [
        (&["--completions", "bash"][..], "_tap__streamduo() {"),
        (&["--completions", "zsh"], "#compdef tap-streamduo"),
        (&["--completions", "fish"], "complete -c tap-streamduo"),
        (&["--man"], ".ie \\n(.g .ds Aq"),
    ] {
        let output = bare_command().args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && (text.starts_with(beginning) || text.contains(beginning)),
            "{args:?}: {text}"
        );
        assert!(text.contains("acknowledge") || text.contains("config"), "{args:?}");
    }
}

#[test]
fn the_man_page_has_the_usual_sections() {
    let output = bare_command().arg("--man").output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    let title = format!(r#".TH tap-streamduo 1 "" "tap-streamduo {}" "User Commands""#, env!("CARGO_PKG_VERSION"));
    assert_eq!(page.lines().find(|line| line.starts_with(".TH ")), Some(title.as_str()));
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    let expected = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXTRA", "VERSION", "SETTINGS"];
    assert_eq!(sections, expected);
    assert!(page.contains("\n.TP\n\\fBmarkBy\\fR [default: position]\nwhich records a mark hits"), "{page}");
}

#[test]
fn test_reports_what_it_can_read_and_marks_nothing() {
    for (records, unread) in [(3, "unread records"), (0, "no unread record")] {
        let tap = Tap::with_records(records).args(&["--test"]);
        let run = tap.run();
        let expected = format!(
            "INFO in use: `streamId` STREAM, `streamName` records, `acknowledge` write, `pageSize` 1000\n\
             INFO stream STREAM at http://HOST/ can be read: it has {unread}\n"
        );
        assert_eq!((run.code, run.stdout.as_str(), run.stderr), (0, "", expected));
        let calls: Vec<_> = tap.sandbox.journal().iter().map(|call| (call.endpoint, call.record_count)).collect();
        assert_eq!(calls, [(Endpoint::Token, None), (Endpoint::Peek, Some(1))]);
        assert_eq!(tap.read(), []);
    }
}

#[test]
fn test_says_what_commit_has_in_place_of_a_page_size() {
    let tap = Tap::with_records(1).set("acknowledge", "commit").set("maxPending", 7).set("streamName", "cars");
    tap.run_command(tap.command().arg("--test"))
        .assert_logged("INFO in use: `streamId` STREAM, `streamName` cars, `acknowledge` commit, `maxPending` 7");
}

#[test]
fn test_fails_on_a_setting_that_is_misspelt_and_makes_no_request() {
    let tap = Tap::with_records(1).set("acknowledges", "commit").set("page_size", 5).set("flavour", "sweet");
    tap.run_command(tap.command().arg("--test")).assert_refused(
        &tap,
        2,
        "unknown setting `acknowledges`: did you mean `acknowledge`?\n\
         unknown setting `page_size`: did you mean `pageSize`?",
    );
    let tap = Tap::with_records(1).env("TAP_STREAMDUO_PAGE_SIZE", "5").args(&["-c", "ENV", "--test"]);
    tap.run().assert_refused(&tap, 2, "unknown setting TAP_STREAMDUO_PAGE_SIZE: did you mean TAP_STREAMDUO_PAGESIZE?");
    assert_eq!(tap.sandbox.requests(), 0);
    // What is like no setting may be another program's.
    let tap = Tap::with_records(1).set("flavour", "sweet").args(&["--test"]);
    let run = tap.run();
    assert_eq!(run.code, 0);
    run.assert_logged("WARNING unknown setting `flavour`: it is not used; remove it");
}

#[test]
fn test_gives_up_after_one_retry() {
    let tap = Tap::with_records(1).set("maxRetries", 50).args(&["--test"]);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(503).header("retry-after", "0").body("no"));
    tap.run().assert_refused(
        &tap,
        1,
        "read stream STREAM: HOST answers 503: no (still failing after 1 retry: `maxRetries`)",
    );
    assert_eq!(tap.sandbox.count(Endpoint::Peek), 2);
}

#[test]
fn test_reports_what_is_wrong() {
    let tap = Tap::with_records(1).set("clientSecret", "wrong").args(&["--test"]);
    tap.run().assert_refused(
        &tap,
        1,
        "fetch an access token: the credentials of client \"CLIENT\" are refused: check `clientId` and \
         `clientSecret`: HOST answers 400: invalid_client",
    );
}

#[test]
fn logs_are_the_sdks_json_if_its_configuration_asks_for_it() {
    let formatter = json!({"formatters": {"structured": {"()": "singer_sdk.logging.StructuredFormatter"}}}).to_string();
    let tap = Tap::with_records(2);
    let config = tap.write_file("logging.json", &formatter).display().to_string();
    let tap = tap.env("SINGER_SDK_LOG_CONFIG", &config).set("flavour", "sweet");
    let mut command = tap.command();
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let mut lines: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        assert!(line.remove("pid").unwrap().is_u64());
        assert!(line.remove("ts").unwrap().as_f64().unwrap() > 1.7e9);
        assert_eq!(line.remove("thread_name"), Some(json!("MainThread")));
        assert_eq!(
            (line.remove("logger_name"), line.remove("app_name")),
            (Some(json!("tap-streamduo")), Some(json!("tap-streamduo")))
        );
        assert_eq!((line.remove("stream_name"), line.remove("extra")), (Some(json!(null)), Some(json!({}))));
    }
    let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["warning", "info", "info", "info", "info"]);
    assert_eq!(
        lines[3],
        json!({"level": "info", "message": "METRIC", "metric_info": {
            "type": "counter", "metric": "record_count", "value": 2, "tags": {"endpoint": "records"}
        }})
    );
    assert_eq!(lines[4]["metric_info"]["metric"], "job_duration");
}

#[test]
fn the_sdks_log_level_applies_unless_a_variable_sets_another() {
    let config = json!({"root": {"level": "DEBUG"}, "f": {"()": "singer_sdk.logging.StructuredFormatter"}}).to_string();
    let logs_debug = |tap: Tap| tap.run().stderr.contains(r#""level":"debug""#);
    let tap = || {
        let tap = Tap::with_records(0);
        let path = tap.write_file("logging.json", &config).display().to_string();
        tap.env("SINGER_SDK_LOG_CONFIG", &path)
    };
    assert!(logs_debug(tap()));
    assert!(!logs_debug(tap().env("LOGLEVEL", "INFO")));
}

#[test]
fn a_fatal_error_is_json_too_and_other_configurations_change_nothing() {
    let tap = Tap::with_records(1).set("streamId", "nowhere");
    let tap = tap.with_structured_logs();
    let output = tap.command().output().unwrap();
    let last: Value = serde_json::from_str(String::from_utf8(output.stderr).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "critical");
    for other in ["formatters: {plain: {format: '%(message)s'}}", ""] {
        let tap = Tap::with_records(0);
        let path = tap.write_file("logging.yml", other);
        let tap = tap.env("SINGER_SDK_LOG_CONFIG", path.to_str().unwrap());
        assert!(tap.run().stderr.starts_with("INFO reading"), "{other}");
    }
}
