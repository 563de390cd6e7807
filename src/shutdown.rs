//! Signals: the first SIGTERM or SIGINT asks the run to end after the page that is being written, a
//! second one ends it at once.
//!
//! A stop wakes every wait. On Unix nothing polls for it, so that a run that waits takes no CPU
//! time.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded, never};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::signal_name;

/// The run ended because a signal asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {}", signal_name((*.signal).into()).unwrap_or("a signal"))]
pub struct Stopped {
    /// The number of the signal.
    pub signal: u8,
}

/// Whether a stop was asked for. Clones share the answer. The default one never stops.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// The number of the signal, 0 while there was none.
    signal: Arc<AtomicUsize>,
    /// Disconnected soon after the number is set.
    requested: Receiver<Infallible>,
    /// Whether the run finishes what is left, in spite of a stop.
    deferred: Arc<AtomicBool>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { signal: Arc::default(), requested: never(), deferred: Arc::default() }
    }
}

impl Shutdown {
    /// Catches SIGTERM and SIGINT from now on, but for one that is ignored: it stays so, as SIGINT
    /// in a script's `command &`.
    pub fn install() -> Result<Shutdown> {
        let (sender, requested) = bounded(0);
        let shutdown = Shutdown { signal: Arc::default(), requested, deferred: Arc::default() };
        let terminated = Arc::new(AtomicBool::new(false));
        let interrupted = Arc::new(AtomicBool::new(false));
        let caught = caught();
        let signals = [(SIGTERM, &terminated, &interrupted), (SIGINT, &interrupted, &terminated)];
        for (signal, this, other) in signals.into_iter().filter(|(signal, ..)| caught.contains(signal)) {
            let number = usize::try_from(signal)?;
            // In this order: a signal that comes again, or after the other one, ends the process
            // from within its handler, so that not even a blocked write holds it up. Of two that
            // come at one moment, to two threads, each is noted before the other is looked for, so
            // that at least one finds the other.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(this))
                .and_then(|_| flag::register(signal, Arc::clone(this)))
                .and_then(|_| flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(other)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&shutdown.signal), number))
                .with_context(|| format!("catch signal {signal}"))?;
        }
        disconnect_on_signal(&caught, shutdown.clone(), sender)?;
        Ok(shutdown)
    }

    /// Goes on, or ends the run if a stop was asked for.
    pub fn check(&self) -> Result<(), Stopped> {
        match self.signal.load(Ordering::SeqCst) {
            _ if self.is_deferred() => Ok(()),
            0 => Ok(()),
            signal => Err(Stopped { signal: u8::try_from(signal).unwrap_or(u8::MAX) }),
        }
    }

    /// Sleeps, but no longer than until a stop is asked for.
    pub fn sleep(&self, duration: Duration) -> Result<(), Stopped> {
        self.check()?;
        // Nothing is ever sent: the wait ends with the time or with a stop.
        let _ = self.requested().recv_timeout(duration);
        self.check()
    }

    /// A channel on which nothing is ever sent, and which is disconnected once a stop is asked for.
    /// Select it beside the channel that is waited for; [`Shutdown::check`] then says which
    /// signal it was.
    pub fn requested(&self) -> Receiver<Infallible> {
        if self.is_deferred() { never() } else { self.requested.clone() }
    }

    /// Whether the run finishes what is left, so that no stop ends it.
    pub fn is_deferred(&self) -> bool {
        self.deferred.load(Ordering::SeqCst)
    }

    /// Finishes what is left: from now on a stop ends no wait and no request. A second signal
    /// still ends the process at once.
    pub fn defer(&self) {
        self.deferred.store(true, Ordering::SeqCst);
    }
}

/// Starts the thread that drops `sender` at the first signal; without Unix's signals there is
/// nothing to wait on, so it polls. Call it after the flags are registered: handlers run in the
/// order of registration, so the number is set before the thread wakes.
#[cfg_attr(not(unix), expect(unused_variables))]
fn disconnect_on_signal(caught: &[i32], shutdown: Shutdown, sender: Sender<Infallible>) -> Result<()> {
    #[cfg(unix)]
    let mut signals = signal_hook::iterator::Signals::new(caught).context("catch signals")?;
    let wait = move || {
        // A signal that came before `signals` was made does not reach it.
        #[cfg(unix)]
        if shutdown.check().is_ok() {
            signals.forever().next();
        }
        #[cfg(not(unix))]
        while shutdown.check().is_ok() {
            thread::sleep(Duration::from_millis(25));
        }
        drop(sender);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).context("start a thread")?;
    Ok(())
}

/// The signals that this process does not ignore (proc(5)); both, if there is no such file. Call it
/// once, before any is caught: the kernel makes the file anew for each reader.
fn caught() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let is_ignored = |signal: i32| mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1);
    [SIGTERM, SIGINT].into_iter().filter(|signal| !is_ignored(*signal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Shutdown {
        /// Asks for a stop, as a signal does. A wait that has begun goes on.
        pub fn request(&self, signal: usize) {
            self.signal.store(signal, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_stop_ends_a_sleep() {
        let (sender, requested) = bounded(0);
        let shutdown = Shutdown { signal: Arc::default(), requested, deferred: Arc::default() };
        let signal = Arc::clone(&shutdown.signal);
        let stop = thread::spawn(move || {
            signal.store(15, Ordering::SeqCst);
            drop(sender);
        });
        assert_eq!(shutdown.sleep(Duration::MAX), Err(Stopped { signal: 15 }));
        stop.join().unwrap();
    }

    #[test]
    fn a_deferred_stop_ends_no_sleep() {
        let (sender, requested) = bounded(0);
        let shutdown = Shutdown { signal: Arc::new(AtomicUsize::new(15)), requested, deferred: Arc::default() };
        drop(sender);
        assert_eq!(shutdown.check(), Err(Stopped { signal: 15 }));
        shutdown.defer();
        assert_eq!(shutdown.sleep(Duration::from_nanos(1)), Ok(()));
        assert!(!shutdown.requested().recv_timeout(Duration::ZERO).unwrap_err().is_disconnected());
    }

    #[test]
    fn the_default_never_stops() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.sleep(Duration::from_nanos(1)), Ok(()));
        assert_eq!(shutdown.check(), Ok(()));
    }
}
