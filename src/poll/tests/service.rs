//! The records of a stream and their read status, as StreamDuo keeps them, and what marks have hit.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use serde_json::value::RawValue;

use super::excused::{Excused, Watch};

/// How far apart records are that arrive in order, in nanoseconds. Many fit in between.
const STEP: i64 = 1 << 40;

/// What others do to the stream before a request is served.
#[derive(Debug, Clone)]
pub enum Event {
    /// A record arrives at this place among the records that are there, counted round and round.
    Arrival { place: usize, kind: Kind },
    /// A record arrives this far behind the oldest unread one, or right before it.
    SlipIn { behind: Option<usize>, kind: Kind },
    /// Another consumer marks so many of the oldest unread.
    ForeignMark(usize),
}

/// What a record that arrives has in common with the one before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
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
pub enum Shown {
    Both,
    OnlyId,
    OnlyStamp,
    Neither,
}

impl Shown {
    pub fn id(self) -> bool {
        matches!(self, Shown::Both | Shown::OnlyId)
    }

    pub fn stamp(self) -> bool {
        matches!(self, Shown::Both | Shown::OnlyStamp)
    }
}

/// A record, as all see it. Two that are equal in it are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub id: String,
    pub stamp: String,
    /// Its payload, as JSON text.
    pub payload: String,
    pub shown: Shown,
}

impl Record {
    pub fn parse(json: &[u8]) -> Record {
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).unwrap();
        let text = |name: &str| serde_json::from_str(fields[name].get()).unwrap();
        let shown = match (fields.contains_key("recordId"), fields.contains_key("recordTimeStampISO")) {
            (true, true) => Shown::Both,
            (true, false) => Shown::OnlyId,
            (false, true) => Shown::OnlyStamp,
            (false, false) => Shown::Neither,
        };
        Record { id: text("id"), stamp: text("at"), payload: fields["dataPayload"].get().to_owned(), shown }
    }

    /// The JSON text of an answer. What the tap cannot see is there under other names.
    pub fn text(&self, read: bool) -> String {
        let Record { id, stamp, payload, .. } = self;
        let mut text = format!(r#"{{"id":"{id}","at":"{stamp}","#);
        if self.shown.id() {
            text += &format!(r#""recordId":"{id}","#);
        }
        if self.shown.stamp() {
            text += &format!(r#""recordTimeStampISO":"{stamp}","#);
        }
        text + &format!(r#""readStatus":"{read}","dataPayload":{payload}}}"#)
    }
}

/// A record of the service. Equal ones are rows of their own, and each is marked by itself.
#[derive(Debug, Clone)]
pub struct Row {
    pub record: Record,
    pub read: bool,
}

/// A mark of the tap that is applied, once or again.
#[derive(Debug, Clone)]
pub struct Mark {
    pub run: usize,
    pub what: What,
    /// Whether the tap was answered, or takes the mark for applied because its records are read.
    pub is_known: bool,
    /// Whether the next page need not begin with a fence: of a record without an id, with `markBy`
    /// `id`.
    pub is_unfenced: bool,
}

/// What a mark hits.
#[derive(Debug, Clone)]
pub enum What {
    /// So many of the oldest unread records.
    Oldest(usize),
    /// The last record with this id.
    Id(String),
}

/// A record that a mark of the tap has hit in this run.
#[derive(Debug)]
pub struct Hit {
    pub record: Record,
    /// Why it may be lost without a warning.
    pub excused: Option<Excused>,
    /// Whether the tap takes the mark for done.
    is_known: bool,
    /// How many pages the run had been shown by then, and what the next one has to begin with.
    pages: usize,
    fence: Option<Record>,
}

impl Hit {
    /// Why it may be lost without a warning by a run that has ended now.
    pub fn excuse_of(&self, watch: &Watch) -> Option<Excused> {
        let is_unseen = self.is_known && watch.shows_nothing(self.pages, self.fence.as_ref());
        self.excused.or(is_unseen.then_some(Excused::Again))
    }
}

#[derive(Debug, Default)]
pub struct Service {
    /// In time order.
    pub rows: Vec<Row>,
    /// The sizes of the payloads, in turn.
    payloads: Vec<usize>,
    arrived: usize,
    /// Marks that are applied late: after so many requests.
    late: Vec<(usize, Mark)>,
    pub watch: Watch,
    pub hits: Vec<Hit>,
    pub marked_by_others: BTreeSet<Record>,
    /// Whether a read by time shows the newest records, with the wrong read status.
    pub is_odd_by_time: bool,
}

impl Service {
    pub fn of(initial: &[Kind], payloads: Vec<usize>) -> Service {
        let mut service = Service { payloads, ..Service::default() };
        for kind in initial {
            service.arrive(service.rows.len(), *kind);
        }
        service
    }

    fn instant(&self, index: usize) -> Option<i64> {
        let stamp: jiff::Timestamp = self.rows.get(index)?.record.stamp.parse().unwrap();
        Some(i64::try_from(stamp.as_nanosecond()).unwrap())
    }

    /// A time stamp between those of the neighbours, as long as there is one. All are of one
    /// length.
    fn stamp_for(&self, place: usize) -> String {
        let before = place.checked_sub(1).and_then(|index| self.instant(index));
        let instant = match (before, self.instant(place)) {
            (Some(before), None) => before + STEP,
            (Some(before), Some(after)) => before + (after - before) / 2,
            (None, Some(after)) => after - STEP,
            (None, None) => 1_643_746_583_716_848_000,
        };
        let instant = jiff::Timestamp::from_nanosecond(instant.into()).unwrap();
        instant.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
    }

    pub fn arrive(&mut self, place: usize, kind: Kind) {
        self.arrived += 1;
        let size = self.payloads[self.arrived % self.payloads.len()];
        let mut record = Record {
            id: self.arrived.to_string(),
            stamp: self.stamp_for(place),
            payload: json!(format!("{} {}", self.arrived, "x".repeat(size))).to_string(),
            shown: Shown::Both,
        };
        if let Kind::Odd(shown) = kind {
            record.shown = shown;
        }
        if let Some(before) = place.checked_sub(1).and_then(|index| self.rows.get(index)).map(|row| &row.record) {
            let has_stamp = |row: &&Row| row.record.stamp == before.stamp;
            let first = &self.rows.iter().find(has_stamp).unwrap().record;
            match kind {
                Kind::New | Kind::Odd(_) => {}
                Kind::SameStamp => record.stamp.clone_from(&before.stamp),
                Kind::Twin => record = Record { payload: record.payload, ..first.clone() },
                Kind::Copy => record.clone_from(first),
                Kind::Version => record.id.clone_from(&before.id),
            }
        }
        self.rows.insert(place, Row { record, read: false });
    }

    pub fn happen(&mut self, event: &Event) {
        match event {
            Event::Arrival { place, kind } => self.arrive(place % (self.rows.len() + 1), *kind),
            Event::SlipIn { behind, kind } => {
                let Some(first) = self.rows.iter().position(|row| !row.read) else { return };
                let place = behind.map_or(first, |behind| first + 1 + behind);
                self.arrive(place.min(self.rows.len()), *kind);
            }
            Event::ForeignMark(count) => {
                let marked = self.mark_oldest(*count);
                self.marked_by_others.extend(marked);
                // A late mark may be taken for applied now.
                self.late.iter_mut().for_each(|(_, mark)| mark.is_known = true);
            }
        }
    }

    pub fn unread(&self, count: usize) -> Vec<Row> {
        self.rows.iter().filter(|row| !row.read).take(count).cloned().collect()
    }

    /// What comes after a time stamp, read or not.
    pub fn since(&self, timestamp: &str, count: usize) -> Vec<Row> {
        let is_later = |row: &&Row| row.record.stamp.as_str() > timestamp;
        let mut rows: Vec<_> = self.rows.iter().filter(is_later).cloned().collect();
        if self.is_odd_by_time {
            rows.reverse();
            rows.iter_mut().for_each(|row| row.read = !row.read);
        }
        rows.truncate(count);
        rows
    }

    fn mark_oldest(&mut self, count: usize) -> Vec<Record> {
        let unread = self.rows.iter_mut().filter(|row| !row.read).take(count);
        let mark = |row: &mut Row| {
            row.read = true;
            row.record.clone()
        };
        unread.map(mark).collect()
    }

    /// The last record with an id.
    pub fn last_of(&mut self, record_id: &str) -> Option<&mut Row> {
        let has_id = |row: &&mut Row| row.record.shown.id() && row.record.id == record_id;
        self.rows.iter_mut().rev().find(has_id)
    }

    fn is_shared(&self, record: &Record) -> bool {
        self.rows.iter().filter(|row| row.record.id == record.id).count() > 1
    }

    /// From now on the next page has to begin with this record. If it does, nothing shows what was
    /// hit since the page before was peeked.
    pub fn expect(&mut self, fence: Option<Record>) {
        let Watch { pages, fence: before, .. } = &self.watch;
        let is_unseen = |hit: &&mut Hit| hit.pages == pages.len() && hit.fence == *before;
        self.hits.iter_mut().filter(is_unseen).for_each(|hit| hit.fence.clone_from(&fence));
        self.watch.fence = fence;
    }

    /// Applies a mark of the tap. `shown` is what its answer shows.
    pub fn apply(&mut self, mark: &Mark, shown: &[Record]) {
        let marked = match &mark.what {
            What::Oldest(count) => self.mark_oldest(*count),
            What::Id(id) => {
                let unread = self.last_of(id).filter(|row| !row.read);
                let mark = |row: &mut Row| {
                    row.read = true;
                    row.record.clone()
                };
                unread.map(mark).into_iter().collect()
            }
        };
        for record in marked {
            let is_shown = shown.contains(&record);
            let excused = self.watch.excuse(&record, mark, self.is_shared(&record)).filter(|_| !is_shown);
            let Watch { pages, fence, .. } = &self.watch;
            let is_known = mark.is_known && !is_shown;
            self.hits.push(Hit { record, excused, is_known, pages: pages.len(), fence: fence.clone() });
        }
    }

    /// Applies a mark after so many further requests.
    pub fn apply_late(&mut self, requests: usize, mark: Mark) {
        self.late.push((requests, mark));
    }

    /// A request arrives: applies the marks that are as late as that.
    pub fn tick(&mut self) {
        self.late.iter_mut().for_each(|(requests, _)| *requests = requests.saturating_sub(1));
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(requests, _)| *requests == 0);
        self.late = late;
        let due: Vec<(usize, Mark)> = due;
        if !due.is_empty() {
            self.late.iter_mut().for_each(|(_, mark)| mark.is_known = true);
        }
        due.iter().for_each(|(_, mark)| self.apply(mark, &[]));
    }
}
