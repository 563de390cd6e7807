//! A look against a service that fails, other consumers and late records.

use super::*;

/// Shows up to `max` records of the world's stream. Returns what was written.
fn look(world: &World, script: &Script, max: usize) -> (Result<()>, Vec<Record>) {
    let output: Shared<Output> = Rc::default();
    let service = FakeService {
        service: Rc::clone(&world.service),
        output: Rc::clone(&output),
        calls: script.calls.iter().cloned().collect(),
        cap: script.cap,
        capacity: script.capacity,
        timeout: world.config.request_timeout,
        mode: world.config.acknowledge,
        goes_by_bookmark: false,
        failures: Rc::clone(&world.failures),
        peeked_at: 0,
        is_killed: Rc::default(),
        requests: 0,
    };
    let commits = VecDeque::new();
    let target = FakeTarget {
        output: Rc::clone(&output),
        is_killed: Rc::default(),
        buffer: Vec::new(),
        breaks_after: script.stdout_breaks,
        commits,
    };
    let (stream, state) = ("records".to_owned(), State::default());
    let endpoints = Endpoints { service, writer: Box::new(target), stream, state, target: None };
    let retries = RetryPolicy { first_delay: Duration::ZERO, ..RetryPolicy::new(world.config.max_retries) };
    let tuning = Tuning { first_page: FIRST_PAGE, page_bytes: PAGE_BYTES, window_bytes: WINDOW_BYTES, retries };
    let end = super::super::look(Look::Peek(max), &world.config, tuning, endpoints, None, Shutdown::default());
    let output = output.borrow();
    assert_eq!(output.state, None, "a STATE is written");
    (end, output.flushed.clone())
}

fn mode() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["write", "commit", "read"][..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_look_marks_nothing_and_shows_no_record_twice(
        records in initial(30), payloads in payloads(), mode in mode(), max in 1..20usize, script in script()
    ) {
        let world = World::new(&records, payloads, mode, 10);
        let (_, shown) = look(&world, &script, max);
        prop_assert!(world.service.borrow().marked_by_tap.0.is_empty());
        let there: Copies = world.service.borrow().records.iter().map(|stored| &stored.record).collect();
        let shown: Copies = shown.iter().collect();
        for (record, copies) in &shown.0 {
            prop_assert!(*copies <= there.of(record), "{record:?} is shown {copies} times");
        }
    }

    #[test]
    fn a_look_that_fits_a_window_shows_exactly_the_oldest_records(
        records in initial(60), mode in mode(), max in 1..40usize
    ) {
        let world = World::new(&records, vec![0], mode, 10);
        let (end, shown) = look(&world, &Script::of(Capacity::UNLIMITED), max);
        prop_assert!(end.is_ok());
        let oldest: Vec<_> = world.service.borrow().unread(max).into_iter().map(|stored| stored.record).collect();
        prop_assert_eq!(shown, oldest);
    }
}
