//! A service that refuses: the run ends at once, and names the setting to correct.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::Tap;

#[test]
fn a_wrong_secret_ends_the_run() {
    let tap = Tap::with_records(1).set("clientSecret", "wrong").set("maxRetries", 5);
    tap.run().assert_refused(
        &tap,
        1,
        "fetch an access token: the credentials of client \"CLIENT\" are refused: check `clientId` and \
         `clientSecret`: HOST answers 400: invalid_client",
    );
    assert_eq!(tap.sandbox.count(Endpoint::Token), 1);
}

#[test]
fn a_scope_that_the_client_may_not_have_ends_the_run() {
    let tap = Tap::with_records(1).set("scope", "https://api.streamduo.com/own:everything").set("maxRetries", 5);
    tap.run().assert_refused(
        &tap,
        1,
        "fetch an access token: this client may not have the scope \"https://api.streamduo.com/own:everything\": \
         check `scope`: HOST answers 400: invalid_scope",
    );
}

#[test]
fn an_unknown_stream_ends_the_run() {
    let tap = Tap::with_records(1).set("streamId", "nowhere").set("maxRetries", 5);
    let run = tap.run();
    run.assert_refused(
        &tap,
        1,
        "there is no stream nowhere: check `streamId` and `apiUrl`: HOST answers 404: {\"message\":\"there is no stream \
         nowhere\"}",
    );
    assert_eq!((tap.sandbox.count(Endpoint::Token), tap.sandbox.count(Endpoint::Peek)), (1, 1));
}

#[test]
fn a_stream_that_this_client_may_not_read_ends_the_run() {
    let tap = Tap::with_records(1);
    tap.sandbox.restrict(&tap.stream);
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    let fatal = "CRITICAL this client may not read stream STREAM: check `clientId` and `scope`, or ask the stream's \
                 owner to make the client a consumer of it: HOST answers 403: {\"message\":";
    assert!(run.last_log_line().starts_with(fatal), "{}", run.stderr);
    assert_eq!((tap.sandbox.count(Endpoint::Token), tap.sandbox.count(Endpoint::Peek)), (2, 2));
}

#[test]
fn a_400_ends_the_run() {
    let tap = Tap::with_records(1).set("maxRetries", 5);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(400).body("recordCount is too large"));
    tap.run().assert_refused(
        &tap,
        1,
        "not even a single record of stream STREAM gets across: check `streamId`: HOST answers 400: recordCount is too large",
    );
    let asked: Vec<_> = tap.sandbox.journal().iter().filter_map(|call| call.record_count).collect();
    assert_eq!(asked, [100, 50, 25, 12, 6, 3, 1]);
}

#[test]
fn a_fresh_token_that_is_refused_ends_the_run() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(401).body("{\"message\":\"Unauthorized\"}"));
    tap.run().assert_refused(
        &tap,
        1,
        "a fresh access token is refused: check `scope`, and that `apiUrl` and `authUrl` belong together: HOST answers \
         401: {\"message\":\"Unauthorized\"}",
    );
    assert_eq!((tap.sandbox.count(Endpoint::Token), tap.sandbox.count(Endpoint::Peek)), (2, 2));
}

#[test]
fn a_redirect_is_not_followed() {
    let tap = Tap::with_records(1);
    let redirect =
        Rule::on(Endpoint::Peek).every().status(302).header("location", "https://login.example.com/").body("");
    tap.sandbox.script(redirect);
    tap.run().assert_refused(
        &tap,
        1,
        "redirects are not followed: check `apiUrl`: HOST answers 302, pointing to https://login.example.com/",
    );
    let tap = Tap::with_records(1);
    tap.sandbox
        .script(Rule::on(Endpoint::Token).every().status(301).header("location", "https://example.com/").body(""));
    tap.run().assert_refused(&tap, 1, "fetch an access token: check `authUrl`: HOST answers 301");
}

#[test]
fn an_answer_that_is_not_json_ends_the_run() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().json("<html>maintenance</html>"));
    tap.run().assert_refused(
        &tap,
        1,
        "check `apiUrl`, or ask the service's operator: HOST answers 200 (application/json): the answer is not JSON: expected value at line 1 column 1: \"<html>maintenance</html>\"",
    );
}

#[test]
fn records_that_are_not_json_are_not_logged() {
    for prefix in ["callback(", ")]}',\n", "ecordId\":\"private\"},"] {
        let tap = Tap::with_records(1);
        tap.sandbox.script(Rule::on(Endpoint::Peek).every().json(format!("{prefix}[{{\"dataPayload\":\"private\"}}]")));
        tap.run().assert_refused(
            &tap,
            1,
            "check `apiUrl`, or ask the service's operator: HOST answers 200 (application/json): the answer is not JSON: expected value at line 1 column 1",
        );
    }
}

#[test]
fn an_answer_that_is_not_an_array_ends_the_run() {
    let tap = Tap::with_records(1);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().json(r#"{"records":[]}"#));
    tap.run().assert_refused(&tap, 1, "check `apiUrl`, or ask the service's operator: HOST answers 200 (application/json): the answer is not an array of records");
    assert_eq!(tap.sandbox.count(Endpoint::Peek), 1);
}

#[test]
fn a_record_without_an_identity_ends_the_run() {
    for (record, problem) in [
        (r#"{"recordId":"a","dataPayload":{}}"#, "`recordTimeStampISO` is missing"),
        (r#"{"recordTimeStampISO":"t"}"#, "`recordId` is missing"),
        (r#"{"recordId":null,"recordTimeStampISO":"t"}"#, "`recordId` is not a string"),
        ("7", "it is not an object"),
    ] {
        let tap = Tap::with_records(0).set("maxRetries", 5);
        tap.sandbox.write_text(&tap.stream, record);
        tap.sandbox.fill(&tap.stream, 1);
        let run = tap.run();
        let remedy = "set `deadLetterFile` to put such records aside and go on";
        run.assert_refused(&tap, 1, &format!("record 1 of the answer has no identity: {problem}; {remedy}"));
    }
}

#[test]
fn a_token_answer_without_a_token_ends_the_run() {
    for answer in ["<html>", "[]", "{}"] {
        let tap = Tap::with_records(1);
        tap.sandbox.script(Rule::on(Endpoint::Token).every().json(answer));
        tap.run().assert_refused(
            &tap,
            1,
            "fetch an access token: check `authUrl`: HOST answers 200 (application/json): the answer is not a JSON object with an `access_token`",
        );
    }
}

#[test]
fn a_secret_that_the_server_sends_back_is_not_logged() {
    let tap = Tap::with_records(1);
    let (secret, xs) = (tap.sandbox.client_secret(), "x".repeat(246));
    // The last secret is where a long text is cut.
    let echo = format!("no client with secret {secret} {} {xs} {secret}", STANDARD.encode(secret));
    tap.sandbox.script(Rule::on(Endpoint::Token).every().status(400).body(echo));
    tap.run().assert_refused(
        &tap,
        1,
        "fetch an access token: check `authUrl`, `clientId` and `clientSecret`: HOST answers 400",
    );
}

#[test]
fn a_long_refusal_over_several_lines_is_logged_as_one_short_line() {
    let tap = Tap::with_records(1);
    let text = format!("no\nCRITICAL such\tluck\r\n{}", "x".repeat(1000));
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(404).body(text));
    tap.run().assert_refused(
        &tap,
        1,
        &format!(
            "there is no stream STREAM: check `streamId` and `apiUrl`: HOST answers 404: no CRITICAL such luck  {}…",
            "x".repeat(277)
        ),
    );
}
