//! Targets that load nothing.

use std::io::{self, BufRead as _, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The first argument that makes the benchmark a target that acknowledges at once.
pub const TARGET: &str = "--target";

/// The first argument that makes the benchmark a target that takes a second to start, and acknowledges
/// at its end.
pub const SLOW_TARGET: &str = "--slow-target";

/// Prints the value of each STATE as soon as it is read.
pub fn acknowledge() -> Result<()> {
    read_states(print)
}

/// Waits a second, reads everything, and prints the value of the last STATE.
pub fn acknowledge_at_end() -> Result<()> {
    thread::sleep(Duration::from_secs(1));
    let mut last = Vec::new();
    read_states(|value| {
        last = value.to_vec();
        Ok(())
    })?;
    print(&last)
}

/// Reads stdin to its end, with the value of each STATE.
fn read_states(mut on_state: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if let Some(value) = line.strip_prefix(br#"{"type":"STATE","value":"#) {
            on_state(value.strip_suffix(b"}\n").context("a STATE is cut off")?)?;
        }
        line.clear();
    }
    Ok(())
}

fn print(value: &[u8]) -> Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(value)?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}
