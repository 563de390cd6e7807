//! The loop against random interleavings of what a service, other consumers, a target and a power cut can do.
//!
//! A scripted service keeps the read status as StreamDuo does. After each run everything that the tap has marked must have
//! been delivered: flushed in `write` mode, committed by the target in `commit` mode. Records that are equal in everything are
//! counted: each has to be delivered as often as it is there. What the service's own design leaves open (see [`Service::gap`]) is
//! told apart explicitly.

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
use crate::config::MarkBy;
use crate::record::{Delivered, Identity, Peeked, Timing};
use crate::streamduo::retry::RetryPolicy;
use crate::streamduo::singles::Single;
use crate::streamduo::{Count, Marked};

mod closed_loop;
mod look;
mod replay;

/// Small, because the streams are short.
const FIRST_PAGE: usize = 3;
const PAGE_BYTES: usize = 3_000;
const WINDOW_BYTES: usize = 6_000;

/// The longest that a record's payload gets, in bytes. One record alone is within every [`Capacity`].
const MAX_PAYLOAD: usize = 300;

/// More requests than any run makes that ends.
const MAX_REQUESTS: usize = 10_000;

/// What others do to the stream before a request is served.
#[derive(Debug, Clone)]
enum Event {
    /// A record arrives at this place among the records there are: the end, or earlier, a late one.
    Arrival { place: prop::sample::Index, kind: Kind },
    /// A record arrives this far behind the oldest unread one, and at a later time stamp than it.
    SlipIn { behind: usize, kind: Kind },
    /// Another consumer marks so many of the oldest unread.
    ForeignMark(usize),
}

/// What a record that arrives has in common with the one before it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing.
    New,
    /// The time stamp.
    SameStamp,
    /// The time stamp, and with the first record there the id, too. The payload is another.
    Twin,
    /// The time stamp, and with the first record there everything.
    Copy,
    /// The id: a producer writes it again.
    Version,
    /// Nothing, and the service shows only these of its key properties.
    Odd(Shown),
}

/// Which of its key properties a record shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    Both,
    OnlyId,
    OnlyStamp,
    Neither,
}

impl Shown {
    fn id(self) -> bool {
        matches!(self, Shown::Both | Shown::OnlyId)
    }

    fn stamp(self) -> bool {
        matches!(self, Shown::Both | Shown::OnlyStamp)
    }
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

/// A record, as all see it. Two that are equal in it cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    identity: Identity,
    /// Its payload, as JSON text.
    payload: String,
    shown: Shown,
}

impl Record {
    fn parse(json: &[u8]) -> Record {
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).unwrap();
        let text = |name: &str| serde_json::from_str(fields[name].get()).unwrap();
        let shown = match (fields.contains_key("recordId"), fields.contains_key("recordTimeStampISO")) {
            (true, true) => Shown::Both,
            (true, false) => Shown::OnlyId,
            (false, true) => Shown::OnlyStamp,
            (false, false) => Shown::Neither,
        };
        let identity = Identity { record_id: text("id"), timestamp: text("at") };
        Record { identity, payload: fields["dataPayload"].get().to_owned(), shown }
    }

    /// Whether a request for this id finds it.
    fn is_version_of(&self, record_id: &str) -> bool {
        self.shown.id() && self.identity.record_id == record_id
    }

    /// The JSON text of an answer. What the tap cannot see is there under other names.
    fn text(&self, read: bool) -> String {
        let Identity { record_id, timestamp } = &self.identity;
        let mut text = format!(r#"{{"id":"{record_id}","at":"{timestamp}","#);
        if self.shown.id() {
            text += &format!(r#""recordId":"{record_id}","#);
        }
        if self.shown.stamp() {
            text += &format!(r#""recordTimeStampISO":"{timestamp}","#);
        }
        text + &format!(r#""readStatus":"{read}","dataPayload":{}}}"#, self.payload)
    }
}

/// How many copies there are of each record.
#[derive(Debug, Clone, Default)]
struct Copies(BTreeMap<Record, usize>);

impl Copies {
    fn of(&self, record: &Record) -> usize {
        self.0.get(record).copied().unwrap_or(0)
    }

    fn add(&mut self, record: &Record, copies: usize) {
        if copies > 0 {
            *self.0.entry(record.clone()).or_default() += copies;
        }
    }
}

impl<'a> FromIterator<&'a Record> for Copies {
    fn from_iter<I: IntoIterator<Item = &'a Record>>(records: I) -> Copies {
        let mut copies = Copies::default();
        records.into_iter().for_each(|record| copies.add(record, 1));
        copies
    }
}

/// A record of the service.
#[derive(Debug, Clone)]
struct Stored {
    record: Record,
    read: bool,
}

/// The stream, and what is known of each record.
#[derive(Debug, Default)]
struct Service {
    /// In time order.
    records: Vec<Stored>,
    /// The sizes of the payloads, in turn.
    payloads: Vec<usize>,
    arrived: usize,
    marked_by_others: Copies,
    marked_by_tap: Copies,
    /// Records that the tap's mark hit although they had not been delivered, because they slipped in between peek and mark.
    /// Where its answer came, they have to be delivered by the end of the run; where it did not, they are the gap that the
    /// service's way of marking leaves.
    slipped_in: Copies,
    gap: Copies,
    /// How many copies have to be written of records that a look back finds: they slipped in behind the first record of the page, and
    /// at a later time stamp.
    behind_first: Copies,
    /// Records that the tap may take for others that are equal to them in everything, so that those are part of the gap: a mark
    /// has hit them whose answer never came, or one that goes by a bookmark, for a window may be equal to the one before.
    mistakable: BTreeSet<Record>,
    /// Whether a record has arrived before another one.
    is_late: bool,
    /// How often somebody else did something.
    events: usize,
    /// Records that the tap's mark hit although they had not been delivered, and nothing excuses it.
    lost: Copies,
}

impl Service {
    fn of(initial: &[Kind], payloads: Vec<usize>) -> Service {
        let mut service = Service { payloads, ..Service::default() };
        for kind in initial {
            service.arrive(service.records.len(), *kind);
        }
        service
    }

    fn arrive(&mut self, place: usize, kind: Kind) {
        self.arrived += 1;
        self.is_late |= place < self.records.len();
        let stamp = |index: usize| self.records.get(index).map(|stored| stored.record.identity.timestamp.clone());
        let before = place.checked_sub(1).and_then(|index| self.records.get(index)).map(|stored| &stored.record);
        let size = self.payloads[self.arrived % self.payloads.len()];
        let mut record = Record {
            // A fraction between those of the neighbours keeps time stamps in order.
            identity: Identity {
                record_id: self.arrived.to_string(),
                timestamp: match (before.map(|before| &before.identity.timestamp), stamp(place)) {
                    (Some(before), None) => format!("{:08}", before[..8].parse::<usize>().unwrap() + 1),
                    (Some(before), Some(after)) if *before == after => after,
                    (Some(before), Some(after)) => {
                        let between = |zeros| format!("{before}{}5", "0".repeat(zeros));
                        (0..).map(between).find(|stamp| *stamp < after).unwrap()
                    }
                    (None, Some(after)) => format!("{:08}", after[..8].parse::<usize>().unwrap() - 1),
                    (None, None) => "50000000".to_owned(),
                },
            },
            payload: json!(format!("{} {}", self.arrived, "x".repeat(size))).to_string(),
            shown: Shown::Both,
        };
        if let Kind::Odd(shown) = kind {
            record.shown = shown;
        }
        if let Some(before) = before {
            let first = self.records.iter().map(|stored| &stored.record);
            let first = first.into_iter().find(|first| first.identity.timestamp == before.identity.timestamp).unwrap();
            match kind {
                Kind::New | Kind::Odd(_) => {}
                Kind::SameStamp => record.identity.timestamp.clone_from(&before.identity.timestamp),
                Kind::Twin => {
                    record.identity.clone_from(&first.identity);
                    record.shown = first.shown;
                }
                Kind::Copy => record.clone_from(first),
                Kind::Version => record.identity.record_id.clone_from(&before.identity.record_id),
            }
        }
        self.records.insert(place, Stored { record, read: false });
    }

    fn slip_in(&mut self, behind: usize, kind: Kind) {
        let Some(first) = self.records.iter().position(|stored| !stored.read) else { return };
        let mut place = (first + 1 + behind).min(self.records.len());
        let stamp = |index: usize| &self.records[index].record.identity.timestamp;
        while place < self.records.len() && stamp(place) == stamp(place - 1) {
            place += 1;
        }
        let kind = if stamp(place - 1) == stamp(first) { Kind::New } else { kind };
        self.arrive(place, kind);
    }

    fn happen(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::Arrival { place, kind } => self.arrive(place.index(self.records.len() + 1), *kind),
            Event::SlipIn { behind, kind } => self.slip_in(*behind, *kind),
            Event::ForeignMark(count) => {
                for record in self.mark(*count) {
                    self.marked_by_others.add(&record, 1);
                }
            }
        }
    }

    fn copies(&self) -> Copies {
        self.records.iter().map(|stored| &stored.record).collect()
    }

    fn unread(&self, count: usize) -> Vec<Stored> {
        self.records.iter().filter(|stored| !stored.read).take(count).cloned().collect()
    }

    fn mark(&mut self, count: usize) -> Vec<Record> {
        let unread = self.records.iter_mut().filter(|stored| !stored.read);
        unread
            .take(count)
            .map(|stored| {
                stored.read = true;
                stored.record.clone()
            })
            .collect()
    }

    /// Marks the last `count` versions of a record. Returns those that were unread.
    fn mark_versions(&mut self, record_id: &str, count: usize) -> Vec<Record> {
        let is_version = |stored: &&mut Stored| stored.record.is_version_of(record_id);
        let versions = self.records.iter_mut().rev().filter(is_version).take(count);
        let mark = |stored: &mut Stored| (!std::mem::replace(&mut stored.read, true)).then(|| stored.record.clone());
        versions.filter_map(mark).collect()
    }

    /// Notes the records that a request for their id has marked just now. Where a record is the only one with its id, it has to be
    /// delivered. Another version has to be delivered by the end of the run, if the tap lives to see the answer or to ask again.
    fn note_marked_by_id(&mut self, marked: &[Record], delivered: &Copies, fate: Answer) {
        for record in marked {
            self.marked_by_tap.add(record, 1);
            let excused = self.gap.of(record) + self.slipped_in.of(record);
            if self.marked_by_tap.of(record) > delivered.of(record) + excused {
                let is_killed = fate == Answer::Killed;
                let place = match self.versions(&record.identity.record_id, 2).len() {
                    1 => &mut self.lost,
                    _ if is_killed || self.mistakable.contains(record) => &mut self.gap,
                    _ => &mut self.slipped_in,
                };
                place.add(record, 1);
            }
        }
    }

    /// The last `count` versions of a record.
    fn versions(&self, record_id: &str, count: usize) -> Vec<Stored> {
        let is_version = |stored: &&Stored| stored.record.is_version_of(record_id);
        let mut versions: Vec<_> = self.records.iter().rev().filter(is_version).take(count).cloned().collect();
        versions.reverse();
        versions
    }

    /// Notes the records that a mark of the tap has marked just now. `delivered` is what the tap has delivered; the page that was to
    /// be marked begins at the time stamp `start`, if its records have any.
    fn note_marked_by_tap(
        &mut self,
        marked: &[Record],
        delivered: &Copies,
        fate: Answer,
        has_happened: bool,
        start: Option<&str>,
    ) {
        let mut slipped_in = Copies::default();
        for record in marked {
            self.marked_by_tap.add(record, 1);
            let excused = self.gap.of(record) + self.lost.of(record) + slipped_in.of(record);
            if self.marked_by_tap.of(record) > delivered.of(record) + excused {
                let place = match fate {
                    _ if self.mistakable.contains(record) => &mut self.gap,
                    // Nothing has happened since the page was peeked: no record can have slipped in.
                    _ if !has_happened => &mut self.lost,
                    Answer::Comes => &mut slipped_in,
                    _ => &mut self.gap,
                };
                place.add(record, 1);
                if start.is_some_and(|start| record.identity.timestamp.as_str() > start)
                    && !self.mistakable.contains(record)
                {
                    self.behind_first.0.insert(record.clone(), self.marked_by_tap.of(record));
                }
            }
        }
        slipped_in.0.iter().for_each(|(record, copies)| self.slipped_in.add(record, *copies));
    }
}

fn status(status: u16) -> anyhow::Error {
    HttpError::Status { host: "h".to_owned(), status, retry_after: None, text: String::new() }.into()
}

fn lost_answer() -> anyhow::Error {
    HttpError::InvalidBody("the answer was lost".to_owned()).into()
}

fn text(records: &[Stored]) -> Bytes {
    let texts: Vec<_> = records.iter().map(|Stored { record, read }| record.text(*read)).collect();
    format!("[{}]", texts.join(",")).into()
}

/// What was written, and what became of it.
#[derive(Debug, Default)]
struct Output {
    /// Every record flushed, with repetitions: what a pipe has taken.
    flushed: Vec<Record>,
    /// Every record that the target has committed, with repetitions.
    committed: Vec<Record>,
    /// What the target has read and not committed yet.
    pending: Vec<Record>,
    /// The last STATE that the target has printed.
    state: Option<String>,
}

impl Output {
    /// How many copies of each record are delivered.
    fn delivered(&self, mode: Acknowledge) -> Copies {
        let delivered = if mode == Acknowledge::Commit { &self.committed } else { &self.flushed };
        delivered.iter().collect()
    }
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
    goes_by_bookmark: bool,
    failures: Shared<usize>,
    /// When the page that is to be marked next was peeked, in events.
    peeked_at: usize,
    /// Whether the tap is killed: nothing that it sends arrives any more.
    is_killed: Shared<bool>,
    requests: usize,
}

impl FakeService {
    fn next(&mut self, count: usize) -> (usize, Answer) {
        self.requests += 1;
        assert!(self.requests < MAX_REQUESTS, "a run does not end");
        let count = count.min(self.cap);
        if *self.is_killed.borrow() {
            return (count, Answer::KilledBefore);
        }
        let Some(call) = self.calls.pop_front() else { return (count, Answer::Comes) };
        for event in &call.before {
            self.service.borrow_mut().happen(event);
        }
        if call.answer != Answer::Comes {
            *self.failures.borrow_mut() += 1;
        }
        *self.is_killed.borrow_mut() = matches!(call.answer, Answer::Killed | Answer::KilledBefore);
        (count, call.answer)
    }

    /// The peek that goes with a mark, and when it was served.
    fn peek_ahead(&self, count: Count) -> (usize, Result<Peeked>) {
        let service = self.service.borrow();
        let unread = service.unread(count.max().min(self.cap));
        let page = self.answer(&unread, count.max());
        (service.events, page.map(Peeked::with_odd_records))
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

impl ById for FakeService {
    fn singles(&mut self, requests: &[Single<'_>]) -> Vec<Option<Result<Page>>> {
        requests.iter().map(|request| Some(self.single(*request))).collect()
    }
}

impl FakeService {
    /// Neither capped nor refused: a record has fewer versions than a page holds records.
    fn single(&mut self, Single { record_id, count, marks }: Single<'_>) -> Result<Page> {
        let (_, fate) = self.next(count);
        match fate {
            Answer::NotSent => return Err(lost_answer()),
            Answer::Status(code) => return Err(status(code)),
            Answer::KilledBefore => bail!("killed"),
            Answer::Comes | Answer::Lost | Answer::Killed => {}
        }
        let service = &mut *self.service.borrow_mut();
        let answer = text(&service.versions(record_id, count));
        if marks {
            let marked = service.mark_versions(record_id, count);
            service.note_marked_by_id(&marked, &self.output.borrow().delivered(self.mode), fate);
            if fate != Answer::Comes || self.goes_by_bookmark {
                service.mistakable.extend(marked);
            }
        }
        match fate {
            Answer::Comes => Ok(Page::parse(answer, count)?),
            Answer::Lost => Err(lost_answer()),
            _ => bail!("killed"),
        }
    }
}

impl Queue for FakeService {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        let page = self.look(count.max(), Service::unread)?;
        self.peeked_at = self.service.borrow().events;
        Ok(Peeked::with_odd_records(page))
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
        let delivered_copies = self.output.borrow().delivered(self.mode);
        let has_happened = service.events != self.peeked_at;
        let start = delivered.page().start().unwrap().timestamp;
        service.note_marked_by_tap(&marked, &delivered_copies, fate, has_happened, start.as_deref());
        if fate != Answer::Comes || self.goes_by_bookmark {
            service.mistakable.extend(marked);
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
            let after = |stored: &&Stored| stored.record.identity.timestamp.as_str() > timestamp;
            service.records.iter().filter(after).take(count).cloned().collect()
        })
    }

    /// Not capped: a service that caps pages does so far above the number of versions that a record has.
    fn versions(&mut self, record_id: &str, count: usize) -> Result<Page> {
        self.look(count, |service, _| service.versions(record_id, count))
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
    buffer: Vec<Record>,
    breaks_after: Option<usize>,
    commits: VecDeque<bool>,
    is_killed: Shared<bool>,
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
    /// Whether the tap is killed in this run.
    is_killed: Shared<bool>,
    /// Whether a run ended before it had written what it knew to be marked.
    broke: bool,
}

impl World {
    fn new(records: &[Kind], payloads: Vec<usize>, mode: &str, page_size: usize) -> World {
        World {
            service: Rc::new(RefCell::new(Service::of(records, payloads))),
            output: Rc::default(),
            config: config(mode, page_size),
            failures: Rc::default(),
            is_killed: Rc::default(),
            broke: false,
        }
    }

    /// With `markBy` `id`.
    fn by_id(mut self) -> World {
        self.config.mark_by = MarkBy::Id;
        self
    }

    /// Runs the tap to its end and checks the promise.
    fn run(&mut self, script: &Script) -> Result<(), TestCaseError> {
        // What a target that ended had not committed is gone with it.
        self.output.borrow_mut().pending.clear();
        self.is_killed = Rc::default();
        let state = match &self.output.borrow().state {
            Some(value) => State::parse(value).unwrap(),
            None => State::default(),
        };
        let target = FakeTarget {
            output: Rc::clone(&self.output),
            buffer: Vec::new(),
            breaks_after: script.stdout_breaks,
            commits: script.commits.iter().copied().collect(),
            is_killed: Rc::clone(&self.is_killed),
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
            goes_by_bookmark: self.config.acknowledge == Acknowledge::Commit && target.is_none(),
            failures: Rc::clone(&self.failures),
            peeked_at: 0,
            is_killed: Rc::clone(&self.is_killed),
            requests: 0,
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

    /// Runs the tap to its end. If that is a good one, the tap has looked back after each lost mark, and found what it can.
    fn run_with_look_backs(&mut self, script: &Script) -> Result<(), TestCaseError> {
        self.broke = false;
        self.run(script)?;
        let flushed: Copies = self.output.borrow().flushed.iter().collect();
        for (record, copies) in std::mem::take(&mut self.service.borrow_mut().behind_first).0 {
            prop_assert!(
                flushed.of(&record) >= copies || self.broke,
                "{record:?} slipped in behind the first of a page, and was not found"
            );
        }
        Ok(())
    }

    /// Whatever the tap has marked is delivered.
    fn check(&self, ended_well: bool) -> Result<(), TestCaseError> {
        let mut service = self.service.borrow_mut();
        let delivered = self.output.borrow().delivered(self.config.acknowledge);
        let flushed: Copies = self.output.borrow().flushed.iter().collect();
        prop_assert!(service.lost.0.is_empty(), "marked before they were delivered: {:?}", service.lost);
        for (record, marked) in &service.marked_by_tap.0 {
            let excused = service.gap.of(record) + service.slipped_in.of(record);
            prop_assert!(*marked <= delivered.of(record) + excused, "{record:?} is marked and was never delivered");
        }
        let slipped_in = std::mem::take(&mut service.slipped_in);
        for record in slipped_in.0.keys() {
            // A tap that lives on writes them at once. One whose stdout breaks, or whose target never commits, cannot.
            let marked = service.marked_by_tap.of(record) - service.gap.of(record);
            prop_assert!(flushed.of(record) >= marked || !ended_well, "{record:?} slipped in and was not written");
            service.gap.add(record, marked.saturating_sub(delivered.of(record)));
        }
        Ok(())
    }

    /// Runs by these scripts, and then without trouble to the end.
    fn run_all(&mut self, scripts: &[Script]) -> Result<(), TestCaseError> {
        for script in scripts {
            self.run(script)?;
        }
        self.finish()
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
        let delivered = self.output.borrow().delivered(self.config.acknowledge);
        for (record, copies) in service.copies().0 {
            let excused = service.gap.of(&record) + service.marked_by_others.of(&record);
            prop_assert!(delivered.of(&record) + excused >= copies, "{record:?} was lost");
        }
        Ok(())
    }

    /// With `markBy` `id` the gap holds nothing but records that share their ids with others.
    fn check_gap(&self) -> Result<(), TestCaseError> {
        let service = self.service.borrow();
        for record in service.gap.0.keys() {
            let versions = service.versions(&record.identity.record_id, 2).len();
            prop_assert!(versions > 1, "{record:?} was lost, and is the only one with its id");
        }
        Ok(())
    }

    /// How often a record came again.
    fn duplicates(&self) -> usize {
        let flushed: Copies = self.output.borrow().flushed.iter().collect();
        let copies = self.service.borrow().copies();
        flushed.0.iter().map(|(record, times)| times.saturating_sub(copies.of(record))).sum()
    }
}

fn config(mode: &str, page_size: usize) -> Config {
    let settings = json!({
        "streamId": "s", "clientId": "c", "clientSecret": "x", "acknowledge": mode, "pageSize": page_size,
        "maxPending": page_size,
        // So that records without an identity get to the writer. It writes them like others: nobody opens the file.
        "deadLetterFile": "never-opened"
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), settings.to_string()).unwrap();
    Config::load(&[Path::new(file.path())]).unwrap()
}

/// Any kind of record that has an identity.
fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::New),
        2 => Just(Kind::SameStamp),
        1 => Just(Kind::Twin),
        1 => Just(Kind::Copy),
        1 => Just(Kind::Version),
    ]
}

/// Any kind of record.
fn any_kind() -> impl Strategy<Value = Kind> {
    let odd = prop::sample::select(&[Shown::OnlyId, Shown::OnlyStamp, Shown::Neither][..]);
    prop_oneof![4 => kind(), 1 => odd.prop_map(Kind::Odd)]
}

/// The records that there are before the first run: mostly single ones, or mostly twins.
fn initial(max: usize) -> impl Strategy<Value = Vec<Kind>> {
    prop_oneof![prop::collection::vec(any_kind(), 0..max), initial_with_identity(max)]
}

/// The same, and each has an identity.
fn initial_with_identity(max: usize) -> impl Strategy<Value = Vec<Kind>> {
    prop_oneof![
        prop::collection::vec(kind(), 0..max),
        prop::collection::vec(prop::sample::select(&[Kind::New, Kind::Twin, Kind::Copy][..]), 0..max),
    ]
}

/// The same, but none is there twice: whether one is cannot be seen where pages are too small for two.
fn singles(max: usize) -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop::sample::select(&[Kind::New, Kind::SameStamp, Kind::Twin, Kind::Version][..]);
    prop::collection::vec(kind, 0..max)
}

fn event(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (any::<prop::sample::Index>(), kind).prop_map(|(place, kind)| Event::Arrival { place, kind }),
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
    let calls = |kind: BoxedStrategy<Kind>| {
        let slip_in = (0..4usize, kind).prop_map(|(behind, kind)| Event::SlipIn { behind, kind });
        let call = (prop::collection::vec(slip_in, 0..5), lossy_answer(), any::<bool>());
        let call = call.prop_map(|(before, answer, overtaken)| Call { before, answer, overtaken });
        prop::collection::vec(call, 0..12)
    };
    let crowds = (calls(any_kind().boxed()), Just(Capacity::UNLIMITED));
    let limits = (calls(Just(Kind::New).boxed()), capacity());
    let script = prop_oneof![crowds, limits];
    script.prop_map(|(calls, capacity)| Script { calls, ..Script::of(capacity) })
}

fn call(answer: impl Strategy<Value = Answer>, kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Call> {
    (prop::collection::vec(event(kind), 0..3), answer, any::<bool>()).prop_map(|(before, answer, overtaken)| Call {
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
    script_with(any_kind())
}

/// Whatever can happen, with records of this kind that arrive.
fn script_with(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Script> {
    (
        prop::collection::vec(call(answer(), kind), 0..8),
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
    (prop::collection::vec(call(Just(Answer::Comes), any_kind()), 0..12), cap()).prop_map(|(calls, cap)| Script {
        calls,
        cap,
        ..Script::of(Capacity::UNLIMITED)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_marked_is_lost_in_write_mode(
        records in initial(30), payloads in payloads(), page_size in 1..15usize,
        scripts in prop::collection::vec(script(), 1..5)
    ) {
        let mut world = World::new(&records, payloads, "write", page_size);
        world.run_all(&scripts)?;
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
        let mut world = World::new(&vec![Kind::New; records], payloads, if is_commit { "commit" } else { "write" }, page_size);
        for script in &scripts {
            world.run_with_look_backs(script)?;
        }
    }

    #[test]
    fn nothing_that_is_marked_is_lost_in_commit_mode(
        records in initial(30), payloads in payloads(), max_pending in 1..20usize,
        scripts in prop::collection::vec(script(), 1..5)
    ) {
        let mut world = World::new(&records, payloads, "commit", max_pending);
        world.run_all(&scripts)?;
    }

    #[test]
    fn nothing_is_lost_in_write_mode_by_id_but_another_version_of_an_id(
        records in initial_with_identity(30), payloads in payloads(), page_size in 1..15usize,
        scripts in prop::collection::vec(script_with(kind()), 1..5)
    ) {
        let mut world = World::new(&records, payloads, "write", page_size).by_id();
        world.run_all(&scripts)?;
        world.check_gap()?;
    }

    #[test]
    fn nothing_is_lost_in_commit_mode_by_id_but_another_version_of_an_id(
        records in initial_with_identity(30), payloads in payloads(), max_pending in 1..20usize,
        scripts in prop::collection::vec(script_with(kind()), 1..5)
    ) {
        let mut world = World::new(&records, payloads, "commit", max_pending).by_id();
        world.run_all(&scripts)?;
        world.check_gap()?;
    }

    #[test]
    fn nothing_is_lost_by_id_but_what_slips_in_before_a_record_without_an_id(
        records in initial(30), payloads in payloads(), page_size in 1..15usize, is_commit in any::<bool>(),
        scripts in prop::collection::vec(script(), 1..5)
    ) {
        let mut world = World::new(&records, payloads, if is_commit { "commit" } else { "write" }, page_size).by_id();
        world.run_all(&scripts)?;
    }

    #[test]
    fn a_run_without_failures_writes_every_record_once_by_id(
        records in initial(30), payloads in payloads(), page_size in 1..15usize, script in calm_script()
    ) {
        // Before the first record is marked, a version that another consumer has marked may be taken for one that nobody has seen.
        let mut script = script;
        for call in &mut script.calls {
            call.before.retain(|event| !matches!(event, Event::ForeignMark(_)));
        }
        let mut world = World::new(&records, payloads, "write", page_size).by_id();
        world.run(&script)?;
        world.finish()?;
        prop_assert_eq!(world.duplicates(), 0);
        prop_assert!(world.service.borrow().gap.0.is_empty());
    }

    #[test]
    fn a_run_without_failures_writes_every_record_once(
        records in initial(30), payloads in payloads(), page_size in 1..15usize, script in calm_script()
    ) {
        let mut world = World::new(&records, payloads, "write", page_size);
        world.run(&script)?;
        world.finish()?;
        prop_assert_eq!(world.duplicates(), 0);
    }

    #[test]
    fn one_run_drains_a_stream_that_is_served_in_small_pages_only(
        records in singles(60), payloads in payloads(), page_size in 1..30usize, capacity in capacity()
    ) {
        let mut world = World::new(&records, payloads, "write", page_size);
        world.run(&Script::of(capacity))?;
        prop_assert!(world.service.borrow().unread(1).is_empty());
        prop_assert_eq!((world.duplicates(), *world.failures.borrow()), (0, 0));
    }

    #[test]
    fn runs_with_commit_drain_a_stream_that_is_served_in_small_windows_only(
        records in initial(60), payloads in payloads(), max_pending in 1..30usize, capacity in capacity()
    ) {
        let mut world = World::new(&records, payloads, "commit", max_pending);
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
    let mut world = World::new(&[Kind::New; 3], vec![0], "write", 1);
    world.run(&Script { calls, ..Script::of(Capacity::UNLIMITED) }).unwrap();
    assert_eq!(world.duplicates(), 0);
}
