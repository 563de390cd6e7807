//! A Singer target that commits in batches and crashes at random: the worst that a pipe can have at its end.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

/// What the target does with what it reads.
#[derive(Args)]
pub(crate) struct Target {
    /// The file that committed records are appended to, one a line
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Commit at a STATE once so many records are waiting; at the end of the input all are committed
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch: usize,
    /// Crash before a message with a chance of one in N; 0 never does
    #[arg(long, value_name = "N", default_value_t = 0)]
    crash_one_in: usize,
    /// Makes the crashes of a run repeatable
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl Target {
    /// Reads messages from stdin to their end. As the Singer specification has it, a STATE goes to stdout once everything
    /// before it is committed.
    pub(crate) fn run(&self) -> Result<()> {
        let mut random = self.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let mut waiting = Vec::new();
        let mut state = None;
        for line in io::stdin().lock().lines() {
            if self.crash_one_in > 0 && random.usize(..self.crash_one_in) == 0 {
                bail!("crashed, as asked for: {} records were waiting", waiting.len());
            }
            let line = line.context("cannot read stdin")?;
            let message: Value = serde_json::from_str(&line).with_context(|| format!("not a message: {line}"))?;
            match message["type"].as_str() {
                Some("RECORD") => waiting.push(message["record"].to_string()),
                Some("STATE") => {
                    state = Some(message["value"].to_string());
                    if waiting.len() >= self.batch {
                        commit(&self.out, &mut waiting, &mut state)?;
                    }
                }
                _ => {}
            }
        }
        commit(&self.out, &mut waiting, &mut state)
    }
}

/// Appends the records in one write, makes sure that they are on the disk, and prints the STATE that covers them.
fn commit(out: &Path, waiting: &mut Vec<String>, state: &mut Option<String>) -> Result<()> {
    let lines: String = waiting.drain(..).map(|record| record + "\n").collect();
    let file = OpenOptions::new().create(true).append(true).open(out);
    let mut file = file.with_context(|| format!("cannot open {}", out.display()))?;
    file.write_all(lines.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write to {}", out.display()))?;
    if let Some(state) = state.take() {
        writeln!(io::stdout(), "{state}").context("cannot write to stdout")?;
    }
    Ok(())
}
