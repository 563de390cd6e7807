//! A service, an output, and the runs on them. After each run, everything that a mark has hit is
//! delivered, or a line names it.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use serde_json::json;
use serde_json::value::RawValue;

use super::excused::Excused;
use super::*;
use crate::config::MarkBy;

const PAGE_BYTES: usize = 3_000;
const WINDOW_BYTES: usize = 6_000;

/// What was written, and what became of it.
#[derive(Debug, Default)]
pub struct Output {
    /// Every record flushed, with repetitions: what a pipe has taken.
    pub flushed: Vec<Record>,
    /// How many of them were flushed by earlier runs.
    pub flushed_before: usize,
    /// Every record that the target has committed.
    pub committed: BTreeSet<Record>,
    /// What the target has read and not committed yet.
    pub pending: Vec<Record>,
    /// The last STATE that the target has printed.
    pub state: Option<String>,
}

impl Output {
    /// A run begins. What a target that has ended had not committed is gone with it.
    pub fn begin(&mut self) {
        self.pending.clear();
        self.flushed_before = self.flushed.len();
    }

    pub fn commit(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.committed.extend(pending);
    }

    pub fn is_delivered(&self, record: &Record, acknowledge: Acknowledge) -> bool {
        match acknowledge {
            Acknowledge::Commit => self.committed.contains(record),
            _ => self.flushed.contains(record),
        }
    }
}

/// stdout, and the target behind it.
pub struct FakeTarget {
    pub output: Shared<Output>,
    buffer: Vec<Record>,
    breaks_after: Option<usize>,
    commits: VecDeque<bool>,
    is_killed: Shared<bool>,
}

impl FakeTarget {
    pub fn new(
        output: &Shared<Output>,
        breaks_after: Option<usize>,
        commits: &[bool],
        is_killed: &Shared<bool>,
    ) -> FakeTarget {
        FakeTarget {
            output: Rc::clone(output),
            buffer: Vec::new(),
            breaks_after,
            commits: commits.iter().copied().collect(),
            is_killed: Rc::clone(is_killed),
        }
    }
}

impl MessageWriter for FakeTarget {
    fn record(&mut self, json: &[u8], _time_extracted: &str) -> io::Result<()> {
        if *self.is_killed.borrow() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(left) = &mut self.breaks_after {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        }
        self.buffer.push(Record::parse(json));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut output = self.output.borrow_mut();
        output.flushed.extend(self.buffer.iter().cloned());
        output.pending.append(&mut self.buffer);
        Ok(())
    }

    fn state(&mut self, value: &RawValue) -> io::Result<()> {
        self.flush()?;
        if self.commits.pop_front().unwrap_or(true) {
            let mut output = self.output.borrow_mut();
            output.commit();
            output.state = Some(value.get().to_owned());
        }
        Ok(())
    }
}

pub struct World {
    pub service: Shared<Service>,
    pub output: Shared<Output>,
    pub config: Config,
    pub failures: Shared<usize>,
    /// Whether the tap is killed in this run.
    pub is_killed: Shared<bool>,
    /// What may be lost, and why.
    pub excused: Vec<(Record, Excused)>,
}

impl World {
    pub fn new(records: &[Kind], payloads: Vec<usize>, mode: &str, page_size: usize) -> World {
        World {
            service: Rc::new(RefCell::new(Service::of(records, payloads))),
            output: Rc::default(),
            config: config(mode, page_size),
            failures: Rc::default(),
            is_killed: Rc::default(),
            excused: Vec::new(),
        }
    }

    /// With `markBy` `id`.
    pub fn by_id(mut self) -> World {
        self.config.mark_by = MarkBy::Id;
        self
    }

    /// Runs the tap to its end and checks the promise.
    pub fn run(&mut self, script: &Script) -> Result<(), TestCaseError> {
        self.is_killed = Rc::default();
        let target = FakeTarget::new(&self.output, script.stdout_breaks, &script.commits, &self.is_killed);
        let state = self.output.borrow().state.as_deref().map(|value| State::parse(value).unwrap());
        self.run_with(script, Box::new(target), state.unwrap_or_default(), None)
    }

    /// Runs the tap to its end with this writer, and checks the promise.
    pub fn run_with(
        &mut self,
        script: &Script,
        writer: Box<dyn MessageWriter>,
        state: State,
        target: Option<Box<dyn Target>>,
    ) -> Result<(), TestCaseError> {
        self.output.borrow_mut().begin();
        self.service.borrow_mut().watch.begin();
        let is_pipe = target.is_none();
        let stop = Shutdown::default();
        let service = FakeService::new(self, script, &stop);
        let endpoints = Endpoints { service, writer, stream: "records".to_owned(), state, target, look: None };
        let pause = script.follows.then_some(Duration::ZERO);
        warnings::keep();
        let end = crate::poll::run(&self.config, tuning(&self.config), endpoints, pause, stop);
        let mut lines = warnings::take();
        lines.extend(end.as_ref().err().map(|error| format!("{error:#}")));
        *self.failures.borrow_mut() += usize::from(end.is_err());
        let warned = lines.iter().any(|line| warnings::is_of_loss(line));
        self.check_warning(end.is_ok(), warned, script, &lines)?;
        self.check_hits(is_pipe, warned, &lines)
    }

    /// A run that ends well warns only of what a service does not show: records without a time
    /// stamp, and more at one time stamp than it may show at once. Or `commit` ends while a mark
    /// may still be applied.
    fn check_warning(
        &self,
        is_good: bool,
        warned: bool,
        script: &Script,
        lines: &[String],
    ) -> Result<(), TestCaseError> {
        let Capacity { records, bytes, pace, .. } = script.capacity;
        // Or it has refused a size once, or so many requests have failed that single records are asked
        // for.
        let answers = || script.calls.iter().map(|call| call.fate.answer);
        let is_refused = answers().any(|answer| answer == Answer::Status(413))
            || answers().filter(|answer| matches!(answer, Answer::Lost | Answer::Status(500..))).count() >= 4;
        let is_limited = script.cap.min(records).min(bytes) < usize::MAX || pace > Duration::ZERO || is_refused;
        let service = self.service.borrow();
        let has_odd = service.rows.iter().any(|row| !row.record.shown.stamp());
        let has_crowd = service
            .rows
            .chunk_by(|one, other| one.record.stamp == other.record.stamp)
            .any(|crowd| crowd.len() >= FIRST_PAGE);
        let has_lost_mark = self.config.acknowledge == Acknowledge::Commit
            && script.calls.iter().any(|call| call.fate.answer != Answer::Comes);
        let has_reason = is_limited || has_odd || has_crowd || has_lost_mark;
        prop_assert!(!warned || !is_good || has_reason, "a warning without a reason: {lines:?}");
        Ok(())
    }

    /// What marks have hit is delivered, or named in a warning, or excused.
    fn check_hits(&mut self, is_pipe: bool, warned: bool, lines: &[String]) -> Result<(), TestCaseError> {
        let output = self.output.borrow();
        let service = &mut *self.service.borrow_mut();
        let hits = std::mem::take(&mut service.hits);
        for hit in hits {
            if output.is_delivered(&hit.record, self.config.acknowledge) {
                continue;
            }
            let excused = match hit.excuse_of(&service.watch) {
                _ if *self.is_killed.borrow() => Some(Excused::Killed),
                _ if is_pipe && output.flushed.contains(&hit.record) => Some(Excused::InPipe),
                excused @ Some(_) => excused,
                None => warned.then_some(Excused::Warned),
            };
            let Some(excused) = excused else {
                prop_assert!(
                    false,
                    "{:?} is marked and not delivered, and no line says so: {lines:?}; {:?}",
                    hit.record,
                    service.watch
                );
                continue;
            };
            self.excused.push((hit.record, excused));
        }
        Ok(())
    }

    /// Runs by these scripts, and then without trouble to the end.
    pub fn run_all(&mut self, scripts: &[Script]) -> Result<(), TestCaseError> {
        for script in scripts {
            self.run(script)?;
        }
        self.finish()
    }

    /// Runs without trouble until nothing is unread; then everything is delivered.
    pub fn finish(&mut self) -> Result<(), TestCaseError> {
        self.finish_with(Capacity::UNLIMITED)
    }

    pub fn finish_with(&mut self, capacity: Capacity) -> Result<(), TestCaseError> {
        for _ in 0..100 {
            self.run(&Script::of(capacity))?;
            if self.service.borrow().unread(1).is_empty() {
                break;
            }
        }
        self.check_drained()
    }

    /// Nothing is unread, and everything is delivered.
    pub fn check_drained(&self) -> Result<(), TestCaseError> {
        let service = self.service.borrow();
        let output = self.output.borrow();
        prop_assert!(service.unread(1).is_empty(), "the stream is never drained");
        for Row { record, .. } in &service.rows {
            let is_excused = self.excused.iter().any(|(excused, _)| excused == record);
            let is_delivered = output.is_delivered(record, self.config.acknowledge);
            prop_assert!(
                is_delivered || is_excused || service.marked_by_others.contains(record),
                "{record:?} was lost"
            );
        }
        Ok(())
    }

    /// How often the last run has written a record again.
    pub fn repeated(&self) -> usize {
        let output = self.output.borrow();
        let written = &output.flushed[output.flushed_before..];
        written.len() - written.iter().collect::<BTreeSet<_>>().len()
    }

    /// How often a record was written again, by whichever run.
    pub fn duplicates(&self) -> usize {
        let output = self.output.borrow();
        output.flushed.len() - output.flushed.iter().collect::<BTreeSet<_>>().len()
    }
}

pub fn tuning(config: &Config) -> Tuning {
    let retries = Retry { first_delay: Duration::ZERO, ..Retry::new(config.max_retries) };
    Tuning { first_page: FIRST_PAGE, page_bytes: PAGE_BYTES, window_bytes: WINDOW_BYTES, retries }
}

pub fn config(mode: &str, page_size: usize) -> Config {
    let settings = json!({
        "streamId": "s", "clientId": "c", "clientSecret": "x", "acknowledge": mode, "pageSize": page_size,
        "maxPending": page_size,
        // So that records without an identity get to the writer. It writes them like others: nobody
        // opens the file.
        "deadLetterFile": "never-opened"
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), settings.to_string()).unwrap();
    Config::load(&[file.path().to_owned()], false, false).unwrap()
}
