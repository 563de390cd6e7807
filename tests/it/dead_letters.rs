//! `deadLetterFile`: records that no target could load are put aside, and the run goes on.

use std::fs;
use std::io::Write;
use std::process::Command;

use regex::Regex;
use rustix::process::Signal;
use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Identity, Rule};

use crate::tap::{Run, SCHEMA, Tap, identities, record_lines, schema_and, written_identity};
use crate::target::{committed, with_target};

/// Records without an identity, and what is wrong with each.
const ODD: [(&str, &str); 9] = [
    (r#"{"recordId":"a","readStatus":"false","dataPayload":{"n": 10.00}}"#, "`recordTimeStampISO` is missing"),
    (r#"{"recordTimeStampISO":"2022-02-01T15:16:23Z"}"#, "`recordId` is missing"),
    (r#"{"recordId":null,"recordTimeStampISO":"2022-02-01T15:16:23Z"}"#, "`recordId` is not a string"),
    (r#"{"recordId":"b","recordTimeStampISO":17}"#, "`recordTimeStampISO` is not a string"),
    (r#"{"recordId":"a","recordId":"b","recordTimeStampISO":"2022-02-01T15:16:23Z"}"#, "a field is there twice"),
    (r#"{"recordId":"a","recordTimeStampISO":"t","\ud800":1e400}"#, "a name in it is not Unicode text"),
    ("7", "it is not an object"),
    ("[[\"a\"]]", "it is not an object"),
    ("null", "it is not an object"),
];

/// A tap that puts records aside, and whose stream holds sample records and these texts in turn.
fn with_texts(texts: &[&str]) -> Tap {
    let tap = Tap::with_records(0);
    for text in texts {
        tap.sandbox.fill(&tap.stream, 2);
        tap.sandbox.write_text(&tap.stream, text);
    }
    tap.sandbox.fill(&tap.stream, 1);
    with_dead_letter_file(tap)
}

/// Has a tap put records aside.
pub fn with_dead_letter_file(tap: Tap) -> Tap {
    let path = tap.path("aside.jsonl");
    tap.set("deadLetterFile", path.to_str().unwrap())
}

/// The sample records: those that have an identity.
fn good(tap: &Tap) -> Vec<streamduo_sandbox::Record> {
    let mut records = tap.records();
    records.retain(|record| record.json.contains(r#""carData""#));
    records
}

/// What was put aside, with a placeholder for the time.
fn dead_letters(tap: &Tap) -> String {
    let text = fs::read_to_string(tap.path("aside.jsonl")).unwrap_or_default().replace(&tap.stream, "STREAM");
    let time = Regex::new(r#""time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z""#).unwrap();
    time.replace_all(&text, r#""time":"TIME""#).into_owned()
}

/// The identities of the records that were put aside. Each is an object; what it lacks is empty, as
/// in the sandbox's lists.
pub fn put_aside_identities(tap: &Tap) -> impl Iterator<Item = Identity> {
    let text = fs::read_to_string(tap.path("aside.jsonl")).unwrap_or_default();
    // A kill may have cut the last line.
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.into_iter().map(|line| {
        let text = |name: &str| line["record"][name].as_str().unwrap_or_default().to_owned();
        Identity { record_id: text("recordId"), timestamp: text("recordTimeStampISO") }
    })
}

/// The line of the file for a record.
fn line(record: &str, reason: &str) -> String {
    let reason = json!(reason);
    format!("{{\"time\":\"TIME\",\"streamId\":\"STREAM\",\"reason\":{reason},\"record\":{record}}}\n")
}

fn lines(odd: &[(&str, &str)]) -> String {
    odd.iter().map(|(record, reason)| line(record, reason)).collect()
}

fn texts(odd: &[(&'static str, &str)]) -> Vec<&'static str> {
    odd.iter().map(|(text, _)| *text).collect()
}

/// The run has written the good records once and put the odd ones aside once; all are marked.
#[track_caller]
fn assert_all_delivered(run: &Run, tap: &Tap, odd: &[(&str, &str)]) {
    run.assert_succeeds(&tap.messages(&good(tap)));
    assert_eq!(dead_letters(tap), lines(odd), "{}", run.stderr);
    assert_eq!(tap.unread(), []);
}

#[test]
fn a_record_without_an_identity_is_put_aside_as_it_came_and_marked() {
    let tap = with_texts(&texts(&ODD));
    let run = tap.run();
    assert_all_delivered(&run, &tap, &ODD);
    let path = tap.path("aside.jsonl");
    assert_eq!(
        run.stderr,
        format!(
            "INFO reading the unread records of stream STREAM from http://HOST/\n\
             WARNING 9 records cannot be delivered, and are put aside in DIR/aside.jsonl: the first one: \
             `recordTimeStampISO` is missing\n\
             INFO records: 19 records written, 9 put aside, 28 marked as read in # s\n\
             INFO METRIC: {}\nINFO METRIC: {}\n",
            r#"{"type":"counter","metric":"record_count","value":19,"tags":{"endpoint":"records"}}"#,
            r#"{"type":"timer","metric":"job_duration","value":#,"tags":{"job_type":"records","status":"succeeded"}}"#,
        )
    );
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "records are private");
}

#[test]
fn pages_of_every_size_put_each_record_aside_once() {
    for page_size in 1..=6 {
        let tap = with_texts(&texts(&ODD)).set("pageSize", page_size);
        assert_all_delivered(&tap.run(), &tap, &ODD);
    }
}

#[test]
fn records_that_are_equal_in_everything_are_put_aside_once() {
    for page_size in 1..=4 {
        let tap = Tap::with_records(0).set("pageSize", page_size);
        (0..5).for_each(|_| tap.sandbox.write_text(&tap.stream, "7"));
        let tap = with_dead_letter_file(tap);
        let run = tap.run();
        assert_eq!((run.code, run.stdout.as_str()), (0, &*(SCHEMA.to_owned() + &tap.state_line("write"))));
        assert_eq!((dead_letters(&tap), tap.unread()), (line("7", "it is not an object"), vec![]));
    }
}

#[test]
fn a_record_over_several_lines_is_put_aside_on_one() {
    let tap = with_texts(&["{\n \"x\": [1.0,\r\n 2]}"]);
    let run = tap.run();
    assert_all_delivered(&run, &tap, &[(r#"{"x":[1.0,2]}"#, "`recordId` is missing")]);
}

#[test]
fn a_time_stamp_that_cannot_be_written_as_rfc_3339_puts_its_record_aside() {
    let tap = Tap::with_records(1).set("timestampFormat", "rfc3339");
    let odd = tap.sandbox.write_as(&tap.stream, "odd", "yesterday", "1");
    tap.sandbox.write_as(&tap.stream, "good", "2026-01-31T08:00:00+01:00", "2");
    let without = tap.run();
    let problem = "recordTimeStampISO \"yesterday\": ";
    assert_eq!(without.code, 1);
    assert!(without.last_log_line().contains(problem), "{}", without.stderr);
    let remedy = "; set `timestampFormat` to `original`, or `deadLetterFile` to put such records aside and go on";
    assert!(without.last_log_line().ends_with(remedy), "{}", without.stderr);
    assert_eq!(tap.read(), []);

    let tap = with_dead_letter_file(tap);
    let run = tap.run();
    run.assert_drains(&tap);
    assert_eq!(run.record_lines().lines().count(), 2, "{}", run.stdout);
    let letter: Value = serde_json::from_str(&dead_letters(&tap)).unwrap();
    assert_eq!(letter["record"].to_string(), odd.json.replace(&tap.stream, "STREAM"));
    assert!(letter["reason"].as_str().unwrap().starts_with(problem), "{letter}");
    assert!(!letter["reason"].as_str().unwrap().contains("deadLetterFile"), "{letter}");
}

#[test]
fn what_slips_in_is_put_aside_at_once() {
    let tap = with_dead_letter_file(Tap::with_records(3));
    let stream = tap.stream.clone();
    // Another consumer marks a record, so that the mark hits the odd one.
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(move |service| {
        service.mark_oldest(&stream, 1);
        service.write_text(&stream, "7");
    }));
    let run = tap.run();
    assert_all_delivered(&run, &tap, &[("7", "it is not an object")]);
    run.assert_logged("INFO 1 record that slipped in between peek and mark is written now: recordId without an id");
}

#[test]
fn a_lost_answer_puts_no_record_aside_twice() {
    // None has a time stamp: a look back goes by it, and those in ODD do not fit the place of their
    // record.
    let odd = [ODD[0], ODD[6], ODD[7], ODD[8]];
    for applied in [true, false] {
        let tap = with_texts(&texts(&odd)).set("pageSize", 4).set("maxRetries", 3);
        for call in [1, 3] {
            let rule = Rule::on(Endpoint::Mark).call(call).cut();
            tap.sandbox.script(if applied { rule.applied() } else { rule });
        }
        assert_all_delivered(&tap.run(), &tap, &odd);
    }
}

#[test]
fn without_any_time_stamp_there_is_nothing_to_look_back_from_and_a_line_says_so() {
    let tap = Tap::with_records(0).set("maxRetries", 3);
    tap.sandbox.write_text(&tap.stream, "7");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().cut());
    let tap = with_dead_letter_file(tap);
    let run = tap.run();
    assert_eq!((run.code, dead_letters(&tap)), (0, line("7", "it is not an object")), "{}", run.stderr);
    assert!(run.stderr.contains("no record shows a time stamp: one that slipped in"), "{}", run.stderr);
}

#[test]
fn a_kill_before_the_mark_puts_the_record_aside_again() {
    let tap = with_texts(&["7"]);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).hold());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    running.kill();
    assert_eq!((dead_letters(&tap), tap.read()), (line("7", "it is not an object"), vec![]));
    assert_eq!((tap.run().code, tap.unread()), (0, vec![]));
    assert_eq!(dead_letters(&tap), line("7", "it is not an object").repeat(2));
}

#[test]
fn a_line_that_was_cut_does_not_spoil_the_next_one() {
    let tap = with_texts(&["7"]);
    tap.write_file("aside.jsonl", "{\"time\":\"2");
    assert_eq!(tap.run().code, 0);
    assert_eq!(dead_letters(&tap), format!("{{\"time\":\"2\n{}", line("7", "it is not an object")));
}

#[test]
fn a_state_that_comes_back_marks_what_was_put_aside() {
    let tap = with_texts(&texts(&ODD)).set("acknowledge", "commit").set("maxPending", 7);
    let mut state = json!({});
    let mut written = String::new();
    while !tap.unread().is_empty() {
        let run = tap.run_with("--state", tap.write_file("state.json", &state.to_string()));
        assert_eq!(run.code, 0, "{}", run.stderr);
        written += &run.record_lines();
        state = serde_json::from_str::<Value>(run.stdout.lines().last().unwrap()).unwrap()["value"].take();
    }
    assert_eq!(written, record_lines(&good(&tap)));
    assert_eq!(dead_letters(&tap), lines(&ODD));
}

#[test]
fn the_closed_loop_puts_records_aside_and_marks_them_with_what_the_target_commits() {
    for every in ["0", "1", "3"] {
        for max_pending in [1, 4, 100] {
            let tap = with_target(with_texts(&texts(&ODD)).set("maxPending", max_pending), &["--every", every]);
            let run = tap.run();
            run.assert_drains(&tap);
            assert_eq!(committed(&tap), identities(&good(&tap)));
            assert_eq!(dead_letters(&tap), lines(&ODD));
        }
    }
}

#[test]
fn without_a_file_what_comes_before_such_a_record_is_delivered_and_marked_once() {
    for (acknowledge, by_id, page_size) in
        [("write", false, 3), ("write", true, 100), ("target", false, 3), ("target", false, 100), ("target", true, 100)]
    {
        let tap = Tap::with_records(7).set("pageSize", page_size).set("maxPending", page_size);
        tap.sandbox.write_text(&tap.stream, r#"{"recordId":"odd"}"#);
        tap.sandbox.fill(&tap.stream, 2);
        let tap = if by_id { tap.set("markBy", "id") } else { tap };
        let tap = if acknowledge == "target" { with_target(tap, &["--every", "0"]) } else { tap };
        let before = identities(&tap.records()[..7]);
        let mut rows = Vec::new();
        for _ in 0..2 {
            let run = tap.run();
            assert_eq!(run.code, 1, "{acknowledge} {by_id} {page_size}: {}", run.stderr);
            assert!(
                run.last_log_line().starts_with("CRITICAL record 1 of the answer has no identity: "),
                "{}",
                run.stderr
            );
            assert_eq!(tap.read(), before, "{acknowledge} {by_id} {page_size}: {}", run.stderr);
            rows.extend(run.stdout.lines().filter_map(written_identity));
        }
        if acknowledge == "target" {
            rows = committed(&tap);
        }
        assert_eq!(rows, before, "{acknowledge} {by_id} {page_size}");
    }
}

#[test]
fn a_target_that_fails_leaves_what_was_put_aside_unread() {
    let tap = with_target(with_texts(&["7"]), &["--crash-at", "2"]);
    let run = tap.run();
    assert_eq!((run.code, tap.read()), (3, vec![]), "{}", run.stderr);
    assert!(run.last_log_line().ends_with("; 4 records that it has not committed stay unread"), "{}", run.stderr);
    // A line for each target that has got the records around it.
    assert_eq!(dead_letters(&tap), line("7", "it is not an object").repeat(2));
}

#[test]
fn mark_by_id_marks_a_record_without_an_id_by_its_position() {
    let tap = with_texts(&texts(&ODD)).set("markBy", "id");
    let run = tap.run();
    assert_all_delivered(&run, &tap, &ODD);
    assert!(tap.sandbox.count(Endpoint::Mark) > 0, "{}", run.stderr);
}

#[test]
fn a_replay_puts_aside_what_has_no_id_or_no_time_and_goes_on() {
    for page_size in [1, 2, 3, 100] {
        let tap = Tap::with_records(2);
        let stamp = &tap.records()[1].identity.timestamp;
        let without_id = format!(r#"{{"recordTimeStampISO":"{stamp}"}}"#);
        let odd = [
            (without_id.as_str(), "`recordId` is missing"),
            (r#"{"recordId":"x"}"#, "`recordTimeStampISO` is missing"),
            (
                r#"{"recordId":"x","recordTimeStampISO":"yesterday"}"#,
                "`recordTimeStampISO` is not a time stamp with an offset",
            ),
        ];
        for (text, _) in &odd {
            tap.sandbox.write_text(&tap.stream, text);
            tap.sandbox.fill(&tap.stream, 2);
        }
        let tap = with_dead_letter_file(tap).set("acknowledge", "never").set("pageSize", page_size);
        let run = tap.run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(run.record_lines(), record_lines(&good(&tap)), "{page_size}");
        assert_eq!((dead_letters(&tap), tap.read()), (lines(&odd), vec![]), "{page_size}");
    }
}

#[test]
fn a_look_leaves_such_records_out_and_writes_no_file() {
    let tap = with_texts(&["7"]).args(&["--peek", "4"]);
    let run = tap.run();
    assert_eq!((run.code, run.stdout.as_str()), (0, &*schema_and(&good(&tap))), "{}", run.stderr);
    run.assert_logged("WARNING 1 record cannot be shown, and is left out: it is not an object");
    assert!(!tap.path("aside.jsonl").exists());
    assert_eq!(tap.read(), []);
}

#[test]
fn a_look_at_records_that_cannot_be_shown_does_not_say_that_there_are_none() {
    let tap = Tap::with_records(0);
    tap.sandbox.write_text(&tap.stream, "7");
    let tap = with_dead_letter_file(tap).args(&["--peek", "4"]);
    let run = tap.run();
    run.assert_succeeds("");
    assert_eq!(tap.read(), []);
    run.assert_logged("INFO no unread record can be shown");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_before_any_request() {
    for (name, problem) in [
        (
            "none/aside.jsonl",
            "no file can be made in DIR/none: No such file or directory (os error 2); make that folder writable, or name a \
             file in another one",
        ),
        (
            ".",
            "it is not a regular file, and what is written there may not be kept; name a file that can be appended to",
        ),
        (
            "fifo",
            "it is not a regular file, and what is written there may not be kept; name a file that can be appended to",
        ),
    ] {
        for args in [&[][..], &["--test"], &["--", "/bin/true"]] {
            let tap = Tap::with_records(1).args(args);
            assert!(Command::new("mkfifo").arg(tap.path("fifo")).status().unwrap().success());
            let path = tap.path(name);
            let tap = tap.set("deadLetterFile", path.to_str().unwrap());
            tap.run().assert_refused(&tap, 2, &format!("`deadLetterFile` DIR/{name}: {problem}"));
            assert_eq!(tap.sandbox.requests(), 0);
        }
    }
}

#[test]
fn a_full_disk_ends_the_run_and_marks_nothing() {
    let tap = with_texts(&["7"]);
    let run = tap.run_command(&mut tap.shell("trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""));
    assert_eq!((run.code, tap.read()), (1, vec![]), "{}", run.stderr);
    assert_eq!(
        run.last_log_line(),
        "CRITICAL cannot put 1 record aside in `deadLetterFile` DIR/aside.jsonl: File too large (os error 27); what \
         was not delivered stays unread: fix that and run again"
    );
    assert_all_delivered(&tap.run(), &tap, &[("7", "it is not an object")]);
}

#[test]
fn a_test_of_the_settings_makes_no_file() {
    let tap = with_texts(&["7"]).args(&["--test"]);
    let run = tap.run();
    run.assert_succeeds("");
    assert_eq!(tap.read(), []);
    assert!(!tap.path("aside.jsonl").exists());
}

#[test]
fn a_stop_during_a_mark_says_whether_what_was_put_aside_comes_again() {
    for (is_answered, end) in [
        (true, "all that was written is marked as read"),
        (false, "what was written last may not be marked as read yet, and comes again"),
    ] {
        let tap = with_dead_letter_file(Tap::with_records(0));
        tap.sandbox.write_text(&tap.stream, "7");
        let rule = Rule::on(Endpoint::Mark).call(1).hold();
        tap.sandbox.script(if is_answered { rule } else { rule.cut() });
        let running = tap.start();
        tap.sandbox.wait_held(Endpoint::Mark, 1);
        running.signal(Signal::TERM);
        tap.sandbox.release();
        let run = running.wait(&tap);
        assert_eq!((run.code, tap.unread().is_empty()), (143, is_answered), "{}", run.stderr);
        assert_eq!(run.last_log_line(), format!("WARNING stopped by SIGTERM: {end}"));
        assert_eq!(dead_letters(&tap), line("7", "it is not an object"));
    }
}

#[test]
fn a_record_that_the_service_cannot_mark_is_not_put_aside_for_ever() {
    for mark_by in ["position", "id"] {
        for target in [false, true] {
            let tap = Tap::with_records(0).set("pageSize", 2).set("maxPending", 2).set("markBy", mark_by);
            for text in ["7", "8", "9"] {
                tap.sandbox.write_text(&tap.stream, text);
            }
            // It says that it has marked the record, and shows it as unread again.
            tap.sandbox.script(Rule::on(Endpoint::Mark).every().json("[7]"));
            let tap = with_dead_letter_file(tap);
            let tap = if target { with_target(tap, &["--every", "1"]) } else { tap };
            let run = tap.run();
            let fatal = "CRITICAL the service shows records as unread although it has answered that they are marked";
            assert_eq!((run.code, run.last_log_line()), (1, fatal), "{}", run.stderr);
            assert_eq!(dead_letters(&tap), ["7", "8"].map(|text| line(text, "it is not an object")).concat());
        }
    }
}

#[test]
fn a_file_that_is_moved_or_deleted_while_the_tap_follows_is_made_again() {
    let tap = with_dead_letter_file(Tap::with_records(0)).set("pollIntervalSeconds", 0).args(&["--follow"]);
    let path = tap.path("aside.jsonl");
    tap.sandbox.write_text(&tap.stream, "1");
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Mark, 1);
    fs::rename(&path, tap.path("moved.jsonl")).unwrap();
    tap.sandbox.write_text(&tap.stream, "2");
    tap.sandbox.wait_answered(Endpoint::Mark, 2);
    assert_eq!(dead_letters(&tap), line("2", "it is not an object"));
    fs::remove_file(&path).unwrap();
    tap.sandbox.write_text(&tap.stream, "3");
    tap.sandbox.wait_answered(Endpoint::Mark, 3);
    // Another run that shares the file has left a line without an end.
    fs::File::options().append(true).open(&path).unwrap().write_all(b"{\"time\":\"2").unwrap();
    tap.sandbox.write_text(&tap.stream, "4");
    tap.sandbox.wait_answered(Endpoint::Mark, 4);
    let [three, four] = ["3", "4"].map(|record| line(record, "it is not an object"));
    assert_eq!(dead_letters(&tap), format!("{three}{{\"time\":\"2\n{four}"));
    // It cannot be made again: nothing more is marked.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    tap.sandbox.write_text(&tap.stream, "5");
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.unread().len()), (1, 1), "{}", run.stderr);
    assert_eq!(
        run.last_log_line(),
        "CRITICAL cannot put 1 record aside in `deadLetterFile` DIR/aside.jsonl: it is not a regular file, and what \
         is written there may not be kept; what was not delivered stays unread: fix that and run again"
    );
}

#[test]
fn the_file_behind_stdout_or_stderr_is_refused_for_what_is_written_there_is_overwritten() {
    for (name, redirect) in
        [("/dev/stdout", ">\"$DIR/file\""), ("/dev/stderr", "2>\"$DIR/file\""), ("file", ">\"$DIR/file\"")]
    {
        let tap = Tap::with_records(0);
        tap.sandbox.write_text(&tap.stream, "7");
        let path = tap.path(name);
        let tap = tap.set("deadLetterFile", path.to_str().unwrap());
        let dir = tap.path("").display().to_string();
        let run = tap.run_command(tap.shell(&format!("exec \"$0\" \"$@\" {redirect}")).env("DIR", dir));
        let log = run.stderr + &fs::read_to_string(tap.path("file")).unwrap();
        assert!(
            log.contains("it is the file behind stdout or stderr, and what is written there may be overwritten"),
            "{log}"
        );
        assert_eq!((run.code, tap.sandbox.requests()), (2, 0), "{log}");
    }
}

#[test]
fn a_full_disk_in_the_middle_of_a_page_lets_the_target_commit_what_it_has() {
    let tap = Tap::with_records(100);
    tap.sandbox.write_text(&tap.stream, "7");
    tap.sandbox.write_text(&tap.stream, &format!("\"{}\"", "x".repeat(600_000)));
    let tap = with_target(with_dead_letter_file(tap).set("maxPending", 300), &["--every", "0"]);
    let run = tap.run_command(&mut tap.shell("trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""));
    assert_eq!((run.code, tap.unread().len()), (1, 2), "{}", run.stderr);
    assert_eq!(committed(&tap), identities(&good(&tap)));
    run.assert_logged("INFO records: 100 records written, 100 marked as read in # s");
}

#[test]
fn a_look_at_nothing_but_such_records_does_not_say_that_there_is_none() {
    let tap = with_dead_letter_file(Tap::with_records(0)).args(&["--peek", "3"]);
    tap.sandbox.write_text(&tap.stream, "7");
    let run = tap.run();
    run.assert_succeeds("");
    assert_eq!(tap.read(), []);
    run.assert_logged("INFO no unread record can be shown");
    run.assert_logged("INFO records: 0 records written, 1 left out, 0 marked as read in # s");
}

#[test]
fn a_mark_of_a_state_that_is_lost_and_applied_later_is_not_followed_by_another() {
    let tap = Tap::with_records(0);
    tap.sandbox.write_text(&tap.stream, "7");
    tap.sandbox.fill(&tap.stream, 3);
    let tap = with_dead_letter_file(tap).set("acknowledge", "commit").set("maxPending", 4).set("maxRetries", 3);
    let state = serde_json::from_str::<Value>(tap.run().stdout.lines().last().unwrap()).unwrap()["value"].take();
    tap.sandbox.fill(&tap.stream, 3);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).cut());
    // The next peek shows the record that has no time stamp, and no other.
    let peeks = tap.sandbox.count(Endpoint::Peek);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(peeks + 2).cap(1));
    let run = tap.run_with("--state", tap.write_file("state.json", &state.to_string()));
    assert_eq!((run.code, tap.sandbox.count(Endpoint::Mark)), (0, 1), "{}", run.stderr);
    run.assert_logged(
        "INFO the answer to a mark was lost, and the mark may still be applied: the next run marks what \
         is left",
    );
}
