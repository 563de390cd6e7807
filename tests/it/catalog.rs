//! `--discover`, and what a catalog says of the stream.

use serde_json::{Value, json};

use crate::tap::{SCHEMA, Tap, bare_command};

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
    let tap = Tap::on(1).set("streamName", "cars").args(&["--discover"]);
    let catalog: Value = serde_json::from_str(&tap.run().stdout).unwrap();
    let entry = &catalog["streams"][0];
    assert_eq!((&entry["stream"], &entry["tap_stream_id"]), (&json!("cars"), &json!("cars")));
    assert!(tap.sandbox.journal().is_empty());
}

fn with_catalog(tap: Tap, option: &str, catalog: &str) -> Tap {
    let path = tap.file("catalog.json", catalog);
    tap.args(&[option, path.to_str().unwrap()])
}

#[test]
fn a_discovered_catalog_changes_nothing() {
    for option in ["--catalog", "--properties", "-p"] {
        let tap = with_catalog(Tap::on(2), option, &discovered_text());
        assert_eq!(tap.run().stdout, tap.messages(&tap.records()), "{option}");
    }
}

#[test]
fn the_catalog_names_the_stream_and_its_schema() {
    let mut catalog = discovered();
    catalog["streams"][0]["stream"] = json!("cars");
    catalog["streams"][0]["schema"]["properties"]["dataPayload"] = json!({"type": "object"});
    let tap = with_catalog(Tap::on(2), "--catalog", &catalog.to_string());
    let payload = r#"{"type":["null","object","array","string","number","boolean"],"additionalProperties":true}"#;
    let expected = tap.messages(&tap.records()).replace(r#""records""#, r#""cars""#);
    assert_eq!(tap.run().stdout, expected.replace(payload, r#"{"type":"object"}"#));
}

#[test]
fn a_stream_that_is_not_selected_is_not_read() {
    let mut catalog = discovered();
    catalog["streams"][0]["metadata"][0]["metadata"]["selected"] = json!(false);
    let tap = with_catalog(Tap::on(2), "--catalog", &catalog.to_string());
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (0, "{\"type\":\"STATE\",\"value\":{}}\n"));
    assert_eq!(run.stderr, "INFO the stream is not selected: nothing is read\n");
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn the_vendors_catalog_is_read_with_a_schema_that_fits() {
    let catalog = json!({"streams": [{
        "tap_stream_id": "records", "stream": "records", "key_properties": [], "metadata": [],
        "schema": {"type": "object", "properties": {
            "record_id": {"type": ["null", "string"]}, "dataPayload": {"type": ["null", "string"]}
        }}
    }]});
    let tap = with_catalog(Tap::on(2), "--catalog", &catalog.to_string());
    let run = tap.run();
    assert_eq!((run.code, run.stdout), (0, tap.messages(&tap.records())));
    assert_eq!(
        run.stderr.lines().next(),
        Some(
            "WARNING catalog DIR/catalog.json: its schema lacks the key properties recordId and recordTimeStampISO, so \
             the tap's own is used"
        )
    );
}

#[test]
fn a_catalog_that_is_none_is_named() {
    let tap = Tap::on(1);
    let two = json!({"streams": [{"stream": "a"}, {"stream": "b"}]}).to_string();
    for (text, problem) in [
        ("{", "no Singer catalog (EOF while parsing an object at line 1 column 1); make one with --discover"),
        ("{}", "no Singer catalog (missing field `streams` at line 1 column 2); make one with --discover"),
        (r#"{"streams":[]}"#, "it holds no stream; make one with --discover"),
        (r#"{"streams":[{}]}"#, "its stream has no name; make one with --discover"),
        (&two, "it selects \"a\" and \"b\": a run reads one stream, so deselect the others"),
    ] {
        let path = tap.file("catalog.json", text);
        let mut command = tap.command();
        command.arg("--catalog").arg(path);
        tap.run_command(command).refused(&tap, 2, &format!("catalog DIR/catalog.json: {problem}"));
    }
    let mut command = tap.command();
    command.args(["--catalog", "/no/such/catalog.json"]);
    let missing = "catalog /no/such/catalog.json: read the file: No such file or directory (os error 2)";
    tap.run_command(command).refused(&tap, 2, missing);
    assert!(tap.sandbox.journal().is_empty());
}
