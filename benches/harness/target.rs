//! A target that acknowledges at once and loads nothing.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result};

/// The first argument that makes the benchmark such a target.
pub const TARGET: &str = "--target";

/// Prints the value of each STATE as soon as it is read.
pub fn acknowledge() -> Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if let Some(value) = line.strip_prefix(br#"{"type":"STATE","value":"#) {
            output.write_all(value.strip_suffix(b"}\n").context("a STATE is cut off")?)?;
            output.write_all(b"\n")?;
            output.flush()?;
        }
        line.clear();
    }
    Ok(())
}
