//! `time_extracted`: when the page of a record arrived.

use std::io::{BufRead, BufReader};
use std::time::{Duration, SystemTime};

use regex::Regex;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{EARLY, Tap};

/// The time now, as a RECORD message has it.
fn now() -> String {
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap();
    format!("{now:.6}")
}

#[test]
fn the_time_is_one_text_for_a_page_in_utc_between_the_start_and_the_end_of_the_run() {
    let tap = Tap::with_records(250);
    // A clock shows the two pages apart.
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().delay(Duration::from_millis(2)));
    let start = now();
    let times = tap.run().times;
    let end = now();
    assert_eq!(times.len(), 250);
    let form = Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$").unwrap();
    assert!(form.is_match(&times[0]), "{}", times[0]);
    let (first, second) = times.split_at(100);
    for page in [first, second] {
        assert!(page.iter().all(|time| *time == page[0]), "{page:?}");
    }
    assert!(start <= first[0] && first[0] < second[0] && second[0] <= end, "{start} {times:?} {end}");
}

#[test]
fn a_page_that_was_peeked_ahead_has_the_time_when_it_arrived() {
    let tap = Tap::with_records(110).set("pageSize", 20).env("TAP_STREAMDUO_LOGLEVEL", "DEBUG");
    // The third mark is answered only after the peek for the fourth page has arrived.
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(3).applied().hold());
    for endpoint in [Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).every().delay(Duration::from_millis(20)));
    }
    let mut running = tap.start();
    tap.sandbox.wait_held(Endpoint::Mark, 3);
    // The log shows when the tap has read an answer.
    let log = BufReader::new(running.child.stderr.take().unwrap());
    let mut peeks = log.lines().filter(|line| line.as_ref().unwrap().contains(r#""endpoint":"peek""#));
    assert_eq!(peeks.by_ref().take(4).count(), 4);
    let released = now();
    tap.sandbox.release();
    let run = running.wait(&tap);
    run.assert_all_delivered(&tap);
    assert!(run.times[60] < released && released < run.times[80], "{released} {:?}", run.times);
}

#[test]
fn a_record_that_the_answer_to_a_mark_shows_has_the_time_of_that_answer() {
    let tap = Tap::with_records(3);
    let late = tap.write_late(EARLY, "1");
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).before(late).delay(Duration::from_millis(2)));
    let times = tap.run().times;
    assert_eq!(times.len(), 4);
    assert!(times[0] == times[2] && times[2] < times[3], "{times:?}");
}
