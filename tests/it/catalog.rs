//! `--discover` and `--catalog`.

use serde_json::{Value, json};

use crate::tap::{EXTRACTED, SCHEMA, Tap, bare_command};

fn discovered_text() -> String {
    let output = bare_command().arg("--discover").output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

fn discovered() -> Value {
    serde_json::from_str(&discovered_text()).unwrap()
}

#[test]
fn discover_prints_the_catalog_without_a_config() {
    let key = json!(["recordId", "recordTimeStampISO"]);
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let field = |name: &str, metadata: Value| json!({"breadcrumb": ["properties", name], "metadata": metadata});
    let available = json!({"inclusion": "available", "selected-by-default": true});
    let expected = json!({"streams": [{
        "tap_stream_id": "records",
        "stream": "records",
        "key_properties": key,
        "schema": schema["schema"],
        "metadata": [
            {"breadcrumb": [], "metadata": {
                "inclusion": "available", "selected-by-default": true, "table-key-properties": key
            }},
            field("recordId", json!({"inclusion": "automatic"})),
            field("streamId", available.clone()),
            field("recordTimeStampISO", json!({"inclusion": "automatic"})),
            field("readStatus", available.clone()),
            field("dataPayload", available),
        ]
    }]});
    assert_eq!(discovered(), expected);
}

#[test]
fn discover_names_the_stream_as_the_config_does_and_makes_no_request() {
    let tap = Tap::with_records(1).set("streamName", "cars").args(&["--discover"]);
    let catalog: Value = serde_json::from_str(&tap.run().stdout).unwrap();
    let entry = &catalog["streams"][0];
    assert_eq!((&entry["stream"], &entry["tap_stream_id"]), (&json!("cars"), &json!("cars")));
    assert!(tap.sandbox.journal().is_empty());
}

fn with_catalog(tap: Tap, option: &str, catalog: &str) -> Tap {
    let path = tap.write_file("catalog.json", catalog);
    tap.args(&[option, path.to_str().unwrap()])
}

#[test]
fn a_discovered_catalog_changes_nothing() {
    for option in ["--catalog", "--properties", "-p"] {
        let tap = with_catalog(Tap::with_records(2), option, &discovered_text());
        assert_eq!(tap.run().stdout, tap.messages(&tap.records()), "{option}");
    }
}

#[test]
fn the_catalog_names_the_stream_and_its_schema() {
    let mut catalog = discovered();
    catalog["streams"][0]["stream"] = json!("cars");
    catalog["streams"][0]["schema"]["properties"]["dataPayload"] = json!({"type": "object"});
    let tap = with_catalog(Tap::with_records(2), "--catalog", &catalog.to_string());
    let payload = r#"{"type":["null","object","array","string","number","boolean"],"additionalProperties":true}"#;
    let expected = tap.messages(&tap.records()).replace(r#""records""#, r#""cars""#);
    assert_eq!(tap.run().stdout, expected.replace(payload, r#"{"type":"object"}"#));
}

#[test]
fn a_stream_that_is_not_selected_is_not_read() {
    let mut catalog = discovered();
    catalog["streams"][0]["metadata"][0]["metadata"]["selected"] = json!(false);
    let tap = with_catalog(Tap::with_records(2), "--catalog", &catalog.to_string());
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (0, "{\"type\":\"STATE\",\"value\":{}}\n"));
    assert_eq!(run.stderr, "INFO the stream is not selected: nothing is read\n");
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn the_vendors_catalog_is_accepted_with_the_taps_own_schema() {
    let catalog = json!({"streams": [{
        "tap_stream_id": "records", "stream": "records", "key_properties": [], "metadata": [],
        "schema": {"type": "object", "properties": {
            "record_id": {"type": ["null", "string"]}, "dataPayload": {"type": ["null", "string"]}
        }}
    }]});
    let tap = with_catalog(Tap::with_records(2), "--catalog", &catalog.to_string());
    let run = tap.run();
    run.assert_succeeds(&tap.messages(&tap.records()));
    assert_eq!(
        run.stderr.lines().next(),
        Some(
            "WARNING catalog DIR/catalog.json: its schema lacks the key properties recordId and recordTimeStampISO, so \
             the tap's own is used"
        )
    );
}

#[test]
fn an_unusable_catalog_is_named() {
    let tap = Tap::with_records(1);
    let two = json!({"streams": [{"stream": "a"}, {"stream": "b"}]}).to_string();
    for (text, problem) in [
        ("{", "it is not a Singer catalog (EOF while parsing an object at line 1 column 1): make one with --discover"),
        ("{}", "it is not a Singer catalog (missing field `streams` at line 1 column 2): make one with --discover"),
        (r#"{"streams":[]}"#, "it holds no stream: make a catalog with --discover"),
        (r#"{"streams":[{}]}"#, "its stream has no name: make a catalog with --discover"),
        (&two, "it selects \"a\" and \"b\": a run reads one stream, so deselect the others"),
    ] {
        let run = tap.run_with("--catalog", tap.write_file("catalog.json", text));
        run.assert_refused(&tap, 2, &format!("catalog DIR/catalog.json: {problem}"));
    }
    let missing = "catalog /no/such/catalog.json: read the file: No such file or directory (os error 2); make one with --discover";
    tap.run_with("--catalog", "/no/such/catalog.json").assert_refused(&tap, 2, missing);
    assert!(tap.sandbox.journal().is_empty());
}

/// The discovered catalog with these fields deselected.
fn catalog_without(fields: &[&str]) -> Value {
    let mut catalog = discovered();
    for entry in catalog["streams"][0]["metadata"].as_array_mut().unwrap() {
        if entry["breadcrumb"].as_array().unwrap().last().is_some_and(|name| fields.contains(&name.as_str().unwrap())) {
            entry["metadata"]["selected"] = json!(false);
        }
    }
    catalog
}

#[test]
fn a_deselected_field_is_gone_from_schema_and_record_and_the_rest_is_untouched() {
    let tap = Tap::with_records(0);
    let record = tap.sandbox.write(&tap.stream, r#"{ "n" : 10.00, "e":1e400 }"#);
    // recordId stays: it is a key property.
    let tap = with_catalog(tap, "--catalog", &catalog_without(&["streamId", "readStatus", "recordId"]).to_string());
    let run = tap.run();
    let schema = SCHEMA
        .replace(r#""streamId":{"type":["null","string"]},"#, "")
        .replace(r#""readStatus":{"type":["null","string","boolean"]},"#, "");
    let identity = &record.identity;
    let written = format!(
        r#"{{"type":"RECORD","stream":"records","record":{{"recordId":"{}","recordTimeStampISO":"{}","dataPayload":{}}}{EXTRACTED}"#,
        identity.record_id, identity.timestamp, record.payload
    );
    assert_eq!((run.code, run.stdout), (0, format!("{schema}{written}\n{}", tap.state_line("write"))));
    assert_eq!(tap.unread(), []);
}

#[test]
fn deselecting_the_payload_deselects_its_fields() {
    let tap = with_catalog(Tap::with_records(1), "--catalog", &catalog_without(&["dataPayload"]).to_string());
    let run = tap.run();
    assert_eq!(run.code, 0);
    assert!(!run.stdout.contains("dataPayload") && !run.stdout.contains("carData"), "{}", run.stdout);
}

#[test]
fn the_catalogs_own_key_properties_are_used_and_stay_selected() {
    for key_source in ["entry", "metadata"] {
        let mut catalog = catalog_without(&["streamId"]);
        let entry = &mut catalog["streams"][0];
        if key_source == "entry" {
            entry["key_properties"] = json!(["streamId", "recordId"]);
        } else {
            entry["key_properties"] = json!([]);
            entry["metadata"][0]["metadata"]["table-key-properties"] = json!(["streamId", "recordId"]);
        }
        let tap = with_catalog(Tap::with_records(1), "--catalog", &catalog.to_string());
        let expected = tap.messages(&tap.records()).replace(
            r#""key_properties":["recordId","recordTimeStampISO"]"#,
            r#""key_properties":["streamId","recordId"]"#,
        );
        assert_eq!(tap.run().stdout, expected, "{key_source}");
    }
}

/// The catalog with this JSON at a path.
fn catalog_with(changes: &[(&str, Value)]) -> String {
    let mut catalog = discovered();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        catalog["streams"][0].pointer_mut(parent).unwrap()[name] = value.clone();
    }
    catalog.to_string()
}

#[test]
fn selection_is_read_in_every_place_and_form_and_does_not_go_out() {
    let all = Tap::with_records(1);
    let schema_without = |field: &str| SCHEMA.replace(field, "");
    let stream_id = schema_without(r#""streamId":{"type":["null","string"]},"#);
    let old = |said: Value| ("/schema/properties/streamId", json!({"type": ["null", "string"], "selected": said}));
    for (changes, schema) in [
        (vec![("/metadata/2/metadata/selected", json!("false"))], stream_id.as_str()),
        (vec![("/metadata/2/metadata/selected", json!("True"))], SCHEMA),
        (vec![old(json!(false))], &stream_id),
        (vec![old(json!("false")), ("/schema/selected", json!("true")), ("/selected", json!("true"))], &stream_id),
        (vec![old(json!(true)), ("/schema/inclusion", json!("available"))], SCHEMA),
        // The metadata wins.
        (vec![old(json!(false)), ("/metadata/2/metadata/selected", json!(true))], SCHEMA),
    ] {
        let catalog = all.write_file("catalog.json", &catalog_with(&changes));
        let run = all.run_command(all.command().args(["--peek", "1", "--properties"]).arg(catalog));
        assert_eq!(run.stdout.split_inclusive('\n').next(), Some(schema), "{changes:?}\n{}", run.stderr);
        assert_eq!(run.stdout.contains(r#""streamId":""#), schema == SCHEMA, "{changes:?}");
    }
    for pointer in ["/metadata/0/metadata/selected", "/schema/selected", "/selected"] {
        let catalog = all.write_file("catalog.json", &catalog_with(&[(pointer, json!("false"))]));
        all.run_with("--catalog", catalog).assert_logged("INFO the stream is not selected: nothing is read");
    }
}

#[test]
fn a_catalog_of_another_format_is_corrected() {
    let stamp = r#""recordTimeStampISO":{"type":"string"}"#;
    let any =
        r#""dataPayload":{"type":["null","object","array","string","number","boolean"],"additionalProperties":true}"#;
    let other = SCHEMA
        .replace(stamp, r#""recordTimeStampISO":{"type":"string","format":"date-time"}"#)
        .replace(any, r#""dataPayload":{"type":["null","string"]}"#);
    let originals = Tap::with_records(1);
    let others = Tap::with_records(1).set("timestampFormat", "rfc3339").set("payloadFormat", "string");
    for (maker, reader, expected) in [(&originals, &others, other.as_str()), (&others, &originals, SCHEMA)] {
        let catalog = maker.run_command(maker.command().arg("--discover")).stdout;
        let catalog = reader.write_file("catalog.json", &catalog);
        let run = reader.run_with("--catalog", catalog);
        assert_eq!(run.stdout.split_inclusive('\n').next(), Some(expected), "{}", run.stderr);
    }
}

#[test]
fn key_properties_that_meltano_sets_win_and_those_that_cannot_be_are_named() {
    let tap = Tap::with_records(1);
    let with_keys = |keys: Value| {
        let catalog = catalog_with(&[("/metadata/0/metadata/table-key-properties", keys)]);
        tap.run_command(tap.command().args(["--peek", "1", "--catalog"]).arg(tap.write_file("catalog.json", &catalog)))
    };
    let keys = r#""key_properties":["recordId"]}"#;
    assert!(with_keys(json!(["recordId"])).stdout.lines().next().unwrap().ends_with(keys));
    let run = with_keys(json!(["id"]));
    assert_eq!(run.stdout.split_inclusive('\n').next(), Some(SCHEMA));
    run.assert_logged(
        "WARNING the catalog's key properties [\"id\"] are not all in its schema, so the tap's own are used",
    );
}
