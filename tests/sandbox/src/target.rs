//! A Singer target for tests: it commits to a file, and fails, waits and chatters on request.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::Value;

/// The target's options.
#[derive(Args)]
pub(crate) struct Target {
    /// The file that committed records are appended to, one per line
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Commit at a STATE message when at least N records are waiting; the rest is committed at the
    /// end of the input
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch: usize,
    /// Commit at every Nth STATE message instead; 0 commits only at the end of the input
    #[arg(long, value_name = "N")]
    every: Option<usize>,
    /// Commit at every Nth record as well, and hold back a STATE right behind it until the next
    /// commit, as pipelinewise's targets do
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// Print no STATE
    #[arg(long)]
    silent: bool,
    /// Print text, JSON and STATEs that were printed before, beside each STATE
    #[arg(long)]
    chatter: bool,
    /// Pause before each message, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause_ms: u64,
    /// Before the Nth message, wait until somebody has opened the named pipe of `--until` to write,
    /// and closed it
    #[arg(long, value_name = "N", requires = "until")]
    wait_at: Option<usize>,
    /// The named pipe
    #[arg(long, value_name = "FIFO")]
    until: Option<PathBuf>,
    /// Crash before the Nth message
    #[arg(long, value_name = "N")]
    crash_at: Option<usize>,
    /// Crash before each message with a probability of 1/N; 0 never crashes
    #[arg(long, value_name = "N", default_value_t = 0)]
    crash_one_in: usize,
    /// Fail at a record that holds this text
    #[arg(long, value_name = "TEXT")]
    refuse: Option<String>,
    /// How to crash
    #[arg(long, value_enum, default_value_t = Crash::Fail)]
    crash_by: Crash,
    /// Seed of the random generator, to repeat the crashes of a run
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

/// How a target crashes.
#[derive(Clone, Copy, ValueEnum)]
enum Crash {
    /// With exit code 1
    Fail,
    /// With exit code 0
    Exit,
    /// By SIGKILL
    Kill,
}

/// What was read and is not committed.
#[derive(Default)]
struct Waiting {
    records: Vec<String>,
    state: Option<String>,
    /// The STATEs since the last commit.
    states: usize,
}

impl Target {
    /// Reads messages from stdin to the end. A STATE goes to stdout once everything before it is
    /// committed, as the Singer specification demands.
    pub(crate) fn run(&self) -> Result<()> {
        let mut random = self.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let mut waiting = Waiting::default();
        let mut printed = Vec::new();
        for (index, line) in io::stdin().lock().lines().enumerate() {
            let number = index + 1;
            thread::sleep(Duration::from_millis(self.pause_ms));
            if self.wait_at == Some(number)
                && let Some(fifo) = &self.until
            {
                let wait = || File::open(fifo)?.read_to_end(&mut Vec::new());
                wait().with_context(|| format!("cannot wait for {}", fifo.display()))?;
            }
            let is_unlucky = self.crash_one_in > 0 && random.usize(..self.crash_one_in) == 0;
            if self.crash_at == Some(number) || is_unlucky {
                return self.crash(waiting.records.len());
            }
            let line = line.context("cannot read stdin")?;
            let message: Value = serde_json::from_str(&line).with_context(|| format!("not a message: {line}"))?;
            match message["type"].as_str() {
                Some("RECORD") => {
                    let record = message["record"].to_string();
                    if self.refuse.as_ref().is_some_and(|text| record.contains(text)) {
                        bail!("value out of range: {}", message["record"]["dataPayload"]);
                    }
                    waiting.records.push(record);
                    if self.rows == Some(waiting.records.len()) {
                        self.commit(&mut waiting, &mut printed)?;
                    }
                }
                Some("STATE") => {
                    waiting.state = Some(message["value"].to_string());
                    waiting.states += 1;
                    if self.chatter {
                        self.chat(&printed)?;
                    }
                    if self.is_time_to_commit(&waiting) {
                        self.commit(&mut waiting, &mut printed)?;
                    }
                }
                _ => {}
            }
        }
        if self.rows.is_some() && waiting.records.is_empty() {
            return Ok(());
        }
        self.commit(&mut waiting, &mut printed)
    }

    fn is_time_to_commit(&self, waiting: &Waiting) -> bool {
        match self.every {
            Some(every) => every > 0 && waiting.states == every,
            None => waiting.records.len() >= self.batch,
        }
    }

    /// Appends the records, syncs the file to disk, and prints the STATE that covers them.
    fn commit(&self, waiting: &mut Waiting, printed: &mut Vec<String>) -> Result<()> {
        append(&self.out, &waiting.records)?;
        let Waiting { state, .. } = std::mem::take(waiting);
        if let Some(state) = state.filter(|_| !self.silent) {
            writeln!(io::stdout(), "{state}").context("cannot write to stdout")?;
            printed.push(state);
        }
        Ok(())
    }

    fn chat(&self, printed: &[String]) -> Result<()> {
        let old = printed.iter().rev().map(|state| format!("{state}\n")).collect::<String>();
        let text = format!("loading\n\n[1, 2]\n{{\"bookmarks\": {{\"records\": 7}}}}\n{old}{{\"type\": \"STATE\"}}\n");
        io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
    }

    fn crash(&self, waiting: usize) -> Result<()> {
        match self.crash_by {
            Crash::Fail => bail!("crashed on request; records that were waiting: {waiting}"),
            Crash::Exit => Ok(()),
            Crash::Kill => {
                kill_process(getpid(), Signal::KILL).context("cannot send SIGKILL")?;
                bail!("outlived SIGKILL")
            }
        }
    }
}

fn append(out: &Path, records: &[String]) -> Result<()> {
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let file = OpenOptions::new().create(true).append(true).open(out);
    let mut file = file.with_context(|| format!("cannot open {}", out.display()))?;
    file.write_all(lines.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write to {}", out.display()))
}
