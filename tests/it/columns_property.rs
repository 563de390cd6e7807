//! Whatever partners send, in whatever order of runs: a target that flattens never fails, and every
//! leaf of every record can be read back exactly from its columns and the rest.

use std::fs::{self, File};
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tap_streamduo::config::Config;
use tap_streamduo::record::{MessageWriter, Page};
use tap_streamduo::singer::columns::Splitter;
use tap_streamduo::singer::{Writer, catalog};
use tempfile::TempDir;

use crate::flattening::{FlatteningTarget, leaves};

/// The payloads of each page of each start of a target in a run.
type Run = Vec<Vec<Vec<String>>>;

fn name() -> impl Strategy<Value = String> {
    let odd = [
        "a",
        "a",
        "b",
        "A",
        "a b",
        "a_b",
        "a-b",
        "aB",
        "a__b",
        "b__a",
        "",
        "é",
        "a\\\"b",
        "\\u0061",
        "\\ud800",
        "$ref",
        "properties",
        "type",
        "contentMediaType",
        "x.y",
        "a\\u0000",
        "%",
    ];
    let long = "n".repeat(45);
    prop_oneof![
        8 => prop::sample::select(odd.map(|name| format!("\"{name}\"")).to_vec()),
        1 => Just(format!("\"{long}\"")),
        1 => ".{0,3}".prop_map(|name| json!(name).to_string()),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    let odd = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "10.0",
        "-0.0",
        "1.5",
        "1e2",
        "1E-2",
        "1e400",
        "-1e-400",
        "0e9",
        "9007199254740993",
        "9223372036854775807",
        "18446744073709551616",
        "123456789012345",
        "1234567890123456.7",
        "\"\"",
        "\"N/A\"",
        "\"7\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\\/\"",
        "\"{}\"",
        "[]",
        "[1, 2.50,null]",
        "[{\"a\":-0}]",
    ];
    prop_oneof![
        6 => prop::sample::select(odd.map(str::to_owned).to_vec()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_filter("JSON", |number| number.is_finite()).prop_map(|number| json!(number).to_string()),
        1 => ".{0,5}".prop_map(|text| json!(text).to_string()),
    ]
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    vec((name(), value), 0..5).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn payload() -> impl Strategy<Value = String> {
    let value = scalar().prop_recursive(5, 40, 4, |value| {
        let array = vec(value.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(",")));
        prop_oneof![4 => object(value), 1 => array]
    });
    prop_oneof![9 => object(value.clone()), 1 => value]
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let page = vec(payload(), 1..4);
    vec(vec(vec(page, 1..3), 1..3), 1..4)
}

/// An answer with these payloads. Ids go on from `first`.
fn answer(payloads: &[String], first: usize) -> Page {
    let record = |(n, payload): (usize, &String)| {
        format!(
            r#"{{"recordId":"{}","streamId":"s","recordTimeStampISO":"2022-02-01T15:16:23Z","readStatus":"false","dataPayload":{payload}}}"#,
            first + n
        )
    };
    let records: Vec<_> = payloads.iter().enumerate().map(record).collect();
    Page::parse(format!("[{}]", records.join(",")).into(), 1000).unwrap()
}

/// Runs the tap's own parts as a run does.
fn load(config: &Config, run: &Run, samples: &[String], first: &mut usize, target: &mut FlatteningTarget) {
    let mut splitter = Splitter::load(config, true).unwrap().unwrap();
    splitter.sample(&answer(samples, 0));
    let mut stream = catalog::whole_stream(config);
    stream.transform.splitter = Some(splitter);
    let out = config.columns_file.as_ref().unwrap().with_file_name("out.jsonl");
    let file = out.clone();
    let mut writer = Writer::new(move || File::create(&file), stream);
    for start in run {
        for page in start {
            answer(page, *first).write_unknown(|_| false, &mut writer).unwrap();
            *first += page.len();
        }
        writer.close();
        target.load(&fs::read_to_string(&out).unwrap());
    }
}

/// A configuration for `sampled`, and where its columns file is.
fn config(dir: &TempDir) -> (Config, PathBuf) {
    let columns = dir.path().join("columns.json");
    let settings = json!({
        "streamId": "s", "clientId": "c", "clientSecret": "s", "payloadSchema": "sampled", "columnsFile": columns,
    });
    let path = dir.path().join("config.json");
    fs::write(&path, settings.to_string()).unwrap();
    (Config::load(&[path], false, false).unwrap(), columns)
}

#[test]
fn what_the_rest_held_has_a_column_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let (config, columns) = config(&dir);
    let page = |payload: &str| vec![payload.to_owned()];
    let mut target = FlatteningTarget::default();
    let run = vec![vec![page(r#"{"a":1}"#), page(r#"{"b":{"c":"x"}}"#)], vec![page(r#"{"a":2}"#)]];
    load(&config, &run, &[], &mut 0, &mut target);
    assert_eq!(target.rows["1"].rest.as_deref(), Some(r#"{"b":{"c":"x"}}"#));
    let columns: Value = serde_json::from_str(&fs::read_to_string(columns).unwrap()).unwrap();
    assert_eq!(columns["properties"]["b"]["properties"]["c"], json!({"type": ["null", "string"]}));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_value_of_every_payload_can_be_read_back(runs in runs(), sampled in vec(payload(), 0..3)) {
        let dir = TempDir::new().unwrap();
        let (config, columns) = config(&dir);
        let mut target = FlatteningTarget::default();
        let mut loaded = 0;
        for run in &runs {
            load(&config, run, &sampled, &mut loaded, &mut target);
        }
        let columns = fs::read_to_string(columns).unwrap_or_default();
        for (n, payload) in runs.iter().flatten().flatten().flatten().enumerate() {
            prop_assert_eq!(target.rows[&n.to_string()].leaves(&columns), leaves(payload), "{}\n{}", payload, columns);
        }
    }
}
