use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule, Sandbox};

use crate::client::{Api, unread};

fn sandbox(records: usize) -> (Sandbox, String) {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill(&stream, records);
    (sandbox, stream)
}

fn of_type(kind: &str, count: usize) -> Value {
    let mut body = unread(count, true);
    body["readRecordRequestType"] = kind.into();
    body["recordTimeStampISO"] = "2001-01-01T00:00:00Z".into();
    body
}

#[test]
fn a_read_of_too_many_records_is_refused_and_marks_nothing() {
    let (sandbox, stream) = sandbox(30);
    let api = Api::new(&sandbox);
    sandbox.limit_records(20, 400);
    for kind in ["UNREAD", "LAST_N", "READ_SINCE_TIMESTAMP"] {
        let refused = api.request(&stream, &of_type(kind, 21));
        assert_eq!(refused.status, 400, "{kind}");
        assert_eq!(refused.json(), json!({ "message": "21 records are too many: the limit is 20" }));
    }
    assert_eq!(api.peek(&stream, 21).status, 400);
    assert_eq!(api.get(&format!("/stream/{stream}/record/unread?count=21")).status, 400);
    assert_eq!((sandbox.tally(&stream), sandbox.journal().last().map(|call| call.returned)), ((30, 30), Some(0)));
    assert_eq!(api.mark(&stream, 20).ids().len(), 20);
    sandbox.lift_limits();
    assert_eq!(api.mark(&stream, 21).ids().len(), 10);
}

#[test]
fn a_read_with_too_long_an_answer_is_refused_and_marks_nothing() {
    let (sandbox, stream) = sandbox(30);
    let api = Api::new(&sandbox);
    let length = api.peek(&stream, 20).body.len();
    sandbox.limit_bytes(length, 500);
    for reply in [api.mark(&stream, 21), api.peek(&stream, 21)] {
        let message = format!("bytes are too many: the limit is {length}");
        assert!(reply.status == 500 && reply.text().contains(&message), "{}", reply.text());
    }
    assert_eq!(sandbox.tally(&stream), (30, 30));
    assert_eq!(api.mark(&stream, 20).ids().len(), 20);
    assert_eq!(api.mark(&stream, 21).ids().len(), 10, "what counts is the answer");
}

#[test]
fn a_hook_can_change_the_limits() {
    let (sandbox, stream) = sandbox(30);
    let api = Api::new(&sandbox);
    sandbox.script(Rule::on(Endpoint::Peek).call(2).before(|service| service.limit_records(7, 413)));
    assert_eq!([1, 2, 3].map(|_| api.peek(&stream, 8).status), [200, 413, 413]);
}

#[test]
fn a_record_slips_in_right_behind_the_first_unread_one() {
    let (sandbox, stream) = sandbox(4);
    let slips = stream.clone();
    sandbox.script(Rule::on(Endpoint::Mark).every_nth(2).before(move |service| drop(service.slip_in(&slips))));
    let api = Api::new(&sandbox);
    let all: Vec<String> = sandbox.records(&stream).into_iter().map(|record| record.identity.record_id).collect();
    assert_eq!(api.mark(&stream, 1).ids(), all[..1]);
    assert_eq!(api.mark(&stream, 2).ids(), [&all[1], "slip-in-1"]);
    assert_eq!(api.mark(&stream, 1).ids(), all[2..3]);
    assert_eq!(api.mark(&stream, 9).ids(), [&all[3], "slip-in-2"]);
    let records = sandbox.records(&stream);
    assert!(records.is_sorted_by(|a, b| a.identity.timestamp < b.identity.timestamp), "{records:?}");
    assert_eq!(records[2].payload, r#"{"slipIn":1}"#);
    assert_eq!(api.mark(&stream, 9).ids(), [""; 0]);
    assert_eq!((api.mark(&stream, 9).ids(), sandbox.slip_in(&stream)), (vec![], None), "all are read");
}

#[test]
fn sample_records_can_have_a_chosen_size() {
    let sandbox = Sandbox::start();
    let (small, large) = (sandbox.create_stream("small"), sandbox.create_stream("large"));
    sandbox.fill(&small, 3);
    sandbox.fill_sized(&large, 3, 20_000);
    for (small, large) in sandbox.records(&small).iter().zip(sandbox.records(&large)) {
        assert_eq!(large.payload.len(), 20_000);
        let mut padded: Value = serde_json::from_str(&large.payload).expect("JSON");
        padded.as_object_mut().and_then(|fields| fields.remove("padding")).expect("padding");
        assert_eq!(padded, serde_json::from_str::<Value>(&small.payload).expect("JSON"));
    }
    sandbox.fill_sized(&small, 1, 50);
    assert!(sandbox.records(&small)[3].payload.len() > 50, "too short for a sample record");
}
