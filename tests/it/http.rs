//! A service in trouble: temporary failures are retried, and in the end they end the run.

use serde_json::json;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Run, Tap, schema_and};

/// The log lines that are not INFO.
fn warnings(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| !line.starts_with("INFO")).collect()
}

/// The run delivers all records, and logs only this warning.
#[track_caller]
fn assert_delivers_with_warning(tap: &Tap, warning: &str) {
    let run = tap.run();
    run.assert_all_delivered(tap);
    assert_eq!(warnings(&run), [warning]);
}

#[test]
fn a_failed_peek_is_retried() {
    for (fault, what) in [
        (
            Rule::on(Endpoint::Peek).call(1).status(503).header("retry-after", "0"),
            "HOST answers 503: {\"message\":\"Service Unavailable\"}",
        ),
        (
            Rule::on(Endpoint::Peek).call(1).status(429).header("retry-after", "0").body("slow down"),
            "HOST answers 429: slow down",
        ),
        (Rule::on(Endpoint::Peek).call(1).status(500), "HOST answers 500: {\"message\":\"Internal Server Error\"}"),
    ] {
        let tap = Tap::with_records(3).set("maxRetries", 1);
        tap.sandbox.script(fault);
        assert_delivers_with_warning(
            &tap,
            &format!("WARNING peek: read stream STREAM: {what}; trying again in # s (1 of 1)"),
        );
    }
}

#[test]
fn a_peek_without_an_answer_is_retried() {
    let tap = Tap::with_records(3).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).close());
    assert_delivers_with_warning(
        &tap,
        "WARNING peek: read stream STREAM: the answer of HOST was cut off: connection closed before message completed; \
         trying again in # s (1 of 1)",
    );
}

#[test]
fn a_peek_whose_answer_is_cut_off_is_repeated_with_half_the_size() {
    for (fault, reason) in [
        (Rule::on(Endpoint::Peek).call(1).cut(), "end of file before message length reached"),
        (Rule::on(Endpoint::Peek).call(1).cut_chunked(), "unexpected EOF during chunk size line"),
    ] {
        let tap = Tap::with_records(3);
        tap.sandbox.script(fault);
        let run = tap.run();
        run.assert_all_delivered_when(&tap, reason);
        run.assert_logged(&format!(
            "INFO peek: asking for 50 records instead of 100: read stream STREAM: the answer of HOST was cut off: {reason}"
        ));
    }
}

#[test]
fn a_peek_whose_answer_is_not_json_is_retried() {
    let tap = Tap::with_records(3).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).json("[{\"recordId\":"));
    assert_delivers_with_warning(
        &tap,
        "WARNING peek: check `apiUrl`, or ask the service's operator: HOST answers 200 (application/json): the answer is not JSON: EOF while parsing a value at line 1 column 13; trying again in # s (1 of 1)",
    );
}

#[test]
fn a_failed_token_request_is_retried() {
    let tap = Tap::with_records(3).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).status(502).header("retry-after", "0"));
    assert_delivers_with_warning(
        &tap,
        "WARNING token: fetch an access token: check `authUrl`: HOST answers 502; trying again in # s (1 of 1)",
    );
}

#[test]
fn retry_after_may_be_a_date() {
    let tap = Tap::with_records(3).set("maxRetries", 1);
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).status(503).header("retry-after", past));
    assert_delivers_with_warning(
        &tap,
        "WARNING peek: read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"}; trying again in # s (1 of 1)",
    );
}

#[test]
fn a_retry_after_that_is_too_long_ends_the_run() {
    let tap = Tap::with_records(3).set("maxRetries", 5);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(503).header("retry-after", "3600"));
    tap.run().assert_refused(
        &tap,
        1,
        "read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"} (it asks to come back in 3600 s: run again then)",
    );
}

#[test]
fn a_service_that_stays_down_ends_the_run() {
    let tap = Tap::with_records(3).set("maxRetries", 2);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(503).header("retry-after", "0"));
    tap.run().assert_refused(
        &tap,
        1,
        "read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"} (still failing after 2 \
         retries: `maxRetries`)",
    );
    let asked: Vec<_> = tap.sandbox.journal().iter().filter_map(|call| call.record_count).collect();
    assert_eq!(asked, [100, 100, 50, 25, 12, 6, 3, 1, 1], "the first failure counts, and those of a single record");
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    // The port of tcpmux, which no server uses.
    let unused = "127.0.0.1:1";
    let tap = Tap::with_records(1).set("authUrl", format!("http://{unused}/oauth2/token"));
    tap.run().assert_refused(
        &tap,
        1,
        &format!(
            "fetch an access token: check `authUrl`, the network and the proxy: cannot reach {unused}: Connection refused \
             (os error 111)"
        ),
    );
    let tap = Tap::with_records(1).set("apiUrl", format!("http://{unused}"));
    tap.run().assert_refused(
        &tap,
        1,
        &format!("check `apiUrl`, the network and the proxy: cannot reach {unused}: Connection refused (os error 111)"),
    );
}

#[test]
fn a_request_without_an_answer_times_out() {
    let tap = Tap::with_records(1).set("requestTimeoutSeconds", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().hold());
    tap.run().assert_refused(
        &tap,
        1,
        "check the network, or raise `requestTimeoutSeconds`: HOST did not answer within 1 s",
    );
}

#[test]
fn a_token_that_was_revoked_is_renewed_once() {
    for endpoint in [Endpoint::Peek, Endpoint::Mark] {
        let tap = Tap::with_records(3);
        tap.sandbox.script(Rule::on(endpoint).call(1).revoke_token());
        tap.run().assert_all_delivered_when(&tap, &format!("{endpoint:?}"));
        assert_eq!(tap.sandbox.count(Endpoint::Token), 2);
    }
}

#[test]
fn a_token_that_has_expired_is_renewed_before_it_is_used() {
    let tap = Tap::with_records(3);
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).expires_in(0));
    let run = tap.run();
    run.assert_succeeds(&tap.messages(&tap.records()));
    let answers: Vec<_> = tap.sandbox.journal().iter().map(|call| (call.endpoint, call.status)).collect();
    assert_eq!(
        answers,
        [
            (Endpoint::Token, Some(200)),
            (Endpoint::Peek, Some(401)),
            (Endpoint::Token, Some(200)),
            (Endpoint::Peek, Some(200)),
            (Endpoint::Mark, Some(200))
        ]
    );
}

#[test]
fn marks_that_always_fail_end_the_run() {
    let tap = Tap::with_records(2).set("maxRetries", 2);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().status(503).header("retry-after", "0"));
    let run = tap.run();
    assert_eq!(run.code, 1);
    assert_eq!(
        run.last_log_line(),
        "CRITICAL read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"} (still failing after \
         2 retries: `maxRetries`)"
    );
    assert_eq!(run.stdout, schema_and(&tap.records()));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 3));
}

#[test]
fn marks_without_effect_end_the_run() {
    // What looks like a record that slipped in is written, and counts as an effect the first time.
    for (answer, marks) in [("[]", 2), (r#"[{"status":"ok"}]"#, 3)] {
        let tap = Tap::with_records(2).set("maxRetries", 1);
        tap.sandbox.script(Rule::on(Endpoint::Mark).every().json(answer));
        let run = tap.run();
        let fatal = "CRITICAL the service shows records as unread although it has answered that they are marked (still \
                     failing after 1 retry: `maxRetries`)";
        assert_eq!((run.code, run.last_log_line()), (1, fatal));
        assert_eq!((tap.sandbox.count(Endpoint::Mark), tap.read()), (marks, vec![]), "{}", run.stderr);
    }
}

#[test]
fn only_consecutive_failures_of_marks_count() {
    let tap = Tap::with_records(8).set("pageSize", 1).set("maxRetries", 1);
    for nth in [1, 3, 5] {
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(nth).status(503).header("retry-after", "0"));
    }
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn requests_to_this_machine_bypass_the_proxy() {
    let tap = Tap::with_records(1).env("http_proxy", "http://127.0.0.1:1").env("ALL_PROXY", "http://127.0.0.1:1");
    assert_eq!(tap.run().stdout, tap.messages(&tap.records()));
    // The token is still fetched directly. The request to the API goes to the proxy, which cannot
    // be reached.
    let tap = tap.set("apiUrl", "https://api.example.com").env("https_proxy", "http://127.0.0.1:1");
    let run = tap.run();
    assert_eq!((run.code, tap.sandbox.count(Endpoint::Token)), (1, 2));
    let fatal =
        "CRITICAL check `apiUrl`, the network and the proxy: cannot reach the proxy 127.0.0.1:1 (`https_proxy`): ";
    assert!(run.last_log_line().starts_with(fatal), "{}", run.stderr);
}

#[test]
fn a_service_that_answers_marks_without_applying_them_ends_the_run() {
    let tap = Tap::with_records(4).set("pageSize", 2);
    let page: Vec<_> = tap.records().iter().take(2).map(|record| record.json.clone()).collect();
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().json(format!("[{}]", page.join(","))));
    let run = tap.run();
    let fatal = "CRITICAL the service shows records as unread although it has answered that they are marked";
    assert_eq!((run.code, run.last_log_line()), (1, fatal));
    assert_eq!(run.stdout, schema_and(&tap.records()[..2]));
    assert_eq!(tap.sandbox.count(Endpoint::Mark), 1);
}

#[test]
fn a_slow_answer_is_awaited() {
    let tap = Tap::with_records(1).set("requestTimeoutSeconds", 3600).set("maxRetries", json!(0));
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).hold());
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Peek, 1);
    tap.sandbox.release();
    let run = running.wait(&tap);
    run.assert_succeeds(&tap.messages(&tap.records()));
}
