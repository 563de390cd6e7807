//! `payloadSchema` `sampled` and `registered`: every value arrives in a target that flattens, and
//! no record stops the queue.

use std::fs;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::flattening::{FlatteningTarget, leaves};
use crate::tap::{EXTRACTED, Run, Tap, schema_and};
use crate::target::with_script;

/// A tap that makes columns of what it sees, on a stream with these payloads.
fn sampled(payloads: &[&str]) -> Tap {
    let tap = Tap::with_records(0).set("payloadSchema", "sampled");
    write(&tap, payloads);
    with_file(tap)
}

fn with_file(tap: Tap) -> Tap {
    let path = tap.path("columns.json").display().to_string();
    tap.set("columnsFile", path)
}

fn write(tap: &Tap, payloads: &[&str]) {
    for payload in payloads {
        tap.sandbox.write(&tap.stream, payload);
    }
}

/// The columns file; empty if there is none.
fn columns(tap: &Tap) -> String {
    fs::read_to_string(tap.path("columns.json")).unwrap_or_default()
}

/// A columns file with these properties.
fn file_of(properties: &Value) -> String {
    json!({"type": ["null", "object"], "properties": properties}).to_string()
}

/// The schema of the payload in a SCHEMA message, and that of the properties in it.
fn payload_schema(run: &Run) -> Value {
    let schema: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
    schema["schema"]["properties"]["dataPayload"].clone()
}

fn leaf(kind: &str) -> Value {
    json!({"type": ["null", kind]})
}

/// The `dataPayloadRest` of each record.
fn rests(run: &Run) -> Vec<Value> {
    let records = run.stdout.lines().filter(|line| line.starts_with(r#"{"type":"RECORD""#));
    records.map(|line| serde_json::from_str::<Value>(line).unwrap()["record"]["dataPayloadRest"].clone()).collect()
}

/// Every value of every record of the stream can be read back from the target.
#[track_caller]
fn assert_all_arrived(tap: &Tap, target: &FlatteningTarget) {
    for record in tap.records() {
        let row = target.rows.get(&record.identity.record_id).unwrap_or_else(|| panic!("{} is lost", record.json));
        assert_eq!(row.leaves(&columns(tap)), leaves(&record.payload), "{}", columns(tap));
    }
    assert_eq!(tap.unread(), []);
}

/// Each list of payloads is written and then read by a run. Returns the tap and its last run.
#[track_caller]
fn assert_all_arrive_with(tap: Tap, runs: &[&[&str]]) -> (Tap, Run) {
    let mut target = FlatteningTarget::default();
    let mut last = None;
    for payloads in runs {
        write(&tap, payloads);
        let run = tap.run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        target.load(&run.stdout);
        assert_all_arrived(&tap, &target);
        last = Some(run);
    }
    (tap, last.unwrap())
}

#[track_caller]
fn assert_all_arrive(runs: &[&[&str]]) -> (Tap, Run) {
    assert_all_arrive_with(sampled(&[]), runs)
}

#[test]
fn a_payload_becomes_columns_and_the_rest() {
    let tap = sampled(&[
        r#"{"make":"Škoda","price":10.00,"owner":{"name":"x"},"tags":["a", 1]}"#,
        r#"{"price":"N/A","doors":4,"make":null,"owner":{"age":7}}"#,
    ]);
    let run = tap.run();
    assert_eq!(
        payload_schema(&run),
        json!({"type": ["null", "object"], "properties": {
            "make": leaf("string"), "price": leaf("string"),
            "owner": {"type": ["null", "object"], "properties": {"name": leaf("string"), "age": leaf("integer")}},
            "tags": leaf("string"), "doors": leaf("integer"),
        }})
    );
    let fields = [
        r#""dataPayload":{"make":"Škoda","price":null,"owner":{"name":"x","age":null},"tags":"[\"a\", 1]","doors":null},"dataPayloadRest":"{\"price\":10.00}""#,
        r#""dataPayload":{"make":null,"price":"N/A","owner":{"name":null,"age":7},"tags":null,"doors":4},"dataPayloadRest":null"#,
    ];
    let expected: String = tap
        .records()
        .iter()
        .zip(fields)
        .map(|(record, fields)| {
            let payload = format!(r#""dataPayload":{}"#, record.payload);
            let record = record.json.replace(&payload, fields);
            format!("{{\"type\":\"RECORD\",\"stream\":\"records\",\"record\":{record}{EXTRACTED}\n")
        })
        .collect();
    assert_eq!(run.record_lines(), expected);
    run.assert_logged("INFO new in `columnsFile` DIR/columns.json: make, price, owner.name, owner.age, tags, doors");
    run.assert_logged("WARNING \"dataPayload.price\" has values that do not fit its column: see `dataPayloadRest`");
    run.assert_logged("INFO records: 2 records written (1 with `dataPayloadRest`), 2 marked as read in # s");
}

#[test]
fn discovery_shows_the_columns_of_a_run_and_writes_nothing() {
    let tap = sampled(&[r#"{"a":1}"#, r#"{"b":{"c":"x"}}"#]);
    let catalog: Value = serde_json::from_str(&tap.run_command(tap.command().arg("--discover")).stdout).unwrap();
    assert_eq!((columns(&tap).as_str(), tap.read()), ("", vec![]));
    let schema: Value = serde_json::from_str(tap.run().stdout.lines().next().unwrap()).unwrap();
    assert_eq!(catalog["streams"][0]["schema"], schema["schema"]);
    let breadcrumbs: Vec<_> =
        catalog["streams"][0]["metadata"].as_array().unwrap().iter().map(|field| &field["breadcrumb"]).collect();
    for breadcrumb in [
        json!(["properties", "dataPayload", "properties", "b", "properties", "c"]),
        json!(["properties", "dataPayloadRest"]),
    ] {
        assert!(breadcrumbs.contains(&&breadcrumb), "{breadcrumbs:?}");
    }
}

#[test]
fn a_peek_declares_no_column_that_nobody_remembers() {
    let tap = sampled(&[r#"{"a":1}"#]);
    let run = tap.run_with("--peek", "1");
    assert_eq!((run.code, payload_schema(&run), columns(&tap)), (0, Value::Null, String::new()));
    assert_eq!(rests(&run), [json!(r#"{"a":1}"#)]);
    tap.write_file("columns.json", &file_of(&json!({"a": leaf("number")})));
    let run = tap.run_with("--peek", "1");
    assert_eq!(payload_schema(&run)["properties"], json!({"a": leaf("number")}));
}

#[test]
fn an_empty_object_arrives_although_it_has_columns() {
    let tap = sampled(&[r#"{"o":{"x":1}}"#, r#"{"o":{}}"#, r#"{"o":null}"#]);
    assert_eq!(rests(&tap.run()), [Value::Null, json!(r#"{"o":{}}"#), Value::Null]);
}

#[test]
fn a_run_keeps_the_types_that_it_has_declared_whatever_becomes_of_the_file() {
    let payloads = [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":1.5}"#, r#"{"a":2.5}"#, r#"{"a":3.5}"#, r#"{"a":4.5}"#];
    for becomes in [String::new(), file_of(&json!({"a": leaf("number")}))] {
        let tap = sampled(&payloads).set("maxPending", 2).set("targetProof", "exit");
        tap.write_file("columns.json", &file_of(&json!({"a": leaf("integer")})));
        tap.write_file("other.json", &becomes);
        let folder = tap.path("").display().to_string();
        let script = format!("cat > {folder}/input.$(date +%s%N); cat {folder}/other.json > {folder}/columns.json");
        let tap = with_script(tap, &script);
        let run = tap.run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        let mut inputs: Vec<_> = fs::read_dir(tap.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("input."));
        assert_eq!(inputs.len(), 3);
        for input in inputs {
            let text = fs::read_to_string(input).unwrap();
            assert!(text.contains(r#""a":{"type":["null","integer"]}"#), "{text}");
        }
        let line = "WARNING `columnsFile` DIR/columns.json has changed: this run keeps the types that it has declared";
        assert_eq!(run.stderr.contains(line), !becomes.is_empty(), "{}", run.stderr);
    }
}

#[test]
fn a_field_that_only_an_older_unread_record_has_arrives() {
    let tap = sampled(&[r#"{"old":"x"}"#]);
    tap.sandbox.fill(&tap.stream, 150);
    let (tap, run) = assert_all_arrive_with(tap, &[&[]]);
    assert_eq!(
        (rests(&run)[0].clone(), payload_schema(&run)["properties"]["old"].clone()),
        (Value::Null, leaf("string"))
    );
    // One that comes behind the first page has no column yet.
    let other = sampled(&[]);
    other.sandbox.fill(&other.stream, 150);
    write(&other, &[r#"{"new":"x"}"#]);
    other.sandbox.fill(&other.stream, 150);
    let (other, run) = assert_all_arrive_with(other, &[&[]]);
    assert_eq!(rests(&run).iter().filter(|rest| !rest.is_null()).collect::<Vec<_>>(), [r#"{"new":"x"}"#]);
    run.assert_logged("WARNING \"dataPayload.new\" has no column: see `dataPayloadRest`");
    drop((tap, other));
}

#[test]
fn a_field_of_two_types_arrives() {
    let object = r#"{"owner":{"name":"x"}}"#;
    let (_, run) = assert_all_arrive(&[&[object, object, r#"{"owner":"x"}"#], &[r#"{"owner":"y"}"#; 5]]);
    assert_eq!(payload_schema(&run)["properties"]["owner"]["properties"], json!({"name": leaf("string")}));
    let (_, run) = assert_all_arrive(&[&[r#"{"price":"N/A"}"#, r#"{"price":1.5}"#, r#"{"price":2}"#]]);
    assert_eq!(rests(&run), [json!(r#"{"price":"N/A"}"#), json!(null), json!(null)]);
}

#[test]
fn a_record_from_before_a_registered_schema_arrives() {
    let tap = with_file(Tap::with_records(0).set("payloadSchema", "registered"));
    write(&tap, &[r#"{"price":"N/A","more":1}"#]);
    register(&tap, "JSON", &json!({"properties": {"price": {"type": "number"}}}));
    let (tap, run) = assert_all_arrive_with(tap, &[&[r#"{"price":10.50}"#]]);
    assert_eq!(rests(&run), [json!(r#"{"more":1,"price":"N/A"}"#), json!(null)]);
    // The file remembers what the schema has said.
    register(&tap, "JSON", &json!({"properties": {"price": {"type": "string"}, "more": {"type": "integer"}}}));
    write(&tap, &[r#"{"price":"free","more":2}"#]);
    let run = tap.run();
    assert_eq!(rests(&run), [json!(r#"{"price":"free"}"#)]);
    assert_eq!(payload_schema(&run)["properties"], json!({"price": leaf("number"), "more": leaf("integer")}));
}

#[test]
fn a_field_that_was_only_null_gets_the_type_of_its_first_value() {
    let (_, run) = assert_all_arrive(&[&[r#"{"a":1,"b":null}"#], &[r#"{"a":1,"b":"x"}"#]]);
    assert_eq!(payload_schema(&run)["properties"], json!({"a": leaf("integer"), "b": leaf("string")}));
}

#[test]
fn a_column_keeps_its_type_in_every_run() {
    let (tap, run) = assert_all_arrive(&[&[r#"{"n":1}"#], &[r#"{"n":1.5}"#], &[r#"{"n":2}"#]]);
    assert_eq!(
        (payload_schema(&run)["properties"].clone(), rests(&run)),
        (json!({"n": leaf("integer")}), vec![Value::Null])
    );
    assert_eq!(
        serde_json::from_str::<Value>(&columns(&tap)).unwrap(),
        json!({"type": ["null", "object"], "properties": {"n": leaf("integer")}})
    );
}

#[test]
fn objects_whose_names_are_data_stay_small() {
    let fields: Vec<_> = (0..4000).map(|n| format!("\"key-{n}\":{{\"x\":{n}}}")).collect();
    let by_id = format!("{{\"by_id\":{{{}}},\"n\":1}}", fields.join(","));
    let (_, run) = assert_all_arrive(&[&[&by_id, &by_id]]);
    assert_eq!(payload_schema(&run)["properties"], json!({"by_id": leaf("string"), "n": leaf("integer")}));
    let flat = format!("{{{}}}", fields.join(","));
    let (_, run) = assert_all_arrive(&[&[&flat, &flat]]);
    assert!(run.stdout.lines().next().unwrap().len() < 50_000);
    assert!(run.stderr.lines().count() < 150, "{}", run.stderr.len());
}

#[test]
fn names_that_a_database_confuses_or_refuses_arrive() {
    let long = format!(r#"{{"{}":1,"owner":{{"{}":2}}}}"#, "l".repeat(50), "n".repeat(43));
    let (_, run) =
        assert_all_arrive(&[&[r#"{"Name":1,"name":2,"a b":3,"a_b":4,"a\"b":5,"":6,"a":{"a":7},"a__a":8}"#, &long]]);
    let expected = json!({"Name": leaf("integer"), "a b": leaf("integer"), "a": {"type": ["null", "object"], "properties": {"a": leaf("integer")}}});
    assert_eq!(payload_schema(&run)["properties"], expected);
}

#[test]
fn values_that_targets_refuse_arrive() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(1200), "}".repeat(1200));
    let arrays = format!(r#"{{"a":{}{}}}"#, "[".repeat(1200), "]".repeat(1200));
    let digits = format!(r#"{{"n":{},"m":1{}.0}}"#, "7".repeat(5000), "0".repeat(5000));
    let odd: &[&str] = &[
        r#"{"n":1,"m":1.5,"s":"x","b":true}"#,
        r#"{"n":1,"m":2.5,"s":"y","b":false}"#,
        r#"{"n":2,"m":2.5,"s":"y","b":false}"#,
        r#"{"n":10.0,"m":1e400,"s":"\u0000","b":0}"#,
        r#"{"n":-0,"m":-0.0,"s":"\ud800","\ud800":1}"#,
        r#"{"n":18446744073709551616,"m":1234567890123456}"#,
        r#"{"n":1,"n":2,"s":"a","s":null}"#,
        &digits,
        &deep,
        &arrays,
        "7",
        "null",
        "\"x\"",
        "[{\"a\":1}]",
        "{}",
    ];
    let (_, run) = assert_all_arrive(&[odd, odd]);
    run.assert_logged("WARNING `dataPayload` is not always an object: see `dataPayloadRest`");
    run.assert_logged("WARNING \"dataPayload.n\" is there more than once in an object: see `dataPayloadRest`");
    let (_, run) = assert_all_arrive(&[&["7", "[]"]]);
    assert_eq!(payload_schema(&run), Value::Null, "an object without a column is not declared");
    assert_eq!(rests(&run), ["7", "[]"]);
}

#[test]
fn any_writes_the_payload_as_it_is() {
    let tap = Tap::with_records(3);
    let run = tap.run();
    assert_eq!(run.stdout, schema_and(&tap.records()) + &tap.state_line("write"));
}

#[test]
fn new_columns_come_with_the_next_start_of_a_target() {
    let tap = sampled(&[r#"{"a":1}"#, r#"{"a":2}"#]).set("maxPending", 2).set("targetProof", "exit");
    let old: Vec<_> = (0..100).map(|n| format!(r#"{{"a":{n}}}"#)).collect();
    write(&tap, &old.iter().map(String::as_str).collect::<Vec<_>>());
    // What the sample does not show: it is older than the last 100 records.
    tap.sandbox.write_as(&tap.stream, "early", "2001-01-01T00:00:01Z", r#"{"a":1,"early":true}"#);
    let script = format!("cat > {}/input.$(date +%s%N)", tap.path("").display());
    let tap = with_script(tap, &script);
    let run = tap.run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let mut inputs: Vec<_> = fs::read_dir(tap.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("input."));
    inputs.sort();
    assert!(inputs.len() > 2, "{inputs:?}");
    let mut target = FlatteningTarget::default();
    inputs.iter().for_each(|path| target.load(&fs::read_to_string(path).unwrap()));
    assert_all_arrived(&tap, &target);
}

#[test]
fn a_file_that_cannot_be_written_is_a_contract() {
    let tap = sampled(&[r#"{"a":1,"b":2}"#]);
    let text = file_of(&json!({"a": {"type": "integer", "title": "A"}}));
    tap.write_file("columns.json", &text);
    // No file may grow, whoever runs this.
    let run = tap.run_command(&mut tap.shell("trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""));
    assert_eq!(
        (run.code, payload_schema(&run)["properties"].clone()),
        (0, json!({"a": leaf("integer")})),
        "{}",
        run.stderr
    );
    assert_eq!((rests(&run), columns(&tap)), (vec![json!(r#"{"b":2}"#)], text));
    let line = "WARNING no column is added to `columnsFile` DIR/columns.json: File too large (os error 27)";
    assert!(run.stderr.contains(line), "{}", run.stderr);
}

#[test]
fn a_file_that_cannot_be_used_is_refused_before_any_request() {
    let tap = sampled(&[r#"{"a":1}"#]);
    let not_a_schema =
        "it is not the JSON schema of an object: name another file, which may be empty or still to be made";
    let long = "x".repeat(50);
    let too_many: serde_json::Map<_, _> = (0..401).map(|n| (format!("n{n}"), leaf("integer"))).collect();
    let refused = |names: &str| {
        format!(
            "a database would refuse these names or confuse them with others, or they are more than 400: {names}; remove \
             them, and their values go to `dataPayloadRest`"
        )
    };
    for (text, problem) in [
        (
            "{".to_owned(),
            "correct it, or name another file: it is not JSON: EOF while parsing an object at line 1 column 1"
                .to_owned(),
        ),
        ("[]".to_owned(), "it does not describe an object: correct it, or name another file".to_owned()),
        (r#"{"streamId": "x", "clientSecret": "hunter2"}"#.to_owned(), not_a_schema.to_owned()),
        (r#"{"bookmarks": {}}"#.to_owned(), not_a_schema.to_owned()),
        (r#"{"name": "cars", "version": "1.0.0"}"#.to_owned(), not_a_schema.to_owned()),
        (
            r#"{"properties": {"a": {"type": "string"}, "a": {}}}"#.to_owned(),
            "the name \"a\" is there twice in one object: remove one of them".to_owned(),
        ),
        (
            r#"{"properties": {"o": {"anyOf": [{"type": "string", "type": "null"}]}}}"#.to_owned(),
            "the name \"type\" is there twice in one object: remove one of them".to_owned(),
        ),
        (
            file_of(&json!({"a": {"type": "float"}})),
            "\"a\" has the type \"float\", which JSON schema does not know: correct that".to_owned(),
        ),
        (
            file_of(&json!({"a": leaf("integer"), "A": leaf("integer"), long.clone(): {}})),
            refused(&format!("A, {long}")),
        ),
        (file_of(&json!(too_many)), refused("n400")),
    ] {
        tap.write_file("columns.json", &text);
        tap.run().assert_refused(&tap, 2, &format!("`columnsFile` DIR/columns.json: {problem}"));
        assert_eq!(columns(&tap), text);
    }
    let into_itself = tap.shell(&format!("exec \"$0\" \"$@\" >> {}", tap.path("columns.json").display()));
    let into_itself = tap.run_command(&mut { into_itself });
    let problem = "it is the file that stdout goes to: name another one";
    into_itself.assert_refused(&tap, 2, &format!("`columnsFile` DIR/columns.json: {problem}"));
    assert!(tap.sandbox.journal().is_empty());
}

#[test]
fn a_file_that_cannot_be_made_is_refused_before_any_request() {
    for (path, problem) in [
        (
            "/no/such/folder/columns.json",
            "no file can be made in /no/such/folder: No such file or directory (os error 2); make that folder writable, or \
             name a file in another one",
        ),
        ("/dev/null", "it is not a regular file: name another one"),
    ] {
        let tap = Tap::with_records(1).set("payloadSchema", "sampled").set("columnsFile", path);
        tap.run().assert_refused(&tap, 2, &format!("`columnsFile` {path}: {problem}"));
        assert!(tap.sandbox.journal().is_empty());
    }
}

#[test]
fn the_settings_of_columns_go_together() {
    let idle = "`columnsFile` does nothing without `payloadSchema` `sampled` or `registered`: set that, or remove it";
    let mut cases = vec![(json!({"columnsFile": "c.json"}), idle.to_owned())];
    cases.push((json!({"columnsFile": "c.json", "payloadFormat": "string"}), idle.to_owned()));
    for source in ["sampled", "registered"] {
        let missing = format!(
            "`payloadSchema` `{source}` needs `columnsFile`, in which the tap keeps the columns that it has made, so that \
             none ever changes its type: name a file, such as columns.json, and keep it"
        );
        cases.push((json!({"payloadSchema": source}), missing));
        let text = format!(
            "`payloadFormat` `string` writes the payload as one text, and `payloadSchema` `{source}` as columns: remove \
             one of them"
        );
        let mut settings = json!({"payloadSchema": source, "payloadFormat": "string"});
        cases.push((settings.clone(), text.clone()));
        settings["columnsFile"] = json!("c.json");
        cases.push((settings, text));
    }
    for (settings, problem) in cases {
        for args in [&[][..], &["--test"], &["--discover"], &["--", "cat"]] {
            let mut tap = Tap::with_records(1).args(args);
            for (name, value) in settings.as_object().unwrap() {
                tap = tap.set(name, value.clone());
            }
            tap.run().assert_refused(&tap, 2, &problem);
            assert!(tap.sandbox.journal().is_empty());
        }
    }
}

#[test]
fn two_taps_that_share_a_file_take_turns() {
    let (one, other) = (sampled(&[]), Tap::with_records(0).set("payloadSchema", "sampled"));
    let path = one.path("columns.json").display().to_string();
    let other = other.set("columnsFile", path);
    thread::scope(|scope| {
        for (tap, name) in [(&one, "one"), (&other, "other")] {
            scope.spawn(move || {
                for n in 0..8 {
                    write(tap, &[&format!(r#"{{"{name}{n}":{n}}}"#)]);
                    assert_eq!(rests(&tap.run()), [Value::Null]);
                }
            });
        }
    });
    let schema: Value = serde_json::from_str(&columns(&one)).unwrap();
    assert_eq!(schema["properties"].as_object().unwrap().len(), 16);
}

#[test]
fn links_and_permissions_of_a_file_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let tap = sampled(&[r#"{"a":1}"#]);
    let real = tap.write_file("real.json", "");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, tap.path("columns.json")).unwrap();
    tap.run().assert_drains(&tap);
    assert!(fs::symlink_metadata(tap.path("columns.json")).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::read_to_string(&real).unwrap().contains("\"a\""));
}

#[test]
fn what_a_killed_run_has_left_beside_a_file_does_not_accumulate() {
    let tap = sampled(&[r#"{"a":1}"#]);
    let left = tap.write_file(".columns.json.new", "{");
    tap.run().assert_drains(&tap);
    assert!(columns(&tap).contains("\"a\"") && !left.exists());
}

#[test]
fn a_follower_on_a_stream_that_is_empty_at_first_has_the_columns_of_its_first_records() {
    for acknowledge in ["write", "never"] {
        let tap = sampled(&[]).set("acknowledge", acknowledge).set("pollIntervalSeconds", 0).args(&["--follow"]);
        let running = tap.start();
        tap.sandbox.wait_answered(if acknowledge == "write" { Endpoint::Peek } else { Endpoint::Since }, 3);
        write(&tap, &[r#"{"a":1}"#]);
        let mut running = running;
        let lines = running.read_lines(3);
        running.signal(Signal::TERM);
        assert_eq!(running.wait(&tap).code, 143);
        let kinds: Vec<_> =
            lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone()).collect();
        assert_eq!(kinds, ["SCHEMA", "RECORD", "STATE"]);
        let schema: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let properties = &schema["schema"]["properties"]["dataPayload"]["properties"];
        assert_eq!((properties, columns(&tap).contains("\"a\"")), (&json!({"a": leaf("integer")}), true));
    }
}

#[test]
fn an_empty_stream_has_no_columns_yet() {
    let tap = sampled(&[]);
    let (_, run) = assert_all_arrive_with(tap, &[&[], &[r#"{"a":1}"#]]);
    assert_eq!(payload_schema(&run)["properties"], json!({"a": leaf("integer")}));
    let run = sampled(&[]).run();
    assert_eq!(payload_schema(&run), Value::Null);
    run.assert_logged("WARNING no field of `dataPayload` has a column: see `dataPayloadRest`");
}

#[test]
fn a_sample_that_does_not_get_across_is_asked_for_in_half() {
    // 100 records would be an answer of 2 MB.
    let tap = sampled(&[]).set("maxAnswerMegabytes", 1);
    tap.sandbox.fill_sized(&tap.stream, 110, 20_000);
    tap.run().assert_drains(&tap);
    let journal = tap.sandbox.journal();
    let asked = journal.iter().filter(|call| call.endpoint == Endpoint::LastN).map(|call| call.record_count);
    assert_eq!(asked.collect::<Vec<_>>(), [Some(100), Some(50), Some(25)]);
}

#[test]
fn a_sample_that_cannot_be_had_costs_no_value() {
    for (fault, problem) in [
        (Rule::on(Endpoint::LastN).status(413).body("no"), "HOST answers 413: no"),
        (Rule::on(Endpoint::LastN).cut(), "the answer of HOST was cut off: end of file before message length reached"),
    ] {
        let tap = sampled(&[]);
        tap.sandbox.script(fault);
        let (_, run) = assert_all_arrive_with(tap, &[&[r#"{"a":1}"#]]);
        let warning = run.stderr.lines().find(|line| line.starts_with("WARNING")).unwrap();
        let text = "WARNING cannot read a sample of records: not even a single record of stream ";
        assert!(warning.starts_with(text) && warning.ends_with(problem), "{warning}");
    }
}

#[test]
fn a_sample_from_a_stream_that_this_client_may_not_read_ends_the_run() {
    let tap = sampled(&[r#"{"a":1}"#]);
    tap.sandbox.restrict(&tap.stream);
    assert_eq!((tap.run().code, tap.sandbox.count(Endpoint::Peek)), (1, 0));
}

/// Registers a schema through the API and makes it the active one.
pub fn register(tap: &Tap, kind: &str, schema: &Value) {
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
fn a_registered_schema_comes_down_to_columns() {
    let tap = with_file(Tap::with_records(0).set("payloadSchema", "registered"));
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["make"],
        "properties": {
            "make": {"type": "string", "minLength": 1},
            "owner": {"$ref": "#/definitions/owner"},
            "tags": {"type": "array", "items": {"type": "integer"}}
        },
        "definitions": {"owner": {"type": "object", "properties": {"name": {"type": "string"}}}}
    });
    register(&tap, "JSON", &schema);
    write(&tap, &[r#"{"make":"Volvo","owner":{"name":"x"},"tags":[1],"more":1}"#]);
    let catalog: Value = serde_json::from_str(&tap.run_command(tap.command().arg("--discover")).stdout).unwrap();
    assert!(!tap.path("columns.json").exists());
    let run = tap.run();
    let owner = json!({"type": ["null", "object"], "properties": {"name": leaf("string")}});
    assert_eq!(
        payload_schema(&run)["properties"],
        json!({"make": leaf("string"), "owner": owner, "tags": leaf("string")})
    );
    assert_eq!(catalog["streams"][0]["schema"]["properties"]["dataPayload"], payload_schema(&run));
    assert_eq!((rests(&run), tap.sandbox.count(Endpoint::LastN)), (vec![json!(r#"{"more":1}"#)], 0));
}

#[test]
fn a_registered_schema_that_cannot_be_used_costs_no_value() {
    let warning = |problem: &str| format!("WARNING no registered schema to use: {problem}");
    let first = |tap: &Tap, problem: &str| {
        let run = tap.run();
        assert_eq!((rests(&run), payload_schema(&run)), (vec![json!(r#"{"a":1}"#)], Value::Null), "{}", run.stderr);
        assert!(run.stderr.lines().next().unwrap().starts_with(&warning(problem)), "{}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    };
    let tap = || {
        let tap = with_file(Tap::with_records(0).set("payloadSchema", "registered"));
        write(&tap, &[r#"{"a":1}"#]);
        tap
    };
    first(&tap(), "the stream has none");
    let avro = tap();
    register(&avro, "AVRO", &json!({"type": "record", "name": "car", "fields": []}));
    first(&avro, "it is not a JSON schema");
    for answer in ["\"hunter2\"", "hunter2"] {
        let odd = tap();
        odd.sandbox.script(Rule::on(Endpoint::Stream).every().json(answer));
        first(&odd, "HOST answers 200 (application/json): the answer is not a JSON object that describes the stream");
    }
    let refused = tap();
    refused.sandbox.script(Rule::on(Endpoint::Token).call(1).status(400).body(r#"{"error":"invalid_scope"}"#));
    let problem = "fetch an access token: this client may not have the scope \"https://api.streamduo.com/manage:streams\": \
                   HOST answers 400: invalid_scope";
    first(&refused, problem);
    // The file still has the columns.
    let known = tap();
    known.write_file("columns.json", &file_of(&json!({"a": leaf("integer")})));
    let run = known.run();
    run.assert_logged(&warning("the stream has none"));
    assert_eq!(
        (rests(&run), payload_schema(&run)["properties"].clone()),
        (vec![Value::Null], json!({"a": leaf("integer")}))
    );
}

/// The catalog that `--discover` prints, as Meltano changes it: every field is selected but these.
fn catalog_without(tap: &Tap, deselected: &[&[&str]]) -> Value {
    let mut catalog: Value = serde_json::from_str(&tap.run_command(tap.command().arg("--discover")).stdout).unwrap();
    for field in catalog["streams"][0]["metadata"].as_array_mut().unwrap() {
        let names: Vec<_> = field["breadcrumb"].as_array().unwrap().iter().skip(1).step_by(2).collect();
        field["metadata"]["selected"] = json!(!deselected.iter().any(|path| path.iter().eq(names.iter().copied())));
    }
    catalog
}

fn run_with_catalog(tap: &Tap, catalog: &Value) -> Run {
    let run = tap.run_with("--catalog", tap.write_file("catalog.json", &catalog.to_string()));
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

#[test]
fn a_catalog_that_selects_everything_changes_nothing() {
    let tap = sampled(&[r#"{"a":1,"owner":{"name":"x"}}"#]);
    let catalog = catalog_without(&tap, &[]);
    // A field that the catalog does not know yet.
    write(&tap, &[r#"{"a":2,"owner":{"name":"x","age":7},"b":true}"#]);
    let expected =
        sampled(&[r#"{"a":1,"owner":{"name":"x"}}"#, r#"{"a":2,"owner":{"name":"x","age":7},"b":true}"#]).run();
    let run = run_with_catalog(&tap, &catalog);
    assert_eq!((payload_schema(&run), rests(&run)), (payload_schema(&expected), vec![Value::Null; 2]));
}

#[test]
fn a_deselected_field_is_neither_a_column_nor_in_the_rest() {
    let tap = sampled(&[r#"{"a":1,"owner":{"name":"x","secret":"hunter2"},"b":{"c":{"hunter2":1}}}"#]);
    let catalog = catalog_without(&tap, &[&["dataPayload", "owner", "secret"], &["dataPayload", "b", "c", "hunter2"]]);
    write(
        &tap,
        &[
            r#"{"a":"new","owner":{"name":7,"secret":"hunter2","new":"hunter2","also":1},"c":true}"#,
            r#"{"owner":{"secret":"hunter2"},"owner":{"name":"y","secret":"hunter2"},"b":{"c":{"hunter2":[]}}}"#,
        ],
    );
    let run = run_with_catalog(&tap, &catalog);
    assert!(!run.stdout.contains("hunter2") && !columns(&tap).contains("hunter2"), "{}\n{}", run.stdout, columns(&tap));
    let owner = json!({"type": ["null", "object"], "properties": {"name": leaf("string")}});
    assert_eq!(payload_schema(&run)["properties"], json!({"a": leaf("string"), "owner": owner, "c": leaf("boolean")}));
    assert_eq!(
        rests(&run),
        [json!(r#"{"a":1}"#), json!(r#"{"owner":{"name":7}}"#), json!(r#"{"owner":{"name":"y"}}"#)]
    );
    let line = "is left out: the catalog selects by name, and does not know it";
    run.assert_logged(&format!("WARNING \"dataPayload.owner.new\" {line}"));
    run.assert_logged(&format!("WARNING \"dataPayload.owner.also\" {line}"));
}

#[test]
fn a_catalog_does_not_change_columns_or_the_setting() {
    let tap = sampled(&[r#"{"a":1,"b":"x"}"#]);
    let expected = sampled(&[r#"{"a":1,"b":"x"}"#]).run();
    let mut catalog = catalog_without(&tap, &[]);
    let schema = &mut catalog["streams"][0]["schema"]["properties"];
    schema["dataPayload"]["properties"] = json!({"a": {"type": "string"}, "other": {"type": "string"}});
    let run = run_with_catalog(&tap, &catalog);
    assert_eq!((payload_schema(&run), rests(&run)), (payload_schema(&expected), vec![Value::Null]));
    // One that was made with `any`.
    let any = Tap::with_records(0);
    let tap = sampled(&[r#"{"a":1,"b":"x"}"#]);
    assert_eq!(payload_schema(&run_with_catalog(&tap, &catalog_without(&any, &[]))), payload_schema(&expected));
    // And the other way round.
    write(&any, &[r#"{"a":1,"b":"x"}"#]);
    let run = run_with_catalog(&any, &catalog);
    assert_eq!(run.stdout, schema_and(&any.records()) + &any.state_line("write"));
    run.assert_logged(
        "WARNING the catalog was made with columns, and `payloadSchema` is `any`: the payload is written as it is",
    );
}

#[test]
fn the_payload_and_the_rest_can_be_deselected() {
    let tap = sampled(&[r#"{"a":1,"b":{}}"#]);
    let run = run_with_catalog(&tap, &catalog_without(&tap, &[&["dataPayload"]]));
    assert!(!run.stdout.contains("dataPayload") && !tap.path("columns.json").exists(), "{}", run.stdout);
    let tap = sampled(&[r#"{"a":1,"b":{}}"#]);
    let run = run_with_catalog(&tap, &catalog_without(&tap, &[&["dataPayloadRest"]]));
    assert!(run.stdout.contains(r#""dataPayload":{"a":1}}"#) && !run.stdout.contains("Rest"), "{}", run.stdout);
    run.assert_logged("WARNING the catalog deselects `dataPayloadRest`: what has no column is not written");
}
