//! A record that makes the target fail does not stop the queue: the tap finds it, puts it aside,
//! and goes on.

use std::fs;
use std::thread;

use serde_json::Value;
use streamduo_sandbox::Identity;

use crate::dead_letters::{put_aside_identities, with_dead_letter_file};
use crate::tap::{Run, Tap, identities};
use crate::target::{committed, with_script, with_target, with_target_script};

/// A stream of so many records. The target refuses those at these places.
fn with_bad_records(records: usize, bad: &[usize]) -> Tap {
    let tap = Tap::with_records(0);
    for n in 0..records {
        let payload = if bad.contains(&n) { r#"{"n":"refuse me"}"#.to_owned() } else { format!("{{\"n\":{n}}}") };
        tap.sandbox.write(&tap.stream, &payload);
    }
    tap
}

const REFUSES: [&str; 2] = ["--refuse", "refuse me"];

/// The identities of the records at these places, or of all others.
fn parts(tap: &Tap, bad: &[usize]) -> (Vec<Identity>, Vec<Identity>) {
    let all = identities(&tap.records()).into_iter().enumerate();
    let (bad, good): (Vec<_>, Vec<_>) = all.partition(|(n, _)| bad.contains(n));
    let strip = |part: Vec<(usize, Identity)>| part.into_iter().map(|(_, identity)| identity).collect();
    (strip(bad), strip(good))
}

fn starts(run: &Run) -> usize {
    run.stderr.lines().filter(|line| line.ends_with(" is started")).count()
}

/// The good records are committed once and the bad ones put aside once; all are marked.
#[track_caller]
fn assert_all_delivered(run: &Run, tap: &Tap, bad: &[usize]) {
    run.assert_drains(tap);
    let warned = run.stderr.matches("WARNING 1 record cannot be delivered, and is put aside").count();
    assert_eq!(warned, bad.len(), "{}", run.stderr);
    let (bad, good) = parts(tap, bad);
    let mut loaded = committed(tap);
    let order = |identity: &Identity| good.iter().position(|other| other == identity);
    loaded.sort_by_key(order);
    assert_eq!((loaded, put_aside_identities(tap).collect::<Vec<_>>()), (good, bad), "{}", run.stderr);
}

#[test]
fn a_bad_record_is_put_aside_and_all_others_are_loaded_once() {
    thread::scope(|scope| {
        for every in ["0", "1"] {
            for (max_pending, bad) in
                [(100, &[0][..]), (100, &[5]), (100, &[11]), (4, &[5]), (100, &[3, 9]), (100, &[4, 5, 6]), (1, &[2])]
            {
                scope.spawn(move || {
                    let tap = with_dead_letter_file(with_bad_records(12, bad)).set("maxPending", max_pending);
                    let tap = with_target(tap, &[&["--every", every][..], &REFUSES].concat());
                    let run = tap.run();
                    assert_all_delivered(&run, &tap, bad);
                    let counts =
                        format!("{} records written, {} put aside, 12 marked as read", 12 - bad.len(), bad.len());
                    assert!(run.stderr.contains(&counts), "{}", run.stderr);
                });
            }
        }
    });
}

#[test]
fn what_the_target_has_said_goes_to_the_dead_letter_and_to_the_user() {
    let tap = with_dead_letter_file(with_bad_records(4, &[2]));
    let tap = with_target(tap, &[&["--every", "0"][..], &REFUSES].concat());
    let run = tap.run();
    let letter: Value = serde_json::from_str(&fs::read_to_string(tap.path("aside.jsonl")).unwrap()).unwrap();
    let said = r#"sandbox: value out of range: {"n":"refuse me"}"#;
    let reason = format!("streamduo-sandbox has failed (exit status: 1): look at its own error: {said}");
    assert_eq!(letter["reason"].as_str().unwrap(), reason);
    // All four, and the record alone, three times.
    assert_eq!((run.stderr.lines().filter(|line| *line == said).count(), starts(&run)), (4, 7), "{}", run.stderr);
}

#[test]
fn without_a_dead_letter_file_the_error_names_the_record_and_what_comes_before_is_loaded() {
    for bad in [3, 9] {
        let tap = with_target(with_bad_records(10, &[bad]), &[&["--every", "0"][..], &REFUSES].concat());
        let run = tap.run();
        let all = identities(&tap.records());
        let fatal = format!(
            "CRITICAL streamduo-sandbox has failed (exit status: 1): look at its own error: it fails with recordId {} \
             alone, and loads others; what comes before it is loaded: set `deadLetterFile` to put such records aside and \
             go on, set `payloadFormat` to `string`, or fix the target",
            all[bad].record_id
        );
        assert_eq!((run.code, run.last_log_line()), (3, &*fatal), "{}", run.stderr);
        assert_eq!((tap.read(), committed(&tap)), (all[..bad].to_vec(), all[..bad].to_vec()), "{}", run.stderr);
    }
}

#[test]
fn a_target_that_loads_nothing_is_broken_and_no_record_is_put_aside() {
    for (with_file, most) in [(false, 2), (true, 12)] {
        let tap = Tap::with_records(200);
        let tap = if with_file { with_dead_letter_file(tap) } else { tap };
        let tap = with_script(tap, "exit 1");
        let run = tap.run();
        let alone = &tap.records()[most - 2].identity.record_id;
        let fatal = format!(
            "CRITICAL sh has failed (exit status: 1): look at its own error; it fails with recordId {alone} alone, too \
             (see `deadLetterFile`); 100 records that it has not committed stay unread"
        );
        assert_eq!((run.code, run.last_log_line(), tap.read()), (3, &*fatal, vec![]), "{}", run.stderr);
        assert_eq!((starts(&run), tap.path("aside.jsonl").exists()), (most, false), "{}", run.stderr);
    }
}

#[test]
fn a_bad_record_alone_in_the_stream_is_not_put_aside() {
    let tap = with_dead_letter_file(with_bad_records(1, &[0]));
    let tap = with_target(tap, &REFUSES);
    let run = tap.run();
    let bad = &tap.records()[0].identity.record_id;
    let fatal = format!(
        "CRITICAL streamduo-sandbox has failed (exit status: 1): look at its own error; it fails with recordId {bad} alone, \
         too (see `deadLetterFile`); 1 record that it has not committed stays unread"
    );
    assert_eq!((run.code, run.last_log_line(), tap.read()), (3, &*fatal, vec![]), "{}", run.stderr);
    // A later run, in which another record loads, puts it aside.
    tap.sandbox.write(&tap.stream, "1");
    assert_all_delivered(&tap.run(), &tap, &[0]);
}

#[test]
fn a_target_that_crashes_at_random_costs_no_dead_letter() {
    // Which starts fail, again and again.
    for pattern in ["01", "011", "1100"] {
        let tap = with_dead_letter_file(Tap::with_records(9)).set("maxPending", 4);
        let script = format!(
            "n=$(cat DIR/n 2> /dev/null || echo 0); echo $((n + 1)) > DIR/n; pattern={pattern}; \
             case $(echo $pattern | cut -c $((n % ${{#pattern}} + 1))) in 0) exit 1;; esac; exec TARGET --every 0"
        );
        let tap = with_target_script(tap, &script);
        // A run in which no record loads after a failure ends with it.
        let run = (0..3).map(|_| tap.run()).find(|run| run.code != 3).unwrap();
        assert_all_delivered(&run, &tap, &[]);
        assert!(!tap.path("aside.jsonl").exists());
    }
}

#[test]
fn a_target_whose_database_goes_away_costs_no_dead_letter() {
    let tap = with_dead_letter_file(Tap::with_records(9)).set("maxPending", 3);
    // The first window is loaded, and nothing after it.
    let tap = with_target_script(tap, "mkdir DIR/once || exit 1; exec TARGET --every 0");
    let run = tap.run();
    assert_eq!((run.code, tap.read()), (3, identities(&tap.records()[..3])), "{}", run.stderr);
    assert!(!tap.path("aside.jsonl").exists());
}

#[test]
fn no_more_than_ten_records_are_put_aside_in_a_run() {
    let bad: Vec<_> = (0..24).filter(|n| n % 2 == 1).collect();
    let tap = with_dead_letter_file(with_bad_records(24, &bad)).set("maxPending", 1);
    let tap = with_target(tap, &[&["--every", "0"][..], &REFUSES].concat());
    let run = tap.run();
    let all = identities(&tap.records());
    let fatal = format!(
        "CRITICAL streamduo-sandbox has failed (exit status: 1): look at its own error: it fails with recordId {} alone, \
         and loads others; 10 such records are put aside, so the target or its schema is the problem",
        all[21].record_id
    );
    assert_eq!((run.code, run.last_log_line(), tap.read()), (3, &*fatal, all[..21].to_vec()), "{}", run.stderr);
    assert_eq!(put_aside_identities(&tap).count(), 10);
}

#[test]
fn a_stream_that_fits_one_window_starts_the_target_once() {
    let tap = with_target(Tap::with_records(20_000), &["--every", "0"]);
    let run = tap.run();
    run.assert_drains(&tap);
    assert_eq!((committed(&tap), starts(&run)), (identities(&tap.records()), 1), "{}", run.stderr);
}

#[test]
fn a_target_is_not_started_within_a_second_of_the_last_ones_end() {
    let tap = Tap::with_records(9).set("maxPending", 3);
    let tap = with_target_script(tap, "date +%s%N >> DIR/times; TARGET --every 0; date +%s%N >> DIR/times");
    let run = tap.run();
    run.assert_drains(&tap);
    let times = fs::read_to_string(tap.path("times")).unwrap();
    let times: Vec<u64> = times.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(times.len(), 6);
    assert!(
        times.chunks(2).zip(times[2..].chunks(2)).all(|(one, next)| next[0] - one[1] >= 1_000_000_000),
        "{times:?}"
    );
}
