//! Signals: the first SIGTERM or SIGINT asks the run to end after the page that is being written, a second one ends it at once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// How often a wait looks whether a stop was asked for.
pub const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(25);

/// The run ended because a signal asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// The number of the signal.
    pub signal: u8,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match i32::from(self.signal) {
            SIGTERM => "SIGTERM",
            SIGINT => "SIGINT",
            _ => return write!(f, "stopped by signal {}", self.signal),
        };
        write!(f, "stopped by {name}")
    }
}

impl std::error::Error for Stopped {}

/// Whether a stop was asked for. Clones share the answer.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// The number of the signal, 0 while there was none.
    signal: Arc<AtomicUsize>,
}

impl Shutdown {
    /// Catches SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn install() -> Result<Shutdown> {
        let shutdown = Shutdown::default();
        let (terminated, interrupted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, this, other) in [(SIGTERM, &terminated, &interrupted), (SIGINT, &interrupted, &terminated)] {
            let number = usize::try_from(signal)?;
            // In this order: a signal that comes again, or after the other one, ends the process from within its handler, so
            // that not even a blocked write holds it up. Of two that come at one moment, to two threads, each is noted
            // before the other is looked for, so that at least one finds the other.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(this))
                .and_then(|_| flag::register(signal, Arc::clone(this)))
                .and_then(|_| flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(other)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&shutdown.signal), number))
                .with_context(|| format!("catch signal {signal}"))?;
        }
        Ok(shutdown)
    }

    /// Goes on, or ends the run when a stop was asked for.
    ///
    /// # Errors
    /// [`Stopped`] once a signal has come.
    pub fn check(&self) -> Result<(), Stopped> {
        match self.signal.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Stopped { signal: u8::try_from(signal).unwrap_or(u8::MAX) }),
        }
    }

    /// Sleeps, but no longer than until a stop is asked for.
    ///
    /// # Errors
    /// [`Stopped`] once a signal has come.
    pub fn sleep(&self, duration: Duration) -> Result<(), Stopped> {
        let start = Instant::now();
        loop {
            self.check()?;
            match duration.checked_sub(start.elapsed()) {
                None | Some(Duration::ZERO) => return Ok(()),
                Some(left) => thread::sleep(left.min(STOP_CHECK_INTERVAL)),
            }
        }
    }
}
