//! `acknowledge: never` against a service whose records arrive in time order, several at one time
//! stamp, in every form of one.
//!
//! The fake service refuses to mark. After each run, everything up to the bookmark that the target
//! has committed is committed.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

use super::process::process;
use super::*;
use crate::config::timestamp::instant;
use crate::record::Fingerprint;
use crate::streamduo::service::MarkedAndPeeked;

/// Nanoseconds of the digits that a time stamp may have.
const DIGITS: [i64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];

/// What the records of an odd group show.
const ODD: [Shown; 4] = [Shown::Neither, Shown::OnlyId, Shown::OnlyStamp, Shown::Both];

/// Records that arrive at once, at one time stamp.
#[derive(Debug, Clone)]
struct Group {
    records: usize,
    /// How far behind the one before, in steps of its digits.
    steps: i64,
    digits: usize,
    /// Whether some of them have no identity.
    is_odd: bool,
}

/// The stream. Its records are in time order, each with its instant.
#[derive(Debug, Default)]
struct Stream {
    records: Vec<(jiff::Timestamp, Row)>,
    /// The time stamp of the last one, in nanoseconds.
    last: i64,
}

impl Stream {
    fn arrive(&mut self, group: &Group) {
        let digit = DIGITS[group.digits];
        self.last = (self.last / digit + group.steps) * digit;
        let utc = jiff::Timestamp::from_nanosecond(self.last.into()).unwrap();
        for _ in 0..group.records {
            let number = self.records.len();
            // The same instant in other words.
            let stamp = match number % 3 {
                0 => utc.to_string(),
                1 => format!("{}[UTC]", utc.strftime("%Y-%m-%dT%H:%M:%S%.9f+00:00")),
                _ => format!(
                    "{}[A/B]",
                    (utc + jiff::SignedDuration::from_hours(5)).strftime("%Y-%m-%dT%H:%M:%S%.f+05:00")
                ),
            };
            let payload = format!("\"{}\"", "x".repeat(7 * number % MAX_PAYLOAD));
            let shown = if group.is_odd { ODD[number % ODD.len()] } else { Shown::Both };
            let record = Record { id: number.to_string(), stamp, payload, shown };
            self.records.push((utc, Row { record, read: false }));
        }
    }

    fn since(&self, timestamp: &str, count: usize, newest: bool) -> Vec<Row> {
        let after = instant(timestamp).unwrap();
        let found = &self.records[self.records.partition_point(|(at, _)| at.as_duration() <= after)..];
        let skipped = if newest { found.len().saturating_sub(count) } else { 0 };
        found.iter().skip(skipped).take(count).map(|(_, record)| record.clone()).collect()
    }
}

/// What a run meets.
#[derive(Debug, Clone)]
struct Weather {
    calls: Vec<(Vec<Group>, Answer)>,
    capacity: Capacity,
    cap: usize,
    newest: bool,
    stdout_breaks: Option<usize>,
    commits: Vec<bool>,
}

impl Weather {
    const FAIR: Weather = Weather {
        calls: Vec::new(),
        capacity: Capacity::UNLIMITED,
        cap: usize::MAX,
        newest: false,
        stdout_breaks: None,
        commits: Vec::new(),
    };
}

struct TimedService {
    stream: Shared<Stream>,
    weather: Weather,
    calls: VecDeque<(Vec<Group>, Answer)>,
    timeout: Duration,
    is_killed: bool,
}

impl crate::streamduo::Service for TimedService {
    fn peek(&mut self, _count: usize) -> Result<Page, Failure> {
        unreachable!("nothing is read by read status")
    }

    fn mark(&mut self, _delivered: Delivered) -> Result<Page, Failure> {
        unreachable!("nothing is marked")
    }

    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page, Failure> {
        let (groups, answer) = self.calls.pop_front().unwrap_or((Vec::new(), Answer::Comes));
        groups.iter().for_each(|group| self.stream.borrow_mut().arrive(group));
        self.is_killed |= matches!(answer, Answer::Killed | Answer::KilledBefore);
        match answer {
            _ if self.is_killed => return Err(anyhow::anyhow!("killed").into()),
            Answer::Status(status) => return Err(failure(status)),
            Answer::Lost => return Err(lost_answer()),
            _ => {}
        }
        let Weather { capacity, cap, newest, .. } = &self.weather;
        let rows = self.stream.borrow().since(timestamp, count.min(*cap), *newest);
        capacity.serve(count, text(&rows), self.timeout)
    }

    fn mark_and_peek(&mut self, _delivered: Delivered, _count: usize, _head_start: Duration) -> MarkedAndPeeked {
        unreachable!("nothing is marked")
    }

    fn mark_singles(&mut self, _records: &[(String, Fingerprint)]) -> Vec<(usize, Result<Page, Failure>)> {
        unreachable!("nothing is marked")
    }
}

/// A stream, and what was made of it.
struct Replay {
    stream: Shared<Stream>,
    output: Shared<Output>,
    config: Config,
    /// Every STATE that a target has printed.
    printed: Shared<Vec<String>>,
}

impl Replay {
    fn new(groups: &[Group], page_size: usize) -> Replay {
        let mut stream = Stream { last: 1_643_746_583_716_848_000, ..Stream::default() };
        groups.iter().for_each(|group| stream.arrive(group));
        let config = config("never", page_size);
        Replay { stream: Rc::new(RefCell::new(stream)), output: Rc::default(), config, printed: Rc::default() }
    }

    /// Runs the tap once. Returns whether it ended well.
    fn run_with(
        &self,
        weather: &Weather,
        writer: Box<dyn MessageWriter>,
        state: State,
        target: Option<Box<dyn Target>>,
    ) -> bool {
        let service = TimedService {
            stream: Rc::clone(&self.stream),
            weather: weather.clone(),
            calls: weather.calls.iter().cloned().collect(),
            timeout: self.config.request_timeout,
            is_killed: false,
        };
        let endpoints = Endpoints { service, writer, stream: "records".to_owned(), state, target, look: None };
        crate::poll::run(&self.config, tuning(&self.config), endpoints, None, Shutdown::default()).is_ok()
    }

    /// Runs the tap into a pipe, from the last STATE that the target has committed.
    fn run(&self, weather: &Weather) -> Result<bool, TestCaseError> {
        self.output.borrow_mut().begin();
        let state = self.output.borrow().state.as_deref().map(|value| State::parse(value).unwrap());
        let target = FakeTarget::new(&self.output, weather.stdout_breaks, &weather.commits, &Rc::default());
        let ended_well = self.run_with(weather, Box::new(target), state.unwrap_or_default(), None);
        let state = self.output.borrow().state.clone();
        self.check(state.as_deref())?;
        Ok(ended_well)
    }

    /// Runs the tap with a target that it runs, and a state file.
    fn run_target(&self, weather: &Weather, targets: &Targets, file: &Path) -> Result<bool, TestCaseError> {
        self.output.borrow_mut().begin();
        let process = process(&self.output, &Rc::default(), targets, &self.printed);
        let state = State::load(Some(file), true).unwrap();
        let ended_well = self.run_with(weather, Box::new(process.clone()), state, Some(Box::new(process)));
        self.check(fs::read_to_string(file).ok().as_deref())?;
        Ok(ended_well)
    }

    /// Everything up to the bookmark of a state is committed.
    fn check(&self, state: Option<&str>) -> Result<(), TestCaseError> {
        let state: serde_json::Value = serde_json::from_str(state.unwrap_or("null")).unwrap();
        let Some(bookmark) = state["bookmarks"]["records"]["replication_key_value"].as_str() else { return Ok(()) };
        let output = self.output.borrow();
        let bookmark = instant(bookmark).unwrap();
        for (at, Row { record, .. }) in &self.stream.borrow().records {
            let is_later = at.as_duration() > bookmark;
            prop_assert!(is_later || output.committed.contains(record), "{record:?} is skipped: {bookmark}");
        }
        Ok(())
    }

    fn check_all_committed(&self) -> Result<(), TestCaseError> {
        let output = self.output.borrow();
        for (_, Row { record, .. }) in &self.stream.borrow().records {
            prop_assert!(output.committed.contains(record), "{record:?} is missing");
        }
        Ok(())
    }

    /// After a few runs without failures. Each run may read again records without a time stamp at
    /// the end. Those count for one of the time stamps beside them, and so with them a crowd, as
    /// many records at the last time stamp as fill the first page.
    fn check_duplicates(&self) -> Result<(), TestCaseError> {
        let output = self.output.borrow();
        let stream = self.stream.borrow();
        let duplicates = output.flushed.len() - output.flushed.iter().collect::<BTreeSet<_>>().len();
        let unplaced = stream.records.iter().filter(|(_, stored)| !stored.record.shown.stamp()).count();
        let crowds = stream.records.chunk_by(|(one, _), (other, _)| one == other).map(<[_]>::len);
        let crowds: usize = crowds.filter(|crowd| unplaced > 0 && crowd + unplaced >= FIRST_PAGE).sum();
        prop_assert!(duplicates <= 5 * (crowds + unplaced), "{duplicates} duplicates");
        Ok(())
    }
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let group = (
        prop_oneof![3 => Just(1), 2 => 2..4usize, 1 => 4..12usize],
        1..3i64,
        0..DIGITS.len(),
        prop::bool::weighted(0.2),
    );
    let group = group.prop_map(|(records, steps, digits, is_odd)| Group { records, steps, digits, is_odd });
    prop::collection::vec(group, 0..10)
}

fn weather() -> impl Strategy<Value = Weather> {
    (
        prop::collection::vec((groups(), any_fate().prop_map(|fate| fate.answer)), 0..8),
        capacity(),
        cap(),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, 0..10usize),
        prop::collection::vec(any::<bool>(), 0..4),
    )
        .prop_map(|(calls, capacity, cap, newest, stdout_breaks, commits)| Weather {
            calls,
            capacity,
            cap,
            newest,
            stdout_breaks,
            commits,
        })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn nothing_is_skipped_by_runs_that_are_resumed_from_what_the_target_has_committed(
        groups in groups(), page_size in 1..15usize, runs in prop::collection::vec(weather(), 1..5)
    ) {
        let replay = Replay::new(&groups, page_size);
        for weather in &runs {
            replay.run(weather)?;
        }
        prop_assert!(replay.run(&Weather::FAIR)?, "a run without failures fails");
        replay.check_all_committed()?;
    }

    #[test]
    fn runs_without_failures_write_every_record_once(
        groups in groups(), page_size in 1..15usize,
        arrivals in prop::collection::vec(prop::collection::vec(super::replay::groups(), 0..6), 1..4)
    ) {
        let replay = Replay::new(&groups, page_size);
        for arrivals in arrivals {
            let calls = arrivals.into_iter().map(|groups| (groups, Answer::Comes)).collect();
            let weather = Weather { calls, ..Weather::FAIR };
            prop_assert!(replay.run(&weather)?);
        }
        prop_assert!(replay.run(&Weather::FAIR)?);
        replay.check_all_committed()?;
        replay.check_duplicates()?;
    }

    #[test]
    fn a_state_file_covers_nothing_that_the_target_has_not_committed(
        groups in groups(), page_size in 1..15usize, runs in prop::collection::vec((weather(), targets()), 1..4)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let replay = Replay::new(&groups, page_size);
        for (weather, targets) in &runs {
            replay.run_target(weather, targets, &file)?;
        }
        prop_assert!(replay.run_target(&Weather::FAIR, &Targets::good(), &file)?, "a run without failures fails");
        replay.check_all_committed()?;
    }
}

#[test]
fn a_record_without_a_time_stamp_may_make_a_crowd_of_those_behind_it() {
    let group = |records, is_odd| Group { records, steps: 1, digits: 0, is_odd };
    let replay = Replay::new(&[group(1, false), group(1, true), group(2, false)], 1);
    for _ in 0..3 {
        assert!(replay.run(&Weather::FAIR).unwrap());
    }
    replay.check_all_committed().unwrap();
    replay.check_duplicates().unwrap();
}
