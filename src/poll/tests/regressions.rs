//! What went wrong once.

use super::closed_loop::Closed;
use super::process::{AtEnd, AtState};
use super::*;
use crate::config::TargetProof;

const NEW: Kind = Kind::New;

fn fate(applied: Applied, answer: Answer) -> Fate {
    Fate { applied, answer }
}

/// A record arrives right behind the oldest unread one.
fn slip_in() -> Event {
    Event::SlipIn { behind: Some(0), kind: NEW }
}

/// A record arrives at the end, if any is unread.
fn arrival() -> Event {
    Event::SlipIn { behind: Some(usize::MAX / 2), kind: NEW }
}

/// After so many requests, this happens before the next one, and that becomes of it.
fn after(requests: usize, before: &[Event], fate: Fate) -> Script {
    let mut calls = vec![(Vec::new(), Fate::GOOD); requests];
    calls.push((before.to_vec(), fate));
    Script::of_calls(calls)
}

/// Nothing is lost in `write` mode, and nothing that may be.
fn assert_all_written(records: &[Kind], page_size: usize, script: &Script) {
    let mut world = World::new(records, vec![0], "write", page_size);
    world.run(script).unwrap();
    world.finish().unwrap();
    assert!(world.excused.is_empty(), "{:?}", world.excused);
}

#[test]
fn a_mark_that_a_gateway_applies_twice_costs_nothing() {
    let script = after(1, &[], fate(Applied::Twice(0), Answer::Comes));
    assert_all_written(&[NEW; 20], 3, &script);
    for (max_pending, at_state) in [(3, AtState::Acknowledge), (10, AtState::Wait)] {
        let mut closed = Closed::new(&[NEW; 20], vec![0], max_pending, TargetProof::State);
        let targets = Targets { at_state: vec![at_state; 9], ..Targets::good() };
        closed.run(&script, &targets).unwrap();
        closed.finish().unwrap();
        assert!(closed.world.excused.is_empty(), "{:?}", closed.world.excused);
    }
}

#[test]
fn a_mark_that_is_applied_late_costs_a_run_that_follows_nothing() {
    for late in 1..12 {
        let mut script = after(1, &[], fate(Applied::Late(late), Answer::Status(504)));
        // New records come in all the time, so that some are there when it is applied.
        script.calls.extend((0..12).map(|_| Call { before: vec![arrival()], fate: Fate::GOOD, overtaken: false }));
        assert_all_written(&[NEW; 5], 3, &Script { follows: true, ..script });
    }
}

#[test]
fn a_late_mark_that_hits_what_is_in_flight_to_a_target_that_fails_is_named() {
    for late in 1..12 {
        let script = after(2, &[], fate(Applied::Late(late), Answer::Status(504)));
        let mut closed = Closed::new(&[NEW; 20], vec![0], 4, TargetProof::State);
        let targets = Targets { crashes_at: Some(6), ..Targets::good() };
        closed.run(&script, &targets).unwrap();
        closed.finish().unwrap();
    }
}

#[test]
fn a_stop_after_a_lost_answer_does_not_lose_what_has_slipped_in() {
    for stops_at in 2..8 {
        let script = after(1, &[slip_in(), slip_in()], fate(Applied::Once, Answer::Lost));
        let script = Script { stops_at: Some(stops_at), ..script };
        assert_all_written(&[NEW; 9], 4, &script);
    }
}

#[test]
fn a_page_may_begin_with_a_record_without_a_time_stamp() {
    for shown in [Shown::OnlyId, Shown::Neither] {
        let mut records = vec![NEW; 9];
        records[3] = Kind::Odd(shown);
        let script = after(3, &[slip_in()], fate(Applied::Once, Answer::Lost));
        assert_all_written(&records, 4, &script);
    }
}

#[test]
fn records_that_are_equal_in_everything_are_written_once_and_all_are_marked() {
    let mut records = vec![Kind::Copy; 20];
    records[0] = NEW;
    for cap in [FIRST_PAGE, 5, usize::MAX] {
        let script = Script { cap, ..Script::of(Capacity::UNLIMITED) };
        let mut world = World::new(&records, vec![0], "write", 10);
        world.run(&script).unwrap();
        world.check_drained().unwrap();
        assert_eq!((world.output.borrow().flushed.len(), *world.failures.borrow()), (1, 0));
        let mut closed = Closed::new(&records, vec![0], 10, TargetProof::State);
        closed.run(&script, &Targets::good()).unwrap();
        closed.world.check_drained().unwrap();
        assert_eq!((closed.world.output.borrow().flushed.len(), *closed.world.failures.borrow()), (1, 0));
    }
}

#[test]
fn by_id_an_id_with_many_versions_goes_by_position() {
    let mut records = vec![Kind::Version; 60];
    records[0] = NEW;
    records[30] = NEW;
    for crashes_at in [None, Some(7)] {
        let mut world = World::new(&records, vec![0], "write", 10).by_id();
        world.run(&Script::of(Capacity::UNLIMITED)).unwrap();
        world.check_drained().unwrap();
        let mut closed = Closed::new(&records, vec![0], 10, TargetProof::State).by_id();
        closed.run(&Script::of(Capacity::UNLIMITED), &Targets { crashes_at, ..Targets::good() }).unwrap();
        closed.finish().unwrap();
        assert!(closed.world.excused.is_empty() && world.excused.is_empty());
    }
}

#[test]
fn by_id_an_id_that_cannot_be_marked_goes_by_position() {
    let mut calls = vec![(Vec::new(), Fate::GOOD)];
    calls.extend(vec![(Vec::new(), fate(Applied::Never, Answer::Status(404))); 3]);
    let mut world = World::new(&[NEW; 9], vec![0], "write", 4).by_id();
    world.run(&Script::of_calls(calls)).unwrap();
    world.finish().unwrap();
}

#[test]
fn what_slips_in_and_is_lost_by_a_second_target_is_named_although_the_first_one_has_failed() {
    let script = after(2, &[Event::SlipIn { behind: None, kind: NEW }], Fate::GOOD);
    let mut closed = Closed::new(&[NEW], vec![0], 4, TargetProof::State);
    let at_state = vec![AtState::Acknowledge, AtState::Wait, AtState::Wait];
    closed.run(&script, &Targets { at_state, at_end: AtEnd::Fail, ..Targets::good() }).unwrap();
}

#[test]
fn what_two_look_backs_find_is_written_once() {
    let script = Script::of_calls(vec![
        (Vec::new(), Fate::GOOD),
        (Vec::new(), fate(Applied::Never, Answer::Lost)),
        (vec![Event::ForeignMark(1)], Fate::GOOD),
        (vec![Event::ForeignMark(2)], Fate::GOOD),
    ]);
    let mut world = World::new(&[NEW; 3], vec![0], "write", 1);
    world.run(&script).unwrap();
    assert_eq!(world.duplicates(), 0);
}

/// A record arrives at this place.
fn at(place: usize) -> Event {
    Event::Arrival { place, kind: NEW }
}

/// A record arrives right before the oldest unread one.
fn in_front(kind: Kind) -> Event {
    Event::SlipIn { behind: None, kind }
}

/// What the properties have found: one run after the other.
fn assert_holds(mode: &str, by_id: bool, page_size: usize, records: &[Kind], runs: Vec<Script>) {
    let world = World::new(records, vec![0], mode, page_size);
    let mut world = if by_id { world.by_id() } else { world };
    world.run_all(&runs).unwrap();
}

fn good(before: &[Event]) -> (Vec<Event>, Fate) {
    (before.to_vec(), Fate::GOOD)
}

fn lost(before: &[Event], late: usize) -> (Vec<Event>, Fate) {
    (before.to_vec(), fate(Applied::Late(late), Answer::Lost))
}

#[test]
fn a_lost_mark_that_is_applied_while_the_tap_looks_back_is_seen() {
    let mut twin = vec![NEW; 10];
    twin[4] = Kind::Twin;
    let one = vec![
        good(&[in_front(NEW)]),
        (vec![at(0)], fate(Applied::Once, Answer::Lost)),
        good(&[]),
        good(&[at(0), at(0)]),
    ];
    let two = vec![good(&[]), lost(&[slip_in()], 3)];
    assert_holds("commit", true, 10, &twin, vec![Script::of_calls(one), Script::of_calls(two)]);

    let odd = Event::Arrival { place: 1, kind: Kind::Odd(Shown::Neither) };
    let one =
        vec![good(&[at(0), in_front(Kind::Odd(Shown::OnlyId))]), good(&[in_front(NEW), odd]), good(&[at(2), at(0)])];
    let two = vec![good(&[]), lost(&[at(300)], 4)];
    let one = Script { follows: true, ..Script::of_calls(one) };
    assert_holds("commit", false, 6, &[NEW; 15], vec![one, Script::of_calls(two)]);
}

#[test]
fn a_stop_while_the_tap_looks_back_is_followed_by_one_more_look() {
    let one = vec![good(&[at(2)]), good(&[at(0)]), good(&[at(0)]), good(&[at(0)])];
    let two = vec![good(&[at(502)]), lost(&[at(0)], 3), good(&[at(632)])];
    let two = Script { stops_at: Some(3), ..Script::of_calls(two) };
    assert_holds("commit", false, 7, &[NEW; 28], vec![Script::of_calls(vec![]), Script::of_calls(one), two]);

    let mut records = vec![NEW; 11];
    records[1] = Kind::SameStamp;
    let one = vec![
        good(&[slip_in(), at(728)]),
        good(&[]),
        good(&[]),
        good(&[in_front(NEW), at(2)]),
        good(&[at(34)]),
        good(&[at(2), at(2)]),
        good(&[at(2)]),
    ];
    let two = vec![
        (vec![at(2), at(2)], fate(Applied::Once, Answer::Lost)),
        good(&[at(2)]),
        good(&[at(0), at(0)]),
        good(&[at(125)]),
        good(&[]),
        good(&[]),
        good(&[slip_in()]),
        lost(&[], 3),
    ];
    let one = Script { stops_at: Some(4), ..Script::of_calls(one) };
    let two = Script { stops_at: Some(9), ..Script::of_calls(two) };
    assert_holds("write", false, 4, &records, vec![one, two]);
}

#[test]
fn the_first_page_of_a_run_that_is_not_accepted_is_where_a_look_back_begins() {
    let two = vec![
        good(&[at(8)]),
        good(&[at(0)]),
        good(&[at(0)]),
        good(&[Event::ForeignMark(1)]),
        good(&[at(1)]),
        good(&[]),
        (vec![in_front(NEW)], fate(Applied::Once, Answer::Other)),
    ];
    assert_holds("write", false, 1, &[NEW; 8], vec![Script::of_calls(vec![good(&[at(0)])]), Script::of_calls(two)]);
}

#[test]
fn a_page_that_does_not_reach_what_was_marked_does_not_show_that_it_was_applied() {
    let one = vec![
        good(&[Event::SlipIn { behind: Some(0), kind: Kind::Version }]),
        lost(&[Event::Arrival { place: 415, kind: Kind::SameStamp }], 7),
        good(&[at(700)]),
    ];
    let capacity = Capacity { pace: Duration::from_millis(10), ..Capacity::UNLIMITED };
    assert_holds("write", true, 1, &[NEW], vec![Script { capacity, ..Script::of_calls(one) }]);
}

#[test]
fn a_look_back_ends_if_the_service_shows_one_record_at_a_time() {
    let calls = vec![good(&[]), good(&[in_front(NEW)]), good(&[]), good(&[]), good(&[]), lost(&[], 2)];
    let capacity = Capacity { bytes: 500, refusal: 500, ..Capacity::UNLIMITED };
    let mut closed = Closed::new(&[NEW; 60], vec![199], 3, TargetProof::Exit);
    closed.run(&Script { capacity, ..Script::of_calls(calls) }, &Targets::good()).unwrap();
}

#[test]
fn a_record_that_is_equal_to_a_marked_one_does_not_fill_the_window() {
    let calls = vec![
        (vec![], Fate::GOOD),
        (vec![Event::Arrival { place: 305, kind: Kind::Odd(Shown::OnlyId) }], Fate::GOOD),
        (vec![Event::SlipIn { behind: Some(2), kind: NEW }], fate(Applied::InPart(0), Answer::Lost)),
    ];
    let mut closed = Closed::new(&[NEW, NEW, Kind::Copy], vec![0], 1, TargetProof::State);
    closed.run(&Script { cap: 3, ..Script::of_calls(calls) }, &Targets::good()).unwrap();
    closed.finish().unwrap();
}

#[test]
fn a_page_that_was_not_checked_before_a_stop_is_where_the_next_look_back_begins() {
    let calls = vec![
        good(&[at(83)]),
        (vec![in_front(NEW)], fate(Applied::Once, Answer::Status(429))),
        good(&[in_front(NEW), at(16)]),
        good(&[at(611)]),
        good(&[]),
        good(&[]),
        (vec![], fate(Applied::Once, Answer::Lost)),
        good(&[Event::ForeignMark(3)]),
        good(&[]),
        (vec![slip_in()], fate(Applied::Late(1), Answer::Comes)),
        good(&[in_front(NEW)]),
    ];
    let mut records = vec![NEW; 8];
    records[1] = Kind::Twin;
    let script = Script { stops_at: Some(6), ..Script::of_calls(calls) };
    let mut closed = Closed::new(&records, vec![0], 10, TargetProof::Exit).by_id();
    closed.run(&script, &Targets::good()).unwrap();
    closed.finish().unwrap();
}

#[test]
fn a_mark_of_what_was_found_after_a_stop_is_looked_at_too() {
    let twice = vec![
        good(&[at(0)]),
        good(&[]),
        (vec![], fate(Applied::Twice(3), Answer::Comes)),
        good(&[Event::ForeignMark(1)]),
        good(&[]),
        good(&[]),
        good(&[]),
        (vec![], fate(Applied::Once, Answer::Lost)),
    ];
    let late = vec![
        good(&[at(0)]),
        good(&[]),
        (vec![], fate(Applied::Late(4), Answer::Comes)),
        good(&[slip_in(), Event::ForeignMark(3)]),
        good(&[]),
        good(&[at(37)]),
        good(&[at(58), at(630)]),
    ];
    for calls in [twice, late] {
        let script = Script { stops_at: Some(1), ..Script::of_calls(calls) };
        let mut closed = Closed::new(&[NEW; 5], vec![0], 4, TargetProof::State);
        closed.run(&script, &Targets::good()).unwrap();
        closed.finish().unwrap();
    }
}
