//! A sandbox with the records of a scenario, and the proof that a run has done its work.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use streamduo_sandbox::{Endpoint, Rule, Sandbox};
use tempfile::TempDir;

use super::report::thousands;

/// What the service is like.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub records: usize,
    latency: Duration,
    cap: Option<usize>,
    as_read: bool,
}

impl Scene {
    /// So many records on loopback.
    pub fn of(records: usize) -> Scene {
        Scene { records, latency: Duration::ZERO, cap: None, as_read: false }
    }

    /// With a pause before every answer.
    pub fn behind(self, latency: Duration) -> Scene {
        Scene { latency, ..self }
    }

    /// With so many records in an answer at most, whatever was asked for.
    pub fn capped(self, records: usize) -> Scene {
        Scene { cap: Some(records), ..self }
    }

    /// With marks whose answers show their records as read: not what the peek has shown, byte for byte.
    pub fn answering_as_read(self) -> Scene {
        Scene { as_read: true, ..self }
    }

    /// What a table of it is called.
    pub fn title(&self) -> String {
        let mut title = format!("{} records", thousands(self.records));
        if self.latency.is_zero() {
            title += " on loopback";
        } else {
            title += &format!(" at {} ms latency", self.latency.as_millis());
        }
        if let Some(cap) = self.cap {
            title += &format!(", pages capped at {cap}");
        }
        if self.as_read {
            title += ", marks answered as read";
        }
        title
    }
}

/// A request, to be made once more.
#[derive(Debug, Clone)]
pub struct Asked {
    pub endpoint: Endpoint,
    pub path: String,
    pub body: String,
}

/// A sandbox of its own for each run. It runs on a thread of this process: what a run costs is what its own process costs,
/// which the sandbox is no part of, and only the library gives the journal and the script.
pub struct Stage {
    pub sandbox: Sandbox,
    pub stream: String,
    records: usize,
    /// Where a run's files are: in memory if there is such a place, so that no disk is measured.
    pub dir: TempDir,
}

impl Stage {
    /// Fills a sandbox.
    pub fn set(scene: &Scene) -> Result<Stage> {
        let sandbox = Sandbox::builder().latency(scene.latency).start().context("start the sandbox")?;
        let stream = sandbox.create_stream("cars");
        sandbox.fill(&stream, scene.records);
        if let Some(cap) = scene.cap {
            sandbox.script(Rule::on(Endpoint::Peek).every().cap(cap));
            sandbox.script(Rule::on(Endpoint::Mark).every().cap(cap));
        }
        if scene.as_read {
            sandbox.script(Rule::on(Endpoint::Mark).every().as_read());
        }
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Ok(Stage { sandbox, stream, records: scene.records, dir: dir.context("make a temporary folder")? })
    }

    /// A file for a run's stdout that is as long already as what will be written, for it costs time to make a file longer.
    pub fn stdout(&self, name: &str) -> Result<PathBuf> {
        /// More than a RECORD line of the sandbox's sample takes.
        const LINE: u64 = 512;
        let path = self.dir.path().join(name);
        let mut file = File::create_new(&path).context("make a file for stdout")?;
        let length = LINE * (self.records as u64 + 8);
        io::copy(&mut io::repeat(0).take(length), &mut file).context("fill a file for stdout")?;
        Ok(path)
    }

    /// The settings of a tap.
    pub fn config(&self) -> Value {
        self.sandbox.config(&self.stream)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Asked> {
        let calls = self.sandbox.journal().into_iter();
        calls.map(|call| Asked { endpoint: call.endpoint, path: call.path, body: call.body }).collect()
    }

    /// How many connections they came on.
    pub fn connections(&self) -> usize {
        self.sandbox.journal().iter().map(|call| call.connection).collect::<BTreeSet<_>>().len()
    }

    /// An error unless so many RECORD lines came out as there are records, and all are marked.
    pub fn check_delivered(&self, lines: usize) -> Result<()> {
        ensure!(lines == self.records, "{lines} RECORD lines came out of {} records", self.records);
        self.check_drained()
    }

    /// An error unless all records are marked.
    pub fn check_drained(&self) -> Result<()> {
        self.check_unread(0)
    }

    /// An error unless all records came out, and none is marked.
    pub fn check_out(&self, lines: usize) -> Result<()> {
        ensure!(lines == self.records, "{lines} RECORD lines came out of {} records", self.records);
        self.check_unread(self.records)
    }

    fn check_unread(&self, expected: usize) -> Result<()> {
        let (records, unread) = self.sandbox.tally(&self.stream);
        ensure!(records == self.records, "the sandbox has {records} records instead of {}", self.records);
        ensure!(unread == expected, "{unread} of {records} records are unread instead of {expected}");
        Ok(())
    }
}
