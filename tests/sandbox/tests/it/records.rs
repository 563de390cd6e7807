use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Identity, Samples, Sandbox, Stamps};

use crate::client::{Api, unread};

/// The body of a record-request of another type than UNREAD.
fn read(kind: &str, count: u64, mark: bool) -> Value {
    let mut body = unread(1, mark);
    body["readRecordRequestType"] = kind.into();
    body["recordCount"] = count.into();
    body
}

fn since(stamp: &str, count: u64) -> Value {
    let mut body = read("READ_SINCE_TIMESTAMP", count, false);
    body["recordTimeStampISO"] = stamp.into();
    body
}

fn single(id: &str, count: Value) -> Value {
    let mut body = read("SINGLE", 1, false);
    body["recordId"] = id.into();
    body["recordCount"] = count;
    body
}

fn ids(identities: &[Identity]) -> Vec<&str> {
    identities.iter().map(|identity| identity.record_id.as_str()).collect()
}

/// Creates a stream with the records a to e, a second apart.
fn five_records(sandbox: &Sandbox) -> String {
    let stream = sandbox.create_stream("cars");
    for (second, id) in (23..).zip(["a", "b", "c", "d", "e"]) {
        sandbox.write_as(&stream, id, &stamp(second), "1");
    }
    stream
}

fn stamp(second: u32) -> String {
    format!("2022-02-01T15:16:{second}.716848-05:00[America/New_York]")
}

#[test]
fn a_peek_changes_nothing_and_a_mark_marks_what_it_returns() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    assert_eq!(api.peek(&stream, 2).ids(), ["a", "b"]);
    assert_eq!(api.peek(&stream, 2).ids(), ["a", "b"]);
    let marked = api.mark(&stream, 2);
    assert_eq!(marked.ids(), ["a", "b"]);
    assert_eq!(marked.json()[0]["readStatus"], "false", "as it was before the request");
    assert_eq!(api.mark(&stream, 100).ids(), ["c", "d", "e"]);
    assert_eq!(api.mark(&stream, 100).text(), "[]");
    assert_eq!((sandbox.read(&stream).len(), sandbox.unread(&stream).len()), (5, 0));
}

#[test]
fn the_simple_unread_request_marks_100_records_by_default() {
    let sandbox = Sandbox::start();
    let (stream, api) = (sandbox.create_stream("cars"), Api::new(&sandbox));
    sandbox.fill(&stream, 130);
    assert_eq!(api.get(&format!("/stream/{stream}/record/unread?count=7")).ids().len(), 7);
    assert_eq!(api.get(&format!("/stream/{stream}/record/unread")).ids().len(), 100);
    assert_eq!(sandbox.tally(&stream), (130, 23));
    for count in ["0", "-1", "ten", ""] {
        assert_eq!(api.get(&format!("/stream/{stream}/record/unread?count={count}")).status, 400, "{count:?}");
    }
    assert_eq!(sandbox.count(Endpoint::SimpleUnread), 6);
}

#[test]
fn last_n_returns_read_records_too_with_their_status() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    sandbox.mark_oldest(&stream, 3);
    let reply = api.request(&stream, &read("LAST_N", 3, false));
    assert_eq!(reply.ids(), ["c", "d", "e"]);
    assert_eq!((&reply.json()[0]["readStatus"], &reply.json()[1]["readStatus"]), (&"true".into(), &"false".into()));
    api.request(&stream, &read("LAST_N", 1, true));
    assert_eq!(ids(&sandbox.unread(&stream)), ["d"]);
    assert_eq!(api.request(&stream, &read("LAST_N", u64::MAX, false)).ids().len(), 5);
}

#[test]
fn since_excludes_a_full_time_stamp_and_includes_the_whole_second_of_a_cut_one() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    assert_eq!(api.request(&stream, &since(&stamp(24), 10)).ids(), ["c", "d", "e"]);
    assert_eq!(api.request(&stream, &since(&stamp(24)[..19], 10)).ids(), ["b", "c", "d", "e"]);
    assert_eq!(api.request(&stream, &since("2022-02-01T15:16", 2)).ids(), ["a", "b"]);
    assert_eq!(api.request(&stream, &since(&stamp(27), 10)).text(), "[]");
    assert_eq!(api.request(&stream, &since("yesterday", 10)).status, 400);
    let mut marking = since(&stamp(23), 2);
    marking["markAsRead"] = true.into();
    assert_eq!(api.request(&stream, &marking).ids(), ["b", "c"]);
    assert_eq!(ids(&sandbox.read(&stream)), ["b", "c"]);
}

#[test]
fn single_returns_the_latest_versions_of_a_record() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    sandbox.write_as(&stream, "b", &stamp(40), "2");
    sandbox.write_as(&stream, "b", &stamp(30), "3");
    let payloads = |count| {
        let reply = api.request(&stream, &single("b", count)).json();
        reply.as_array().expect("an array").iter().map(|record| record["dataPayload"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(payloads(Value::Null), [2]);
    assert_eq!(payloads(1.into()), [2]);
    assert_eq!(payloads(2.into()), [3, 2]);
    assert_eq!(payloads(9.into()), [1, 3, 2]);
    assert_eq!(api.request(&stream, &single("z", 1.into())).text(), "[]");
    let mut marking = single("b", 2.into());
    marking["markAsRead"] = true.into();
    api.request(&stream, &marking);
    let read = sandbox.read(&stream);
    assert_eq!(read.iter().map(|identity| &identity.timestamp).collect::<Vec<_>>(), [&stamp(30), &stamp(40)]);
}

#[test]
fn single_marks_the_versions_that_it_returns_and_can_be_repeated() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    sandbox.write_as(&stream, "b", &stamp(40), "2");
    let mut marking = single("b", 1.into());
    marking["markAsRead"] = true.into();
    for status in ["false", "true"] {
        let reply = api.request(&stream, &marking).json();
        assert_eq!((&reply[0]["dataPayload"], &reply[0]["readStatus"]), (&2.into(), &status.into()));
        assert_eq!(ids(&sandbox.unread(&stream)), ["a", "b", "c", "d", "e"]);
    }
    marking["recordCount"] = 2.into();
    assert_eq!(api.request(&stream, &marking).ids(), ["b", "b"]);
    assert_eq!(ids(&sandbox.unread(&stream)), ["a", "c", "d", "e"]);
}

#[test]
fn mark_read_marks_one_record_without_returning_it() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    sandbox.write_as(&stream, "b", &stamp(40), "2");
    let mark = |record: &str| api.call("POST", &format!("/stream/{stream}/record/{record}/mark-read"), "");
    let reply = mark("b");
    assert_eq!((reply.status, reply.text()), (200, r#"{"status":"Success"}"#));
    assert_eq!(ids(&sandbox.unread(&stream)), ["a", "b", "c", "d", "e"]);
    assert_eq!((mark("b").status, mark("z").status), (200, 404));
    assert_eq!((sandbox.tally(&stream), sandbox.count(Endpoint::MarkRead)), ((6, 5), 3));
    sandbox.restrict(&stream);
    assert_eq!(mark("a").status, 403);
}

#[test]
fn since_can_be_told_to_return_the_newest_records() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    assert_eq!(api.request(&stream, &since(&stamp(23), 2)).ids(), ["b", "c"]);
    sandbox.return_newest_since(&stream);
    assert_eq!(api.request(&stream, &since(&stamp(23), 2)).ids(), ["d", "e"]);
    assert_eq!(api.request(&stream, &since(&stamp(23), 9)).ids(), ["b", "c", "d", "e"]);
}

#[test]
fn sample_records_can_share_time_stamps_and_have_them_in_every_form() {
    let sandbox = Sandbox::start();
    let (stream, api) = (sandbox.create_stream("cars"), Api::new(&sandbox));
    sandbox.fill_with(&stream, 36, Samples { ties: 3, stamps: Stamps::Mixed, ..Samples::default() });
    let records: Vec<_> = sandbox.records(&stream).into_iter().map(|record| record.identity).collect();
    assert!(records.is_sorted_by(|a, b| a.record_id < b.record_id), "they are in time order");
    let stamps: Vec<_> = records.chunks(3).map(|tied| &tied[0].timestamp).collect();
    assert!(records.chunks(3).zip(&stamps).all(|(tied, stamp)| tied.iter().all(|record| record.timestamp == **stamp)));
    assert_eq!(
        (stamps[1].as_str(), stamps[5].as_str()),
        ("2022-02-01T15:16:30-05:00[America/New_York]", "2022-02-01T20:16:58Z[UTC]",)
    );
    // All that come after the third of those at one time stamp, whatever its form.
    for (group, stamp) in stamps.iter().enumerate() {
        assert_eq!(api.request(&stream, &since(stamp, 99)).ids(), ids(&records[3 * group + 3..]), "{stamp}");
    }
}

#[test]
fn payloads_are_kept_byte_for_byte() {
    let sandbox = Sandbox::start();
    let (stream, api) = (sandbox.create_stream("cars"), Api::new(&sandbox));
    let payloads = [
        r#"{"z": 10.00,"a" :123456789012345678901234567890, "e":[ 1e400,-0.0 ]}"#,
        r#""\u00e9\/\ud83d\ude00 \" é \ud800""#,
        "{ \"line\":\n\t1 }",
        "null",
        "true",
        "-0",
        r#"{"a":1,"a":2}"#,
        "[]",
    ];
    for payload in payloads {
        assert_eq!(sandbox.write(&stream, payload).payload, payload);
        let body = format!(r#"{{"recordId":null,"dataPayload": {payload} ,"streamId":null,"readStatus":null}}"#);
        let reply = api.call("POST", &format!("/stream/{stream}/record"), &body);
        assert!(reply.text().ends_with(&format!(r#""dataPayload":{payload}}}"#)), "{}", reply.text());
    }
    let served = api.peek(&stream, 100);
    let texts: Vec<String> = sandbox.records(&stream).into_iter().map(|record| record.json).collect();
    assert_eq!(served.text(), format!("[{}]", texts.join(",")));
    assert_eq!(texts.len(), 2 * payloads.len());
}

#[test]
fn a_record_looks_like_the_vendors_example() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill(&stream, 1);
    let record = &sandbox.records(&stream)[0];
    let Identity { record_id, timestamp } = &record.identity;
    let expected = format!(
        r#"{{"recordId":"{record_id}","streamId":"{stream}","recordTimeStampISO":"{timestamp}","readStatus":"false","dataPayload":{{"carData":{{"Make":"Toyota","Price":"$6,250.00","Odometer (KM)":"60000","Colour":"White","Doors":"4"}}}}}}"#
    );
    assert_eq!(record.json, expected);
    assert_eq!(timestamp, "2022-02-01T15:16:23.716848-05:00[America/New_York]");
}

#[test]
fn sample_records_are_the_same_in_two_sandboxes_and_their_ids_and_time_stamps_rise() {
    let records = [1, 2].map(|_| {
        let sandbox = Sandbox::start();
        let stream = sandbox.create_stream("cars");
        sandbox.fill(&stream, 40);
        sandbox.fill(&stream, 60);
        sandbox.records(&stream)
    });
    assert_eq!(records[0], records[1]);
    let rise = |of: fn(&Identity) -> &String| records[0].is_sorted_by(|a, b| of(&a.identity) < of(&b.identity));
    assert!(rise(|identity| &identity.record_id) && rise(|identity| &identity.timestamp));
}

#[test]
fn records_are_in_time_order_and_those_with_equal_time_stamps_in_the_order_of_writing() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    sandbox.mark_oldest(&stream, 2);
    sandbox.write_as(&stream, "late", &stamp(22), "1");
    sandbox.write_as(&stream, "twin of c", &stamp(25), "1");
    // The same time as d, in another zone.
    sandbox.write_as(&stream, "utc", "2022-02-01T20:16:26.716848Z", "1");
    assert_eq!(api.peek(&stream, 9).ids(), ["late", "c", "twin of c", "d", "utc", "e"]);
    let written = sandbox.write(&stream, "1").identity;
    assert_eq!(sandbox.unread(&stream).last(), Some(&written));
    sandbox.write_as(&stream, "far", "9999-12-30T22:00:00Z", "1");
    let last = sandbox.write(&stream, "1").identity;
    assert_eq!(sandbox.unread(&stream).last(), Some(&last));
    assert!(sandbox.remove(&stream, &last) && !sandbox.remove(&stream, &last));
    assert_eq!(ids(&sandbox.unread(&stream)).last(), Some(&"far"));
}

#[test]
fn written_records_get_ids_and_rising_time_stamps() {
    let sandbox = Sandbox::start();
    let (stream, api) = (sandbox.create_stream("cars"), Api::new(&sandbox));
    let path = format!("/stream/{stream}/record");
    let chosen = api.post(&path, &json!({ "recordId": "a \"b\"", "dataPayload": null })).json();
    assert_eq!((&chosen["recordId"], &chosen["readStatus"]), (&"a \"b\"".into(), &"false".into()));
    assert_eq!((&chosen["streamId"], &chosen["dataPayload"]), (&stream.as_str().into(), &Value::Null));
    for _ in 0..20 {
        api.post(&path, &json!({ "recordId": null, "dataPayload": [1] }));
    }
    let unread = sandbox.unread(&stream);
    assert!(unread.is_sorted_by(|a, b| a.timestamp < b.timestamp), "{unread:?}");
    assert!(unread.iter().skip(1).all(|identity| identity.record_id.len() == 36));
    let again = api.request(&stream, &single("a \"b\"", 1.into())).json();
    assert_eq!(again[0], chosen);
}

#[test]
fn any_text_can_be_served_as_a_record() {
    let sandbox = Sandbox::start();
    let (stream, api) = (sandbox.create_stream("cars"), Api::new(&sandbox));
    sandbox.write(&stream, "1");
    let texts = [r#"{"recordId":"x", "readStatus": false}"#, r#"{"other":1}"#, "42"];
    for text in texts {
        sandbox.write_text(&stream, text);
    }
    let served = api.mark(&stream, 9);
    assert!(served.text().ends_with(&format!(",{}]", texts.join(","))), "{}", served.text());
    assert_eq!(ids(&sandbox.read(&stream))[1..], ["x", "", ""]);
    assert!(
        api.request(&stream, &read("LAST_N", 3, false)).text().starts_with(r#"[{"recordId":"x", "readStatus": true}"#)
    );
}

#[test]
fn bad_record_requests_get_400() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    let with = |key: &str, value: Value| {
        let mut body = unread(1, true);
        body[key] = value;
        body
    };
    let bodies = [
        with("recordCount", Value::Null),
        with("recordCount", 0.into()),
        with("recordCount", (-3).into()),
        with("recordCount", 1.5.into()),
        with("recordCount", "7".into()),
        with("markAsRead", Value::Null),
        with("markAsRead", "true".into()),
        with("readRecordRequestType", Value::Null),
        with("readRecordRequestType", "ALL".into()),
        with("readRecordRequestType", "SAMPLE".into()),
        with("readRecordRequestType", "READ_SINCE_RECORD_ID".into()),
        with("readRecordRequestType", "SINGLE".into()),
        with("readRecordRequestType", "READ_SINCE_TIMESTAMP".into()),
        json!([]),
        json!({}),
    ];
    for body in bodies {
        let reply = api.request(&stream, &body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.json()["message"].is_string());
    }
    let path = format!("/stream/{stream}/record-request");
    assert_eq!(api.call("POST", &path, "{").status, 400);
    for body in ["{}", r#"{"dataPayload":}"#, r#"{"recordId":7,"dataPayload":1}"#, "", r#"{"recordId":null}"#] {
        assert_eq!(api.call("POST", &format!("/stream/{stream}/record"), body).status, 400, "{body}");
    }
    assert_eq!(sandbox.tally(&stream), (5, 5));
}

#[test]
fn a_json_body_needs_its_content_type() {
    let sandbox = Sandbox::start();
    let (stream, api) = (five_records(&sandbox), Api::new(&sandbox));
    let [bearer, _] = api.headers();
    for path in [format!("/stream/{stream}/record-request"), format!("/stream/{stream}/record"), "/stream".to_owned()] {
        let reply = crate::client::send(&sandbox, "POST", &path, &[bearer], &unread(1, true).to_string());
        assert_eq!(reply.expect("an answer").status, 415, "{path}");
    }
    assert_eq!(sandbox.tally(&stream), (5, 5));
}

#[test]
fn a_restricted_stream_refuses_its_records() {
    let sandbox = Sandbox::start();
    let (stream, other) = (five_records(&sandbox), sandbox.create_stream("other"));
    let api = Api::new(&sandbox);
    sandbox.restrict(&stream);
    assert_eq!(api.statuses(&stream), (403, 200));
    assert_eq!(api.statuses(&other), (200, 200));
    assert_eq!(api.get(&format!("/stream/{stream}/record/unread")).status, 403);
    assert_eq!(api.post(&format!("/stream/{stream}/record"), &json!({ "dataPayload": 1 })).status, 403);
    assert!(api.mark(&stream, 1).json()["message"].is_string());
}

#[test]
fn streams_do_not_mix() {
    let sandbox = Sandbox::start();
    let (one, other) = (five_records(&sandbox), five_records(&sandbox));
    let api = Api::new(&sandbox);
    api.mark(&one, 3);
    assert_eq!((sandbox.tally(&one), sandbox.tally(&other)), ((5, 2), (5, 5)));
}

#[test]
fn a_text_that_says_that_it_is_unread_says_so_no_longer_once_it_is_read() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let texts =
        [r#"{"readStatus" : "false","n":"false"}"#, r#"{"n":1,"readStatus":false}"#, r#"{"readStatus":"x"}"#, "7"];
    texts.iter().for_each(|text| sandbox.write_text(&stream, text));
    let api = Api::new(&sandbox);
    assert_eq!(api.mark(&stream, 9).text(), format!("[{}]", texts.join(",")));
    let shown = format!("[{}]", texts.join(",")).replacen("\"false\"", "\"true\"", 1).replace(":false", ":true");
    assert_eq!(api.request(&stream, &read("LAST_N", 9, false)).text(), shown);
}
