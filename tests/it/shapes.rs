//! Settings that change records and their schema: the SCHEMA message and the RECORD messages agree.

use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Samples, Stamps};

use crate::tap::{EXTRACTED, Run, SCHEMA, Tap, written_identity};

/// The messages of a successful run.
fn messages(run: &Run) -> Vec<Value> {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
    let fatal = "CRITICAL a record cannot be written as the settings ask; what was not delivered stays unread for \
                 the next run: recordTimeStampISO \"yesterday\": ";
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
