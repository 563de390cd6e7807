//! A look against a service that fails, other consumers and late records.

use std::collections::BTreeSet;

use super::*;

/// Shows up to `max` records of the world's stream. Returns what was written.
fn look(world: &World, script: &Script, max: usize) -> (Result<()>, Vec<Record>) {
    let output: Shared<Output> = Rc::default();
    let stop = Shutdown::default();
    let target = FakeTarget::new(&output, script.stdout_breaks, &[], &world.is_killed);
    let service = FakeService::new(world, script, &stop);
    let endpoints = Endpoints {
        service,
        writer: Box::new(target),
        stream: "records".to_owned(),
        state: State::default(),
        target: None,
        look: Some(crate::poll::Look::peek(max)),
    };
    let pause = script.follows.then_some(Duration::ZERO);
    let end = crate::poll::run(&world.config, tuning(&world.config), endpoints, pause, stop);
    let output = output.borrow();
    assert_eq!(output.state, None, "a STATE is written");
    (end, output.flushed.clone())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_look_marks_nothing_and_shows_no_record_twice(
        records in initial(30), payloads in payloads(), is_commit in any::<bool>(), max in 1..20usize, script in script()
    ) {
        let world = World::new(&records, payloads, if is_commit { "commit" } else { "write" }, 10);
        let (_, shown) = look(&world, &script, max);
        prop_assert!(world.service.borrow().hits.is_empty());
        let different: BTreeSet<_> = shown.iter().collect();
        // Beyond two windows it forgets what late records have pushed out of sight.
        let is_forgetful = script.follows && world.service.borrow().rows.len() > max;
        prop_assert!(is_forgetful || different.len() == shown.len());
    }

    #[test]
    fn a_look_that_fits_a_window_shows_exactly_the_oldest_records(records in initial(60), max in 1..30usize) {
        let world = World::new(&records, vec![0], "write", 10);
        let (end, shown) = look(&world, &Script::of(Capacity::UNLIMITED), max);
        prop_assert!(end.is_ok());
        let mut oldest: Vec<_> = world.service.borrow().unread(max).into_iter().map(|row| row.record).collect();
        let mut seen = BTreeSet::new();
        oldest.retain(|record| seen.insert(record.clone()));
        prop_assert_eq!(shown, oldest);
    }
}
