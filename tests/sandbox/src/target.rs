//! A Singer target that commits in batches and crashes at random.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

/// The target's options.
#[derive(Args)]
pub(crate) struct Target {
    /// The file that committed records are appended to, one per line
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Commit at a STATE message when at least N records are waiting; the rest is committed at the end of the input
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch: usize,
    /// Crash before each message with a probability of 1/N; 0 never crashes
    #[arg(long, value_name = "N", default_value_t = 0)]
    crash_one_in: usize,
    /// Seed of the random generator, to repeat the crashes of a run
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl Target {
    /// Reads messages from stdin to the end. A STATE goes to stdout once everything before it is committed, as the Singer
    /// specification demands.
    pub(crate) fn run(&self) -> Result<()> {
        let mut random = self.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let mut waiting = Vec::new();
        let mut state = None;
        for line in io::stdin().lock().lines() {
            if self.crash_one_in > 0 && random.usize(..self.crash_one_in) == 0 {
                bail!("crashed on request; records that were waiting: {}", waiting.len());
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

/// Appends the records, syncs the file to disk, and prints the STATE that covers them.
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
