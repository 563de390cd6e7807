//! The targets that a run starts, one after the other: what is in flight to them, what they have
//! acknowledged, and how they have ended.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use log::{info, warn};
use serde_json::json;

use super::output::Output;
use super::target::{Event, Target, TargetFailed};
use crate::config::TargetProof;
use crate::record::{InFlight, Proven};
use crate::shutdown::{Shutdown, Stopped};

/// How often the log says what the tap waits for.
const REMINDER: Duration = Duration::from_secs(10);

/// How long the tap waits for an acknowledgement before it peeks on: a target that acknowledges at
/// once saves it from peeking at the same records again.
const AFTER_WINDOW: Duration = Duration::from_millis(50);

/// How long a full window waits at first for an acknowledgement, before the tap ends the target's
/// input. A target that acknowledges by itself gets longer, up to the limit.
const WHEN_FULL: Duration = Duration::from_secs(1);
const MAX_WHEN_FULL: Duration = Duration::from_secs(60);

/// Where the target is.
#[derive(Debug)]
enum Phase {
    /// None is running.
    Idle,
    /// Not everything is on its way to it yet.
    Taking,
    /// It has everything, and may commit it.
    Committing,
    /// Its input is ended.
    Closing,
    /// It has ended, with this status. Whether its input was ended, and it has read all of it.
    Ended { status: io::Result<ExitStatus>, has_read_all: bool },
}

/// The target that is running, and the batches in flight to it.
pub struct TargetSession<T> {
    target: Box<dyn Target>,
    proof: TargetProof,
    phase: Phase,
    in_flight: InFlight<T>,
    /// What is committed, until the mode takes it.
    proven: Vec<Proven<T>>,
    /// Whether targets have acknowledged each window within a moment so far.
    acknowledges_at_once: bool,
    /// How long a full window waits for an acknowledgement.
    when_full: Duration,
    /// Whether a target that has failed may still be running. No other one is started beside it.
    is_lost: bool,
    /// Whether the target that is running has acknowledged anything.
    has_acknowledged: bool,
    /// Whether the last one has ended well, and has read everything; and acknowledged all but its
    /// last batch.
    has_ended_well: bool,
    has_held_back: bool,
}

impl<T> TargetSession<T> {
    /// Nothing is started yet.
    pub fn new(target: Box<dyn Target>, proof: TargetProof) -> TargetSession<T> {
        // A target whose exit is the proof is not waited for before its input is ended.
        let by_state = proof == TargetProof::State;
        TargetSession {
            target,
            proof,
            phase: Phase::Idle,
            in_flight: InFlight::default(),
            proven: Vec::new(),
            acknowledges_at_once: by_state,
            when_full: if by_state { WHEN_FULL } else { Duration::ZERO },
            is_lost: false,
            has_acknowledged: false,
            has_ended_well: false,
            has_held_back: false,
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

    /// Whether targets have acknowledged each window within a moment so far.
    pub fn acknowledges_at_once(&self) -> bool {
        self.acknowledges_at_once
    }

    /// Whether a target that has failed may still be running.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether the last target has ended well, and has read everything.
    pub fn has_ended_well(&self) -> bool {
        self.has_ended_well
    }

    /// Whether it has also acknowledged all but its last batch: some targets hold back a STATE that
    /// comes right behind a full batch of their own.
    pub fn has_held_back(&self) -> bool {
        self.has_held_back
    }

    /// The target.
    pub fn target(&mut self) -> &mut dyn Target {
        &mut *self.target
    }

    /// What is in flight.
    pub fn in_flight(&mut self) -> &mut InFlight<T> {
        &mut self.in_flight
    }

    /// What was committed since the last call.
    pub fn take_proven(&mut self) -> Vec<Proven<T>> {
        std::mem::take(&mut self.proven)
    }

    /// Writes the STATE that covers a batch that was just written.
    pub fn send(&mut self, batch: T, out: &mut Output) -> Result<()> {
        // A target that has ended does not get it, and so does not acknowledge it.
        if !matches!(self.phase, Phase::Ended { .. }) {
            self.phase = Phase::Taking;
        }
        out.state.cover(json!(self.in_flight.add(batch)));
        out.write_state()
    }

    /// Waits until the target does something. Returns whether it has acknowledged anything.
    pub fn wait(&mut self, stop: &Shutdown) -> Result<bool> {
        let started = Instant::now();
        loop {
            if let Some(event) = self.target.next_event(REMINDER, stop)? {
                return Ok(self.note(event));
            }
            self.remind(started);
        }
    }

    /// Waits a moment after a window, for a target that acknowledges at once.
    pub fn wait_a_moment(&mut self, stop: &Shutdown) -> Result<()> {
        if self.acknowledges_at_once {
            self.acknowledges_at_once = self.wait_for_proof(AFTER_WINDOW, stop)? || !self.is_open();
        }
        Ok(())
    }

    /// Waits for a target that gets no more, because the window is full. Returns whether it has
    /// acknowledged anything by itself.
    pub fn wait_when_full(&mut self, stop: &Shutdown) -> Result<bool> {
        if self.in_flight.is_empty() {
            return Ok(true);
        }
        let started = Instant::now();
        let is_acknowledged = self.wait_for_proof(self.when_full, stop)?;
        if is_acknowledged {
            self.when_full = (2 * started.elapsed()).clamp(WHEN_FULL, MAX_WHEN_FULL);
        } else if self.is_open() {
            self.when_full = Duration::ZERO;
        }
        Ok(is_acknowledged)
    }

    fn wait_for_proof(&mut self, limit: Duration, stop: &Shutdown) -> Result<bool> {
        let started = Instant::now();
        while self.is_open()
            && let Some(left) = limit.checked_sub(started.elapsed())
        {
            match self.target.next_event(left.min(REMINDER), stop)? {
                Some(event) => {
                    if self.note(event) {
                        return Ok(true);
                    }
                }
                None if left > REMINDER => self.remind(started),
                None => break,
            }
        }
        Ok(false)
    }

    /// Says what the tap waits for.
    fn remind(&self, started: Instant) {
        let to_what = match self.phase {
            Phase::Closing => "end",
            Phase::Taking => "read its input",
            _ => "acknowledge what it has read",
        };
        info!("waiting for {} to {to_what}, for {} s now", self.target.name(), started.elapsed().as_secs());
    }

    /// Notes an event. Returns whether it acknowledges anything.
    fn note(&mut self, event: Event) -> bool {
        match event {
            Event::Taken if self.is_taking() => self.phase = Phase::Committing,
            Event::Taken => {}
            Event::Acknowledged(checkpoint) if self.proof == TargetProof::State => {
                let proven = self.in_flight.acknowledge(&checkpoint);
                let is_new = !proven.is_empty();
                self.has_acknowledged |= is_new;
                self.proven.extend(proven);
                return is_new;
            }
            Event::Acknowledged(_) => {}
            Event::Ended { status, has_read_all } => self.phase = Phase::Ended { status, has_read_all },
        }
        false
    }

    /// Ends the target's input, if one is running, and waits for its end. Returns what is wrong if
    /// it has not committed everything or not ended well, and the batches that it has not
    /// committed.
    ///
    /// # Errors
    /// [`Stopped`] when a stop is asked for: the target is still running then.
    pub fn close(&mut self, out: &mut Output, stop: &Shutdown) -> Result<Option<(String, Vec<T>)>> {
        out.close();
        if self.is_open() {
            self.phase = Phase::Closing;
        }
        while self.target.is_running() {
            self.wait(stop)?;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Ended { status, has_read_all } => Ok(self.judge(status, has_read_all)),
            _ => Ok(None),
        }
    }

    /// Judges a target by how it has ended, and forgets what it has not committed.
    fn judge(&mut self, status: io::Result<ExitStatus>, has_read_all: bool) -> Option<(String, Vec<T>)> {
        if self.proof == TargetProof::Exit
            && let Ok(status) = status
        {
            self.proven.extend(self.in_flight.acknowledge_all(status, has_read_all));
        }
        let left = self.in_flight.abandon();
        self.is_lost = status.is_err();
        self.has_ended_well = has_read_all && status.as_ref().is_ok_and(ExitStatus::success);
        let has_acknowledged = std::mem::take(&mut self.has_acknowledged);
        self.has_held_back = self.has_ended_well && has_acknowledged && left.len() == 1;
        let name = self.target.name();
        let problem = match status {
            Ok(status) if status.success() && left.is_empty() => return None,
            Ok(status) if status.success() && !has_read_all => {
                format!("{name} has ended before it had read everything")
            }
            Ok(status) if status.success() && self.proof == TargetProof::State => format!(
                "{name} has ended well, and has not printed its last STATE: see docs/targets.md, \
                 or set `targetProof` to `exit`"
            ),
            Ok(status) => format!("{name} has failed ({status}): look at its own error"),
            Err(error) => format!("{name} {error}: look at its own error"),
        };
        Some((problem, left))
    }
}

/// The error of a run that `error` has ended, once the target has committed what it had. If the
/// target fails after a stop, that is the error; any other failure is only logged.
pub fn final_error(error: Error, settled: Result<()>) -> Error {
    match settled {
        Err(failure) if error.is::<Stopped>() && failure.is::<TargetFailed>() => failure,
        settled => {
            log_failure(settled);
            error
        }
    }
}

/// Logs a failure that is not the one that the run ends with.
pub fn log_failure(result: Result<()>) {
    if let Err(failure) = result {
        warn!("{failure:#}");
    }
}
