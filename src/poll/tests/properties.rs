//! Into a pipe: `acknowledge: write` and `commit`.

use super::*;

proptest! {
    #![proptest_config(cases(256))]

    /// The main one: whatever is marked while a run is going on is delivered by it, or named in a
    /// warning.
    #[test]
    fn nothing_that_is_marked_is_lost_in_write_mode(
        records in initial(30), payloads in payloads(), page_size in 1..15usize,
        scripts in prop::collection::vec(script(), 1..5)
    ) {
        let mut world = World::new(&records, payloads, "write", page_size);
        for script in &scripts {
            world.run(script)?;
            prop_assert_eq!(world.repeated(), 0, "a run writes records again");
        }
        world.finish()?;
    }

    #[test]
    fn nothing_that_is_marked_is_lost_in_commit_mode(
        records in initial(30), payloads in payloads(), max_pending in 1..20usize,
        scripts in prop::collection::vec(script(), 1..5)
    ) {
        World::new(&records, payloads, "commit", max_pending).run_all(&scripts)?;
    }

    #[test]
    fn nothing_that_is_marked_by_id_is_lost_if_ids_are_unique(
        records in 0..30usize, payloads in payloads(), page_size in 1..15usize, is_commit in any::<bool>(),
        scripts in prop::collection::vec(script_with(kind_of_own_id().boxed()), 1..5)
    ) {
        let mode = if is_commit { "commit" } else { "write" };
        World::new(&vec![Kind::New; records], payloads, mode, page_size).by_id().run_all(&scripts)?;
    }

    #[test]
    fn nothing_that_is_marked_by_id_is_lost_but_records_that_share_their_ids(
        records in singles(30), payloads in payloads(), page_size in 1..15usize, is_commit in any::<bool>(),
        scripts in prop::collection::vec(script_by_id(), 1..5)
    ) {
        let mode = if is_commit { "commit" } else { "write" };
        World::new(&records, payloads, mode, page_size).by_id().run_all(&scripts)?;
    }

    #[test]
    fn a_run_without_failures_writes_every_record_once(
        records in initial(30), payloads in payloads(), page_size in 1..15usize, script in calm_script()
    ) {
        let mut world = World::new(&records, payloads, "write", page_size);
        world.run(&script)?;
        prop_assert_eq!((world.repeated(), *world.failures.borrow()), (0, 0));
        world.finish()?;
        prop_assert!(world.excused.is_empty());
    }

    #[test]
    fn a_run_without_failures_writes_every_record_once_by_id(
        records in initial(30), payloads in payloads(), page_size in 1..15usize, script in calm_script()
    ) {
        let mut world = World::new(&records, payloads, "write", page_size).by_id();
        world.run(&script)?;
        prop_assert_eq!((world.repeated(), *world.failures.borrow()), (0, 0));
        world.finish()?;
        prop_assert!(world.excused.is_empty());
    }

    #[test]
    fn one_run_drains_a_stream_that_is_served_in_small_pages_only(
        records in singles(60), payloads in payloads(), page_size in 1..30usize, capacity in capacity()
    ) {
        let mut world = World::new(&records, payloads, "write", page_size);
        world.run(&Script::of(capacity))?;
        prop_assert!(world.service.borrow().unread(1).is_empty());
        prop_assert_eq!((world.duplicates(), *world.failures.borrow()), (0, 0));
    }

    #[test]
    fn runs_with_commit_drain_a_stream_that_is_served_in_small_windows_only(
        records in initial(60), payloads in payloads(), max_pending in 1..30usize, capacity in capacity()
    ) {
        let mut world = World::new(&records, payloads, "commit", max_pending);
        world.finish_with(capacity)?;
        prop_assert_eq!(*world.failures.borrow(), 0);
    }
}
