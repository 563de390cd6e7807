//! Targets that acknowledge at once, late, twice, out of order or never, that fail at any record,
//! and that end without having committed.

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde_json::value::RawValue;

use super::*;
use crate::poll::target;
use crate::poll::target::Event as TargetEvent;
use crate::record::ReturnedCheckpoint;
use crate::singer::state::returned_checkpoint;

/// The loop waits no longer at once. A target that does nothing within it will never do anything.
const REMINDER: Duration = Duration::from_secs(10);

/// What a target does when it reads a STATE.
#[derive(Debug, Clone, Copy)]
pub enum AtState {
    /// Commits, and prints the STATE.
    Acknowledge,
    /// Commits, and prints nothing.
    Commit,
    /// Neither.
    Wait,
    /// Prints a STATE that some target has got before: of this run or of an earlier one. All that
    /// was committed by then.
    PrintOld(prop::sample::Index),
}

/// What a target does at the end of its input.
#[derive(Debug, Clone, Copy)]
pub enum AtEnd {
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
pub struct Targets {
    pub at_state: Vec<AtState>,
    pub at_end: AtEnd,
    /// The record at which a target crashes, counted over all targets of the run.
    pub crashes_at: Option<usize>,
    /// They fail at one of so many records, whenever they get it.
    pub refuses: Option<usize>,
}

pub const GOOD: AtEnd = AtEnd::Acknowledge;

impl Targets {
    /// Whether they fail at a record.
    pub fn refuse(&self, record: &Record) -> bool {
        let number = || record.id.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap_or_default();
        self.refuses.is_some_and(|one_of| number() % one_of == 1)
    }

    /// They commit everything.
    pub fn good() -> Targets {
        Targets { at_state: Vec::new(), at_end: GOOD, crashes_at: None, refuses: None }
    }
}

/// The targets of one run of the tap that commit to this output.
pub fn process(
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
        put_aside: 0,
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
    /// How many records the tap has put aside because of them.
    put_aside: usize,
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
        self.events.push_back(target::Event::Ended { status: Ok(ExitStatus::from_raw(9)), has_read_all: false });
    }

    fn print(&mut self, state: &str) {
        self.events.push_back(TargetEvent::Acknowledged(read(state)));
    }

    fn acknowledge(&mut self) {
        self.output.borrow_mut().commit();
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
            AtEnd::Commit => self.output.borrow_mut().commit(),
            AtEnd::GiveUp | AtEnd::Fail => self.output.borrow_mut().pending.clear(),
        }
        let code = if matches!(self.targets.at_end, AtEnd::Fail) { 1 << 8 } else { 0 };
        let has_read_all = !matches!(self.targets.at_end, AtEnd::GiveUp);
        self.events.push_back(target::Event::Ended { status: Ok(ExitStatus::from_raw(code)), has_read_all });
    }
}

fn read(state: &str) -> ReturnedCheckpoint {
    returned_checkpoint(state, "records").unwrap()
}

/// The way into the target, and the way out.
#[derive(Clone)]
pub struct FakeProcess(Shared<Process>);

impl MessageWriter for FakeProcess {
    fn record(&mut self, json: &[u8], _time_extracted: &str) -> io::Result<()> {
        let process = &mut *self.0.borrow_mut();
        process.start();
        if *process.is_killed.borrow() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let record = Record::parse(json);
        let crashes = process.targets.crashes_at == Some(process.records) || process.targets.refuse(&record);
        if crashes && !process.is_dead {
            process.crash();
        }
        process.records += 1;
        process.buffer.push(record);
        Ok(())
    }

    fn dead_letter(&mut self, json: &[u8], reason: &str, time_extracted: &str) -> io::Result<()> {
        if !reason.starts_with("target-fake ") {
            return self.record(json, time_extracted);
        }
        let process = &mut *self.0.borrow_mut();
        process.put_aside += 1;
        // It is delivered, and so counts as committed.
        let record = Record::parse(json);
        // A target that fails at the end of its input, whatever it has got, may seem to load some
        // records only.
        let is_bad = process.targets.refuse(&record) || !matches!(process.targets.at_end, AtEnd::Acknowledge);
        assert!(is_bad, "{record:?} is put aside, and the target loads it");
        process.output.borrow_mut().committed.insert(record);
        Ok(())
    }

    fn dead_letters(&self) -> usize {
        self.0.borrow().put_aside
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
            AtState::Commit => process.output.borrow_mut().commit(),
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

    fn keep_stderr(&mut self, _keeps: bool) {}

    fn last_words(&mut self) -> String {
        String::new()
    }

    fn next_event(&mut self, limit: Duration, _stop: &Shutdown) -> Result<Option<TargetEvent>> {
        let process = &mut *self.0.borrow_mut();
        let event = process.events.pop_front();
        assert!(event.is_some() || limit < REMINDER, "the loop would wait for ever");
        if matches!(event, Some(TargetEvent::Ended { .. })) {
            process.is_running = false;
        }
        Ok(event)
    }
}

pub fn at_state() -> impl Strategy<Value = AtState> {
    prop_oneof![
        3 => Just(AtState::Acknowledge),
        1 => Just(AtState::Commit),
        3 => Just(AtState::Wait),
        2 => any::<prop::sample::Index>().prop_map(AtState::PrintOld),
    ]
}

/// Targets that may crash.
pub fn targets() -> impl Strategy<Value = Targets> {
    let at_end =
        prop_oneof![3 => Just(GOOD), 1 => Just(AtEnd::Commit), 1 => Just(AtEnd::GiveUp), 1 => Just(AtEnd::Fail)];
    let crashes_at = prop::option::weighted(0.3, 0..40usize);
    let refuses = prop::option::weighted(0.3, 2..9usize);
    (prop::collection::vec(at_state(), 0..8), at_end, crashes_at, refuses)
        .prop_map(|(at_state, at_end, crashes_at, refuses)| Targets { at_state, at_end, crashes_at, refuses })
}
