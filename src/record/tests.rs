//! What this module promises, tested through its public functions.

use std::io;
use std::process::ExitStatus;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::text::in_utf_8;
use super::*;

/// A sink that remembers what it was given and when it was flushed.
#[derive(Default)]
struct Memory {
    lines: Vec<String>,
    flushed: usize,
}

impl MessageWriter for Memory {
    fn record(&mut self, json: &[u8], _time_extracted: &str) -> io::Result<()> {
        self.lines.push(String::from_utf8(json.to_vec()).unwrap());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = self.lines.len();
        Ok(())
    }

    fn state(&mut self, _value: &RawValue) -> io::Result<()> {
        unreachable!("a page writes no STATE")
    }
}

fn parse(answer: &str) -> Page {
    Page::parse(answer.to_owned().into(), 1).unwrap()
}

fn peeked(answer: &str) -> Peeked {
    Peeked::new(parse(answer)).unwrap()
}

/// The bookmark as it comes out of a STATE.
fn returned(bookmark: &Bookmark) -> ReturnedBookmark {
    serde_json::from_str(&serde_json::to_string(bookmark).unwrap()).unwrap()
}

fn text(identities: &[(&str, &str)]) -> String {
    let records: Vec<_> = identities
        .iter()
        .map(|(id, stamp)| format!(r#"{{"recordId":"{id}","recordTimeStampISO":"{stamp}"}}"#))
        .collect();
    format!("[{}]", records.join(","))
}

fn page(identities: &[(&str, &str)]) -> Peeked {
    peeked(&text(identities))
}

fn deliver(answer: &str) -> Vec<String> {
    let mut sink = Memory::default();
    let page = peeked(answer);
    let count = page.len();
    assert_eq!(page.deliver(&mut Ledger::default(), &mut sink).unwrap().count(), count);
    assert_eq!(sink.flushed, sink.lines.len());
    sink.lines
}

#[test]
fn a_record_passes_byte_for_byte() {
    let record = r#"{"recordId":"\u00e9\"1","recordTimeStampISO":"t", "x": [10.00, 1e400, 123456789012345678901234567890, -0.0, "\u2028\/"],"dataPayload":null,"a":1,"a":2}"#;
    assert_eq!(deliver(&format!("[{record} , {record}]")), [record]);
}

#[test]
fn white_space_goes_where_it_holds_a_line_break_and_strings_stay() {
    let pretty = "[\n  {\n    \"recordId\" : \"a b\\\\\",\r\n\t\"recordTimeStampISO\": \"t \\\" \\n u\",\n    \"v\": [ 1.0 , {} ]\n  }\n]";
    assert_eq!(deliver(pretty), [r#"{"recordId":"a b\\","recordTimeStampISO":"t \" \n u","v":[1.0,{}]}"#]);
}

/// The id and the time stamp of each record that has both.
fn identities(page: &Page) -> Vec<(String, String)> {
    let pairs = page.records().filter_map(|record| Some((record.record_id?, record.timestamp?)));
    pairs.map(|(id, stamp)| (id.into_owned(), stamp.into_owned())).collect()
}

fn identity(id: &str, stamp: &str) -> (String, String) {
    (id.to_owned(), stamp.to_owned())
}

#[test]
fn a_written_record_is_not_written_again_but_counts_as_delivered() {
    let mut ledger = Ledger::default();
    let mut sink = Memory::default();
    let _ = page(&[("a", "1")]).deliver(&mut ledger, &mut sink).unwrap();
    let delivered = page(&[("a", "1"), ("a", "2")]).deliver(&mut ledger, &mut sink).unwrap();
    assert_eq!(delivered.count(), 2);
    assert_eq!(delivered.written(), 1);
    assert_eq!(sink.lines.len(), 2);
}

#[test]
fn records_that_are_equal_in_everything_are_written_once() {
    let mut ledger = Ledger::default();
    let mut sink = Memory::default();
    let delivered = page(&[("a", "1"); 3]).deliver(&mut ledger, &mut sink).unwrap();
    assert_eq!(delivered.count(), 3);
    assert_eq!(delivered.written(), 1);
    assert_eq!(sink.lines.len(), 1);
    let delivered = page(&[("a", "1"); 2]).deliver(&mut ledger, &mut sink).unwrap();
    assert_eq!(delivered.count(), 2);
    assert_eq!(delivered.written(), 0);
    assert_eq!(sink.lines.len(), 1);
}

#[test]
fn a_ledger_forgets_what_was_not_shown_for_long() {
    let mut ledger = Ledger::default();
    let named = |from: usize| {
        let records: Vec<_> =
            (from..from + 10_001).map(|id| format!(r#"{{"recordId":"{id}","recordTimeStampISO":"t"}}"#)).collect();
        peeked(&format!("[{}]", records.join(",")))
    };
    let first = named(0).fingerprints().next().unwrap();
    let second = named(0).fingerprints().nth(1).unwrap();
    for n in 0..3 {
        let _ = named(20_000 * n).deliver(&mut ledger, &mut Memory::default()).unwrap();
        ledger.recall(&page(&[("0", "t")]));
        ledger.forget(0);
    }
    assert!(ledger.contains(first), "it was shown again");
    assert!(!ledger.contains(second));
}

#[test]
fn what_is_behind_the_records_to_mark_is_the_fence() {
    let shown = page(&[("a", "1"), ("b", "1")]);
    let records: Vec<_> = shown.fingerprints().collect();
    let delivered = shown.deliver(&mut Ledger::default(), &mut Memory::default()).unwrap();
    assert_eq!(delivered.count(), 2);
    assert_eq!(delivered.fence(), None);
    let delivered = delivered.at_most(1);
    assert_eq!(delivered.to_mark().collect::<Vec<_>>(), [records[0]]);
    assert_eq!(delivered.fence(), Some(records[1]));
}

#[test]
fn the_answer_to_a_mark_tells_what_is_marked_whether_the_peek_has_shown_it_or_not() {
    let shown = [("a", "1"), ("b", "1")];
    let delivered = || page(&shown).deliver(&mut Ledger::default(), &mut Memory::default()).unwrap();
    for marked in [&shown[..], &[("a", "1"), ("b", "1"), ("z", "1")], &[("a", "1"), ("z", "1")], &[]] {
        let answer = text(marked);
        let expected = identities(&parse(&answer));
        let read = delivered().parse_marked(answer.into()).unwrap();
        assert_eq!(identities(&read), expected);
    }
    // The fence is not marked, and not part of the answer.
    let read = delivered().at_most(1).parse_marked(text(&shown[..1]).into()).unwrap();
    assert_eq!(identities(&read), [identity("a", "1")]);
    let read = delivered().at_most(1).parse_marked(text(&shown).into()).unwrap();
    assert_eq!(identities(&read), [identity("a", "1"), identity("b", "1")]);
    assert!(delivered().parse_marked(Bytes::from_static(b"[")).is_err());
}

#[test]
fn an_answer_is_known_by_all_but_its_read_status() {
    let shown = r#"[{"recordId":"a","readStatus":"false","recordTimeStampISO":"t"}, {"recordTimeStampISO":"t","recordId":"b","readStatus":true}]"#;
    let page = parse(shown);
    let with = |from: &str, to: &str| page.same_but_for_status(2, shown.replace(from, to).as_bytes());
    assert!(with("", ""));
    for status in [r#""true""#, r#""false""#, "true", "false"] {
        assert!(with(r#""false""#, status) && with("true", status), "{status}");
    }
    for (from, to) in [
        (r#""false""#, r#""x","recordId":"z""#),
        (r#""false""#, "truer"),
        (r#""false""#, ""),
        ("true", r#"false,"recordId":"z""#),
        (r#""a""#, r#""z""#),
        (r#""b""#, r#""z""#),
        ("true}", "true,\"x\":1}"),
        ("]", r#",{"recordId":"c","recordTimeStampISO":"t"}]"#),
        ("]", ""),
    ] {
        assert!(!with(from, to), "{from} {to}");
    }
    assert!(!page.same_but_for_status(2, b""));
}

/// Any answer, with what may lead a search for braces astray: in strings, behind white space, in
/// odd records.
fn any_answer() -> impl Strategy<Value = String> {
    const TEXTS: [&str; 9] =
        [r#""""#, r#""}""#, r#""{""#, r#""\"}""#, r#""\\""#, r#""},{""#, r#""\ud800""#, r#""\u007d""#, r#""é""#];
    const ODD_KEYS: [&str; 4] = [r#""\u0072ecordId""#, r#""recordTimeStampIS\u004f""#, r#""readStatus""#, r#""x""#];
    const SCALARS: [&str; 7] = ["1e400", "-0", "123456789012345678901234567890.10", "null", "true", "{}", "[]"];
    let space = || prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t")];
    let string = || prop::sample::select(&TEXTS[..]).prop_map(str::to_owned);
    let key = prop_oneof![
        6 => Just(r#""recordId""#.to_owned()),
        6 => Just(r#""recordTimeStampISO""#.to_owned()),
        2 => prop::sample::select(&ODD_KEYS[..]).prop_map(str::to_owned),
        2 => string(),
    ];
    let list = |items: Vec<String>, [open, close]: [char; 2]| format!("{open}{}{close}", items.join(","));
    let object = move |value: BoxedStrategy<String>| {
        let field = (space(), key.clone(), space(), value, space())
            .prop_map(|(a, key, b, value, c)| format!("{a}{key}{b}:{value}{c}"));
        prop::collection::vec(field, 0..5).prop_map(move |fields| list(fields, ['{', '}']))
    };
    let leaf = prop_oneof![3 => string(), 1 => prop::sample::select(&SCALARS[..]).prop_map(str::to_owned)];
    let fields = object.clone();
    let value = leaf.prop_recursive(2, 8, 3, move |value| {
        let array = prop::collection::vec(value.clone(), 0..3).prop_map(move |items| list(items, ['[', ']']));
        prop_oneof![array, fields(value.boxed())]
    });
    let record = prop_oneof![9 => object(value.clone().boxed()), 1 => value];
    let records = prop::collection::vec((space(), record, space()), 0..4);
    (space(), records, space()).prop_map(move |(before, records, after)| {
        let records = records.into_iter().map(|(a, record, b)| format!("{a}{record}{b}")).collect();
        format!("{before}{}{after}", list(records, ['[', ']']))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_split_as_serde_json_splits_it(
        answer in any_answer(),
        damage in prop::option::of((any::<prop::sample::Index>(), prop::sample::select(&b"{}[],:\"\\ \n\xff\0"[..]))),
    ) {
        let mut answer = answer.into_bytes();
        if let Some((place, byte)) = damage {
            let place = place.index(answer.len());
            answer[place] = byte;
        }
        let page = Page::parse(Bytes::copy_from_slice(&answer), 1);
        let answer = in_utf_8(answer.into());
        let records = serde_json::from_slice::<Vec<&RawValue>>(&answer).ok();
        let texts = page.as_ref().ok().map(|page| page.texts().collect::<Vec<_>>());
        prop_assert_eq!(texts, records.map(|records| records.into_iter().map(|text| text.get().as_bytes()).collect()));
    }
}

#[test]
fn the_identity_of_a_record_is_found_wherever_it_is_written() {
    for record in [
        r#"{"recordId":"\u0061","recordTimeStampISO":"t","dataPayload":{"recordId":"no"}}"#,
        r#"{ "x" : [ 1 ] , "recordTimeStampISO" : "t" , "recordId" : "a" }"#,
        r#"{"\u0072ecordId":"a","recordTimeStampIS\u004f":"t"}"#,
        r#"{"recordId":"a","recordTimeStampISO":"t","x":{"{":"}"} }"#,
    ] {
        let page = peeked(&format!(" [ {record} ,\n{record}] "));
        assert_eq!(page.texts().collect::<Vec<_>>(), [record.as_bytes(); 2]);
        assert_eq!(identities(&page), [identity("a", "t"), identity("a", "t")], "{record}");
    }
}

#[test]
fn a_record_without_an_identity_is_kept() {
    for record in [
        r#"{"recordTimeStampISO":"t","recordId":7}"#,
        r#"{"recordTimeStampISO":"t"}"#,
        r#"{"recordId":"a","recordId":"b","recordTimeStampISO":"t"}"#,
        r#"{"recordId":"a","\u0072ecordId":"b","recordTimeStampISO":"t"}"#,
        r#"{"recordId":"a","recordTimeStampISO":"t","\ud800":"}"}"#,
        r#"["a","t"]"#,
        "{}",
        "1e400",
    ] {
        let page = parse(&format!("[{record},{record}]"));
        assert_eq!(page.texts().collect::<Vec<_>>(), [record.as_bytes(); 2]);
        assert_eq!(identities(&page), [], "{record}");
    }
}

#[test]
fn a_payload_may_be_as_deep_as_it_likes() {
    let deep = format!("{}7{}", "[".repeat(5000), "]".repeat(5000));
    let record = format!(r#"{{"recordId":"a","recordTimeStampISO":"t","dataPayload":{deep}}}"#);
    assert_eq!(deliver(&format!("[{record}]")), [record.as_str()]);
}

#[test]
fn an_id_that_is_no_unicode_text_stands_for_itself() {
    let page = peeked(r#"[{"recordId":"\ud800","recordTimeStampISO":"\u0074"}]"#);
    assert_eq!(identities(&page), [identity(r#""\ud800""#, "t")]);
}

#[test]
fn a_peek_shows_what_comes_before_a_record_without_an_identity() {
    let answer = r#"[{"recordId":"a","recordTimeStampISO":"t"},7,{"recordId":"b","recordTimeStampISO":"t"}]"#;
    let page = Peeked::new(Page::parse(answer.into(), 100).unwrap()).unwrap();
    assert_eq!((page.len(), page.is_short, page.is_last), (1, false, false));
}

#[test]
fn what_is_no_page_is_told_apart_and_not_quoted() {
    let error = |answer: &str| Page::parse(answer.to_owned().into(), 1).and_then(Peeked::new).unwrap_err().to_string();
    assert_eq!(error("<html>"), r#"the answer is not JSON: expected value at line 1 column 1: "<html>""#);
    assert_eq!(error(r#"[{"recordId":"#), "the answer is not JSON: EOF while parsing a value at line 1 column 13");
    assert_eq!(error(r#"{"records":["private"],"n":1}"#), "the answer is not an array of records");
    assert_eq!(error(r#""private""#), "the answer is not an array of records");
    let remedy = "set `deadLetterFile` to put such records aside and go on";
    let no_identity = |record: &str| error(&format!(r#"[{record},{{"recordId":"a","recordTimeStampISO":"t"}}]"#));
    for (record, problem) in [
        (r#"{"recordId":"private"}"#, "`recordTimeStampISO` is missing"),
        (r#"{"recordTimeStampISO":"t","recordId":null}"#, "`recordId` is not a string"),
        (r#"{"recordTimeStampISO":"t","recordId":"a","recordId":"b"}"#, "a field is there twice"),
        (r#"{"recordId":"a","recordTimeStampISO":"t","\ud800":1}"#, "a name in it is not Unicode text"),
        (r#""private""#, "it is not an object"),
        (r#"["private","t"]"#, "it is not an object"),
    ] {
        assert_eq!(no_identity(record), format!("record 1 of the answer has no identity: {problem}; {remedy}"));
    }
    let not_utf_8 = Page::parse(Bytes::from_static(b"[\xff]"), 1).unwrap_err().to_string();
    assert!(not_utf_8.starts_with("the answer is not JSON: "), "{not_utf_8}");
    let page = Page::parse(Bytes::from_static(b"[\"\xff\"]"), 1).unwrap();
    assert_eq!(page.texts().collect::<Vec<_>>(), [br#""\udcff""#]);
}

#[test]
fn an_html_page_is_quoted() {
    assert_eq!(invalid::excerpt(b" <html>Sorry</html>\n"), ": \"<html>Sorry</html>\"");
    assert_eq!(invalid::excerpt("\u{feff}<!DOCTYPE HTML><p>é".as_bytes()), ": \"<!DOCTYPE HTML><p>é\"");
    let long = format!("<html>{}", "é".repeat(5000));
    assert_eq!(invalid::excerpt(long.as_bytes()), format!(": \"<html>{}\"", "é".repeat(2045)));
    assert_eq!(invalid::excerpt(b"<html lang=\"en\">Sorry</html>"), ": an HTML page");
}

#[test]
fn what_may_be_records_is_not_quoted() {
    let records = r#"[{"recordId":"private","recordTimeStampISO":"t","dataPayload":"<html>private</html>"}]"#;
    let utf16 = |to_bytes: fn(u16) -> [u8; 2]| records.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
    let mut texts: Vec<Vec<u8>> = [
        "",
        "\u{feff}",
        &format!("\u{feff}{records}"),
        &format!("callback({records});"),
        &format!(")]}}',\n{records}"),
        &format!("while(1);{records}"),
        "{\"recordId\":\"private\"}\n{\"recordId\":\"private\"}\n",
        "17\nprivate\n",
        "recordId,dataPayload\na,private\n",
        "<List><item><recordId>private</recordId></item></List>",
        "W3sicmVjb3JkSWQiOiJwcml2YXRlIn1d",
        "\x1f\u{8b}private",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    texts.extend([utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)]);
    texts.push([b"\xff\xfe", &utf16(u16::to_le_bytes)[..]].concat());
    // Cut off at the beginning, anywhere.
    texts.extend((1..records.len()).map(|from| records.as_bytes()[from..].to_vec()));
    for text in texts {
        let excerpt = invalid::excerpt(&text);
        assert!(!excerpt.contains("private"), "{excerpt}");
        assert!(excerpt.is_empty() || text.starts_with(b"<html>"), "{excerpt}");
    }
}

#[test]
fn a_digest_tells_who_and_in_which_order() {
    let bookmark = Bookmark::of(&page(&[("a", "1"), ("b", "2")]));
    // none='\377\377\377\377\377\377\377\377' printf
    // "\1\0\0\0\0\0\0\0a\1\0\0\0\0\0\0\0001$none\1\0\0\0\0\0\0\0b\1\0\0\0\0\0\0\0002$none" |
    // sha256sum
    assert_eq!(bookmark.digest, "f46aee310879d571c89c7aea8893fc51509739cf8597f12a4338412a2f2dc91c");
    let state = returned(&bookmark);
    assert!(Ledger::default().prove(&page(&[("a", "1"), ("b", "2")]), &state));
    for other in [&[("b", "2"), ("a", "1")][..], &[("a", "1")], &[("a1", ""), ("b", "2")], &[]] {
        assert!(!Ledger::default().prove(&page(other), &state), "{other:?}");
    }
}

#[test]
fn twins_are_told_apart_by_the_text_of_their_payloads() {
    let twin = |payload: &str| format!(r#"{{"recordId":"a","recordTimeStampISO":"t"{payload}}}"#);
    let payloads =
        ["", r#","dataPayload":1"#, r#","dataPayload":1.0"#, r#","dataPayload":null"#, r#","dataPayload":{ }"#];
    let pages: Vec<_> = payloads.iter().map(|payload| peeked(&format!("[{}]", twin(payload)))).collect();
    for (index, page) in pages.iter().enumerate() {
        let equal = |other: &Peeked| other.fingerprints().eq(page.fingerprints());
        assert_eq!(pages.iter().position(equal), Some(index));
        assert_eq!(pages.iter().position(|other| Bookmark::of(other) == Bookmark::of(page)), Some(index));
    }
    let read = r#"[{"readStatus":"true","dataPayload":1,"recordTimeStampISO":"t","recordId":"a"}]"#;
    assert!(peeked(read).fingerprints().eq(pages[1].fingerprints()), "the read status does not count");
}

#[test]
fn only_what_is_committed_at_the_beginning_of_a_page_counts_as_delivered() {
    let both = [("a", "1"), ("b", "2")];
    let known = page(&both);
    let mut ledger = Ledger::default();
    assert!(ledger.prove(&known, &returned(&Bookmark::of(&known))));
    let count = |ledger: &mut Ledger, identities: &[(&str, &str)]| {
        ledger.delivered(page(identities)).map(|delivered| delivered.count())
    };
    assert_eq!(count(&mut ledger, &both), Some(2));
    assert_eq!(count(&mut ledger, &[("a", "1"), ("c", "1"), ("b", "2")]), Some(1));
    assert_eq!(count(&mut ledger, &[("c", "1"), ("a", "1")]), None);
    assert_eq!(count(&mut ledger, &[("a", "1"), ("a", "1"), ("b", "2")]), Some(3), "equal ones are one");
    ledger.note_read(page(&[("a", "1"), ("z", "1")]).fingerprints());
    assert_eq!(ledger.committed(), 1);
    ledger.note_unread(&page(&both));
    assert_eq!(ledger.committed(), 2, "unread after all");
    let mut last = page(&[("b", "2")]).into_page();
    last.is_last = true;
    ledger.note_unread(&last);
    assert_eq!(ledger.committed(), 1, "the other one is marked");
    assert_eq!(count(&mut ledger, &both), Some(2));
}

#[test]
fn what_is_in_flight_is_not_marked_until_it_is_committed() {
    let records: Vec<_> = page(&[("a", "1"), ("b", "2")]).fingerprints().collect();
    let written = || {
        let mut ledger = Ledger::default();
        let _ = page(&[("a", "1"), ("b", "2")]).deliver(&mut ledger, &mut Memory::default()).unwrap();
        ledger.send(&records);
        ledger
    };
    let delivered = |ledger: &mut Ledger| ledger.delivered(page(&[("a", "1"), ("b", "2")])).map(|it| it.count());
    let commit = |ledger: &mut Ledger| {
        let mut in_flight = InFlight::default();
        in_flight.add(Batch { records: records.clone(), ids: Vec::new(), written: 2, slipped_in: false });
        for batch in in_flight.acknowledge_all(ExitStatus::default(), true) {
            ledger.commit(batch);
        }
    };

    let mut ledger = written();
    assert_eq!(delivered(&mut ledger), None, "only written");
    ledger.forget(0);
    assert_eq!(ledger.waiting(), 2, "not forgotten");
    commit(&mut ledger);
    assert_eq!((ledger.committed(), delivered(&mut ledger)), (2, Some(2)));

    // Somebody else reads one meanwhile.
    let mut ledger = written();
    ledger.note_read([records[0]]);
    assert!(!ledger.are_unread(&records));
    assert_eq!(delivered(&mut ledger), None, "in flight, whoever has read it");
    commit(&mut ledger);
    assert_eq!(ledger.committed(), 1, "one is read");
    ledger.note_unread(&page(&[("a", "1"), ("b", "2")]));
    assert_eq!(ledger.committed(), 2, "and is not, after all");

    let mut ledger = written();
    ledger.take_back(&records);
    assert!(!ledger.contains(records[0]), "it is written again");
}

#[test]
fn read_records_are_told_by_their_status() {
    let answer = r#"[{"recordId":"a","recordTimeStampISO":"t","readStatus":"true"},
        {"recordId":"b","recordTimeStampISO":"t","readStatus":true},
        {"recordId":"c","recordTimeStampISO":"t","readStatus":"false"},
        {"recordId":"d","recordTimeStampISO":"t","readStatus":null},
        {"recordId":"e","recordTimeStampISO":"t"},
        {"recordId":"f","recordTimeStampISO":"t","readStatus":"True"},
        ["true"]]"#;
    let read = parse(answer).that_are_read(true);
    assert_eq!(identities(&read), [identity("a", "t"), identity("b", "t"), identity("f", "t")]);
}
