//! `tap-streamduo -c config.json -- TARGET`: the tap runs the target, and marks what it has
//! committed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::thread;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::dead_letters::put_aside_identities;
use crate::tap::{EARLY, Run, Tap, bare_command, identities, in_terminal};
use crate::target::{
    assert_marked_is_committed, committed, hold_target, make_fifo, target_program, wait_for_both, with_script,
    with_target, with_target_script, with_waiting_target,
};

/// The run ended with this code and this last line. stdout is empty.
#[track_caller]
fn assert_failed(run: &Run, code: i32, fatal: &str) {
    assert_eq!((run.code, run.stdout.as_str(), run.last_log_line()), (code, "", fatal), "{}", run.stderr);
}

/// What an error says of the record that was tried alone.
fn alone(tap: &Tap, record: usize) -> String {
    format!("; it fails with recordId {} alone, too (see `deadLetterFile`)", tap.records()[record].identity.record_id)
}

#[test]
fn every_record_is_committed_once_and_marked_whenever_the_target_acknowledges() {
    let cases = [
        ("state", &["--every", "1"][..]),
        ("state", &["--every", "3"]),
        ("state", &["--every", "0"]),
        ("exit", &["--silent", "--every", "0"]),
    ];
    thread::scope(|scope| {
        for records in [0, 1, 100, 5_000, 25_000] {
            for (proof, options) in cases {
                scope.spawn(move || {
                    let tap = Tap::with_records(records).set("maxPending", 4_000).set("targetProof", proof);
                    let tap = with_target(tap, options);
                    let run = tap.run();
                    let case = format!("{records} records, {options:?}");
                    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{case}: {}", run.stderr);
                    assert_eq!(committed(&tap), identities(&tap.records()), "{case}");
                    assert_eq!(tap.unread(), [], "{case}");
                    assert_eq!(tap.path("rows").exists(), records > 0, "{case}: an empty stream starts no target");
                });
            }
        }
    });
}

#[test]
fn records_with_one_id_and_one_time_stamp_are_committed_once_for_each_payload() {
    for payloads in [[1, 2, 3, 4, 5], [1, 1, 2, 1, 1]] {
        let mut distinct = payloads.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        for max_pending in 1..=3 {
            for every in ["0", "1", "2"] {
                let tap = Tap::with_records(0).set("maxPending", max_pending);
                for payload in payloads {
                    tap.sandbox.write_as(&tap.stream, "twin", EARLY, &payload.to_string());
                }
                let tap = with_target(tap, &["--every", every]);
                let run = tap.run();
                let case = format!("{payloads:?}, {max_pending} at once, every {every}: {}", run.stderr);
                run.assert_drains_when(&tap, &case);
                let rows = fs::read_to_string(tap.path("rows")).unwrap();
                let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
                assert!(rows.iter().map(|row| &row["dataPayload"]).eq(&distinct), "{case}");
                assert!(!run.stderr.contains("WARN"), "{case}");
            }
        }
    }
}

#[test]
fn no_more_than_max_pending_records_are_out() {
    // The target commits at the end of its input only, so each window is a target of its own.
    let tap = Tap::with_records(1_000).set("maxPending", 300);
    let tap = with_target(tap, &["--every", "0"]);
    let run = tap.run();
    assert_eq!((run.code, committed(&tap)), (0, identities(&tap.records())));
    assert_eq!(run.stderr.matches("INFO streamduo-sandbox is started\n").count(), 4, "{}", run.stderr);
    let most = tap.sandbox.journal().iter().filter_map(|call| call.record_count).max();
    assert!(most <= Some(301), "the fence is peeked beside them: {most:?}");
}

#[test]
fn a_hundred_thousand_records_and_more_start_their_target_once() {
    let tap = Tap::with_records(100_500);
    let tap =
        with_script(tap, r#"grep '^{"type":"STATE"' | tail -n 1 | sed 's/^{"type":"STATE","value":\(.*\)}$/\1/'"#);
    let run = tap.run();
    run.assert_drains(&tap);
    assert_eq!(run.stderr.matches("INFO sh is started\n").count(), 1, "{}", run.stderr);
}

#[test]
fn a_record_that_comes_late_behind_more_than_is_remembered_costs_duplicates_and_no_hang() {
    // A look back from its time stamp on shows all that is marked, more than the run remembers.
    for target in [false, true] {
        let mut tap = Tap::with_records(24_000).set("pageSize", 400);
        if target {
            tap = with_target(tap, &["--every", "0"]);
        }
        tap.sandbox.script(Rule::on(Endpoint::Peek).call(55).cap(400).before(tap.write_late(EARLY, "1")));
        tap.sandbox.script(Rule::on(Endpoint::Peek).every().cap(400));
        let run = tap.run();
        run.assert_drains(&tap);
        let mut delivered = if target { committed(&tap) } else { run.written() };
        assert!(delivered.len() < 2 * 24_001, "each is delivered twice at most: {}", delivered.len());
        delivered.sort();
        delivered.dedup();
        assert_eq!(delivered.len(), 24_001, "{}", run.stderr);
    }
}

#[test]
fn a_slow_target_is_waited_for_and_nothing_is_marked_before_it_has_committed_it() {
    // It takes longer for a message than the tap waits for a target that acknowledges at once.
    let tap = Tap::with_records(6).set("maxPending", 2);
    let tap = with_target(tap, &["--every", "1", "--pause-ms", "60"]);
    let (rows, committed_at_mark) = (tap.path("rows"), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&committed_at_mark);
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().before(move |_| {
        seen.lock().unwrap().push(fs::read_to_string(&rows).unwrap_or_default().lines().count());
    }));
    let run = tap.run();
    assert_eq!((run.code, tap.unread(), committed(&tap)), (0, vec![], identities(&tap.records())), "{}", run.stderr);
    let journal = tap.sandbox.journal();
    let marked: Vec<_> =
        journal.iter().filter(|call| call.endpoint == Endpoint::Mark).map(|call| call.returned).collect();
    assert_eq!((marked.as_slice(), committed_at_mark.lock().unwrap().as_slice()), (&[2, 2, 2][..], &[2, 4, 6][..]));
    // A mark comes right after the peek that shows what it hits.
    let calls: Vec<_> = journal.iter().map(|call| call.endpoint).collect();
    assert_eq!(calls.windows(2).filter(|calls| calls == &[Endpoint::Peek, Endpoint::Mark]).count(), 3, "{calls:?}");
    let most = journal.iter().filter_map(|call| call.record_count).max();
    assert!(most <= Some(3), "no more than `maxPending` are out, and the fence is peeked beside them: {most:?}");
}

#[test]
fn what_a_target_prints_besides_its_states_goes_to_the_log_and_marks_nothing() {
    let tap = with_target(Tap::with_records(1_000), &["--every", "2", "--chatter"]);
    let run = tap.run();
    run.assert_succeeds("");
    assert_eq!(tap.unread(), []);
    assert_eq!(committed(&tap), identities(&tap.records()));
    for text in ["loading", "[1, 2]", r#"{"bookmarks": {"records": 7}}"#, r#"{"type": "STATE"}"#] {
        run.assert_logged(&format!("INFO streamduo-sandbox: {text}"));
    }
}

#[test]
fn a_state_of_an_earlier_run_marks_nothing() {
    let tap = Tap::with_records(3);
    let states = tap.path("states");
    let keep = format!("tee /dev/stderr | grep '\"STATE\"' > {}; exit 1", states.display());
    let first = with_script(tap, &keep);
    assert_eq!((first.run().code, first.read()), (3, vec![]));
    // The next target prints the STATE that the first one got. It has committed nothing.
    let second = with_script(first, &format!("cat {}; cat > /dev/null", states.display()));
    let run = second.run();
    assert_eq!((run.code, second.read()), (3, vec![]), "{}", run.stderr);
}

/// A tap whose target crashes before its 150th message, and then at once, whenever it is started
/// again.
fn with_target_that_crashes(tap: Tap, crash_by: &str) -> Tap {
    let script = format!(
        "mkdir DIR/once && exec TARGET --every 1 --crash-at 150 --crash-by {crash_by}; exec TARGET --crash-at 1 --crash-by \
         {crash_by}"
    );
    with_target_script(tap, &script)
}

#[test]
fn a_target_that_crashes_again_and_again_ends_the_run_and_what_it_has_committed_is_marked() {
    let why = [("fail", "exit status: 1"), ("kill", "signal: 9 (SIGKILL)")];
    for (crash_by, status) in why {
        // SCHEMA, 100 records and a STATE are 102 messages. The crash hits the second window.
        let tap = Tap::with_records(300).set("maxPending", 100);
        let tap = with_target_that_crashes(tap, crash_by);
        let run = tap.run();
        assert_failed(
            &run,
            3,
            &format!(
                "CRITICAL sh has failed ({status}): look at its own error{}; 100 records that it has not committed stay unread",
                alone(&tap, 100)
            ),
        );
        assert_eq!(
            (tap.read(), committed(&tap)),
            (identities(&tap.records()[..100]), identities(&tap.records()[..100]))
        );
    }
}

#[test]
fn a_target_that_ends_well_too_early_ends_the_run() {
    let tap = Tap::with_records(300).set("maxPending", 100);
    let tap = with_target_that_crashes(tap, "exit");
    let fatal = format!(
        "CRITICAL sh has ended before it had read everything{}; 100 records that it has not committed stay unread",
        alone(&tap, 100)
    );
    assert_failed(&tap.run(), 3, &fatal);
    assert_eq!(tap.read(), identities(&tap.records()[..100]));
}

#[test]
fn what_a_target_has_acknowledged_before_it_fails_is_marked() {
    let tap = Tap::with_records(3);
    let script =
        format!("{} target --out {} --every 0; exit 1", target_program().display(), tap.path("rows").display());
    let tap = with_script(tap, &script);
    assert_failed(&tap.run(), 3, "CRITICAL sh has failed (exit status: 1): look at its own error");
    assert_eq!((tap.unread(), committed(&tap)), (vec![], identities(&tap.records())));
}

#[test]
fn a_target_that_fails_after_a_signal_is_a_failure() {
    // It fails at the end of its input, which the signal brings.
    let tap = with_script(Tap::with_records(250).env("PATH", "/usr/bin:/bin"), "cat > /dev/null; exit 1");
    tap.sandbox.script(Rule::on(Endpoint::Since).call(1).hold());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Since, 1);
    running.signal(Signal::TERM);
    let fatal = "CRITICAL sh has failed (exit status: 1): look at its own error; 100 records that it has not committed \
                 stay unread";
    assert_failed(&running.wait(&tap), 3, fatal);
    assert_eq!(tap.read(), []);
}

#[test]
fn a_peek_that_wrongly_shows_nothing_costs_nothing() {
    let tap = with_target(Tap::with_records(3), &["--every", "0"]);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).json("[]"));
    let run = tap.run();
    assert_eq!((run.code, tap.unread(), committed(&tap)), (0, vec![], identities(&tap.records())), "{}", run.stderr);
}

#[test]
fn a_target_that_holds_back_its_last_state_costs_one_more_start() {
    // It commits its last record before the STATE behind it, and prints that one with what comes next.
    let tap = with_target(Tap::with_records(300).set("pageSize", 60), &["--rows", "100"]);
    let run = tap.run();
    run.assert_drains(&tap);
    let rows = committed(&tap);
    let (once, again) = rows.split_at(300);
    assert_eq!(once, identities(&tap.records()));
    assert!(!again.is_empty() && once.ends_with(again), "{again:?}");
    let held_back =
        format!("has ended well, and has acknowledged all but {} records: loading those again", again.len());
    assert_eq!(run.stderr.matches(&held_back).count(), 1, "{}", run.stderr);
    assert_eq!(run.stderr.matches("INFO streamduo-sandbox is started\n").count(), 2, "{}", run.stderr);
}

#[test]
fn a_target_that_holds_back_the_only_state_gets_one_record_and_then_the_others() {
    let tap = with_target(Tap::with_records(100), &["--rows", "100"]);
    let run = tap.run();
    run.assert_drains(&tap);
    assert_eq!(committed(&tap), [identities(&tap.records()), identities(&tap.records())].concat());
    assert_eq!(run.stderr.matches("INFO streamduo-sandbox is started\n").count(), 3, "{}", run.stderr);
}

#[test]
fn a_target_that_repeats_its_input_marks_nothing() {
    let tap = with_script(Tap::with_records(3), "cat");
    let fatal = format!(
        "CRITICAL sh has ended well, and has not printed its last STATE: see docs/targets.md, or set `targetProof` to `exit`{}; \
         3 records that it has not committed stay unread",
        alone(&tap, 0)
    );
    assert_failed(&tap.run(), 3, &fatal);
    assert_eq!(tap.read(), []);
}

#[test]
fn a_target_that_prints_no_state_marks_nothing_unless_its_exit_is_the_proof() {
    let tap = with_target(Tap::with_records(3), &["--silent"]);
    let fatal = format!(
        "CRITICAL streamduo-sandbox has ended well, and has not printed its last STATE: see docs/targets.md, or set \
         `targetProof` to `exit`{}; 3 records that it has not committed stay unread",
        alone(&tap, 0)
    );
    assert_failed(&tap.run(), 3, &fatal);
    assert_eq!(tap.read(), []);
    let tap = with_target(Tap::with_records(3).set("targetProof", "exit"), &["--silent"]);
    let run = tap.run();
    run.assert_drains(&tap);
}

#[test]
fn with_exit_as_the_proof_a_state_proves_nothing() {
    // It acknowledges the first window, and fails in the second one.
    let tap = Tap::with_records(300).set("targetProof", "exit").set("maxPending", 299);
    let tap = with_target_that_crashes(tap, "fail");
    let fatal = format!(
        "CRITICAL sh has failed (exit status: 1): look at its own error{}; 299 records that it has not committed stay \
         unread",
        alone(&tap, 0)
    );
    assert_failed(&tap.run(), 3, &fatal);
    assert_eq!((tap.read(), committed(&tap).len()), (vec![], 100));
}

#[test]
fn a_target_that_has_not_read_everything_proves_nothing_by_a_good_exit() {
    // The large page does not fit into the pipe; the small one does.
    for tap in [Tap::with_large_records(100), Tap::with_records(100)] {
        let tap = with_script(tap.set("targetProof", "exit"), "read -r line");
        let fatal = format!(
            "CRITICAL sh has ended before it had read everything{}; 100 records that it has not committed stay unread",
            alone(&tap, 0)
        );
        assert_failed(&tap.run(), 3, &fatal);
        assert_eq!(tap.read(), []);
    }
}

/// A tap whose target does something first, then closes its stdin, and lives on until somebody
/// opens the named pipe.
fn with_deaf_target(tap: Tap, first: &str) -> Tap {
    let fifo = make_fifo(&tap);
    let target = format!("{} target --out {}", target_program().display(), tap.path("rows").display());
    // The tap's stderr is at its end with the tap.
    let script = format!("{}; exec <&- 2> /dev/null; cat {}", first.replace("TARGET", &target), fifo.display());
    with_script(tap.set("maxPending", 100).env("PATH", "/usr/bin:/bin"), &script)
}

#[test]
fn a_target_that_stops_reading_and_lives_on_has_failed() {
    type Make = fn() -> Tap;
    // What it has not read does not fit into a pipe; or it does, so that nothing is blocked.
    let taps: [Make; 3] = [|| Tap::with_large_records(300), || Tap::with_records(300), || Tap::with_records(100)];
    let cases = [
        (":", 0, 100),
        ("read -r line", 0, 100),
        // It acknowledges the first window, and not the second one.
        ("TARGET --every 1 --crash-at 150 --crash-by exit", 100, 100),
    ];
    thread::scope(|scope| {
        for (make, (first, committed, left)) in taps.iter().flat_map(|make| cases.map(|case| (make, case))) {
            scope.spawn(move || {
                let tap = with_deaf_target(make(), first);
                if tap.records().len() == committed {
                    return;
                }
                let run = tap.run();
                let fatal = format!(
                    "CRITICAL sh has stopped reading its input, and is still running: look at its own error; {left} records that it has not \
                     committed stay unread"
                );
                assert_failed(&run, 3, &fatal);
                assert_eq!(tap.read(), identities(&tap.records()[..committed]), "{first}");
                assert_eq!(run.stderr.matches("INFO sh is started\n").count(), 1, "{}", run.stderr);
                drop(hold_target(&tap));
            });
        }
    });
}

#[test]
fn a_stop_ends_a_run_whose_target_has_stopped_reading() {
    let tap = with_deaf_target(Tap::with_records(3).args(&["--follow"]), "read -r line");
    let running = tap.start();
    let held = hold_target(&tap);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.read()), (3, vec![]), "{}", run.stderr);
    drop(held);
}

#[test]
fn two_hyphens_without_a_target_are_refused() {
    let tap = Tap::with_records(1);
    let output = tap.command().arg("--").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: there is no target after `--`\n"), "{stderr}");
    assert_eq!((output.status.code(), output.stdout.len(), tap.sandbox.requests()), (Some(2), 0, 0));
}

#[test]
fn a_target_that_cannot_be_started_is_refused_before_any_request() {
    let tap = Tap::with_records(1);
    let file = tap.write_file("not-executable", "#!/bin/sh\n");
    let missing = tap.path("missing");
    for (target, place) in [
        ("no-such-target-here", "on the PATH"),
        (missing.to_str().unwrap(), "at that path"),
        (file.to_str().unwrap(), "at that path"),
    ] {
        let run = tap.run_command(tap.command().args(["--", target]));
        let target = target.replace(tap.path("").to_str().unwrap(), "DIR/");
        let fatal = format!(
            "cannot run the target {target}: there is no such program {place}, or it is not executable; install it, or name \
             its path"
        );
        run.assert_refused(&tap, 2, &fatal);
    }
    assert_eq!(tap.sandbox.requests(), 0);
}

#[test]
fn a_target_whose_interpreter_is_missing_leaves_the_stream_untouched() {
    let tap = Tap::with_records(1);
    let script = tap.write_file("target-x", "#!/no/such/interpreter\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let run = tap.run_command(tap.command().arg("--").arg(&script));
    run.assert_refused(
        &tap,
        2,
        "cannot run the target DIR/target-x: No such file or directory (os error 2); try to run it alone",
    );
}

#[test]
fn settings_and_options_that_do_not_go_with_a_target_are_refused() {
    let tap = with_script(Tap::with_records(1).set("acknowledge", "write"), "cat");
    let fatal = "`acknowledge` `write` does not go with a target: what the target has committed is marked; remove the setting, \
                 or set it to `never` to mark nothing";
    tap.run().assert_refused(&tap, 2, fatal);
    let tap = with_script(Tap::with_records(1).set("acknowledge", "commit"), "cat > /dev/null; exit 1");
    assert_eq!(tap.run().code, 3, "`commit` is what it is anyway");
    let tap = tap.args(&["--state", "state.json"]);
    tap.run().assert_refused(
        &tap,
        2,
        "--state does not go with a target, unless `acknowledge` is `never`: the read status at the service is the state",
    );
    for option in [&["--test"][..], &["--discover"]] {
        let output = bare_command().args(option).args(["-c", "config.json", "--", "cat"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("cannot be used with '[TARGET]"), "{stderr}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn the_target_gets_no_setting_of_the_tap_and_its_arguments_are_not_logged() {
    let tap = Tap::with_records(1).set("clientSecret", Value::Null).set("targetProof", "exit");
    let secret = tap.sandbox.client_secret().to_owned();
    let environment = tap.path("environment");
    let script = format!("/usr/bin/env > {}; cat > /dev/null", environment.display());
    let tap = tap
        .env("TAP_STREAMDUO_CLIENTSECRET", &secret)
        .env("TAP_STREAMDUO_LOGLEVEL", "INFO")
        .env("OTHER", "kept")
        .args(&["--config", "ENV"])
        .target(&["/bin/sh", "-c", &script, "a-password"]);
    let run = tap.run();
    run.assert_drains(&tap);
    let environment = fs::read_to_string(environment).unwrap();
    assert!(environment.contains("OTHER=kept\n") && !environment.contains("TAP_STREAMDUO"), "{environment}");
    assert!(!run.stderr.contains("a-password"), "{}", run.stderr);
}

#[test]
fn a_stream_that_is_not_selected_starts_no_target() {
    let tap = Tap::with_records(2);
    let metadata = json!([{"breadcrumb": [], "metadata": {"selected": false}}]);
    let stream = json!({"tap_stream_id": "records", "stream": "records", "schema": {}, "metadata": metadata});
    let catalog = tap.write_file("catalog.json", &json!({"streams": [stream]}).to_string());
    let tap = with_script(tap.args(&["--catalog", catalog.to_str().unwrap()]), "exit 1");
    let run = tap.run();
    run.assert_succeeds("");
    assert_eq!(tap.read(), []);
    assert_eq!(run.stderr, "INFO the stream is not selected: nothing is read\n");
}

#[test]
fn a_service_that_fails_ends_the_run_and_what_the_target_has_is_committed_and_marked() {
    let tap = with_target(Tap::with_records(250), &["--every", "0"]);
    tap.sandbox.script(Rule::on(Endpoint::Since).every().status(500).body("no"));
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(500).body("no"));
    let run = tap.run();
    assert_failed(&run, 1, "CRITICAL read stream STREAM: HOST answers 500: no");
    let first = identities(&tap.records()[..100]);
    assert_eq!((tap.read(), committed(&tap)), (first.clone(), first), "{}", run.stderr);
}

/// The name of a fault, and the rule that causes it.
type Fault = (&'static str, fn(Rule) -> Rule);

/// Ways in which the answer to a mark gets lost.
const LOST_ANSWERS: [Fault; 3] =
    [("closed", Rule::close), ("cut", Rule::cut), ("503", |rule| rule.status(503).header("retry-after", "0"))];

#[test]
fn a_lost_answer_to_a_mark_costs_no_record_and_no_duplicate() {
    for (fault, lose_answer) in LOST_ANSWERS {
        for applied in [true, false] {
            for every in ["0", "1"] {
                let tap = Tap::with_records(500).set("maxPending", 200).set("maxRetries", 5);
                let tap = with_target(tap, &["--every", every]);
                let rule = Rule::on(Endpoint::Mark).calls(1..=2);
                tap.sandbox.script(lose_answer(if applied { rule.applied() } else { rule }));
                let run = tap.run();
                let case = format!("{fault}, applied: {applied}, every {every}\n{}", run.stderr);
                run.assert_drains_when(&tap, &case);
                assert_eq!(committed(&tap), identities(&tap.records()), "{case}");
            }
        }
    }
}

#[test]
fn by_id_neither_a_lost_answer_nor_a_late_record_costs_anything() {
    for (fault, lose_answer) in LOST_ANSWERS {
        for applied in [true, false] {
            let tap = Tap::with_records(300).set("markBy", "id").set("maxPending", 100).set("maxRetries", 5);
            let tap = with_target(tap, &["--every", "1"]);
            for nth in [1, 2, 150] {
                let rule = Rule::on(Endpoint::Single).call(nth);
                tap.sandbox.script(lose_answer(if applied { rule.applied() } else { rule }));
            }
            tap.sandbox.script(Rule::on(Endpoint::Single).call(20).before(tap.write_late(EARLY, "1")));
            let run = tap.run();
            let case = format!("{fault}, applied: {applied}\n{}", run.stderr);
            run.assert_drains_when(&tap, &case);
            let committed = committed(&tap);
            let distinct: BTreeSet<_> = committed.iter().cloned().collect();
            assert_eq!((committed.len(), distinct), (301, identities(&tap.records()).into_iter().collect()), "{case}");
            assert_eq!(tap.sandbox.count(Endpoint::Mark), 0, "{case}");
            assert!(!run.stderr.contains("slipped in"), "{case}");
        }
    }
}

#[test]
fn by_id_a_late_record_stays_unread_when_the_target_crashes() {
    let tap = Tap::with_records(300).set("markBy", "id").set("maxPending", 100);
    let tap = with_target_that_crashes(tap, "fail");
    tap.sandbox.script(Rule::on(Endpoint::Single).call(1).before(tap.write_late(EARLY, "1")));
    let run = tap.run();
    let first = identities(&tap.records()[1..101]);
    assert_eq!((run.code, tap.read(), committed(&tap)), (3, first.clone(), first), "{}", run.stderr);
}

#[test]
fn by_id_a_target_that_fails_once_costs_at_most_a_window_of_later_versions_and_each_is_named() {
    // 10 ids, each with 50 versions. The first window holds each id once.
    let tap = Tap::with_records(0).set("markBy", "id").set("maxPending", 10);
    for version in 0..50 {
        for id in 0..10 {
            let stamp = format!("2022-02-01T15:16:{version:02}.{id:03}-05:00[America/New_York]");
            tap.sandbox.write_as(&tap.stream, &format!("id-{id}"), &stamp, "1");
        }
    }
    // The first target commits, the second one fails, and so does none after it.
    let [first, second, rows] = ["first", "second", "rows"].map(|name| tap.path(name).display().to_string());
    let target = format!("{} target --every 0 --out {rows}", target_program().display());
    let script = format!("mkdir {first} && exec {target}; mkdir {second} && exit 1; exec {target}");
    let tap = with_script(tap.env("PATH", "/usr/bin:/bin"), &script);
    let mut log = String::new();
    for _ in 0..100 {
        let run = tap.run();
        log += &run.stderr;
        if run.code == 0 {
            break;
        }
    }
    assert_eq!(tap.unread(), [], "{log}");
    let committed: BTreeSet<_> = committed(&tap).into_iter().collect();
    let lost: Vec<_> = tap.read().into_iter().filter(|identity| !committed.contains(identity)).collect();
    assert!(lost.len() <= 10, "{} of 500 records are lost:\n{log}", lost.len());
    for identity in lost {
        assert!(log.contains(&identity.record_id), "{identity:?} is lost and not named:\n{log}");
    }
}

#[test]
fn by_id_a_signal_between_two_requests_leaves_the_rest_to_be_marked_before_the_end() {
    let tap = with_target(Tap::with_records(100).set("markBy", "id"), &["--every", "1"]);
    tap.sandbox.script(Rule::on(Endpoint::Single).calls(1..=8).applied().hold());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Single, 8);
    running.signal(Signal::TERM);
    tap.sandbox.release();
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.unread(), committed(&tap)), (143, vec![], identities(&tap.records())), "{}", run.stderr);
    assert_eq!(tap.sandbox.count(Endpoint::Since), 0, "no look back: {}", run.stderr);
}

#[test]
fn a_record_that_slips_in_before_a_mark_is_committed_as_well() {
    for answer_is_lost in [false, true] {
        let tap = Tap::with_records(5).set("maxRetries", 5);
        let tap = with_target(tap, &["--every", "0"]);
        let stamp = if answer_is_lost { "2022-02-01T15:16:25-05:00[America/New_York]" } else { EARLY };
        let rule = Rule::on(Endpoint::Mark).call(1).before(tap.write_late(stamp, "1"));
        tap.sandbox.script(if answer_is_lost { rule.applied().close() } else { rule });
        let run = tap.run();
        run.assert_drains(&tap);
        let committed = committed(&tap);
        assert_eq!(committed.len(), 6, "each once");
        assert!(committed.contains(&tap.late_record().identity));
    }
}

#[test]
fn a_mark_that_hits_only_what_slipped_in_is_no_failure() {
    let tap = with_target(Tap::with_records(1), &["--every", "0"]);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(tap.write_late(EARLY, "1")));
    let run = tap.run();
    assert_eq!((run.code, tap.unread(), committed(&tap).len()), (0, vec![], 2), "{}", run.stderr);
}

#[test]
fn a_stop_after_a_lost_answer_looks_back_for_what_slipped_in() {
    let tap = with_target(Tap::with_records(5).set("maxRetries", 5), &["--every", "0"]);
    let late = tap.write_late("2022-02-01T15:16:25-05:00[America/New_York]", "1");
    let rule = Rule::on(Endpoint::Mark).call(1).applied().status(503).header("retry-after", "600");
    tap.sandbox.script(rule.before(late));
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Mark, 1);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.unread()), (143, vec![]), "{}", run.stderr);
    assert!(committed(&tap).contains(&tap.late_record().identity), "{}", run.stderr);
}

#[test]
fn a_service_that_cannot_be_read_by_time_costs_starts_and_no_record() {
    let tap = with_target(Tap::with_records(300).set("maxRetries", 0), &["--every", "0"]);
    tap.sandbox.script(Rule::on(Endpoint::Since).every().status(400).body("no"));
    let run = tap.run();
    assert_eq!((run.code, tap.unread(), committed(&tap)), (0, vec![], identities(&tap.records())), "{}", run.stderr);
    assert_eq!(run.stderr.matches("so a target gets no more than one page from now on").count(), 1, "{}", run.stderr);
}

#[test]
fn hundreds_of_equal_records_are_loaded_once_and_all_are_marked() {
    let tap = with_target(Tap::with_records(0), &[]);
    for _ in 0..300 {
        tap.sandbox.write_as(&tap.stream, "twin", EARLY, "1");
    }
    let run = tap.run();
    assert_eq!((run.code, tap.unread(), committed(&tap).len()), (0, vec![], 1), "{}", run.stderr);
}

#[test]
fn a_record_that_slipped_in_and_is_not_committed_is_named() {
    // The first target commits; the second one, which gets the record that slipped in, fails.
    let tap = Tap::with_records(12);
    let (program, rows, once) = (target_program(), tap.path("rows"), tap.path("once"));
    let script = format!(
        "mkdir {} || exit 1; exec {} target --out {} --every 0",
        once.display(),
        program.display(),
        rows.display()
    );
    let tap = with_script(tap.env("PATH", "/usr/bin:/bin"), &script);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(move |service| {
        for late in 1..=12 {
            service.write_as(&stream, &format!("late-{late}"), EARLY, "1");
        }
    }));
    let run = tap.run();
    let ids = (1..=12).map(|late| format!("late-{late}")).collect::<Vec<_>>().join(", ");
    let fatal = format!(
        "CRITICAL sh has failed (exit status: 1): look at its own error; 12 records that slipped in before a mark are marked as \
         read and not committed: recordId {ids}",
    );
    assert_failed(&run, 3, &fatal);
}

#[test]
fn a_signal_lets_the_target_commit_what_it_has_and_marks_that() {
    for (signal, code, name) in [(Signal::TERM, 143, "SIGTERM"), (Signal::INT, 130, "SIGINT")] {
        for follow in [&[][..], &["--follow"]] {
            let tap = with_waiting_target(Tap::with_records(250).args(follow), "102", &["--every", "0"]);
            tap.sandbox.script(Rule::on(Endpoint::Since).call(1).hold());
            let running = tap.start();
            let held = hold_target(&tap);
            tap.sandbox.wait_held(Endpoint::Since, 1);
            running.signal(signal);
            drop(held);
            let run = running.wait(&tap);
            assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{}", run.stderr);
            let first = identities(&tap.records()[..100]);
            assert_eq!((tap.read(), committed(&tap)), (first.clone(), first), "{}", run.stderr);
            let line = format!("WARNING stopped by {name}: all that was written is committed and marked as read");
            assert_eq!(run.last_log_line(), line);
        }
    }
}

#[test]
fn a_stop_says_that_what_is_committed_and_not_marked_comes_again() {
    let tap = with_waiting_target(Tap::with_records(250), "102", &["--every", "0"]);
    tap.sandbox.script(Rule::on(Endpoint::Since).call(1).hold());
    tap.sandbox.script(Rule::on(Endpoint::Mark).every().status(503).body("no"));
    let running = tap.start();
    let held = hold_target(&tap);
    tap.sandbox.wait_held(Endpoint::Since, 1);
    running.signal(Signal::TERM);
    drop(held);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.read(), committed(&tap).len()), (143, vec![], 100), "{}", run.stderr);
    let line =
        "WARNING stopped by SIGTERM: what the target has committed last may not be marked as read yet, and comes again";
    assert_eq!(run.last_log_line(), line);
}

#[test]
fn a_stop_before_the_first_record_starts_no_target_and_says_that_nothing_was_written() {
    let tap = with_target(Tap::with_records(3), &[]);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).hold());
    let running = tap.start();
    tap.sandbox.wait_held(Endpoint::Peek, 1);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.read(), tap.path("rows").exists()), (143, vec![], false));
    assert_eq!(run.last_log_line(), "WARNING stopped by SIGTERM: no record was written");
    assert!(!run.stderr.contains("METRIC"), "{}", run.stderr);
}

#[test]
fn a_second_signal_ends_the_tap_at_once_and_the_target_by_the_end_of_its_input() {
    let tap = with_waiting_target(Tap::with_records(3), "2", &[]);
    let mut running = tap.start();
    let held = hold_target(&tap);
    // Two of the same signal could be taken for one.
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let status = running.child.wait().unwrap();
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
    assert_eq!((tap.read(), committed(&tap)), (vec![], vec![]));
    drop(held);
    wait_for_both(running);
    assert_eq!(tap.read(), []);
}

#[test]
fn ctrl_c_in_a_terminal_reaches_the_tap_alone() {
    let tap = with_waiting_target(Tap::with_records(100).args(&["--follow"]), "50", &["--every", "0"]);
    let (mut terminal, pts) = pty_process::blocking::open().unwrap();
    let log = fs::File::create(tap.path("log")).unwrap();
    let mut child = in_terminal(&tap.command()).stderr(log).spawn(pts).unwrap();
    let held = hold_target(&tap);
    // The terminal sends SIGINT to the whole foreground process group.
    terminal.write_all(b"\x03").unwrap();
    drop(held);
    let log = || fs::read_to_string(tap.path("log")).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", log());
    assert_eq!((tap.unread(), committed(&tap)), (vec![], identities(&tap.records())), "{}", log());
}

#[test]
fn follow_starts_a_target_for_each_batch_and_none_while_there_is_nothing() {
    let tap = Tap::with_records(0).set("pollIntervalSeconds", 0).args(&["--follow"]);
    let tap = with_target(tap, &[]);
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Peek, 5);
    for mark in 1..=3 {
        tap.sandbox.write(&tap.stream, "1");
        tap.sandbox.wait_answered(Endpoint::Mark, mark);
    }
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.unread(), committed(&tap)), (143, vec![], identities(&tap.records())), "{}", run.stderr);
    assert_eq!(run.stderr.matches("INFO streamduo-sandbox is started\n").count(), 3, "{}", run.stderr);
    assert_eq!(run.stderr.matches("INFO the stream is drained").count(), 1, "{}", run.stderr);
}

#[test]
fn a_target_that_fails_ends_a_run_that_follows() {
    let tap = Tap::with_records(1).set("pollIntervalSeconds", 0).args(&["--follow"]);
    let tap = with_target(tap, &["--crash-at", "1"]);
    let run = tap.run();
    assert_eq!((run.code, tap.read()), (3, vec![]), "{}", run.stderr);
}

#[test]
fn a_kill_of_the_tap_costs_duplicates_of_a_window_and_no_record() {
    for (mark_by, marks, nth_mark) in [("position", Endpoint::Mark, 1), ("id", Endpoint::Single, 30)] {
        kill_and_check(Tap::with_records(1_000).set("maxPending", 200).set("markBy", mark_by), marks, nth_mark);
    }
}

/// Kills the tap again and again, also while it waits for the answer to the `nth_mark` request to
/// `marks`.
fn kill_and_check(tap: Tap, marks: Endpoint, nth_mark: usize) {
    let tap = with_target(tap, &["--every", "0"]);
    for (endpoint, nth) in [(Endpoint::Peek, 1), (Endpoint::Peek, 2), (marks, nth_mark), (marks, nth_mark)] {
        for applied in [true, false] {
            let call = tap.sandbox.count(endpoint) + nth;
            let rule = Rule::on(endpoint).call(call);
            tap.sandbox.script(if applied { rule.applied().hold() } else { rule.hold() });
            let running = tap.start();
            tap.sandbox.wait_held(endpoint, call);
            running.signal(Signal::KILL);
            wait_for_both(running);
            assert_marked_is_committed(&tap);
        }
    }
    let run = tap.run();
    run.assert_drains(&tap);
    let committed = committed(&tap);
    let distinct: BTreeSet<_> = committed.iter().cloned().collect();
    assert_eq!(distinct, identities(&tap.records()).into_iter().collect());
    assert!(committed.len() <= 1_000 + 8 * 200, "more than a window of duplicates for a kill");
}

/// Has a gateway apply a mark late or twice, or pass on the answer of another request.
pub fn mixed_up(rule: Rule, random: &mut Rng) -> Rule {
    match random.usize(..5) {
        0 => rule.status(504).header("retry-after", "0").applied_after(random.usize(1..8)),
        1 => rule.cut().applied_after(random.usize(1..8)),
        2 => rule.applied_twice(),
        3 => rule.answer_of(Endpoint::Mark),
        _ => rule.answer_of(Endpoint::Peek),
    }
}

/// A stream that is loaded in spite of targets that crash, kills of the tap, lost answers and late
/// records.
pub struct Chaos {
    pub tap: Tap,
    by_id: bool,
    runs: usize,
}

impl Chaos {
    pub fn new(tap: Tap) -> Chaos {
        Chaos { tap, by_id: false, runs: 0 }
    }

    /// With `markBy` `id`.
    pub fn by_id(self) -> Chaos {
        Chaos { tap: self.tap.set("markBy", "id"), by_id: true, ..self }
    }

    /// Runs the tap once, with faults. Nothing is marked that is not committed.
    pub fn run(&mut self, random: &mut Rng) {
        let tap = &self.tap;
        let mut options = vec!["--every".to_owned(), random.usize(..4).to_string()];
        let crashes = random.bool();
        if crashes {
            let crash_by = *random.choice(&["fail", "exit", "kill"]).unwrap();
            let crash = ["--crash-at", &random.usize(1..1_500).to_string(), "--crash-by", crash_by];
            options.extend(crash.map(str::to_owned));
        }
        let is_killed = random.usize(..3) == 0;
        // What a late mark hits is lost with a target that crashes.
        let mixes_up = !crashes && !is_killed && !self.by_id && random.bool();
        let (marks, within) = if self.by_id { (Endpoint::Single, 400) } else { (Endpoint::Mark, 4) };
        let rule = Rule::on(marks).call(tap.sandbox.count(marks) + random.usize(1..within));
        tap.sandbox.script(if mixes_up {
            mixed_up(rule, random)
        } else {
            let (_, lose_answer) = *random.choice(&LOST_ANSWERS).unwrap();
            lose_answer(if random.bool() { rule.applied() } else { rule })
        });
        // By position, before a peek: a record that slips in between peek and mark is lost with a
        // target that crashes.
        let (stream, late) = (tap.stream.clone(), format!("late-{}", self.runs));
        let (endpoint, within) =
            if self.by_id && random.bool() { (Endpoint::Single, 400) } else { (Endpoint::Peek, 6) };
        let call = tap.sandbox.count(endpoint) + random.usize(1..within);
        // A look back does not find what a late mark has hit there.
        if !mixes_up {
            tap.sandbox.script(Rule::on(endpoint).call(call).before(move |service| {
                service.write_as(&stream, &late, EARLY, "1");
            }));
        }
        let kill_at = is_killed.then(|| tap.sandbox.count(Endpoint::Peek) + random.usize(1..8));
        let mut command = tap.command();
        command.arg("--").arg(target_program()).args(["target", "--out"]).arg(tap.path("rows")).args(options);
        let mut running = tap.start_command(&mut command);
        if let Some(peek) = kill_at {
            // The run may end before.
            while tap.sandbox.count(Endpoint::Peek) < peek && running.child.try_wait().unwrap().is_none() {
                thread::yield_now();
            }
            // Ignore the error: it has ended.
            let _ = running.child.kill();
        }
        let code = wait_for_both(running);
        assert!(matches!(code, None | Some(0 | 1 | 3)), "{code:?}");
        if mixes_up {
            // Nothing of it may happen after the run, nor in one that is killed.
            tap.sandbox.clear_script();
        }
        assert_marked_is_committed(tap);
        self.runs += 1;
    }

    /// Runs the tap without faults, until nothing is unread. Then every record is committed.
    /// Returns how many records there are, and how many came again.
    pub fn finish(&self) -> (usize, usize) {
        let tap = &self.tap;
        let mut command = tap.command();
        command.arg("--").arg(target_program()).args(["target", "--every", "1", "--out"]).arg(tap.path("rows"));
        // The faults of earlier runs that did not happen yet may still happen.
        for _ in 0..20 {
            tap.run_command(&mut command);
            assert_marked_is_committed(tap);
            if tap.unread().is_empty() {
                break;
            }
        }
        assert_eq!(tap.unread(), []);
        let committed: Vec<_> = committed(tap).into_iter().chain(put_aside_identities(tap)).collect();
        let distinct: BTreeSet<_> = committed.iter().cloned().collect();
        assert_eq!(distinct, identities(&tap.records()).into_iter().collect());
        (distinct.len(), committed.len() - distinct.len())
    }
}

#[test]
fn nothing_is_ever_marked_that_is_not_committed() {
    for by_id in [false, true] {
        let mut random = Rng::with_seed(1);
        let chaos = Chaos::new(Tap::with_records(3_000).set("maxPending", 300).set("maxRetries", 5));
        let mut chaos = if by_id { chaos.by_id() } else { chaos };
        for _ in 0..12 {
            chaos.run(&mut random);
        }
        chaos.finish();
    }
}
