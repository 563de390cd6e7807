//! Log lines on stderr, in singer-python's format.

use std::time::SystemTime;

use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::Tap;

const INFO_LINES: &str = r#"INFO reading the unread records of stream STREAM from http://HOST/
INFO records: 2 records written, 2 marked as read in # s
INFO METRIC: {"type":"counter","metric":"record_count","value":2,"tags":{"endpoint":"records"}}
INFO METRIC: {"type":"timer","metric":"job_duration","value":#,"tags":{"job_type":"records","status":"succeeded"}}
"#;

#[test]
fn a_run_logs_what_it_read_and_its_metrics() {
    let tap = Tap::with_records(2);
    assert_eq!(tap.run().stderr, INFO_LINES);
}

#[test]
fn every_line_begins_with_its_time() {
    let tap = Tap::with_records(2);
    let second = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let started = second();
    let stderr = String::from_utf8(tap.command().output().unwrap().stderr).unwrap();
    assert_eq!(stderr.lines().count(), 4, "{stderr}");
    for line in stderr.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        let at: jiff::Timestamp = time.parse().unwrap();
        assert!((started..=second()).contains(&at.as_second().unsigned_abs()), "{line}");
        assert!(time.len() == "2026-11-23T20:16:23Z".len() && time.ends_with('Z'), "{line}");
        assert!(rest.starts_with("INFO "), "{line}");
    }
}

#[test]
fn the_debug_level_logs_the_duration_of_every_request() {
    let tap = Tap::with_records(2).env("LOGLEVEL", "debug");
    let stderr = tap.run().stderr;
    let debug: Vec<_> = stderr.lines().filter(|line| line.starts_with("DEBUG")).collect();
    let timer = |endpoint: &str| {
        format!(
            r#"DEBUG METRIC: {{"type":"timer","metric":"http_request_duration","value":#,"tags":{{"endpoint":"{endpoint}","status":"succeeded"}}}}"#
        )
    };
    assert_eq!(debug, [timer("token"), "DEBUG new access token".to_owned(), timer("peek"), timer("mark")]);
}

#[test]
fn the_most_specific_variable_sets_the_level() {
    let quiet =
        Tap::with_records(2).env("TAP_STREAMDUO_LOGLEVEL", "WARNING").env("LOGLEVEL", "DEBUG").env("RUST_LOG", "trace");
    assert_eq!(quiet.run().stderr, "");
    let rust_log = Tap::with_records(2).env("RUST_LOG", "tap_streamduo=warn");
    assert_eq!(rust_log.run().stderr, "");
    let unknown = Tap::with_records(2).env("LOGLEVEL", "loud");
    assert_eq!(
        unknown.run().stderr,
        format!("WARNING LOGLEVEL: \"loud\" is not a level, so INFO is used\n{INFO_LINES}")
    );
}

#[test]
fn a_fatal_error_is_one_critical_line_at_every_level() {
    for level in ["CRITICAL", "ERROR"] {
        let tap = Tap::with_records(2).env("LOGLEVEL", level);
        tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(404).body("no"));
        let expected = "CRITICAL there is no stream STREAM: check `streamId` and `apiUrl`: HOST answers 404: no\n";
        assert_eq!(tap.run().stderr, expected);
    }
}

#[test]
fn no_secret_and_no_token_is_logged_at_any_level() {
    let tap = Tap::with_records(2).env("RUST_LOG", "trace");
    let run = tap.run();
    let token = tap.sandbox.journal()[1]
        .headers
        .iter()
        .find(|(name, _)| name == "authorization")
        .map(|(_, value)| value.trim_start_matches("Bearer ").to_owned())
        .unwrap();
    // `normalize` has checked that the client's secret is not logged.
    assert!(!run.stderr.contains(&token));
    assert!(run.stderr.contains("TRACE"), "{}", run.stderr);
}
