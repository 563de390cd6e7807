//! Nothing is lost, whatever dies: each test is named for what the tap survives.

use std::collections::BTreeSet;
use std::io::Read;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use streamduo_sandbox::{Endpoint, Identity, Rule};

use crate::tap::{Run, SCHEMA, Tap, identities, record_lines};

/// Five records in pages of two: a first, a middle and a last page.
fn three_pages() -> Tap {
    Tap::on(5).set("pageSize", 2).set("maxRetries", 5)
}

/// Everything came out once, in order, and is marked.
#[track_caller]
fn undisturbed(tap: &Tap, run: &Run, case: &str) {
    assert_eq!((run.code, run.stdout.as_str()), (0, tap.messages(&tap.records()).as_str()), "{case}\n{}", run.stderr);
    assert_eq!(tap.unread(), [], "{case}");
}

/// Runs every case in a thread of its own: most of the time they wait for a retry.
fn all_at_once(cases: Vec<(String, Tap)>) {
    thread::scope(|scope| {
        for (case, tap) in cases {
            scope.spawn(move || undisturbed(&tap, &tap.run(), &case));
        }
    });
}

/// A way in which an answer gets lost, by name.
type Loss = (&'static str, fn(Rule) -> Rule);

/// Every way in which the answer to a mark can get lost.
const LOSSES: [Loss; 7] = [
    ("closed", Rule::close),
    ("cut with a length", Rule::cut),
    ("cut without a length", Rule::cut_chunked),
    ("500", |rule| rule.status(500)),
    ("502", |rule| rule.status(502)),
    ("504", |rule| rule.status(504)),
    ("not JSON", Rule::not_json),
];

#[test]
fn a_lost_answer_to_a_mark_of_any_kind_on_any_page_once_and_twice() {
    let mut cases = Vec::new();
    for (kind, lose) in LOSSES {
        for applied in [true, false] {
            for page in 1..=3 {
                for times in [1, 2] {
                    let tap = three_pages();
                    let rule = Rule::on(Endpoint::Mark).calls(page..=page + times - 1);
                    tap.sandbox.script(lose(if applied { rule.applied() } else { rule }));
                    cases.push((format!("{kind}, applied: {applied}, mark {page}, {times} times"), tap));
                }
            }
        }
    }
    all_at_once(cases);
}

#[test]
fn a_mark_that_times_out_applied_or_not() {
    let mut cases = Vec::new();
    for applied in [true, false] {
        for page in 1..=3 {
            let tap = three_pages().set("requestTimeoutSeconds", 1);
            let rule = Rule::on(Endpoint::Mark).call(page);
            tap.sandbox.script(if applied { rule.applied().hold() } else { rule.hold() });
            cases.push((format!("applied: {applied}, mark {page}"), tap));
        }
    }
    all_at_once(cases);
}

#[test]
fn a_record_that_slips_in_when_the_answer_is_lost_is_found_by_looking_back() {
    let tap = three_pages();
    let stream = tap.stream.clone();
    // Between the first record of the page and the second.
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().close().before(move |service| {
        service.write_as(&stream, "late", "2022-02-01T15:16:25-05:00[America/New_York]", "\"late\"");
    }));
    let run = tap.run();
    assert_eq!((run.code, tap.unread()), (0, vec![]));
    let written = written(&run.stdout);
    assert_eq!(written.len(), 6, "each once");
    assert_eq!(written.into_iter().collect::<BTreeSet<_>>(), tap.read().into_iter().collect());
}

#[test]
fn a_mark_that_is_applied_after_the_one_that_took_its_place() {
    for late in [2, 3] {
        let tap = Tap::on(8).set("pageSize", 2).set("maxRetries", 5);
        // The first mark is lost, and not applied when the next peek looks. The second one is answered; then the service gets
        // round to the first, which hits records that nobody has seen.
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).status(504).header("retry-after", "0"));
        let stream = tap.stream.clone();
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(late).after(move |service| {
            service.mark_oldest(&stream, 2);
        }));
        let run = tap.run();
        assert_eq!((run.code, tap.unread()), (0, vec![]), "{}", run.stderr);
        nothing_is_lost(&tap, &run.stdout, &format!("applied after mark {late}"));
        assert_eq!(written(&run.stdout).len(), 8, "each once");
    }
}

/// The records on stdout, with repetitions; a line that was cut by a kill is none.
fn written(stdout: &str) -> Vec<Identity> {
    stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["type"] == "RECORD")
        .map(|message| Identity {
            record_id: message["record"]["recordId"].as_str().unwrap().to_owned(),
            timestamp: message["record"]["recordTimeStampISO"].as_str().unwrap().to_owned(),
        })
        .collect()
}

/// Whatever the service has as read was written.
#[track_caller]
fn nothing_is_lost(tap: &Tap, out: &str, case: &str) {
    let written: BTreeSet<_> = written(out).into_iter().collect();
    for identity in tap.read() {
        assert!(written.contains(&identity), "{case}: {identity:?} is read and was never written");
    }
}

#[test]
fn kill_9_at_every_kind_of_moment_again_and_again() {
    for applied in [true, false] {
        let tap = Tap::on(60).set("pageSize", 2);
        let mut out = String::new();
        let moments =
            [(Endpoint::Token, 1), (Endpoint::Peek, 1), (Endpoint::Mark, 1), (Endpoint::Peek, 2), (Endpoint::Mark, 2)];
        for (endpoint, request) in moments.into_iter().cycle().take(3 * moments.len()) {
            let call = tap.sandbox.count(endpoint) + request;
            let rule = Rule::on(endpoint).call(call);
            tap.sandbox.script(if applied { rule.applied().hold() } else { rule.hold() });
            let running = tap.start();
            tap.sandbox.wait_held(endpoint, call);
            out.push_str(&running.kill());
            nothing_is_lost(&tap, &out, &format!("applied: {applied}, killed at {endpoint:?} {request}"));
        }
        out.push_str(&tap.run().stdout);
        nothing_is_lost(&tap, &out, "the last run");
        let distinct: BTreeSet<_> = written(&out).into_iter().collect();
        assert_eq!(distinct, identities(&tap.records()).into_iter().collect());
        assert_eq!(tap.unread(), []);
        assert!(written(&out).len() <= 60 + 2 * 3 * moments.len(), "more than a page of duplicates for a kill");
    }
}

#[test]
fn a_target_that_dies_inside_a_page() {
    let tap = Tap::on_large(150);
    let mut running = tap.start();
    assert_eq!(running.line(), SCHEMA);
    let (code, stderr) = running.drop_reader().end(&tap);
    assert_eq!((code, tap.read()), (1, vec![]), "{stderr}");
    assert!(stderr.contains("CRITICAL the target has ended: look at its own error; "), "{stderr}");
}

#[test]
fn a_target_that_dies_after_a_page() {
    let tap = three_pages();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().hold());
    let mut running = tap.start();
    let out: String = (0..3).map(|_| running.line()).collect();
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    let (code, stderr) = {
        let dying = running.drop_reader();
        tap.sandbox.release();
        dying.end(&tap)
    };
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(tap.read(), identities(&tap.records()[..2]));
    nothing_is_lost(&tap, &out, "the first page");
}

#[test]
fn a_target_that_dies_before_a_record_that_slipped_in_is_written_is_told_what_is_lost() {
    let tap = Tap::on(1);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().hold().before(move |service| {
        service.write_as(&stream, "late", "2001-01-01T00:00:00-05:00[America/New_York]", "1");
    }));
    let mut running = tap.start();
    running.line();
    running.line();
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    let dying = running.drop_reader();
    tap.sandbox.release();
    let (code, stderr) = dying.end(&tap);
    let fatal = "CRITICAL 1 records are marked as read and could not be written to stdout (Broken pipe (os error 32)): \
                 recordId late";
    assert_eq!((code, stderr.lines().last()), (1, Some(fatal)));
}

#[test]
fn sigterm_right_after_the_first_record_from_somebody_who_then_stops_reading() {
    let tap = Tap::on_large(150);
    let mut running = tap.start();
    let first: String = (0..2).map(|_| running.line()).collect();
    assert_eq!(first, format!("{SCHEMA}{}", record_lines(&tap.records()[..1])));
    running.signal(Signal::TERM);
    let (code, stderr) = running.drop_reader().end(&tap);
    assert_eq!((code, tap.read()), (143, vec![]), "{stderr}");
    assert!(!stderr.contains("CRITICAL"), "{stderr}");
}

#[test]
fn a_signal_while_the_target_does_not_read_ends_the_run_after_the_page_and_marks_nothing() {
    let tap = Tap::on_large(150);
    let mut running = tap.start();
    assert_eq!(running.line(), SCHEMA);
    running.signal(Signal::TERM);
    let run = running.end(&tap);
    assert_eq!((run.code, tap.read()), (143, vec![]));
    assert_eq!(run.stdout, format!("{}{}", record_lines(&tap.records()[..100]), tap.state_line("write")));
}

#[test]
fn a_ctrl_c_that_takes_the_target_along() {
    let tap = Tap::on(1).set("pollIntervalSeconds", 86_400).args(&["--follow"]);
    let mut running = tap.start();
    for _ in 0..3 {
        running.line();
    }
    let dying = running.drop_reader();
    dying.signal(Signal::INT);
    let (code, stderr) = dying.end(&tap);
    assert_eq!(code, 130, "{stderr}");
    assert!(!stderr.contains("CRITICAL"), "{stderr}");
}

#[test]
fn a_signal_during_the_request_for_a_token() {
    let tap = Tap::on(1);
    tap.sandbox.script(Rule::on(Endpoint::Token).every().hold());
    let running = tap.start();
    tap.sandbox.wait_for(Endpoint::Token, 1);
    running.signal(Signal::INT);
    assert_eq!((running.end(&tap).code, tap.read()), (130, vec![]));
}

#[test]
fn two_taps_on_one_stream() {
    let tap = Tap::on(10).set("pageSize", 3);
    // The first tap has peeked and waits to mark; a second one reads the whole stream meanwhile.
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).hold());
    let first = tap.start();
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    let second = tap.run();
    tap.sandbox.release();
    let first = first.end(&tap);
    assert_eq!((second.code, second.stdout), (0, tap.messages(&tap.records())));
    // Its mark found nothing unread, which is counted as a failure: there are none to forgive here.
    assert_eq!((first.code, first.last_words()), (1, "CRITICAL the service has marked no record"));
    nothing_is_lost(&tap, &format!("{}{}", first.stdout, record_lines(&tap.records())), "two taps");
}

#[test]
fn another_consumer_that_marks_between_peek_and_mark() {
    let tap = Tap::on(6).set("pageSize", 2);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(move |service| {
        service.mark_oldest(&stream, 1);
    }));
    let run = tap.run();
    undisturbed(&tap, &run, "another consumer");
    assert!(run.stderr.contains("INFO 1 records slipped in between peek and mark"), "{}", run.stderr);
}

#[test]
fn records_that_appear_before_the_oldest_unread_with_every_page() {
    let tap = Tap::on(7).set("pageSize", 2);
    let stream = tap.stream.clone();
    let mut late = 0;
    tap.sandbox.script(Rule::on(Endpoint::Mark).calls(1..=20).before(move |service| {
        late += 1;
        let stamp = format!("2001-01-01T00:00:{late:02}-05:00[America/New_York]");
        service.write_as(&stream, &format!("late-{late}"), &stamp, "1");
    }));
    let run = tap.run();
    let written = written(&run.stdout);
    assert_eq!((run.code, tap.unread()), (0, vec![]));
    assert_eq!(written.len(), tap.records().len(), "each once");
    nothing_is_lost(&tap, &run.stdout, "late records");
}

#[test]
fn several_records_at_one_time_stamp() {
    let tap = Tap::on(0).set("pageSize", 2);
    let stamp = "2022-02-01T15:16:23-05:00[America/New_York]";
    for id in 0..7 {
        tap.sandbox.write_as(&tap.stream, &id.to_string(), stamp, "1");
    }
    undisturbed(&tap, &tap.run(), "one time stamp");
}

#[test]
fn pages_that_the_service_caps_for_peeks_for_marks_and_for_both() {
    for (peeks, marks) in [(Some(100), None), (None, Some(7)), (Some(100), Some(30)), (Some(120), Some(100))] {
        let tap = Tap::on(250);
        for (endpoint, cap) in [(Endpoint::Peek, peeks), (Endpoint::Mark, marks)] {
            if let Some(cap) = cap {
                tap.sandbox.script(Rule::on(endpoint).every().cap(cap));
            }
        }
        undisturbed(&tap, &tap.run(), &format!("peeks {peeks:?}, marks {marks:?}"));
    }
}

#[test]
fn a_token_that_ends_between_peek_and_mark() {
    let tap = three_pages().set("maxRetries", 0);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(2).revoke_token());
    undisturbed(&tap, &tap.run(), "revoked");
    assert_eq!(tap.sandbox.count(Endpoint::Token), 2);
}

#[test]
fn a_service_that_is_down_for_long_and_comes_back() {
    let tap = three_pages().set("maxRetries", 50);
    for endpoint in [Endpoint::Token, Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).calls(1..=40).status(503).header("retry-after", "0"));
    }
    undisturbed(&tap, &tap.run(), "down");
}

#[test]
fn a_service_that_wants_it_slower() {
    let tap = three_pages();
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(429).header("retry-after", "1"));
    tap.sandbox
        .script(Rule::on(Endpoint::Mark).call(2).status(429).header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"));
    let run = tap.run();
    undisturbed(&tap, &run, "429");
    assert!(run.stderr.contains("trying again in # s (1 of 5)"), "{}", run.stderr);
}

#[test]
fn answers_that_take_their_time() {
    let tap = three_pages();
    for endpoint in [Endpoint::Token, Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).call(1).applied().hold());
    }
    let running = tap.start();
    for endpoint in [Endpoint::Token, Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.wait_held(endpoint, 1);
        tap.sandbox.release();
    }
    undisturbed(&tap, &running.end(&tap), "slow");
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_page() {
    let tap = Tap::on_large(150);
    let file = tap.path("out.jsonl");
    // 100 blocks of 512 bytes, as POSIX counts for `ulimit -f`: less than the first page.
    let command = tap.command();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg("trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"");
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    let output = shell.stdout(std::fs::File::create(&file).unwrap()).output().unwrap();
    let mut out = String::new();
    std::fs::File::open(&file).unwrap().read_to_string(&mut out).unwrap();
    let stderr = tap.tidy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("CRITICAL the disk behind stdout is full: make room; "), "{stderr}");
    assert_eq!(tap.read(), []);
    assert!(out.starts_with(SCHEMA));
}
