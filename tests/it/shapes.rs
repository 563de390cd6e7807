//! Settings that change records and their schema: the SCHEMA message and the RECORD messages agree.

use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule, Samples, Stamps};

use crate::tap::{EXTRACTED, Run, SCHEMA, Tap, written_identity};

/// The messages of a successful run.
fn messages(run: &Run) -> Vec<Value> {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The payload's schema in a run, which must be the same as in `--discover`.
fn payload_schema(tap: &Tap) -> Value {
    let catalog: Value = serde_json::from_str(&tap.run_command(tap.command().arg("--discover")).stdout).unwrap();
    assert_eq!(tap.read(), [], "discovery marks nothing");
    let schema = messages(&tap.run())[0]["schema"].clone();
    assert_eq!(schema, catalog["streams"][0]["schema"]);
    schema["properties"]["dataPayload"].clone()
}

fn default_payload_schema() -> Value {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    schema["schema"]["properties"]["dataPayload"].clone()
}

#[test]
fn rfc3339_keeps_the_instant_and_the_schema_declares_it() {
    let tap = Tap::with_records(0).set("timestampFormat", "rfc3339");
    tap.sandbox.write_as(&tap.stream, "a", "2022-02-01T15:16:23.716848-05:00[America/New_York]", r#"{"n":1.00}"#);
    let run = tap.run();
    let schema = SCHEMA.replace(
        r#""recordTimeStampISO":{"type":"string"}"#,
        r#""recordTimeStampISO":{"type":"string","format":"date-time"}"#,
    );
    let record = format!(
        r#"{{"type":"RECORD","stream":"records","record":{{"recordId":"a","streamId":"{}","recordTimeStampISO":"2022-02-01T20:16:23.716848Z","readStatus":"false","dataPayload":{{"n":1.00}}}}{EXTRACTED}"#,
        tap.stream
    );
    assert_eq!((run.code, run.stdout), (0, format!("{schema}{record}\n{}", tap.state_line("write"))));
}

#[test]
fn a_time_stamp_that_cannot_be_converted_ends_the_run_and_nothing_is_marked() {
    let tap = Tap::with_records(0).set("timestampFormat", "rfc3339");
    tap.sandbox.write_text(&tap.stream, r#"{"recordId":"a","recordTimeStampISO":"yesterday"}"#);
    let run = tap.run();
    let fatal = "CRITICAL a record cannot be written as the settings ask; what was not delivered stays unread, so run \
                 again then: recordTimeStampISO \"yesterday\": ";
    assert!(run.last_log_line().starts_with(fatal), "{}", run.stderr);
    assert!(run.last_log_line().contains("; set `timestampFormat` to `original`, or "), "{}", run.stderr);
    assert_eq!((run.code, run.stdout.as_str(), tap.sandbox.count(Endpoint::Mark)), (1, "", 0));
}

#[test]
fn a_payload_as_a_string_is_its_json_text() {
    let tap = Tap::with_records(0).set("payloadFormat", "string");
    let payloads = [r#"{ "n": 1.00, "s": "é\"\u2028" }"#, "[1e400]", "\"x\"", "7", "null"];
    for payload in payloads {
        tap.sandbox.write(&tap.stream, payload);
    }
    let messages = messages(&tap.run());
    assert_eq!(messages[0]["schema"]["properties"]["dataPayload"], json!({"type": ["null", "string"]}));
    let texts: Vec<_> = messages[1..6].iter().map(|message| message["record"]["dataPayload"].clone()).collect();
    assert_eq!(texts, [json!(payloads[0]), json!(payloads[1]), json!(payloads[2]), json!("7"), json!(null)]);
}

#[test]
fn a_sampled_schema_is_inferred_from_the_last_records() {
    let tap = Tap::with_records(0).set("payloadSchema", "sampled");
    tap.sandbox.write(&tap.stream, r#"{"make":"Toyota","price":10.00}"#);
    tap.sandbox.write(&tap.stream, r#"{"price":7,"doors":4,"owner":{"name":"x"},"tags":["a"]}"#);
    assert_eq!(
        payload_schema(&tap),
        json!({"type": ["null", "object"], "properties": {
            "make": {"type": ["null", "string"]},
            "price": {"type": ["null", "number"]},
            "doors": {"type": ["null", "integer"]},
            "owner": {"type": ["null", "object"], "properties": {"name": {"type": ["null", "string"]}},
                "additionalProperties": true},
            "tags": {"type": ["null", "array"], "items": {"type": ["null", "string"]}}
        }, "additionalProperties": true})
    );
    let asked: Vec<_> = tap.sandbox.journal().into_iter().filter(|call| call.endpoint == Endpoint::LastN).collect();
    assert!(asked.iter().all(|call| call.record_count == Some(100) && call.mark_as_read == Some(false)));
    assert_eq!(asked.len(), 2);
}

#[test]
fn an_empty_stream_has_no_sample_and_keeps_the_default_schema() {
    let tap = Tap::with_records(0).set("payloadSchema", "sampled");
    assert_eq!(payload_schema(&tap), default_payload_schema());
    let warning = "WARNING no records to sample, so that the payload may be anything";
    assert_eq!(tap.run().stderr.lines().next(), Some(warning));
}

#[test]
fn a_sample_that_does_not_get_across_is_asked_for_in_half() {
    // 100 records would be an answer of 2 MB.
    let tap = Tap::with_records(0).set("payloadSchema", "sampled").set("maxAnswerMegabytes", 1);
    tap.sandbox.fill_sized(&tap.stream, 110, 20_000);
    let run = tap.run();
    run.assert_drains(&tap);
    let asked: Vec<_> = tap
        .sandbox
        .journal()
        .iter()
        .filter(|call| call.endpoint == Endpoint::LastN)
        .map(|call| call.record_count)
        .collect();
    assert_eq!(asked, [Some(100), Some(50), Some(25)]);
    run.assert_logged("INFO the payload's schema is that of the last 25 records");
}

#[test]
fn where_not_even_one_record_can_be_had_as_a_sample_the_payload_may_be_anything() {
    for (fault, problem) in [
        (Rule::on(Endpoint::LastN).status(413).body("no"), "HOST answers 413: no"),
        (Rule::on(Endpoint::LastN).cut(), "the answer of HOST was cut off: end of file before message length reached"),
    ] {
        let tap = Tap::with_records(3).set("payloadSchema", "sampled");
        tap.sandbox.script(fault);
        let run = tap.run();
        run.assert_succeeds(&tap.messages(&tap.records()));
        let warning = run.stderr.lines().find(|line| line.starts_with("WARNING")).unwrap();
        let text = "WARNING no record can be had as a sample, so that the payload may be anything: not even a single record of stream ";
        assert!(warning.starts_with(text) && warning.ends_with(problem), "{warning}");
    }
}

#[test]
fn a_sample_from_a_stream_that_this_client_may_not_read_ends_the_run() {
    let tap = Tap::with_records(3).set("payloadSchema", "sampled");
    tap.sandbox.restrict(&tap.stream);
    assert_eq!((tap.run().code, tap.sandbox.count(Endpoint::Peek)), (1, 0));
}

/// Registers a schema through the API and makes it the active one.
fn register(tap: &Tap, kind: &str, schema: &Value) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::blocking::Client::new();
    let token: Value = client
        .post(tap.sandbox.auth_url())
        .form(&[
            ("grant_type", "client_credentials"),
            ("client_id", tap.sandbox.client_id()),
            ("client_secret", tap.sandbox.client_secret()),
        ])
        .send()
        .unwrap()
        .json()
        .unwrap();
    let post = |path: &str, body: &Value| -> Value {
        let request = client.post(format!("{}{path}", tap.sandbox.url())).json(body);
        request
            .bearer_auth(token["access_token"].as_str().unwrap())
            .send()
            .unwrap()
            .error_for_status()
            .unwrap()
            .json()
            .unwrap()
    };
    let stream = &tap.stream;
    let registered = post(&format!("/streams/{stream}/schemas"), &json!({"schema": schema, "schemaType": kind}));
    post(&format!("/stream/{stream}/schemas/active"), &json!({"schemaId": registered["schemaId"]}));
}

#[test]
fn a_registered_schema_is_reduced_to_what_a_table_needs() {
    let tap = Tap::with_records(0).set("payloadSchema", "registered");
    register(
        &tap,
        "JSON",
        &json!({
            "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["make"],
            "properties": {
                "make": {"type": "string", "minLength": 1},
                "owner": {"$ref": "#/definitions/owner"},
                "tags": {"type": "array", "items": {"type": "integer"}}
            },
            "definitions": {"owner": {"type": "object", "properties": {"name": {"type": "string"}}}}
        }),
    );
    assert_eq!(
        payload_schema(&tap),
        json!({"type": ["null", "object"], "properties": {
            "make": {"type": ["null", "string"]},
            "owner": {"type": ["null", "object"], "properties": {"name": {"type": ["null", "string"]}},
                "additionalProperties": true},
            "tags": {"type": ["null", "array"], "items": {"type": ["null", "integer"]}}
        }, "additionalProperties": true})
    );
}

#[test]
fn a_registered_schema_that_cannot_be_used_is_a_warning_with_the_reason() {
    let tap = Tap::with_records(0).set("payloadSchema", "registered");
    let first_log_line = |tap: &Tap| tap.run().stderr.lines().next().unwrap().to_owned();
    let warning =
        |problem: &str| format!("WARNING no registered schema to use, so that the payload may be anything: {problem}");
    assert_eq!(payload_schema(&tap), default_payload_schema());
    assert_eq!(first_log_line(&tap), warning("the stream has none"));
    register(&tap, "AVRO", &json!({"type": "record", "name": "car", "fields": []}));
    assert_eq!(payload_schema(&tap), default_payload_schema());
    assert_eq!(first_log_line(&tap), warning("it is not a JSON schema"));
}

#[test]
fn what_a_server_sends_back_instead_of_a_schema_is_not_quoted() {
    for (answer, problem) in [("\"hunter2\"", "not of the documented form"), ("hunter2", "not JSON")] {
        let tap = Tap::with_records(1).set("payloadSchema", "registered");
        tap.sandbox.script(Rule::on(Endpoint::Stream).every().json(answer));
        let run = tap.run();
        run.assert_succeeds(&tap.messages(&tap.records()));
        let warning = format!(
            "WARNING no registered schema to use, so that the payload may be anything: the answer that describes the stream \
             is {problem}, from line 1 column "
        );
        assert!(run.stderr.lines().next().unwrap().starts_with(&warning), "{}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
}

#[test]
fn a_schema_that_the_client_may_not_read_does_not_end_the_run() {
    let tap = Tap::with_records(1).set("payloadSchema", "registered");
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).status(400).body(r#"{"error":"invalid_scope"}"#));
    let run = tap.run();
    run.assert_succeeds(&tap.messages(&tap.records()));
    let warning = "WARNING no registered schema to use, so that the payload may be anything: fetch an access token: this \
                   client may not have the scope \"https://api.streamduo.com/manage:streams\": HOST \
                   answers 400: invalid_scope";
    assert_eq!(run.stderr.lines().next(), Some(warning));
}

#[test]
fn the_formats_change_a_catalogs_schema_too() {
    let tap = Tap::with_records(2).set("timestampFormat", "rfc3339").set("payloadFormat", "string");
    let catalog = tap.write_file("catalog.json", &Tap::with_records(0).args(&["--discover"]).run().stdout);
    let properties = &messages(&tap.run_with("--catalog", catalog))[0]["schema"]["properties"];
    assert_eq!(properties["recordTimeStampISO"], json!({"type": "string", "format": "date-time"}));
    assert_eq!(properties["dataPayload"], json!({"type": ["null", "string"]}));
}

#[test]
fn time_stamps_of_every_form_and_ties_are_read_by_position_and_by_id() {
    for mark_by in ["position", "id"] {
        for page_size in [1, 2, 7] {
            let tap = Tap::with_records(0).set("pageSize", page_size).set("markBy", mark_by);
            let samples = Samples { ties: 3, stamps: Stamps::Mixed, ..Samples::default() };
            tap.sandbox.fill_with(&tap.stream, 36, samples);
            tap.run().assert_all_delivered_when(&tap, &format!("{mark_by}, pages of {page_size}"));
        }
    }
    let tap = Tap::with_records(0).set("timestampFormat", "rfc3339");
    tap.sandbox.fill_with(&tap.stream, 12, Samples { stamps: Stamps::Mixed, ..Samples::default() });
    let run = tap.run();
    let written: Vec<_> = run.stdout.lines().filter_map(written_identity).map(|identity| identity.timestamp).collect();
    assert_eq!((run.code, written.len()), (0, 12), "{}", run.stderr);
    assert_eq!(
        written[..4],
        [
            "2022-02-01T20:16:23.716848Z",
            "2022-02-01T20:16:30Z",
            "2022-02-01T20:16:37.744Z",
            "2022-02-01T20:16:44.757948007Z"
        ]
    );
    assert!(written.is_sorted());
}
