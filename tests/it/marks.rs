//! Marks that go wrong: applied late or twice, answered with another request's answer, or not
//! answered at all. Whatever the service has as read at the end of a run, the run has delivered, or
//! it has named it.

use rustix::process::Signal;
use serde_json::Value;
use streamduo_sandbox::{Endpoint, Identity, Rule};

use crate::dead_letters::{put_aside_identities, with_dead_letter_file};
use crate::tap::{Run, Tap, assert_nothing_lost, identities};
use crate::target::{committed, hold_target, make_fifo, with_target, with_target_script};

/// All that reads records.
const EVERY_READ: [Endpoint; 4] = [Endpoint::Peek, Endpoint::Mark, Endpoint::Since, Endpoint::Single];

/// A mark that is answered with an error, and never applied unless the rule says so.
fn failing_mark(nth: usize) -> Rule {
    Rule::on(Endpoint::Mark).call(nth).status(504).header("retry-after", "0")
}

/// Runs a tap in `commit` mode again and again, each time with the last STATE, until nothing is
/// unread. Returns all records that were written. What is read was written.
fn commit_everything(tap: &Tap, case: &str) -> Vec<Identity> {
    let mut state = "{}".to_owned();
    let mut written = Vec::new();
    for _ in 0..30 {
        let run = tap.run_with("--state", tap.write_file("state.json", &state));
        assert_eq!(run.code, 0, "{case}\n{}", run.stderr);
        written.extend(run.written());
        assert_nothing_lost(tap, &written, &format!("{case}\n{}", run.stderr));
        let last: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
        state = last["value"].to_string();
        if tap.unread().is_empty() {
            return written;
        }
    }
    panic!("{case}: the stream is not drained");
}

/// The run has succeeded, each record is committed, and marked.
#[track_caller]
fn assert_all_committed(run: &Run, tap: &Tap, case: &str) {
    assert_eq!(run.code, 0, "{case}\n{}", run.stderr);
    assert_nothing_lost(tap, &committed(tap), &format!("{case}\n{}", run.stderr));
    assert_eq!(tap.unread(), [], "{case}\n{}", run.stderr);
}

#[test]
fn a_mark_that_is_applied_twice_costs_no_record() {
    for nth in 1..=4 {
        let tap = Tap::with_records(1_000);
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(nth).applied_twice());
        tap.run().assert_each_once_when(&tap, &format!("mark {nth}"));
    }
}

#[test]
fn a_mark_that_is_applied_twice_in_the_closed_loop_costs_no_record() {
    for (every, nth) in [("0", 1), ("0", 2), ("1", 1), ("1", 2)] {
        let tap = Tap::with_records(3_000).set("maxPending", 600);
        let tap = with_target(tap, &["--every", every]);
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(nth).applied_twice());
        let run = tap.run();
        assert_all_committed(&run, &tap, &format!("mark {nth}, committed at every {every}"));
    }
}

#[test]
fn a_mark_that_is_applied_twice_with_commit_costs_no_record() {
    for nth in 1..=3 {
        let tap = Tap::with_records(300).set("acknowledge", "commit").set("maxPending", 50);
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(nth).applied_twice());
        commit_everything(&tap, &format!("mark {nth}"));
    }
}

#[test]
fn a_record_that_slips_in_between_two_applications_of_a_mark_costs_no_record() {
    for arrivals in [1, 10, 99] {
        let tap = Tap::with_records(1_000);
        let stream = tap.stream.clone();
        tap.sandbox.script(Rule::on(Endpoint::Mark).call(2).applied_twice().between(move |service| {
            for _ in 0..arrivals {
                service.slip_in(&stream);
            }
        }));
        tap.run().assert_each_once_when(&tap, &format!("{arrivals} slip in"));
    }
}

#[test]
fn a_mark_that_gets_the_answer_of_another_request_costs_no_record() {
    for other in [Endpoint::Mark, Endpoint::Peek] {
        for loss in [None, Some(1)] {
            let tap = Tap::with_records(1_000).set("pageSize", 100).set("maxRetries", 5);
            if let Some(lost) = loss {
                tap.sandbox.script(Rule::on(Endpoint::Mark).call(lost).applied().close());
            }
            let stream = tap.stream.clone();
            let rule = Rule::on(Endpoint::Mark).call(2).answer_of(other);
            tap.sandbox.script(rule.before(move |service| {
                service.slip_in(&stream);
            }));
            tap.run().assert_each_once_when(&tap, &format!("the answer of {other:?}, first mark lost: {loss:?}"));
        }
    }
}

#[test]
fn a_mark_that_is_applied_late_while_pages_go_on_costs_no_record() {
    for after in [1, 2, 3, 5, 8] {
        let tap = Tap::with_records(1_000).set("pageSize", 100).set("maxRetries", 5);
        tap.sandbox.script(failing_mark(1).applied_after(after));
        tap.run().assert_each_once_when(&tap, &format!("after {after} requests"));
    }
}

#[test]
fn a_mark_that_is_applied_after_the_stream_was_drained_costs_a_follower_no_record() {
    let tap = Tap::with_records(50).set("pollIntervalSeconds", 0).set("maxRetries", 5).args(&["--follow"]);
    let stream = tap.stream.clone();
    // New records come in, and the late mark hits them before the next poll.
    tap.sandbox.script(failing_mark(1).applied_after(30).between(move |service| {
        assert_eq!(service.unread(&stream), [], "it was drained by then");
        service.fill(&stream, 5);
    }));
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Peek, 60);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.records().len()), (143, 55), "{}", run.stderr);
    run.assert_drained(&tap);
}

#[test]
fn a_late_mark_in_the_closed_loop_costs_no_record_if_the_targets_commit() {
    for after in [1, 2, 3, 4, 5, 6, 8] {
        let tap = Tap::with_records(300).set("maxPending", 100).set("maxRetries", 5);
        let tap = with_target(tap, &["--every", "0"]);
        tap.sandbox.script(failing_mark(1).applied_after(after));
        assert_all_committed(&tap.run(), &tap, &format!("after {after} requests"));
    }
}

#[test]
fn records_that_a_late_mark_has_hit_in_a_target_that_then_fails_are_loaded_or_named() {
    for is_mended in [true, false] {
        let tap = Tap::with_records(9).set("maxPending", 3).set("maxRetries", 5);
        make_fifo(&tap);
        // The first target commits. The second one waits with its window, and fails.
        let last = if is_mended { "exec TARGET --every 0" } else { "exit 1" };
        let script = format!(
            "mkdir DIR/once && exec TARGET --every 0; mkdir DIR/twice && exec TARGET --every 0 --wait-at 2 --until DIR/fifo \
             --crash-at 3; {last}"
        );
        let tap = with_target_script(tap, &script);
        tap.sandbox.script(failing_mark(1).applied_after(usize::MAX));
        let running = tap.start();
        let held = hold_target(&tap);
        tap.sandbox.apply_late();
        drop(held);
        let run = running.wait(&tap);
        let window = &tap.records()[3..6];
        assert!(identities(window).iter().all(|identity| tap.read().contains(identity)), "the late mark has hit them");
        if is_mended && run.code == 0 {
            run.assert_drains(&tap);
            assert_nothing_lost(&tap, &committed(&tap), &run.stderr);
            continue;
        }
        // Also if the tap has seen already that the mark has hit what was in flight.
        assert_eq!(committed(&tap), identities(&tap.records()[..3]), "{}", run.stderr);
        run.assert_fails(3, "marked as read");
        for record in window {
            run.assert_fails(3, &record.identity.record_id);
        }
        assert!(!run.stderr.contains("stay unread"), "{}", run.stderr);
    }
}

#[test]
fn what_slipped_in_before_a_lost_mark_is_delivered_although_a_stop_comes_first() {
    let tap = Tap::with_records(50).set("maxRetries", 5);
    let stream = tap.stream.clone();
    let rule = Rule::on(Endpoint::Mark).call(1).applied().status(503).header("retry-after", "600");
    tap.sandbox.script(rule.before(move |service| {
        for _ in 0..3 {
            service.slip_in(&stream);
        }
    }));
    let running = tap.start();
    tap.sandbox.wait_answered(Endpoint::Mark, 1);
    running.signal(Signal::TERM);
    let run = running.wait(&tap);
    assert_eq!((run.code, tap.records().len()), (143, 53), "{}", run.stderr);
    assert_nothing_lost(&tap, &run.written(), &run.stderr);
}

#[test]
fn what_slips_in_behind_a_record_without_a_time_stamp_is_found_after_a_lost_answer() {
    // With some of these page sizes the page of the lost mark begins with the odd record.
    for page_size in 2..=5 {
        for nth in 1..=4 {
            let tap = with_dead_letter_file(Tap::with_records(0).set("pageSize", page_size).set("maxRetries", 5));
            for n in 0..3 {
                tap.sandbox.fill(&tap.stream, 2);
                tap.sandbox.write_text(&tap.stream, &format!(r#"{{"recordId":"odd-{n}","dataPayload":1}}"#));
            }
            tap.sandbox.fill(&tap.stream, 3);
            let stream = tap.stream.clone();
            tap.sandbox.script(Rule::on(Endpoint::Mark).call(nth).applied().close().before(move |service| {
                service.slip_in(&stream);
            }));
            let run = tap.run();
            let case = format!("pages of {page_size}, mark {nth}\n{}", run.stderr);
            let delivered: Vec<_> = run.written().into_iter().chain(put_aside_identities(&tap)).collect();
            run.assert_drains_when(&tap, &case);
            assert_nothing_lost(&tap, &delivered, &case);
        }
    }
}

#[test]
fn records_that_are_equal_in_everything_are_drained_although_the_service_caps_pages() {
    let mut runs = Vec::new();
    for (cap, copies) in [(100, 250), (100, 101), (200, 500)] {
        for capped in [&EVERY_READ[..2], &EVERY_READ] {
            let tap = Tap::with_records(3);
            for endpoint in capped {
                tap.sandbox.script(Rule::on(*endpoint).every().cap(cap));
            }
            for _ in 0..copies {
                tap.sandbox.write_as(&tap.stream, "twin", "2022-02-01T15:16:23.75-05:00[America/New_York]", "1");
            }
            tap.sandbox.fill(&tap.stream, 3);
            let run = tap.run();
            runs.push((format!("{copies} copies, {capped:?} capped at {cap}"), tap, run));
        }
    }
    for (case, _, run) in &runs {
        assert_eq!(run.code, 0, "{case}\n{}", run.stderr);
    }
    for (case, tap, run) in runs {
        run.assert_all_delivered_when(&tap, &case);
    }
}
