//! A service in trouble: what passes by itself is waited for, and given up in the end.

use std::io::{BufRead, BufReader};

use serde_json::json;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Run, Tap};

/// The lines that tell of a retry or of the end.
fn troubles(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| !line.starts_with("INFO")).collect()
}

#[track_caller]
fn survives(tap: &Tap, warning: &str) {
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (0, tap.messages(&tap.records()).as_str()));
    assert_eq!(tap.unread(), []);
    assert_eq!(troubles(&run), [warning]);
}

/// A tap whose token comes from another host, and takes as long as the test wants.
fn tap_that_waits_for_its_token() -> Tap {
    let tap = Tap::on(3).token_from_elsewhere();
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).hold());
    tap
}

#[test]
fn the_connection_to_the_api_is_opened_while_the_token_is_fetched() {
    for (schema, first) in [("any", Endpoint::Peek), ("registered", Endpoint::Stream)] {
        let tap = tap_that_waits_for_its_token().set("payloadSchema", schema).env("LOGLEVEL", "DEBUG");
        let mut running = tap.start();
        tap.sandbox.wait_held(Endpoint::Token, 1);
        let mut stderr = BufReader::new(running.child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(r#""endpoint":"health""#) {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it has ended");
        }
        tap.sandbox.release();
        let run = running.end(&tap);
        assert_eq!((run.code, run.stdout, tap.unread()), (0, tap.messages(&tap.records()), vec![]));
        let calls = tap.sandbox.journal();
        let call = |endpoint| calls.iter().find(|call| call.endpoint == endpoint).unwrap();
        let opening = call(Endpoint::Health);
        assert_eq!(call(first).connection, opening.connection);
        assert_ne!(call(Endpoint::Token).connection, opening.connection);
        assert!(opening.headers.iter().all(|(name, _)| name != "authorization"), "{opening:?}");
    }
}

#[test]
fn a_connection_that_cannot_be_opened_ahead_is_opened_by_the_first_peek() {
    let tap = tap_that_waits_for_its_token();
    tap.sandbox.script(Rule::on(Endpoint::Health).every().close());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Token, 1);
    tap.sandbox.wait_for(Endpoint::Health, 1);
    tap.sandbox.release();
    let run = running.end(&tap);
    assert_eq!((run.code, run.stdout.as_str(), tap.unread()), (0, tap.messages(&tap.records()).as_str(), vec![]));
    assert_eq!(troubles(&run), Vec::<&str>::new());
}

#[test]
fn a_failed_peek_is_tried_again() {
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
        let tap = Tap::on(3).set("maxRetries", 1);
        tap.sandbox.script(fault);
        survives(&tap, &format!("WARNING peek: read stream STREAM: {what}; trying again in # s (1 of 1)"));
    }
}

#[test]
fn an_answer_that_is_cut_off_is_asked_for_again() {
    for (fault, reason) in [
        (Rule::on(Endpoint::Peek).call(1).close(), "connection closed before message completed"),
        (Rule::on(Endpoint::Peek).call(1).cut(), "end of file before message length reached"),
        (Rule::on(Endpoint::Peek).call(1).cut_chunked(), "unexpected EOF during chunk size line"),
    ] {
        let tap = Tap::on(3).set("maxRetries", 1);
        tap.sandbox.script(fault);
        let what = format!("the answer of HOST was cut off: {reason}");
        survives(&tap, &format!("WARNING peek: read stream STREAM: {what}; trying again in # s (1 of 1)"));
    }
}

#[test]
fn a_page_that_is_not_json_is_asked_for_again() {
    let tap = Tap::on(3).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).json("[{\"recordId\":"));
    survives(
        &tap,
        "WARNING peek: the answer is not JSON: EOF while parsing a value at line 1 column 13; trying again in # s (1 of 1)",
    );
}

#[test]
fn a_failed_token_request_is_tried_again() {
    let tap = Tap::on(3).set("maxRetries", 1);
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).status(502).header("retry-after", "0"));
    survives(
        &tap,
        "WARNING token: fetch an access token: check `authUrl`: HOST answers 502: {\"message\":\"Bad Gateway\"}; trying again in # s (1 of 1)",
    );
}

#[test]
fn retry_after_may_be_a_date() {
    let tap = Tap::on(3).set("maxRetries", 1);
    let gone_by = "Sun, 06 Nov 1994 08:49:37 GMT";
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).status(503).header("retry-after", gone_by));
    survives(
        &tap,
        "WARNING peek: read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"}; trying again in # s (1 of 1)",
    );
}

#[test]
fn a_service_that_wants_to_be_left_alone_for_long_is() {
    let tap = Tap::on(3).set("maxRetries", 5);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(503).header("retry-after", "3600"));
    tap.run().refused(
        &tap,
        1,
        "read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"} (it asks to come back in 3600 s: run again then)",
    );
}

#[test]
fn a_service_that_is_down_for_good_ends_the_run() {
    let tap = Tap::on(3).set("maxRetries", 2);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(503).header("retry-after", "0"));
    tap.run().refused(
        &tap,
        1,
        "read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"} (still so after 2 retries: `maxRetries`)",
    );
    assert_eq!(tap.sandbox.count(Endpoint::Peek), 3);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // tcpmux: nobody serves it.
    let free = "127.0.0.1:1";
    let tap = Tap::on(1).set("authUrl", format!("http://{free}/oauth2/token"));
    tap.run().refused(
        &tap,
        1,
        &format!(
            "fetch an access token: check `authUrl`, the network and the proxy: cannot reach {free}: Connection refused \
             (os error 111)"
        ),
    );
    let tap = Tap::on(1).set("apiUrl", format!("http://{free}"));
    tap.run().refused(
        &tap,
        1,
        &format!("check `apiUrl`, the network and the proxy: cannot reach {free}: Connection refused (os error 111)"),
    );
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let tap = Tap::on(1).set("requestTimeoutSeconds", 1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().hold());
    tap.run().refused(
        &tap,
        1,
        "check the network, raise `requestTimeoutSeconds` or make `pageSize` smaller: HOST did not answer within 1 s",
    );
}

#[test]
fn a_token_that_was_revoked_is_renewed_once() {
    for endpoint in [Endpoint::Peek, Endpoint::Mark] {
        let tap = Tap::on(3);
        tap.sandbox.script(Rule::on(endpoint).call(1).revoke_token());
        let run = tap.run();
        assert_eq!((run.code, run.stdout.as_str()), (0, tap.messages(&tap.records()).as_str()));
        assert_eq!((tap.unread(), tap.sandbox.count(Endpoint::Token)), (vec![], 2));
    }
}

#[test]
fn a_token_that_has_expired_is_renewed_before_it_is_used() {
    let tap = Tap::on(3);
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).expires_in(0));
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (0, tap.messages(&tap.records()).as_str()));
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
fn marks_that_are_lost_for_ever_end_the_run() {
    let tap = Tap::on(2).set("maxRetries", 2);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().status(503).header("retry-after", "0"));
    let run = tap.run();
    assert_eq!(run.code, 1);
    assert_eq!(
        run.last_words(),
        "CRITICAL read stream STREAM: HOST answers 503: {\"message\":\"Service Unavailable\"} (still so after 2 retries: `maxRetries`)"
    );
    assert_eq!(run.stdout, format!("{}{}", crate::tap::SCHEMA, crate::tap::record_lines(&tap.records())));
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 3));
}

#[test]
fn marks_that_come_to_nothing_are_not_repeated_for_ever() {
    for answer in ["[]", r#"[{"status":"ok"}]"#] {
        let tap = Tap::on(2).set("maxRetries", 1);
        tap.sandbox.script(Rule::on(Endpoint::Mark).every().json(answer));
        let run = tap.run();
        let fatal = "CRITICAL the service has marked no record (still so after 1 retries: `maxRetries`)";
        assert_eq!((run.code, run.last_words()), (1, fatal));
        assert_eq!((tap.sandbox.count(Endpoint::Mark), tap.read()), (2, vec![]));
    }
}

#[test]
fn marks_are_counted_in_a_row() {
    let tap = Tap::on(8).set("pageSize", 1).set("maxRetries", 1);
    for nth in [1, 3, 5] {
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(nth).status(503).header("retry-after", "0"));
    }
    let run = tap.run();
    assert_eq!((run.code, run.stdout, tap.unread()), (0, tap.messages(&tap.records()), vec![]));
}

#[test]
fn a_proxy_never_sees_what_is_for_this_machine() {
    let tap = Tap::on(1).env("http_proxy", "http://127.0.0.1:1").env("ALL_PROXY", "http://127.0.0.1:1");
    assert_eq!(tap.run().stdout, tap.messages(&tap.records()));
    // The token is fetched directly even when the API is far away; only then the proxy is asked for it, and is not there.
    let tap = tap.set("apiUrl", "https://api.example.com").env("https_proxy", "http://127.0.0.1:1");
    let run = tap.run();
    assert_eq!((run.code, tap.sandbox.count(Endpoint::Token)), (1, 2));
    let fatal = "CRITICAL check `apiUrl`, the network and the proxy: cannot reach api.example.com: ";
    assert!(run.last_words().starts_with(fatal), "{}", run.stderr);
}

#[test]
fn a_service_that_answers_marks_and_does_not_apply_them_is_not_believed_for_ever() {
    let tap = Tap::on(4).set("pageSize", 2);
    let page: Vec<_> = tap.records().iter().take(2).map(|record| record.json.clone()).collect();
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().json(format!("[{}]", page.join(","))));
    let run = tap.run();
    let fatal = "CRITICAL the service shows records as unread that it has answered to be marked as read";
    assert_eq!((run.code, run.last_words()), (1, fatal));
    assert_eq!(run.stdout, format!("{}{}", crate::tap::SCHEMA, crate::tap::record_lines(&tap.records()[..2])));
    assert_eq!(tap.sandbox.count(Endpoint::Mark), 1);
}

#[test]
fn the_connection_to_a_slow_service_is_waited_for() {
    let tap = Tap::on(1).set("requestTimeoutSeconds", 3600).set("maxRetries", json!(0));
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).hold());
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Peek, 1);
    tap.sandbox.release();
    let run = running.end(&tap);
    assert_eq!((run.code, run.stdout), (0, tap.messages(&tap.records())));
}
