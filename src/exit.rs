//! How the program ends, as a number.

use crate::config::Invalid;
use crate::poll::target::TargetFailed;
use crate::shutdown::Stopped;

/// The exit code of a run that has not done what it was asked for; 0 is success. `--help` and
/// `docs/troubleshooting.md` list the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1: the run failed; no undelivered record was marked as read.
    Failure,
    /// 2: the command line, the configuration, a file named there, or a variable for proxy or
    /// certificates is wrong, or the target cannot be started; the stream is untouched. clap ends a
    /// wrong command line with the same number.
    Usage,
    /// 3: a target that the tap ran failed, or did not commit everything; what it has committed was
    /// marked.
    Target,
    /// 128 + n: stopped by signal n (143 for SIGTERM, 130 for SIGINT), as shells report it.
    Signal(u8),
}

impl Exit {
    /// The exit code that an error stands for.
    pub fn of(error: &anyhow::Error) -> Exit {
        let stopped = error.chain().find_map(|cause| cause.downcast_ref::<Stopped>());
        if let Some(stopped) = stopped {
            Exit::Signal(stopped.signal)
        } else if error.chain().any(|cause| cause.is::<Invalid>()) {
            Exit::Usage
        } else if error.chain().any(|cause| cause.is::<TargetFailed>()) {
            Exit::Target
        } else {
            Exit::Failure
        }
    }

    /// The number handed to the operating system.
    pub fn code(self) -> u8 {
        match self {
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Target => 3,
            Exit::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn any_other_error_is_a_failure() {
        assert_eq!(Exit::of(&anyhow!("the disk is full")).code(), 1);
    }

    #[test]
    fn a_wrong_setting_is_a_usage_error_whatever_the_context() {
        let error = Err::<(), _>(Invalid::new("no")).context("read the config").unwrap_err();
        assert_eq!(Exit::of(&error).code(), 2);
    }

    #[test]
    fn a_signal_ends_with_128_and_its_number() {
        let error = anyhow::Error::new(Stopped { signal: 15 }).context("peek");
        assert_eq!(Exit::of(&error).code(), 143);
        assert_eq!(Exit::of(&Stopped { signal: 2 }.into()).code(), 130);
    }
}
