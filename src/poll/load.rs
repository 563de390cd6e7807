//! The targets that a run starts, one after the other: what they were given, what they have acknowledged, how they have ended.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Result;
use log::info;

use super::output::Output;
use super::target::{Event, Target, TargetFailed};
use crate::config::TargetProof;
use crate::metrics::records;
use crate::record::{Committed, Fingerprint, GoodExit, InFlight};
use crate::shutdown::Shutdown;

/// How often the log says what the tap waits for.
pub(super) const REMINDER: Duration = Duration::from_secs(10);

/// How long a target may take to acknowledge a window at once.
const MOMENT: Duration = Duration::from_millis(50);

/// How long a target may take at first to acknowledge by itself, once it gets no more.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// How many ids of records an error names.
const MAX_NAMED: usize = 10;

/// What the target does.
#[derive(Debug)]
enum Phase {
    /// None is running.
    Idle,
    /// It has not taken everything yet.
    Taking,
    /// It has taken everything, and may commit it.
    Committing,
    /// It takes no more, although there is more.
    Closed,
    /// It has ended, before or after it had read its whole input.
    Ended { status: io::Result<ExitStatus>, has_read_all: bool },
}

/// The target that is running, and what it was given.
pub struct Load {
    target: Box<dyn Target>,
    proof: TargetProof,
    phase: Phase,
    /// Whether the target's input is ended.
    is_input_ended: bool,
    in_flight: InFlight,
    /// Whether a target has failed, so that not all that was in flight is committed.
    has_failed: bool,
    /// What is committed and not known to be marked.
    pub committed: Committed,
    /// The ids of the records in flight that are marked already: they slipped in before a mark.
    marked_in_flight: Vec<String>,
    /// After each window.
    moment: Patience,
    /// After a window that fills what may be out, before the target's input is ended.
    patience: Patience,
}

impl Load {
    /// Nothing is started yet.
    pub fn new(target: Box<dyn Target>, proof: TargetProof) -> Load {
        Load {
            target,
            proof,
            phase: Phase::Idle,
            is_input_ended: false,
            in_flight: InFlight::default(),
            has_failed: false,
            committed: Committed::default(),
            marked_in_flight: Vec::new(),
            moment: Patience::new(MOMENT, MOMENT),
            patience: Patience::new(PATIENCE, MAX_PATIENCE),
        }
    }

    /// Whether a target is running, or its end is not judged yet.
    pub fn is_running(&self) -> bool {
        self.target.is_running() || matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether the target has yet to take something.
    pub fn is_taking(&self) -> bool {
        matches!(self.phase, Phase::Taking)
    }

    /// Whether the target takes what is written to it.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Taking | Phase::Committing)
    }

    /// Whether a target was given anything that is not committed.
    pub fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty() || self.has_failed
    }

    /// Writes the STATE that covers these records, which were just written.
    ///
    /// # Errors
    /// When the target cannot be started.
    pub fn cover(&mut self, records: Vec<Fingerprint>, out: &mut Output) -> Result<()> {
        if matches!(self.phase, Phase::Idle) {
            self.is_input_ended = false;
        }
        self.phase = Phase::Taking;
        out.set_checkpoint(self.in_flight.add(records));
        out.write_state()
    }

    /// Writes the STATE that covers records with these ids, which were just written and are marked already. Does nothing if there
    /// are none.
    ///
    /// # Errors
    /// When the target cannot be started.
    pub fn cover_marked(&mut self, ids: Vec<String>, out: &mut Output) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.marked_in_flight.extend(ids);
        self.cover(Vec::new(), out)
    }

    /// Waits until the target does something. Returns whether it has acknowledged anything.
    ///
    /// # Errors
    /// [`Stopped`](crate::shutdown::Stopped) when a stop is asked for.
    pub fn wait(&mut self, stop: &Shutdown) -> Result<bool> {
        let started = Instant::now();
        loop {
            if let Some(event) = self.target.next_event(REMINDER, stop)? {
                let is_acknowledged = self.note(event);
                if is_acknowledged && !self.is_input_ended {
                    self.patience.reward(Duration::ZERO);
                }
                return Ok(is_acknowledged);
            }
            let (name, seconds) = (self.target.name(), started.elapsed().as_secs());
            let to_what = if self.is_input_ended { "end" } else { "take more" };
            info!("waiting for {name} to {to_what}, for {seconds} s now");
        }
    }

    /// Waits a moment for a target that acknowledges at once: what is marked need not be peeked at again with what follows.
    ///
    /// # Errors
    /// [`Stopped`](crate::shutdown::Stopped) when a stop is asked for.
    pub fn wait_a_moment(&mut self, stop: &Shutdown) -> Result<()> {
        self.wait_patiently(|load| &mut load.moment, stop).map(drop)
    }

    /// Waits for a target that has taken a whole window, and gets no more. Returns whether it has acknowledged anything by itself.
    ///
    /// # Errors
    /// [`Stopped`](crate::shutdown::Stopped) when a stop is asked for.
    pub fn wait_for_acknowledgement(&mut self, stop: &Shutdown) -> Result<bool> {
        self.wait_patiently(|load| &mut load.patience, stop)
    }

    fn wait_patiently(&mut self, patience: fn(&mut Load) -> &mut Patience, stop: &Shutdown) -> Result<bool> {
        let started = Instant::now();
        let limit = patience(self).limit;
        while self.is_open()
            && let Some(left) = limit.checked_sub(started.elapsed())
            && let Some(event) = self.target.next_event(left, stop)?
        {
            if self.note(event) {
                patience(self).reward(started.elapsed());
                return Ok(true);
            }
        }
        if self.is_open() {
            patience(self).exhaust();
        }
        Ok(false)
    }

    /// Notes an event. Returns whether it acknowledges anything.
    fn note(&mut self, event: Event) -> bool {
        match event {
            Event::Taken if self.is_taking() => self.phase = Phase::Committing,
            Event::Taken => {}
            Event::Closed => self.phase = Phase::Closed,
            Event::Acknowledged(checkpoint) if self.proof == TargetProof::State => {
                let is_new = self.in_flight.acknowledge(&checkpoint, &mut self.committed);
                if self.in_flight.is_empty() {
                    self.marked_in_flight.clear();
                }
                return is_new;
            }
            Event::Acknowledged(_) => {}
            Event::Ended(status) => {
                let has_read_all = self.is_input_ended && matches!(self.phase, Phase::Committing);
                self.phase = Phase::Ended { status, has_read_all };
            }
        }
        false
    }

    /// Ends the target's input, if one is running, and waits for its end.
    ///
    /// # Errors
    /// [`TargetFailed`] when it has not committed everything, or not ended well. [`Stopped`](crate::shutdown::Stopped) when a stop is
    /// asked for: the target is still running then.
    pub fn end(&mut self, out: &mut Output, stop: &Shutdown) -> Result<()> {
        out.end();
        self.is_input_ended = true;
        while self.target.is_running() {
            self.wait(stop)?;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Ended { status, has_read_all } => Ok(self.judge(status, has_read_all)?),
            _ => Ok(()),
        }
    }

    /// Judges a target by how it has ended, and forgets what it has not committed.
    fn judge(&mut self, status: io::Result<ExitStatus>, has_read_all: bool) -> Result<(), TargetFailed> {
        if self.proof == TargetProof::Exit
            && has_read_all
            && let Some(exit) = status.as_ref().ok().copied().and_then(GoodExit::of)
        {
            self.in_flight.acknowledge_all(exit, &mut self.committed);
        }
        let is_done = self.in_flight.is_empty();
        let left = records(self.in_flight.abandon());
        let marked = std::mem::take(&mut self.marked_in_flight);
        let name = self.target.name();
        let problem = match status {
            Ok(status) if status.success() && is_done => return Ok(()),
            Ok(status) if status.success() && !has_read_all => {
                format!("{name} has ended before it had read everything; {left} that it has not committed stay unread")
            }
            Ok(status) if status.success() => format!(
                "{name} has ended well and has printed no STATE for {left}, which stay unread: see what the README says of \
                 targets, or set `targetProof` to `exit`"
            ),
            Ok(status) => format!(
                "{name} has failed ({status}): look at its own error; {left} that it has not committed stay unread"
            ),
            Err(error) => format!("it is not known how {name} has ended ({error}); {left} stay unread"),
        };
        self.has_failed = true;
        Err(TargetFailed(problem + &lost(&marked)))
    }
}

/// What to add to an error about records that slipped in before a mark and were not committed.
fn lost(ids: &[String]) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let (records, are) = (records(ids.len()), if ids.len() == 1 { "is" } else { "are" });
    let (named, more) = (ids[..ids.len().min(MAX_NAMED)].join(", "), if ids.len() > MAX_NAMED { ", …" } else { "" });
    format!("; {records} that slipped in before a mark {are} marked as read and not committed: recordId {named}{more}")
}

/// How long a target gets to acknowledge by itself. One that does so gets longer, up to a limit; one that does not gets no more time.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    min: Duration,
    max: Duration,
}

impl Patience {
    fn new(min: Duration, max: Duration) -> Patience {
        Patience { limit: min, min, max }
    }

    fn reward(&mut self, waited: Duration) {
        self.limit = (2 * waited).clamp(self.min, self.max);
    }

    fn exhaust(&mut self) {
        self.limit = Duration::ZERO;
    }
}
