//! The targets that a run starts, one after the other: what they were given, what they have acknowledged, how they have ended.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use log::{info, warn};

use super::output::{Output, named};
use super::target::{Event, Exit, Target, TargetFailed};
use crate::config::TargetProof;
use crate::metrics::records;
use crate::record::{Abandoned, Committed, Fingerprint, GoodExit, InFlight};
use crate::shutdown::{Shutdown, Stopped};

/// How often the log says what the tap waits for.
pub(super) const REMINDER: Duration = Duration::from_secs(10);

/// How long the tap waits for an acknowledgement before it peeks on: a target that acknowledges at once saves it from peeking at the same
/// records again.
const AFTER_WINDOW: Duration = Duration::from_millis(50);

/// How long a full window waits at first for an acknowledgement, before the tap ends the target's input.
const WHEN_FULL: Duration = Duration::from_secs(1);
const MAX_WHEN_FULL: Duration = Duration::from_secs(60);

/// What is known of the target.
#[derive(Debug)]
enum Phase {
    /// None is running.
    Idle,
    /// Not everything is on its way to it yet.
    Taking,
    /// It has everything, and may commit it.
    Committing,
    /// It has ended.
    Ended(Exit),
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
    after_window: Patience,
    when_full: Patience,
}

impl Load {
    /// Nothing is started yet.
    pub fn new(target: Box<dyn Target>, proof: TargetProof) -> Load {
        // A target whose exit is the proof is not waited for before its input is ended.
        let patience = |min, max| match proof {
            TargetProof::State => Patience::new(min, max),
            TargetProof::Exit => Patience::new(Duration::ZERO, Duration::ZERO),
        };
        Load {
            target,
            proof,
            phase: Phase::Idle,
            is_input_ended: false,
            in_flight: InFlight::default(),
            has_failed: false,
            committed: Committed::default(),
            after_window: patience(AFTER_WINDOW, AFTER_WINDOW),
            when_full: patience(WHEN_FULL, MAX_WHEN_FULL),
        }
    }

    /// Whether a target is running, or its end is not judged yet.
    pub fn is_running(&self) -> bool {
        self.target.is_running() || matches!(self.phase, Phase::Ended(_))
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
        self.after_window.limit > Duration::ZERO
    }

    /// Whether a target was given anything that is not committed.
    pub fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty() || self.has_failed
    }

    /// Writes the STATE that covers records that were just written: unread ones, and the ids of others that are marked already. Does
    /// nothing if there are none.
    ///
    /// # Errors
    /// When the target cannot be started.
    pub fn cover(&mut self, unread: Vec<Fingerprint>, marked: Vec<String>, out: &mut Output) -> Result<()> {
        if unread.is_empty() && marked.is_empty() {
            return Ok(());
        }
        match self.phase {
            Phase::Idle => (self.phase, self.is_input_ended) = (Phase::Taking, false),
            Phase::Taking | Phase::Committing => self.phase = Phase::Taking,
            // The target does not get them, and so does not acknowledge them.
            Phase::Ended(_) => {}
        }
        out.set_checkpoint(self.in_flight.add(unread, marked));
        out.write_state()
    }

    /// Waits until the target does something. Returns whether it has acknowledged anything.
    ///
    /// # Errors
    /// [`Stopped`] when a stop is asked for.
    pub fn wait(&mut self, stop: &Shutdown) -> Result<bool> {
        let started = Instant::now();
        loop {
            if let Some(event) = self.target.next_event(REMINDER, stop)? {
                let is_acknowledged = self.note(event);
                if is_acknowledged && !self.is_input_ended {
                    self.when_full.reward(Duration::ZERO);
                }
                return Ok(is_acknowledged);
            }
            self.remind(started);
        }
    }

    /// Says what the tap waits for.
    fn remind(&self, started: Instant) {
        let to_what = match self.phase {
            _ if self.is_input_ended => "end",
            Phase::Taking => "read its input",
            _ => "acknowledge what it has read",
        };
        info!("waiting for {} to {to_what}, for {} s now", self.target.name(), started.elapsed().as_secs());
    }

    /// Waits a moment after a window, for a target that acknowledges at once.
    ///
    /// # Errors
    /// [`Stopped`] when a stop is asked for.
    pub fn wait_a_moment(&mut self, stop: &Shutdown) -> Result<()> {
        self.wait_patiently(|load| &mut load.after_window, stop).map(drop)
    }

    /// Waits for a target that gets no more, because the window is full. Returns whether it has acknowledged anything by itself.
    ///
    /// # Errors
    /// [`Stopped`] when a stop is asked for.
    pub fn wait_for_acknowledgement(&mut self, stop: &Shutdown) -> Result<bool> {
        self.wait_patiently(|load| &mut load.when_full, stop)
    }

    fn wait_patiently(&mut self, patience: fn(&mut Load) -> &mut Patience, stop: &Shutdown) -> Result<bool> {
        let started = Instant::now();
        let limit = patience(self).limit;
        while self.is_open()
            && let Some(left) = limit.checked_sub(started.elapsed())
        {
            match self.target.next_event(left.min(REMINDER), stop)? {
                Some(event) => {
                    if self.note(event) {
                        patience(self).reward(started.elapsed());
                        return Ok(true);
                    }
                }
                None if left > REMINDER => self.remind(started),
                None => break,
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
            Event::Acknowledged(checkpoint) => {
                let counts = self.proof == TargetProof::State;
                return counts && self.in_flight.acknowledge(&checkpoint, &mut self.committed);
            }
            Event::Ended(exit) => self.phase = Phase::Ended(exit),
        }
        false
    }

    /// Ends the target's input, if one is running, and waits for its end.
    ///
    /// # Errors
    /// [`TargetFailed`] when it has not committed everything, or not ended well. [`Stopped`] when a stop is
    /// asked for: the target is still running then.
    pub fn close_and_wait(&mut self, out: &mut Output, stop: &Shutdown) -> Result<()> {
        out.close();
        self.is_input_ended = true;
        while self.target.is_running() {
            self.wait(stop)?;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Ended(exit) => Ok(self.judge(exit)?),
            _ => Ok(()),
        }
    }

    /// Judges a target by how it has ended, and forgets what it has not committed.
    fn judge(&mut self, exit: Exit) -> Result<(), TargetFailed> {
        let Exit { status, has_read_all } = exit;
        if self.proof == TargetProof::Exit
            && let Some(exit) = status.as_ref().ok().and_then(|status| GoodExit::of(*status, has_read_all))
        {
            self.in_flight.acknowledge_all(exit, &mut self.committed);
        }
        let is_done = self.in_flight.is_empty();
        let left = self.in_flight.abandon();
        let name = self.target.name();
        let problem = match status {
            Ok(status) if status.success() && is_done => return Ok(()),
            Ok(status) if status.success() && !has_read_all => {
                format!("{name} has ended before it had read everything")
            }
            Ok(status) if status.success() && self.proof == TargetProof::State => format!(
                "{name} has ended well, and has not printed its last STATE: see what the README says of targets, or set \
                 `targetProof` to `exit`"
            ),
            Ok(status) => format!("{name} has failed ({status}): look at its own error"),
            Err(error) => format!("{name} has ended, and it is not known how: {error}"),
        };
        self.has_failed = true;
        Err(TargetFailed(problem + &what_is_left(&left)))
    }
}

/// The error that a run ends with which `error` has ended, once the target has committed what it had. A target that fails after a stop
/// is told instead of the stop; any other failure is only logged.
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

/// What to add to an error about the records that a target has not committed.
fn what_is_left(left: &Abandoned) -> String {
    let mut text = String::new();
    if left.unread > 0 {
        let (records, stay) = (records(left.unread), if left.unread == 1 { "stays" } else { "stay" });
        text += &format!("; {records} that it has not committed {stay} unread");
    }
    if !left.marked.is_empty() {
        let ids = &left.marked;
        let (records, are) = (records(ids.len()), if ids.len() == 1 { "is" } else { "are" });
        let named = named(ids);
        text += &format!(
            "; {records} that slipped in before a mark {are} marked as read and not committed: recordId {named}"
        );
    }
    text
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
