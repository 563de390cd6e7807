//! Answers of success that are not plain JSON: what can be read is read, and the rest is named
//! without quoting what may be a secret.

use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::Tap;

#[test]
fn a_token_type_that_means_bearer_is_taken() {
    // The sandbox does not know the token, so that the tap fetches a second one.
    for (kind, peeks) in [("bearer", 2), ("BearerToken", 2), ("bearer_token", 2), ("hunter2", 0)] {
        let tap = Tap::with_records(1);
        let answer = format!(r#"{{"access_token":"t","token_type":"{kind}"}}"#);
        tap.sandbox.script(Rule::on(Endpoint::Token).every().json(answer));
        let run = tap.run();
        assert_eq!((run.code, tap.sandbox.count(Endpoint::Peek)), (1, peeks), "{kind}: {}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
}

#[test]
fn a_token_answer_with_an_error_code_ends_the_run_at_once() {
    let tap = Tap::with_records(1).set("maxRetries", 5);
    let answer = r#"{"error":"invalid_client","error_description":"hunter2"}"#;
    tap.sandbox.script(Rule::on(Endpoint::Token).every().json(answer));
    tap.run().assert_refused(
        &tap,
        1,
        "fetch an access token: the credentials of client \"CLIENT\" are refused: check `clientId` and \
         `clientSecret`: HOST answers 200: invalid_client",
    );
    assert_eq!(tap.sandbox.count(Endpoint::Token), 1);
}

#[test]
fn a_byte_order_mark_and_the_old_name_of_gzip_are_read() {
    let tap = Tap::with_records(3);
    let records: Vec<_> = tap.records().iter().map(|record| record.json.clone()).collect();
    let with_mark = format!("\u{feff}[{}]", records.join(","));
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().json(with_mark));
    tap.run().assert_all_delivered_when(&tap, "byte order mark");
    let tap = Tap::with_records(3);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().gzip().header("content-encoding", "x-gzip"));
    tap.run().assert_all_delivered_when(&tap, "x-gzip");
}

#[test]
fn a_record_that_is_not_utf_8_keeps_each_of_its_bytes_and_does_not_stop_the_queue() {
    let in_latin_1 = |body: &[u8]| String::from_utf8_lossy(body).chars().map(|c| c as u8).collect::<Vec<u8>>();
    let tap = Tap::with_records(0);
    for payload in ["1", r#"{"name":"\u00e9 é"}"#, "2"] {
        tap.sandbox.write(&tap.stream, payload);
    }
    for endpoint in [Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).every().rewrite(in_latin_1));
    }
    tap.run().assert_succeeds(&tap.messages(&tap.records()).replace("é", "\\udce9"));
    assert_eq!(tap.unread(), []);
}

#[test]
fn an_answer_that_cannot_be_read_is_named_by_its_status_and_content_type() {
    let peek = || Rule::on(Endpoint::Peek).every();
    let token = || Rule::on(Endpoint::Token).every();
    let html = "the answer is not JSON: expected value at line 1 column 1: \"<html>maintenance</html>\"";
    let no_token = "the answer is not a JSON object with an `access_token`";
    let check = "fetch an access token: check `authUrl`";
    let check_api = "check `apiUrl`, or ask the service's operator";
    for (rule, problem) in [
        (peek().status(204).body(""), format!("{check_api}: HOST answers 204: the answer is empty")),
        (peek().body("\r\n"), format!("{check_api}: HOST answers 200 (application/json): the answer is empty")),
        (
            peek().body("<html>maintenance</html>").header("content-type", "text/html; charset=utf-8"),
            format!("{check_api}: HOST answers 200 (text/html): {html}"),
        ),
        (token().status(204).body(""), format!("{check}: HOST answers 204: the answer is empty")),
        (token().not_json(), format!("{check}: HOST answers 200 (text/html): {no_token}")),
        (token().body("{}").header("content-type", "hunter2"), format!("{check}: HOST answers 200: {no_token}")),
    ] {
        let tap = Tap::with_records(1);
        tap.sandbox.script(rule);
        tap.run().assert_refused(&tap, 1, &problem);
    }
}
