//! What the settings make of records and of their schema, in SCHEMA and RECORD alike.

use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Run, SCHEMA, Tap};

/// The messages of a run.
fn messages(run: &Run) -> Vec<Value> {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The payload's schema as a run and as `--discover` have it: they must be the same.
fn payload_schema(tap: &Tap) -> Value {
    let mut command = tap.command();
    command.arg("--discover");
    let catalog: Value = serde_json::from_str(&tap.run_command(command).stdout).unwrap();
    assert_eq!(tap.read(), [], "discovery marks nothing");
    let schema = messages(&tap.run())[0]["schema"].clone();
    assert_eq!(schema, catalog["streams"][0]["schema"]);
    schema["properties"]["dataPayload"].clone()
}

fn anything() -> Value {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    schema["schema"]["properties"]["dataPayload"].clone()
}

#[test]
fn rfc3339_is_the_right_instant_and_the_schema_says_so() {
    let tap = Tap::on(0).set("timestampFormat", "rfc3339");
    tap.sandbox.write_as(&tap.stream, "a", "2022-02-01T15:16:23.716848-05:00[America/New_York]", r#"{"n":1.00}"#);
    let run = tap.run();
    let schema = SCHEMA.replace(
        r#""recordTimeStampISO":{"type":"string"}"#,
        r#""recordTimeStampISO":{"type":"string","format":"date-time"}"#,
    );
    let record = format!(
        r#"{{"type":"RECORD","stream":"records","record":{{"recordId":"a","streamId":"{}","recordTimeStampISO":"2022-02-01T20:16:23.716848Z","readStatus":"false","dataPayload":{{"n":1.00}}}}}}"#,
        tap.stream
    );
    assert_eq!((run.code, run.stdout), (0, format!("{schema}{record}\n{}", tap.state_line("write"))));
}

#[test]
fn a_time_stamp_that_cannot_be_written_so_is_an_error_and_nothing_is_marked() {
    let tap = Tap::on(0).set("timestampFormat", "rfc3339");
    tap.sandbox.write_text(&tap.stream, r#"{"recordId":"a","recordTimeStampISO":"yesterday"}"#);
    let run = tap.run();
    let fatal = "CRITICAL a record cannot be written as the settings ask; what was not delivered stays unread, so run \
                 again then: recordTimeStampISO \"yesterday\": ";
    assert!(run.last_words().starts_with(fatal), "{}", run.stderr);
    assert!(run.last_words().ends_with("; set `timestampFormat` to `original`"), "{}", run.stderr);
    assert_eq!((run.code, run.stdout.as_str(), tap.sandbox.count(Endpoint::Mark)), (1, "", 0));
}

#[test]
fn a_payload_as_a_string_is_its_text() {
    let tap = Tap::on(0).set("payloadFormat", "string");
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
fn a_sampled_schema_is_that_of_the_last_records() {
    let tap = Tap::on(0).set("payloadSchema", "sampled");
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
fn an_empty_stream_has_nothing_to_sample() {
    let tap = Tap::on(0).set("payloadSchema", "sampled");
    assert_eq!(payload_schema(&tap), anything());
    let warning = "WARNING no records to sample, so that the payload may be anything";
    assert_eq!(tap.run().stderr.lines().next(), Some(warning));
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
    let tap = Tap::on(0).set("payloadSchema", "registered");
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
fn a_registered_schema_that_cannot_be_used_falls_back_and_says_why() {
    let tap = Tap::on(0).set("payloadSchema", "registered");
    let warned = |tap: &Tap| tap.run().stderr.lines().next().unwrap().to_owned();
    let because =
        |problem: &str| format!("WARNING no registered schema to use, so that the payload may be anything: {problem}");
    assert_eq!(payload_schema(&tap), anything());
    assert_eq!(warned(&tap), because("the stream has none"));
    register(&tap, "AVRO", &json!({"type": "record", "name": "car", "fields": []}));
    assert_eq!(payload_schema(&tap), anything());
    assert_eq!(warned(&tap), because("it is an AVRO schema"));
}

#[test]
fn no_right_to_read_the_schema_is_no_reason_to_stop() {
    let tap = Tap::on(1).set("payloadSchema", "registered");
    tap.sandbox.script(Rule::on(Endpoint::Token).call(1).status(400).body(r#"{"error":"invalid_scope"}"#));
    let run = tap.run();
    assert_eq!((run.code, run.stdout), (0, tap.messages(&tap.records())));
    let because = "WARNING no registered schema to use, so that the payload may be anything: fetch an access token: this \
                   client may not have the scope \"https://api.streamduo.com/manage:streams\": HOST \
                   answers 400: {\"error\":\"invalid_scope\"}";
    assert_eq!(run.stderr.lines().next(), Some(because));
}

#[test]
fn the_formats_change_a_catalogs_schema_too() {
    let tap = Tap::on(2).set("timestampFormat", "rfc3339").set("payloadFormat", "string");
    let plain = Tap::on(0).args(&["--discover"]).run().stdout;
    let catalog = tap.file("catalog.json", &plain);
    let mut command = tap.command();
    command.arg("--catalog").arg(catalog);
    let with_catalog = tap.run_command(command);
    let properties = &messages(&with_catalog)[0]["schema"]["properties"];
    assert_eq!(properties["recordTimeStampISO"], json!({"type": "string", "format": "date-time"}));
    assert_eq!(properties["dataPayload"], json!({"type": ["null", "string"]}));
}
