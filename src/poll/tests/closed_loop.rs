//! The closed loop: the tap runs the target.

use super::process::{AtEnd, GOOD, process};
use super::*;
use crate::config::TargetProof;

/// A service, and the runs that start targets.
pub struct Closed {
    pub world: World,
    printed: Shared<Vec<String>>,
}

impl Closed {
    pub fn new(records: &[Kind], payloads: Vec<usize>, max_pending: usize, proof: TargetProof) -> Closed {
        let mut world = World::new(records, payloads, "commit", max_pending);
        world.config.target_proof = proof;
        Closed { world, printed: Rc::default() }
    }

    /// With `markBy` `id`.
    pub fn by_id(self) -> Closed {
        Closed { world: self.world.by_id(), ..self }
    }

    /// Runs the tap to its end and checks the promise.
    pub fn run(&mut self, script: &Script, targets: &Targets) -> Result<(), TestCaseError> {
        self.world.is_killed = Rc::default();
        let process = process(&self.world.output, &self.world.is_killed, targets, &self.printed);
        let target: Box<dyn Target> = Box::new(process.clone());
        self.world.run_with(script, Box::new(process), State::default(), Some(target))
    }

    /// Runs by these scripts with these targets, and then without trouble to the end.
    fn run_all(&mut self, runs: &[(Script, Targets)]) -> Result<(), TestCaseError> {
        for (script, targets) in runs {
            self.run(script, targets)?;
        }
        self.finish()
    }

    /// Runs without trouble until nothing is unread; then everything is committed.
    pub fn finish(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..100 {
            self.run(&Script::of(Capacity::UNLIMITED), &Targets::good())?;
            if self.world.service.borrow().unread(1).is_empty() {
                break;
            }
        }
        self.world.check_drained()
    }
}

fn proof() -> impl Strategy<Value = TargetProof> {
    prop::sample::select(&[TargetProof::State, TargetProof::Exit][..])
}

/// An end that proves that everything is committed.
fn good_end() -> impl Strategy<Value = (TargetProof, AtEnd)> {
    prop_oneof![
        Just((TargetProof::State, GOOD)),
        Just((TargetProof::Exit, GOOD)),
        Just((TargetProof::Exit, AtEnd::Commit))
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    /// The main one, with a target that the tap runs.
    #[test]
    fn nothing_that_is_marked_is_lost(
        records in initial(30), payloads in payloads(), max_pending in 1..20usize, proof in proof(),
        runs in prop::collection::vec((script(), targets()), 1..5)
    ) {
        Closed::new(&records, payloads, max_pending, proof).run_all(&runs)?;
    }

    /// What a stop leaves to do: load what was found, and look at each mark once more.
    #[test]
    fn nothing_that_is_marked_around_a_stop_is_lost(
        calls in prop::collection::vec(call(fate(), Just(Kind::New)), 4..18), stops_at in 1..10usize,
        records in 1..16usize, max_pending in 2..12usize, proof in proof()
    ) {
        let script = Script { calls, stops_at: Some(stops_at), ..Script::of(Capacity::UNLIMITED) };
        let mut closed = Closed::new(&vec![Kind::New; records], vec![0], max_pending, proof);
        closed.run_all(&[(script, Targets::good())])?;
    }

    #[test]
    fn nothing_that_is_marked_by_id_is_lost_if_ids_are_unique(
        records in 0..30usize, payloads in payloads(), max_pending in 1..20usize, proof in proof(),
        runs in prop::collection::vec((script_with(kind_of_own_id().boxed()), targets()), 1..5)
    ) {
        Closed::new(&vec![Kind::New; records], payloads, max_pending, proof).by_id().run_all(&runs)?;
    }

    #[test]
    fn nothing_that_is_marked_by_id_is_lost_but_records_that_share_their_ids(
        records in singles(30), payloads in payloads(), max_pending in 1..20usize, proof in proof(),
        runs in prop::collection::vec((script_by_id(), targets()), 1..5)
    ) {
        Closed::new(&records, payloads, max_pending, proof).by_id().run_all(&runs)?;
    }

    #[test]
    fn one_run_without_failures_commits_and_marks_every_record_once(
        records in singles(60), payloads in payloads(), max_pending in 1..30usize, capacity in capacity(),
        (proof, at_end) in good_end(), at_state in prop::collection::vec(at_state(), 0..20), by_id in any::<bool>()
    ) {
        let mut closed = Closed::new(&records, payloads, max_pending, proof);
        closed = if by_id { closed.by_id() } else { closed };
        closed.run(&Script::of(capacity), &Targets { at_state, at_end, ..Targets::good() })?;
        closed.world.check_drained()?;
        prop_assert_eq!((closed.world.duplicates(), *closed.world.failures.borrow()), (0, 0));
        prop_assert!(closed.world.excused.is_empty());
    }

    /// Only what a peek shows is marked.
    #[test]
    fn one_run_commits_and_marks_every_record_whatever_the_service_shows_by_time(
        records in singles(60), payloads in payloads(), max_pending in 1..30usize, capacity in capacity(),
        (proof, at_end) in good_end(), at_state in prop::collection::vec(at_state(), 0..20)
    ) {
        let mut closed = Closed::new(&records, payloads, max_pending, proof);
        closed.world.service.borrow_mut().is_odd_by_time = true;
        closed.run(&Script::of(capacity), &Targets { at_state, at_end, ..Targets::good() })?;
        closed.world.check_drained()?;
        prop_assert_eq!((closed.world.repeated(), *closed.world.failures.borrow()), (0, 0));
    }

    /// But for bad records at the end of the stream, behind which none loads.
    #[test]
    fn one_run_loads_every_record_but_those_that_the_target_refuses_and_puts_them_aside(
        records in 2..40usize, payloads in payloads(), max_pending in 1..30usize, cap in cap(),
        (proof, at_end) in good_end(), at_state in prop::collection::vec(at_state(), 0..20), by_id in any::<bool>(),
        refuses in 4..40usize
    ) {
        let mut closed = Closed::new(&vec![Kind::New; records], payloads, max_pending, proof);
        closed = if by_id { closed.by_id() } else { closed };
        let targets = Targets { at_state, at_end, crashes_at: None, refuses: Some(refuses) };
        closed.run(&Script { cap, ..Script::of(Capacity::UNLIMITED) }, &targets)?;
        let unread = closed.world.service.borrow().unread(records);
        prop_assert!(unread.iter().all(|row| targets.refuse(&row.record)), "{unread:?} is left");
        prop_assert!(unread.len() <= 1 && closed.world.excused.is_empty());
        closed.finish()?;
    }

    #[test]
    fn late_records_and_other_consumers_cost_no_duplicates(
        records in initial(30), payloads in payloads(), max_pending in 1..15usize, script in calm_script(),
        at_state in prop::collection::vec(at_state(), 0..20)
    ) {
        let mut closed = Closed::new(&records, payloads, max_pending, TargetProof::State);
        closed.run(&script, &Targets { at_state, ..Targets::good() })?;
        prop_assert_eq!((closed.world.repeated(), *closed.world.failures.borrow()), (0, 0));
        closed.finish()?;
        prop_assert!(closed.world.excused.is_empty());
    }
}
