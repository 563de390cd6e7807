use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Sandbox};

use crate::client::Api;

/// The schema of the vendor's integration tests, abridged.
fn car_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft-07/schema",
        "$id": "https://example.com/object1644429127.json",
        "type": "object",
        "required": ["Make", "Doors"],
        "properties": {
            "Make": { "$id": "#root/Make", "type": "string" },
            "Doors": { "type": "string", "pattern": "^[0-9]$" },
        },
    })
}

fn register(api: &Api<'_>, stream: &str, kind: &str, schema: &Value) -> Value {
    let reply = api.post(&format!("/streams/{stream}/schemas"), &json!({ "schema": schema, "schemaType": kind }));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[test]
fn a_stream_is_created_read_and_deleted() {
    let sandbox = Sandbox::start();
    let api = Api::new(&sandbox);
    let created = api.post("/stream", &json!({ "displayName": "Cars" })).json();
    let id = created["streamId"].as_str().expect("an id");
    let path = format!("/stream/{id}");
    assert_eq!(api.get(&path).json(), created);
    assert_eq!((&created["displayName"], &created["activeSchemaId"]), (&"Cars".into(), &Value::Null));
    assert_eq!(created["streamActorPermissionRecords"].as_array().map(Vec::len), Some(1));
    let deleted = api.call("DELETE", &path, "");
    assert_eq!((deleted.status, deleted.text()), (204, ""));
    assert_eq!([api.get(&path).status, api.call("DELETE", &path, "").status], [404, 404]);
    assert_eq!(api.post("/stream", &json!({})).status, 400);
}

#[test]
fn an_unknown_stream_or_path_is_not_found() {
    let sandbox = Sandbox::start();
    let api = Api::new(&sandbox);
    assert_eq!(api.statuses("madeupstreamid"), (404, 404));
    assert_eq!(api.mark("madeupstreamid", 1).json()["message"], "there is no stream madeupstreamid");
    assert_eq!(api.post("/stream/no/record", &json!({ "dataPayload": 1 })).status, 404);
    assert_eq!(api.get("/stream/no/record/unread").status, 404);
    assert_eq!(api.post("/streams/no/schemas", &json!({})).status, 404);
    for path in ["/", "/streams", "/stream/", "/stream/a/records", "/health/"] {
        assert_eq!(api.get(path).status, 404, "{path}");
    }
    assert_eq!(sandbox.count(Endpoint::Other), 5 - 1, "/stream/ asks for a stream with an empty id");
}

#[test]
fn path_segments_are_percent_decoded() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let encoded = stream.replace('-', "%2D");
    let api = Api::new(&sandbox);
    assert_eq!(api.statuses(&encoded), (200, 200));
    assert!(sandbox.journal().last().is_some_and(|call| call.path == format!("/stream/{encoded}")));
}

#[test]
fn a_schema_comes_back_as_a_string() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let api = Api::new(&sandbox);
    let created = register(&api, &stream, "JSON", &car_schema());
    let path = format!("/streams/{stream}/schemas/{}/", created["schemaId"].as_str().expect("an id"));
    let got = api.get(&path).json();
    assert_eq!(got["schemaType"], "JSON");
    let text = got["schema"].as_str().expect("a string");
    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), car_schema());
    assert_eq!(api.get(path.trim_end_matches('/')).status, 404, "the path needs its trailing slash");
    assert_eq!([api.call("DELETE", &path, "").status, api.get(&path).status], [204, 404]);
}

#[test]
fn an_active_schema_refuses_records_that_do_not_fit() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let api = Api::new(&sandbox);
    let write = |payload: Value| {
        let reply = api.post(&format!("/stream/{stream}/record"), &json!({ "recordId": null, "dataPayload": payload }));
        (reply.status, reply.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let bad = json!({ "Make": "Nissan", "Doors": 4 });
    assert_eq!(write(bad.clone()).0, 200, "no schema is active");

    let schema = register(&api, &stream, "JSON", &car_schema())["schemaId"].clone();
    assert_eq!(write(bad.clone()).0, 200, "the schema is not active yet");
    let active = api.post(&format!("/stream/{stream}/schemas/active"), &json!({ "schemaId": schema }));
    assert_eq!(active.text(), r#"{"status":"Success"}"#);
    assert_eq!(api.get(&format!("/stream/{stream}")).json()["activeSchemaId"], schema);

    let (status, message) = write(bad.clone());
    assert!(status == 400 && message.contains("does not fit the active schema"), "{message}");
    assert_eq!(write(json!({ "Make": "Nissan", "Doors": "4" })).0, 200);
    assert_eq!(sandbox.tally(&stream).0, 3);

    api.call("DELETE", &format!("/streams/{stream}/schemas/{}/", schema.as_str().expect("an id")), "");
    assert_eq!(api.get(&format!("/stream/{stream}")).json()["activeSchemaId"], Value::Null);
    assert_eq!(write(bad).0, 200);
}

#[test]
fn bad_json_schemas_are_refused_and_schemas_of_other_types_are_stored() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let api = Api::new(&sandbox);
    let path = format!("/streams/{stream}/schemas");
    let mut bad_id = car_schema();
    bad_id["properties"]["Make"]["$id"] = "#root/Make 2".into();
    let cases = [
        ("JSON", json!({ "type": "car" })),
        ("JSON", json!({ "properties": 7 })),
        ("JSON", json!("text")),
        ("JSON", json!({ "$ref": "file:///etc/hostname" })),
        ("JSON", json!({ "$ref": "https://example.com/other.json" })),
        ("JSON", bad_id),
        ("XML", json!({})),
    ];
    for (kind, schema) in cases {
        let reply = api.post(&path, &json!({ "schema": schema, "schemaType": kind }));
        assert_eq!(reply.status, 400, "{kind} {schema}");
    }
    assert_eq!(api.post(&path, &json!({ "schemaType": "JSON" })).status, 400);
    for kind in ["AVRO", "GREAT_EXPECTATIONS"] {
        register(&api, &stream, kind, &json!({ "type": "record", "name": "Car", "fields": [] }));
    }
    let unknown = api.post(&format!("/stream/{stream}/schemas/active"), &json!({ "schemaId": "none" }));
    assert_eq!(unknown.status, 404);
}
