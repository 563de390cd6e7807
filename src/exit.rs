//! How the program ends, as a number.

use crate::config::Invalid;
use crate::poll::target::TargetFailed;
use crate::shutdown::Stopped;

/// The exit code that an error stands for. `--help` and `docs/troubleshooting.md` list them; 0 is
/// success.
///
/// - 1: the run failed; no undelivered record was marked as read.
/// - 2: the command line, the configuration, a file named there, or a variable for proxy or
///   certificates is wrong, or the target cannot be started; the stream is untouched. clap ends a
///   wrong command line with the same number.
/// - 3: a target that the tap ran failed, or did not commit everything; what it has committed was
///   marked.
/// - 128 + n: stopped by signal n (143 for SIGTERM, 130 for SIGINT), as shells report it.
pub fn code(error: &anyhow::Error) -> u8 {
    let stopped = error.chain().find_map(|cause| cause.downcast_ref::<Stopped>());
    match stopped {
        Some(stopped) => 128u8.saturating_add(stopped.signal),
        None if error.chain().any(|cause| cause.is::<Invalid>()) => 2,
        None if error.chain().any(|cause| cause.is::<TargetFailed>()) => 3,
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn any_other_error_is_a_failure() {
        assert_eq!(code(&anyhow!("the disk is full")), 1);
    }

    #[test]
    fn a_wrong_setting_is_a_usage_error_whatever_the_context() {
        let error = Err::<(), _>(Invalid::new("no")).context("read the config").unwrap_err();
        assert_eq!(code(&error), 2);
    }

    #[test]
    fn a_signal_ends_with_128_and_its_number() {
        let error = anyhow::Error::new(Stopped { signal: 15 }).context("peek");
        assert_eq!(code(&error), 143);
        assert_eq!(code(&Stopped { signal: 2 }.into()), 130);
    }
}
