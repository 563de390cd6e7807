//! The closed loop against targets that acknowledge at once, late, twice, out of order or never, that fail at any record, and that
//! end without having committed.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::*;
use crate::config::TargetProof;
use crate::poll::load::REMINDER;
use crate::poll::target::{Event as TargetEvent, Exit};
use crate::record::ReturnedCheckpoint;
use crate::singer::state::returned_checkpoint;

/// What a target does when it reads a STATE.
#[derive(Debug, Clone, Copy)]
enum AtState {
    /// Commits, and prints the STATE.
    Acknowledge,
    /// Commits, and prints nothing.
    Commit,
    /// Neither.
    Wait,
    /// Prints a STATE that some target has got before: of this run or of an earlier one. All that was committed by then.
    PrintOld(prop::sample::Index),
}

/// What a target does at the end of its input.
#[derive(Debug, Clone, Copy)]
pub(super) enum AtEnd {
    /// Commits, prints its last STATE and ends well.
    Acknowledge,
    /// Commits and ends well.
    Commit,
    /// Ends well, before it has read everything.
    GiveUp,
    /// Fails.
    Fail,
}

/// The targets of one run of the tap, which do the same.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    at_state: Vec<AtState>,
    at_end: AtEnd,
    /// The record at which a target crashes, counted over all targets of the run.
    crashes_at: Option<usize>,
}

const GOOD: AtEnd = AtEnd::Acknowledge;

impl Targets {
    /// They commit everything.
    pub(super) fn good() -> Targets {
        Targets { at_state: Vec::new(), at_end: GOOD, crashes_at: None }
    }
}

/// The targets of one run of the tap that commit to this output.
pub(super) fn process(
    output: &Shared<Output>,
    is_killed: &Shared<bool>,
    targets: &Targets,
    printed: &Shared<Vec<String>>,
) -> FakeProcess {
    FakeProcess(Rc::new(RefCell::new(Process {
        output: Rc::clone(output),
        is_killed: Rc::clone(is_killed),
        printed: Rc::clone(printed),
        targets: targets.clone(),
        buffer: Vec::new(),
        last_state: None,
        states: 0,
        records: 0,
        is_running: false,
        is_dead: false,
        events: VecDeque::new(),
    })))
}

/// The target that is running, and what it has done.
struct Process {
    output: Shared<Output>,
    /// Whether the tap is killed.
    is_killed: Shared<bool>,
    /// Every STATE that a target has printed.
    printed: Shared<Vec<String>>,
    targets: Targets,
    /// What the writer gathers until it flushes.
    buffer: Vec<Record>,
    last_state: Option<String>,
    /// How many STATEs and records the targets of the run have got.
    states: usize,
    records: usize,
    is_running: bool,
    /// Whether it has ended, and the tap may not know it yet.
    is_dead: bool,
    events: VecDeque<TargetEvent>,
}

impl Process {
    fn start(&mut self) {
        if !self.is_running {
            (self.is_running, self.is_dead, self.last_state) = (true, false, None);
        }
    }

    fn crash(&mut self) {
        self.is_dead = true;
        self.output.borrow_mut().pending.clear();
        self.events.push_back(TargetEvent::Ended(Exit { status: Ok(ExitStatus::from_raw(9)), has_read_all: false }));
    }

    fn commit(&mut self) {
        let mut output = self.output.borrow_mut();
        let pending = std::mem::take(&mut output.pending);
        output.committed.extend(pending);
    }

    fn print(&mut self, state: &str) {
        self.events.push_back(TargetEvent::Acknowledged(read(state)));
    }

    fn acknowledge(&mut self) {
        self.commit();
        if let Some(state) = self.last_state.clone() {
            self.print(&state);
            self.printed.borrow_mut().push(state);
        }
    }

    fn end(&mut self) {
        if !self.is_running || self.is_dead {
            return;
        }
        self.is_dead = true;
        match self.targets.at_end {
            AtEnd::Acknowledge => self.acknowledge(),
            AtEnd::Commit => self.commit(),
            AtEnd::GiveUp | AtEnd::Fail => self.output.borrow_mut().pending.clear(),
        }
        let code = if matches!(self.targets.at_end, AtEnd::Fail) { 1 << 8 } else { 0 };
        let has_read_all = !matches!(self.targets.at_end, AtEnd::GiveUp);
        self.events.push_back(TargetEvent::Ended(Exit { status: Ok(ExitStatus::from_raw(code)), has_read_all }));
    }
}

fn read(state: &str) -> ReturnedCheckpoint {
    returned_checkpoint(state, "records").unwrap()
}

/// The way into the target, and the way out.
#[derive(Clone)]
pub(super) struct FakeProcess(Shared<Process>);

impl MessageWriter for FakeProcess {
    fn record(&mut self, json: &[u8], _time_extracted: &str) -> io::Result<()> {
        let process = &mut *self.0.borrow_mut();
        process.start();
        if *process.is_killed.borrow() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if process.targets.crashes_at == Some(process.records) && !process.is_dead {
            process.crash();
        }
        process.records += 1;
        process.buffer.push(Record::parse(json));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let process = &mut *self.0.borrow_mut();
        let mut output = process.output.borrow_mut();
        output.flushed.extend(process.buffer.iter().cloned());
        if !process.is_dead {
            output.pending.append(&mut process.buffer);
            process.events.push_back(TargetEvent::Taken);
        }
        process.buffer.clear();
        Ok(())
    }

    fn state(&mut self, value: &RawValue) -> io::Result<()> {
        self.flush()?;
        let process = &mut *self.0.borrow_mut();
        process.start();
        let at_state = process.targets.at_state.get(process.states).copied().unwrap_or(AtState::Acknowledge);
        process.states += 1;
        if process.is_dead {
            return Ok(());
        }
        process.last_state = Some(value.get().to_owned());
        match at_state {
            AtState::Acknowledge => process.acknowledge(),
            AtState::Commit => process.commit(),
            AtState::Wait => {}
            AtState::PrintOld(index) => {
                let printed = process.printed.borrow().clone();
                if !printed.is_empty() {
                    process.print(index.get::<String>(&printed));
                }
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        self.0.borrow_mut().end();
    }
}

impl Target for FakeProcess {
    fn name(&self) -> &str {
        "target-fake"
    }

    fn is_running(&self) -> bool {
        self.0.borrow().is_running
    }

    fn next_event(&mut self, limit: Duration, _stop: &Shutdown) -> Result<Option<TargetEvent>> {
        let process = &mut *self.0.borrow_mut();
        let event = process.events.pop_front();
        assert!(event.is_some() || limit < REMINDER, "the loop would wait for ever");
        if matches!(event, Some(TargetEvent::Ended(_))) {
            process.is_running = false;
        }
        Ok(event)
    }
}

/// A service, and the runs that start targets.
struct Closed {
    world: World,
    printed: Shared<Vec<String>>,
}

impl Closed {
    fn new(records: &[Kind], payloads: Vec<usize>, max_pending: usize, proof: TargetProof) -> Closed {
        let mut world = World::new(records, payloads, "commit", max_pending);
        world.config.target_proof = proof;
        Closed { world, printed: Rc::default() }
    }

    /// With `markBy` `id`.
    fn by_id(self) -> Closed {
        Closed { world: self.world.by_id(), ..self }
    }

    /// Runs the tap to its end and checks the promise.
    fn run(&mut self, script: &Script, targets: &Targets) -> Result<(), TestCaseError> {
        self.world.output.borrow_mut().pending.clear();
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
        self.finish(&Script::of(Capacity::UNLIMITED), &Targets::good())
    }

    /// Runs without trouble until nothing is unread; then everything is committed.
    fn finish(&mut self, script: &Script, targets: &Targets) -> Result<(), TestCaseError> {
        for _ in 0..100 {
            self.run(script, targets)?;
            if self.world.service.borrow().unread(1).is_empty() {
                break;
            }
        }
        self.world.check_drained()
    }
}

fn at_state() -> impl Strategy<Value = AtState> {
    prop_oneof![
        3 => Just(AtState::Acknowledge),
        1 => Just(AtState::Commit),
        3 => Just(AtState::Wait),
        2 => any::<prop::sample::Index>().prop_map(AtState::PrintOld),
    ]
}

/// Targets that may crash.
pub(super) fn targets(at_end: impl Strategy<Value = AtEnd>) -> impl Strategy<Value = Targets> {
    (prop::collection::vec(at_state(), 0..8), at_end, prop::option::weighted(0.3, 0..40usize))
        .prop_map(|(at_state, at_end, crashes_at)| Targets { at_state, at_end, crashes_at })
}

pub(super) fn any_end() -> impl Strategy<Value = AtEnd> {
    prop_oneof![3 => Just(GOOD), 1 => Just(AtEnd::Commit), 1 => Just(AtEnd::GiveUp), 1 => Just(AtEnd::Fail)]
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
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_marked_that_the_target_has_not_committed(
        records in initial(30), payloads in payloads(), max_pending in 1..20usize,
        runs in prop::collection::vec((script(), targets(any_end())), 1..5)
    ) {
        let mut closed = Closed::new(&records, payloads, max_pending, TargetProof::State);
        closed.run_all(&runs)?;
    }

    #[test]
    fn nothing_is_marked_that_a_good_exit_has_not_proved(
        records in initial(30), payloads in payloads(), max_pending in 1..20usize,
        runs in prop::collection::vec((script(), targets(any_end())), 1..5)
    ) {
        let mut closed = Closed::new(&records, payloads, max_pending, TargetProof::Exit);
        closed.run_all(&runs)?;
    }

    #[test]
    fn nothing_is_lost_by_id_but_another_version_of_an_id(
        records in initial_with_identity(30), payloads in payloads(), max_pending in 1..20usize, by_exit in any::<bool>(),
        runs in prop::collection::vec((script_with(kind()), targets(any_end())), 1..5)
    ) {
        let proof = if by_exit { TargetProof::Exit } else { TargetProof::State };
        let mut closed = Closed::new(&records, payloads, max_pending, proof).by_id();
        closed.run_all(&runs)?;
        closed.world.check_gap()?;
    }

    #[test]
    fn nothing_is_lost_by_id_but_what_slips_in_before_a_record_without_an_id(
        records in initial(30), payloads in payloads(), max_pending in 1..20usize, by_exit in any::<bool>(),
        runs in prop::collection::vec((script(), targets(any_end())), 1..5)
    ) {
        let proof = if by_exit { TargetProof::Exit } else { TargetProof::State };
        let mut closed = Closed::new(&records, payloads, max_pending, proof).by_id();
        closed.run_all(&runs)?;
    }

    #[test]
    fn one_run_without_failures_commits_and_marks_every_record_once_by_id(
        records in singles(60), payloads in payloads(), max_pending in 1..30usize, capacity in capacity(),
        (proof, at_end) in good_end(), at_state in prop::collection::vec(at_state(), 0..20)
    ) {
        let mut closed = Closed::new(&records, payloads, max_pending, proof).by_id();
        closed.run(&Script::of(capacity), &Targets { at_state, at_end, crashes_at: None })?;
        closed.world.check_drained()?;
        prop_assert_eq!((closed.world.duplicates(), *closed.world.failures.borrow()), (0, 0));
        prop_assert!(closed.world.service.borrow().gap.0.is_empty());
    }

    #[test]
    fn one_run_without_failures_commits_and_marks_every_record_once(
        records in singles(60), payloads in payloads(), max_pending in 1..30usize, capacity in capacity(),
        (proof, at_end) in good_end(), at_state in prop::collection::vec(at_state(), 0..20)
    ) {
        let mut closed = Closed::new(&records, payloads, max_pending, proof);
        closed.run(&Script::of(capacity), &Targets { at_state, at_end, crashes_at: None })?;
        closed.world.check_drained()?;
        prop_assert_eq!((closed.world.duplicates(), *closed.world.failures.borrow()), (0, 0));
    }

    #[test]
    fn late_records_and_other_consumers_cost_no_duplicates(
        records in initial(30), payloads in payloads(), max_pending in 1..15usize, script in calm_script(),
        at_state in prop::collection::vec(at_state(), 0..20)
    ) {
        let targets = Targets { at_state, at_end: GOOD, crashes_at: None };
        let mut closed = Closed::new(&records, payloads, max_pending, TargetProof::State);
        closed.run(&script, &targets)?;
        closed.finish(&Script::of(Capacity::UNLIMITED), &targets)?;
        // What others have marked fills the ledger. Beyond four windows it forgets what late records have pushed out of sight.
        let is_forgetful = closed.world.service.borrow().records.len() > 4 * max_pending.max(FIRST_PAGE);
        prop_assert!(is_forgetful || closed.world.duplicates() == 0);
        prop_assert_eq!(*closed.world.failures.borrow(), 0);
    }
}
