//! The loop against random interleavings of what a service, other consumers, a target and a power cut can do.
//!
//! A scripted service keeps the read status as StreamDuo does. After each run everything that the tap has marked must have
//! been delivered: flushed in `write` mode, committed by the target in `commit` mode. What the service's own design leaves open
//! (see [`Service::gap`]) is told apart explicitly.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::*;
use crate::record::{Delivered, Identity, Peeked, Timing};
use crate::streamduo::retry::RetryPolicy;
use crate::streamduo::{Count, Marked};

mod closed_loop;
mod look;
mod replay;

/// Small, because the streams are short.
const FIRST_PAGE: usize = 3;
const PAGE_BYTES: usize = 2_000;
const WINDOW_BYTES: usize = 4_000;

/// The longest that a record's payload gets, in bytes. One record alone is within every [`Capacity`].
const MAX_PAYLOAD: usize = 300;

/// What others do to the stream before a request is served.
#[derive(Debug, Clone)]
enum Event {
    /// A record arrives at this place among the records there are (the end, or earlier: a late one), at the time stamp of
    /// its neighbour or at one of its own.
    Arrival { place: prop::sample::Index, same_stamp: bool },
    /// A record arrives this far behind the oldest unread one, and at a later time stamp than it.
    SlipIn { behind: usize, same_stamp: bool },
    /// Another consumer marks so many of the oldest unread.
    ForeignMark(usize),
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Comes,
    /// Lost on its way back: a mark has been applied.
    Lost,
    /// The request never arrived: nothing has been applied.
    NotSent,
    /// The service answers with this status: nothing has been applied.
    Status(u16),
    /// The tap is killed while it waits.
    Killed,
    /// The tap is killed before the request has arrived.
    KilledBefore,
}

#[derive(Debug, Clone)]
struct Call {
    before: Vec<Event>,
    answer: Answer,
    /// For a mark: whether the peek that is made meanwhile is served before it.
    overtaken: bool,
}

/// What the service and the way to it can carry.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    /// The service refuses more records, or a longer answer, with this status.
    records: usize,
    bytes: usize,
    refusal: u16,
    /// How long a byte of an answer takes.
    pace: Duration,
}

impl Capacity {
    const UNLIMITED: Capacity = Capacity { records: usize::MAX, bytes: usize::MAX, refusal: 413, pace: Duration::ZERO };

    fn refuses(&self, asked: usize, answer: &Bytes) -> bool {
        asked > self.records || answer.len() > self.bytes
    }

    /// How long an answer takes from its first byte to its last, unless that is too long.
    fn transfer(&self, answer: &Bytes, timeout: Duration) -> Result<Duration> {
        let transfer = self.pace * u32::try_from(answer.len()).unwrap();
        if transfer < timeout {
            return Ok(transfer);
        }
        Err(HttpError::TimedOut { host: "h".to_owned(), timeout, has_begun: true }.into())
    }
}

/// One run of the tap: what becomes of its requests, and of what it writes.
#[derive(Debug, Clone)]
struct Script {
    calls: Vec<Call>,
    capacity: Capacity,
    /// The most records that the service shows and marks in one request.
    cap: usize,
    /// stdout breaks after so many records.
    stdout_breaks: Option<usize>,
    /// The target commits what came before this STATE, for each STATE; all where there are no more.
    commits: Vec<bool>,
}

impl Script {
    /// Nothing happens, and the target commits everything.
    fn of(capacity: Capacity) -> Script {
        Script { calls: Vec::new(), capacity, cap: usize::MAX, stdout_breaks: None, commits: Vec::new() }
    }
}

/// A record of the service.
#[derive(Debug, Clone)]
struct Stored {
    identity: Identity,
    read: bool,
    /// The size of its payload, in bytes.
    payload: usize,
}

/// The stream, and what is known of each record.
#[derive(Debug, Default)]
struct Service {
    /// In time order.
    records: Vec<Stored>,
    /// The sizes of the payloads, in turn.
    payloads: Vec<usize>,
    arrived: usize,
    marked_by_others: BTreeSet<Identity>,
    marked_by_tap: BTreeSet<Identity>,
    /// Records that the tap's mark hit although they had not been delivered, because they slipped in between peek and mark.
    /// Where its answer came, they have to be delivered by the end of the run; where it did not, they are the gap that the
    /// service's way of marking leaves.
    slipped_in: BTreeSet<Identity>,
    gap: BTreeSet<Identity>,
    /// Of the gap, the records that a look back finds: they slipped in behind the first record of the page, and at a later time
    /// stamp.
    behind_first: BTreeSet<Identity>,
    /// Whether a record has arrived before another one.
    is_late: bool,
    /// How often somebody else did something.
    events: usize,
    /// Records that the tap's mark hit although they had not been delivered, and nothing excuses it.
    lost: BTreeSet<Identity>,
}

impl Service {
    fn of(count: usize, payloads: Vec<usize>) -> Service {
        let mut service = Service { payloads, ..Service::default() };
        for _ in 0..count {
            service.arrive(service.records.len(), false);
        }
        service
    }

    fn arrive(&mut self, place: usize, same_stamp: bool) {
        self.arrived += 1;
        self.is_late |= place < self.records.len();
        // A fraction between those of the neighbours keeps time stamps in order.
        let stamp = |index: usize| self.records.get(index).map(|record| record.identity.timestamp.clone());
        let before = place.checked_sub(1).and_then(stamp);
        let timestamp = match (before, stamp(place)) {
            (Some(before), _) if same_stamp => before,
            (Some(before), None) => format!("{:08}", before[..8].parse::<usize>().unwrap() + 1),
            (Some(before), Some(after)) if before == after => before,
            (Some(before), Some(after)) => {
                let between = |zeros| format!("{before}{}5", "0".repeat(zeros));
                (0..).map(between).find(|stamp| *stamp < after).unwrap()
            }
            (None, Some(after)) => format!("{:08}", after[..8].parse::<usize>().unwrap() - 1),
            (None, None) => "50000000".to_owned(),
        };
        let identity = Identity { record_id: self.arrived.to_string(), timestamp };
        let payload = self.payloads[self.arrived % self.payloads.len()];
        self.records.insert(place, Stored { identity, read: false, payload });
    }

    fn slip_in(&mut self, behind: usize, same_stamp: bool) {
        let Some(first) = self.records.iter().position(|record| !record.read) else { return };
        let mut place = (first + 1 + behind).min(self.records.len());
        let stamp = |index: usize| &self.records[index].identity.timestamp;
        while place < self.records.len() && stamp(place) == stamp(place - 1) {
            place += 1;
        }
        let same_stamp = same_stamp && stamp(place - 1) != stamp(first);
        self.arrive(place, same_stamp);
    }

    fn happen(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::SlipIn { behind, same_stamp } => self.slip_in(*behind, *same_stamp),
            Event::Arrival { place, same_stamp } => self.arrive(place.index(self.records.len() + 1), *same_stamp),
            Event::ForeignMark(count) => {
                let marked = self.mark(*count);
                self.marked_by_others.extend(marked);
            }
        }
    }

    fn unread(&self, count: usize) -> Vec<Stored> {
        self.records.iter().filter(|record| !record.read).take(count).cloned().collect()
    }

    fn mark(&mut self, count: usize) -> Vec<Identity> {
        let unread = self.records.iter_mut().filter(|record| !record.read);
        unread
            .take(count)
            .map(|record| {
                record.read = true;
                record.identity.clone()
            })
            .collect()
    }
}

fn status(status: u16) -> anyhow::Error {
    HttpError::Status { host: "h".to_owned(), status, retry_after: None, text: String::new() }.into()
}

fn lost_answer() -> anyhow::Error {
    HttpError::InvalidBody("the answer was lost".to_owned()).into()
}

fn text(records: &[Stored]) -> Bytes {
    let texts: Vec<_> = records
        .iter()
        .map(|Stored { identity, read, payload }| {
            let Identity { record_id, timestamp } = identity;
            let (read, payload) = (read.to_string(), "x".repeat(*payload));
            json!({"recordId": record_id, "recordTimeStampISO": timestamp, "readStatus": read, "dataPayload": payload})
                .to_string()
        })
        .collect();
    format!("[{}]", texts.join(",")).into()
}

/// What was written, and what became of it.
#[derive(Debug, Default)]
struct Output {
    /// Every record flushed, with repetitions: what a pipe has taken.
    flushed: Vec<Identity>,
    /// Every record that the target has committed.
    committed: BTreeSet<Identity>,
    /// What the target has read and not committed yet.
    pending: Vec<Identity>,
    /// The last STATE that the target has printed.
    state: Option<String>,
}

type Shared<T> = Rc<RefCell<T>>;

/// The service as one run of the tap meets it.
struct FakeService {
    service: Shared<Service>,
    output: Shared<Output>,
    calls: VecDeque<Call>,
    cap: usize,
    capacity: Capacity,
    timeout: Duration,
    mode: Acknowledge,
    failures: Shared<usize>,
    /// When the page that is to be marked next was peeked, in events.
    peeked_at: usize,
    /// Whether the tap is killed: nothing that it sends arrives any more.
    is_killed: bool,
}

impl FakeService {
    fn next(&mut self, count: usize) -> (usize, Answer) {
        let count = count.min(self.cap);
        if self.is_killed {
            return (count, Answer::KilledBefore);
        }
        let Some(call) = self.calls.pop_front() else { return (count, Answer::Comes) };
        for event in &call.before {
            self.service.borrow_mut().happen(event);
        }
        if call.answer != Answer::Comes {
            *self.failures.borrow_mut() += 1;
        }
        self.is_killed = matches!(call.answer, Answer::Killed | Answer::KilledBefore);
        (count, call.answer)
    }

    /// The peek that goes with a mark, and when it was served.
    fn peek_ahead(&self, count: Count) -> (usize, Result<Peeked>) {
        let service = self.service.borrow();
        let unread = service.unread(count.max().min(self.cap));
        let page = self.answer(&unread, count.max());
        (service.events, page.and_then(|page| Ok(Peeked::new(page)?)))
    }

    fn look(&mut self, count: usize, look: impl Fn(&Service, usize) -> Vec<Stored>) -> Result<Page> {
        match self.next(count) {
            (shown, Answer::Comes) => self.answer(&look(&self.service.borrow(), shown), count),
            (_, Answer::Status(code)) => Err(status(code)),
            (_, Answer::Lost | Answer::NotSent) => Err(lost_answer()),
            _ => bail!("killed"),
        }
    }

    /// The answer to a request for `asked` records that marks nothing.
    fn answer(&self, records: &[Stored], asked: usize) -> Result<Page> {
        let answer = text(records);
        if self.capacity.refuses(asked, &answer) {
            return Err(status(self.capacity.refusal));
        }
        let transfer = self.capacity.transfer(&answer, self.timeout)?;
        Ok(Page::parse(answer, asked)?.timed(Timing { first_byte: Duration::ZERO, transfer }))
    }
}

impl Queue for FakeService {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        let page = self.look(count.max(), Service::unread)?;
        self.peeked_at = self.service.borrow().events;
        Ok(Peeked::new(page)?)
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        let (count, fate) = self.next(delivered.count());
        match fate {
            Answer::NotSent => return Err(lost_answer()),
            Answer::Status(code) => return Err(status(code)),
            Answer::KilledBefore => bail!("killed"),
            Answer::Comes | Answer::Lost | Answer::Killed => {}
        }
        let service = &mut *self.service.borrow_mut();
        let answer = text(&service.unread(count));
        if self.capacity.refuses(count, &answer) {
            return Err(status(self.capacity.refusal));
        }
        // A mark shares the line with others, so its answer takes longer than that of the peek.
        let transfer = self.capacity.transfer(&answer, self.timeout / 19 * 10);
        let fate = if fate == Answer::Comes && transfer.is_err() { Answer::Lost } else { fate };
        let marked = service.mark(count);
        let output = self.output.borrow();
        let first = delivered.page().first().unwrap();
        for identity in &marked {
            let is_delivered = match self.mode {
                Acknowledge::Commit => output.committed.contains(identity),
                _ => output.flushed.contains(identity),
            };
            if !is_delivered {
                let place = match fate {
                    // Nothing has happened since the page was peeked: no record can have slipped in.
                    _ if service.events == self.peeked_at => &mut service.lost,
                    Answer::Comes => &mut service.slipped_in,
                    _ => &mut service.gap,
                };
                place.insert(identity.clone());
                if identity.timestamp > first.timestamp {
                    service.behind_first.insert(identity.clone());
                }
            }
            service.marked_by_tap.insert(identity.clone());
        }
        match fate {
            Answer::Comes => Ok(Marked::Answered(delivered.parse_marked(answer)?)),
            Answer::Lost => {
                *self.failures.borrow_mut() += usize::from(transfer.is_err());
                Err(transfer.err().unwrap_or_else(lost_answer))
            }
            _ => bail!("killed"),
        }
    }

    fn take(&mut self, _count: usize) -> Result<Page> {
        Err(anyhow!("`read` mode promises nothing"))
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page> {
        self.look(count.max(), |service, count| {
            let after = |record: &&Stored| record.identity.timestamp.as_str() > timestamp;
            service.records.iter().filter(after).take(count).cloned().collect()
        })
    }
}

impl Overlap for FakeService {
    fn mark_and_peek(
        &mut self,
        delivered: Delivered,
        count: Count,
        _head_start: Duration,
    ) -> (Result<Marked>, Option<Result<Peeked>>) {
        let overtaken = self.calls.front().is_some_and(|call| call.overtaken);
        let before = overtaken.then(|| self.peek_ahead(count));
        let marked = self.mark(delivered);
        let (peeked_at, ahead) = before.unwrap_or_else(|| self.peek_ahead(count));
        self.peeked_at = peeked_at;
        (marked, Some(ahead))
    }
}

/// stdout, and the target behind it.
struct FakeTarget {
    output: Shared<Output>,
    buffer: Vec<Identity>,
    breaks_after: Option<usize>,
    commits: VecDeque<bool>,
}

impl MessageWriter for FakeTarget {
    fn record(&mut self, json: &[u8], _time_extracted: &str) -> io::Result<()> {
        if let Some(left) = &mut self.breaks_after {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        }
        let record = Page::parse([b"[", json, b"]"].concat().into(), 1).unwrap();
        self.buffer.extend(record.identities());
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
        let mut output = self.output.borrow_mut();
        if self.commits.pop_front().unwrap_or(true) {
            let pending = std::mem::take(&mut output.pending);
            output.committed.extend(pending);
            output.state = Some(value.get().to_owned());
        }
        Ok(())
    }
}

/// A service, an output, and the runs on them.
struct World {
    service: Shared<Service>,
    output: Shared<Output>,
    config: Config,
    failures: Shared<usize>,
    /// Whether a run ended before it had written what it knew to be marked.
    broke: bool,
}

impl World {
    fn new(records: usize, payloads: Vec<usize>, mode: &str, page_size: usize) -> World {
        World {
            service: Rc::new(RefCell::new(Service::of(records, payloads))),
            output: Rc::default(),
            config: config(mode, page_size),
            failures: Rc::default(),
            broke: false,
        }
    }

    /// Runs the tap to its end and checks the promise.
    fn run(&mut self, script: &Script) -> Result<(), TestCaseError> {
        // What a target that ended had not committed is gone with it.
        self.output.borrow_mut().pending.clear();
        let state = match &self.output.borrow().state {
            Some(value) => State::parse(value).unwrap(),
            None => State::default(),
        };
        let target = FakeTarget {
            output: Rc::clone(&self.output),
            buffer: Vec::new(),
            breaks_after: script.stdout_breaks,
            commits: script.commits.iter().copied().collect(),
        };
        self.run_with(script, Box::new(target), state, None)
    }

    /// Runs the tap to its end with this writer, and checks the promise.
    fn run_with(
        &mut self,
        script: &Script,
        writer: Box<dyn MessageWriter>,
        state: State,
        target: Option<Box<dyn Target>>,
    ) -> Result<(), TestCaseError> {
        let service = FakeService {
            service: Rc::clone(&self.service),
            output: Rc::clone(&self.output),
            calls: script.calls.iter().cloned().collect(),
            cap: script.cap,
            capacity: script.capacity,
            timeout: self.config.request_timeout,
            mode: self.config.acknowledge,
            failures: Rc::clone(&self.failures),
            peeked_at: 0,
            is_killed: false,
        };
        let endpoints = Endpoints { service, writer, stream: "records".to_owned(), state, target };
        let retries = RetryPolicy { first_delay: Duration::ZERO, ..RetryPolicy::new(self.config.max_retries) };
        let tuning = Tuning { first_page: FIRST_PAGE, page_bytes: PAGE_BYTES, window_bytes: WINDOW_BYTES, retries };
        let end = super::run(&self.config, tuning, endpoints, None, Shutdown::default());
        if end.is_err() {
            *self.failures.borrow_mut() += 1;
            self.broke = true;
        }
        self.check(end.is_ok())
    }

    fn delivered(&self) -> BTreeSet<Identity> {
        let output = self.output.borrow();
        match self.config.acknowledge {
            Acknowledge::Commit => output.committed.clone(),
            _ => output.flushed.iter().cloned().collect(),
        }
    }

    /// Runs the tap to its end. If that is a good one, the tap has looked back after each lost mark, and found what it can.
    fn run_with_look_backs(&mut self, script: &Script) -> Result<(), TestCaseError> {
        self.broke = false;
        self.run(script)?;
        let output = self.output.borrow();
        for identity in std::mem::take(&mut self.service.borrow_mut().behind_first) {
            let written = output.flushed.contains(&identity);
            prop_assert!(
                written || self.broke,
                "{identity:?} slipped in behind the first of a page, and was not found"
            );
        }
        Ok(())
    }

    /// Whatever the tap has marked is delivered.
    fn check(&self, ended_well: bool) -> Result<(), TestCaseError> {
        let mut service = self.service.borrow_mut();
        let delivered = self.delivered();
        let flushed: BTreeSet<_> = self.output.borrow().flushed.iter().cloned().collect();
        prop_assert!(service.lost.is_empty(), "marked before they were delivered: {:?}", service.lost);
        for identity in &service.marked_by_tap {
            let excused = service.gap.contains(identity) || service.slipped_in.contains(identity);
            prop_assert!(delivered.contains(identity) || excused, "{identity:?} is marked and was never delivered");
        }
        let slipped_in = std::mem::take(&mut service.slipped_in);
        for identity in slipped_in {
            // A tap that lives on writes them at once. One whose stdout breaks, or whose target never commits, cannot.
            let written = flushed.contains(&identity);
            prop_assert!(written || !ended_well, "{identity:?} slipped in and was not written");
            if !delivered.contains(&identity) {
                service.gap.insert(identity);
            }
        }
        Ok(())
    }

    /// Runs without trouble until nothing is unread; then everything is delivered.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        self.finish_with(Capacity::UNLIMITED)
    }

    fn finish_with(&mut self, capacity: Capacity) -> Result<(), TestCaseError> {
        let calm = Script::of(capacity);
        for _ in 0..100 {
            self.run(&calm)?;
            if self.service.borrow().unread(1).is_empty() {
                break;
            }
        }
        self.check_drained()
    }

    /// Nothing is unread, and everything is delivered.
    fn check_drained(&self) -> Result<(), TestCaseError> {
        let service = self.service.borrow();
        prop_assert!(service.unread(1).is_empty(), "the stream is never drained");
        let delivered = self.delivered();
        for Stored { identity, .. } in &service.records {
            let excused = service.gap.contains(identity) || service.marked_by_others.contains(identity);
            prop_assert!(delivered.contains(identity) || excused, "{identity:?} was lost");
        }
        Ok(())
    }

    /// How often a record came again.
    fn duplicates(&self) -> usize {
        let mut times: BTreeMap<&Identity, usize> = BTreeMap::new();
        let output = self.output.borrow();
        for identity in &output.flushed {
            *times.entry(identity).or_default() += 1;
        }
        times.values().map(|times| times - 1).sum()
    }
}

fn config(mode: &str, page_size: usize) -> Config {
    let settings = json!({
        "streamId": "s", "clientId": "c", "clientSecret": "x", "acknowledge": mode, "pageSize": page_size,
        "maxPending": page_size
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), settings.to_string()).unwrap();
    Config::load(&[Path::new(file.path())]).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(place, same_stamp)| Event::Arrival { place, same_stamp }),
        1 => (1..4usize).prop_map(Event::ForeignMark),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        8 => Just(Answer::Comes),
        2 => Just(Answer::Lost),
        2 => Just(Answer::NotSent),
        2 => prop::sample::select(&[429, 413, 503][..]).prop_map(Answer::Status),
        1 => Just(Answer::Killed),
        1 => Just(Answer::KilledBefore),
    ]
}

/// What a run survives in which the service stays up.
fn lossy_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Comes),
        4 => Just(Answer::Lost),
        1 => Just(Answer::NotSent),
        2 => prop::sample::select(&[429, 503][..]).prop_map(Answer::Status),
    ]
}

/// Marks whose answers are lost, while records slip in behind the first one of a page. Where many share a time stamp, the service
/// has no limits: one that shows fewer at once cannot show them all.
fn lossy_script() -> impl Strategy<Value = Script> {
    let calls = |same_stamp: BoxedStrategy<bool>| {
        let slip_in = (0..4usize, same_stamp).prop_map(|(behind, same_stamp)| Event::SlipIn { behind, same_stamp });
        let call = (prop::collection::vec(slip_in, 0..5), lossy_answer(), any::<bool>());
        let call = call.prop_map(|(before, answer, overtaken)| Call { before, answer, overtaken });
        prop::collection::vec(call, 0..12)
    };
    let crowds = (calls(any::<bool>().boxed()), Just(Capacity::UNLIMITED));
    let limits = (calls(Just(false).boxed()), capacity());
    let script = prop_oneof![crowds, limits];
    script.prop_map(|(calls, capacity)| Script { calls, ..Script::of(capacity) })
}

fn call(answer: impl Strategy<Value = Answer>) -> impl Strategy<Value = Call> {
    (prop::collection::vec(event(), 0..3), answer, any::<bool>()).prop_map(|(before, answer, overtaken)| Call {
        before,
        answer,
        overtaken,
    })
}

/// A service may cap pages silently, but not below the size that is known to work.
fn cap() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(usize::MAX), 1 => FIRST_PAGE..8]
}

fn payloads() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..MAX_PAYLOAD, 1..6)
}

fn capacity() -> impl Strategy<Value = Capacity> {
    let limited = (
        prop_oneof![Just(usize::MAX), 1..10usize],
        prop_oneof![Just(usize::MAX), MAX_PAYLOAD + 200..3 * MAX_PAYLOAD],
        prop::sample::select(&[400, 413, 422, 500, 503][..]),
        prop_oneof![Just(0), 1..60u64],
    );
    let limited = limited.prop_map(|(records, bytes, refusal, millis)| Capacity {
        records,
        bytes,
        refusal,
        pace: Duration::from_millis(millis),
    });
    prop_oneof![1 => Just(Capacity::UNLIMITED), 2 => limited]
}

fn script() -> impl Strategy<Value = Script> {
    (
        prop::collection::vec(call(answer()), 0..8),
        capacity(),
        cap(),
        prop::option::weighted(0.3, 0..10usize),
        prop::collection::vec(any::<bool>(), 0..4),
    )
        .prop_map(|(calls, capacity, cap, stdout_breaks, commits)| Script {
            calls,
            capacity,
            cap,
            stdout_breaks,
            commits,
        })
}

/// Whatever happens but failures: late records, other consumers, capped pages.
fn calm_script() -> impl Strategy<Value = Script> {
    (prop::collection::vec(call(Just(Answer::Comes)), 0..12), cap()).prop_map(|(calls, cap)| Script {
        calls,
        cap,
        ..Script::of(Capacity::UNLIMITED)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_marked_is_lost_in_write_mode(
        records in 0..30usize, payloads in payloads(), page_size in 1..15usize,
        scripts in prop::collection::vec(script(), 1..5)
    ) {
        let mut world = World::new(records, payloads, "write", page_size);
        for script in &scripts {
            world.run(script)?;
        }
        world.finish()?;
        let failures = *world.failures.borrow();
        // A look back behind a record that arrived out of order finds what was read before it did.
        let in_order = !world.service.borrow().is_late;
        prop_assert!(
            !in_order || world.duplicates() <= failures * page_size,
            "{} duplicates for {failures} failures",
            world.duplicates()
        );
    }

    #[test]
    fn what_slips_in_behind_the_first_record_of_a_page_is_found_although_the_answer_to_its_mark_is_lost(
        records in 0..30usize, payloads in payloads(), page_size in 1..15usize, is_commit in any::<bool>(),
        scripts in prop::collection::vec(lossy_script(), 1..4)
    ) {
        let mut world = World::new(records, payloads, if is_commit { "commit" } else { "write" }, page_size);
        for script in &scripts {
            world.run_with_look_backs(script)?;
        }
    }

    #[test]
    fn nothing_that_is_marked_is_lost_in_commit_mode(
        records in 0..30usize, payloads in payloads(), max_pending in 1..20usize,
        scripts in prop::collection::vec(script(), 1..5)
    ) {
        let mut world = World::new(records, payloads, "commit", max_pending);
        for script in &scripts {
            world.run(script)?;
        }
        world.finish()?;
    }

    #[test]
    fn a_run_without_failures_writes_every_record_once(
        records in 0..30usize, payloads in payloads(), page_size in 1..15usize, script in calm_script()
    ) {
        let mut world = World::new(records, payloads, "write", page_size);
        world.run(&script)?;
        world.finish()?;
        prop_assert_eq!(world.duplicates(), 0);
    }

    #[test]
    fn one_run_drains_a_stream_that_is_served_in_small_pages_only(
        records in 0..60usize, payloads in payloads(), page_size in 1..30usize, capacity in capacity()
    ) {
        let mut world = World::new(records, payloads, "write", page_size);
        world.run(&Script::of(capacity))?;
        prop_assert!(world.service.borrow().unread(1).is_empty());
        prop_assert_eq!((world.duplicates(), *world.failures.borrow()), (0, 0));
    }

    #[test]
    fn runs_with_commit_drain_a_stream_that_is_served_in_small_windows_only(
        records in 0..60usize, payloads in payloads(), max_pending in 1..30usize, capacity in capacity()
    ) {
        let mut world = World::new(records, payloads, "commit", max_pending);
        world.finish_with(capacity)?;
        prop_assert_eq!((world.duplicates(), *world.failures.borrow()), (0, 0));
    }
}

#[test]
fn what_two_look_backs_find_is_written_once() {
    let call = |before: &[Event], answer| Call { before: before.to_vec(), answer, overtaken: false };
    let calls = vec![
        call(&[], Answer::Comes),
        call(&[], Answer::NotSent),
        call(&[Event::ForeignMark(1)], Answer::Comes),
        call(&[Event::ForeignMark(2)], Answer::Comes),
    ];
    let mut world = World::new(3, vec![0], "write", 1);
    world.run(&Script { calls, ..Script::of(Capacity::UNLIMITED) }).unwrap();
    assert_eq!(world.duplicates(), 0);
}
