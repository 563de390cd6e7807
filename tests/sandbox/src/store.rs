//! One stream's records in time order, and which of them are unread.
//!
//! A record is kept as the text of an answer, so that an answer is built by copying. The work of a
//! request depends on the number of records that it returns, not on the size of the stream.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::entry::Entry;
use crate::sample::{self, Samples};
use crate::stamp::{Clock, Since, add_micros};

/// What identifies a record. The id alone does not: a producer may write it again, with another
/// time stamp.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `recordId`; empty for a text without one (see
    /// [`Sandbox::write_text`](crate::Sandbox::write_text)).
    pub record_id: String,
    /// `recordTimeStampISO`; empty for a text without one.
    pub timestamp: String,
}

/// A record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The id and the time stamp.
    pub identity: Identity,
    /// The text as in an answer, with `readStatus` "false".
    pub json: String,
    /// The `dataPayload`, byte for byte as written.
    pub payload: String,
}

/// A record's place in time order. Records with equal time stamps are in the order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    at: Timestamp,
    seq: u64,
}

/// A stream's records.
#[derive(Debug)]
pub(crate) struct Store {
    stream_id: String,
    clock: Clock,
    records: BTreeMap<Key, Entry>,
    unread: BTreeSet<Key>,
    /// The keys of each id, by the id's hash, which takes less memory than the id.
    by_id: BTreeSet<(u64, Key)>,
    next_seq: u64,
    filled: u64,
    slipped_in: u64,
}

impl Store {
    /// The empty store of the stream `stream_id`.
    pub(crate) fn new(stream_id: &str) -> Store {
        Store {
            stream_id: stream_id.to_owned(),
            clock: Clock::new(),
            records: BTreeMap::new(),
            unread: BTreeSet::new(),
            by_id: BTreeSet::new(),
            next_seq: 0,
            filled: 0,
            slipped_in: 0,
        }
    }

    /// Adds a record with the current time, or 1 µs after the last record if that is later.
    pub(crate) fn append(&mut self, record_id: &str, payload: &RawValue) -> Key {
        let now = Clock::now();
        let at = self.last().map_or(now, |last| now.max(add_micros(last, 1)));
        self.insert(at, record_id, &self.clock.format(at), payload.get())
    }

    /// Adds a record at its place in time order; at the end if `stamp` is not a time stamp with an
    /// offset.
    pub(crate) fn insert_as(&mut self, record_id: &str, stamp: &str, payload: &RawValue) -> Key {
        let at = Clock::parse(stamp).unwrap_or_else(|| self.end());
        self.insert(at, record_id, stamp, payload.get())
    }

    /// Adds any text as the last record. It is served verbatim, but for a `readStatus` that says
    /// that it is unread.
    pub(crate) fn append_text(&mut self, text: &str) -> Key {
        self.add(self.end(), Entry::verbatim(text))
    }

    /// Adds `count` sample records after the last record. On an empty stream of a new sandbox they
    /// are always the same.
    pub(crate) fn fill(&mut self, count: usize, samples: Samples) {
        let Samples { bytes, ties, stamps } = samples;
        let start = self.last().map_or(sample::START, |last| add_micros(last, sample::STEP_MICROS));
        for step in 0..count {
            let group = step / ties.max(1);
            let micros = i64::try_from(group).unwrap_or(i64::MAX).saturating_mul(sample::STEP_MICROS);
            let (at, stamp) = self.clock.sample(add_micros(start, micros), stamps, group);
            let id = sample::record_id(&self.stream_id, self.filled);
            let payload = sample::padded(sample::payload(self.filled), bytes);
            self.insert(at, &id, &stamp, &payload);
            self.filled += 1;
        }
    }

    /// Adds the next sample record, with the current time as in [`append`](Store::append).
    pub(crate) fn append_sample(&mut self) -> Option<Key> {
        let payload = RawValue::from_string(sample::payload(self.filled)).ok()?;
        let id = sample::record_id(&self.stream_id, self.filled);
        self.filled += 1;
        Some(self.append(&id, &payload))
    }

    /// Adds a record right behind the first unread one, with a time stamp in the middle between it
    /// and the record that follows it. Nothing if all records are read.
    pub(crate) fn slip_in(&mut self) -> Option<Key> {
        let first = *self.unread.first()?;
        let next = self.records.range((Bound::Excluded(first), Bound::Unbounded)).next();
        let gap = next.map_or(sample::STEP_MICROS, |(next, _)| first.at.duration_until(next.at).as_micros() as i64);
        let at = add_micros(first.at, gap / 2);
        self.slipped_in += 1;
        let (id, payload) = (format!("slip-in-{}", self.slipped_in), format!(r#"{{"slipIn":{}}}"#, self.slipped_in));
        Some(self.insert(at, &id, &self.clock.format(at), &payload))
    }

    /// Removes the oldest record with this identity; false if there is none.
    pub(crate) fn remove(&mut self, identity: &Identity) -> bool {
        let hash = hash(&identity.record_id);
        let found = self
            .keys_of(&identity.record_id)
            .find(|key| self.records.get(key).is_some_and(|entry| entry.identity() == *identity));
        let Some(key) = found else { return false };
        self.records.remove(&key);
        self.unread.remove(&key);
        self.by_id.remove(&(hash, key))
    }

    /// The `n` oldest unread records.
    pub(crate) fn oldest_unread(&self, n: usize) -> Vec<Key> {
        self.unread.iter().take(n).copied().collect()
    }

    /// The last `n` records, oldest first.
    pub(crate) fn last_n(&self, n: usize) -> Vec<Key> {
        in_time_order(self.records.keys().rev().take(n).copied())
    }

    /// The first `n` records from `since` on, or the last `n` of them.
    pub(crate) fn since(&self, since: Since, n: usize, newest: bool) -> Vec<Key> {
        let from = match since {
            Since::After(at) => Bound::Excluded(Key { at, seq: u64::MAX }),
            Since::From(at) => Bound::Included(Key { at, seq: 0 }),
        };
        let keys = self.records.range((from, Bound::Unbounded)).map(|(key, _)| *key);
        if newest { in_time_order(keys.rev().take(n)) } else { keys.take(n).collect() }
    }

    /// The last `n` versions of a record, oldest first.
    pub(crate) fn versions(&self, record_id: &str, n: usize) -> Vec<Key> {
        in_time_order(self.keys_of(record_id).rev().take(n))
    }

    /// Marks records as read.
    pub(crate) fn mark(&mut self, keys: &[Key]) {
        for key in keys {
            self.unread.remove(key);
        }
    }

    /// The JSON array of these records, with their current read status, or all of them as read.
    pub(crate) fn answer(&self, keys: &[Key], as_read: bool) -> Vec<u8> {
        let entries = || keys.iter().filter_map(|key| self.records.get(key).map(|entry| (key, entry)));
        let size: usize = entries().map(|(_, entry)| entry.len() + 1).sum();
        let mut body = Vec::with_capacity(size + 2);
        body.push(b'[');
        for (key, entry) in entries() {
            if body.len() > 1 {
                body.push(b',');
            }
            entry.write_to(&mut body, as_read || !self.unread.contains(key));
        }
        body.push(b']');
        body
    }

    /// The record at `key`.
    pub(crate) fn record(&self, key: Key) -> Option<Record> {
        self.records.get(&key).map(Entry::record)
    }

    /// All records, in time order.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.values().map(Entry::record).collect()
    }

    /// The identities of `keys`.
    pub(crate) fn identities(&self, keys: &[Key]) -> Vec<Identity> {
        keys.iter().filter_map(|key| self.records.get(key)).map(Entry::identity).collect()
    }

    /// The identities of all unread records, or of all read ones, in time order.
    pub(crate) fn with_status(&self, read: bool) -> Vec<Identity> {
        let wanted = |key: &Key| self.unread.contains(key) != read;
        self.records.iter().filter(|(key, _)| wanted(key)).map(|(_, entry)| entry.identity()).collect()
    }

    /// How many records there are, and how many of them are unread.
    pub(crate) fn tally(&self) -> (usize, usize) {
        (self.records.len(), self.unread.len())
    }

    /// The clock that writes this stream's time stamps.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    fn last(&self) -> Option<Timestamp> {
        self.records.last_key_value().map(|(key, _)| key.at)
    }

    /// A time that puts a new record at the end.
    fn end(&self) -> Timestamp {
        let now = Clock::now();
        self.last().map_or(now, |last| now.max(last))
    }

    fn insert(&mut self, at: Timestamp, record_id: &str, stamp: &str, payload: &str) -> Key {
        let entry = Entry::new(&self.stream_id, record_id, stamp, payload);
        self.add(at, entry)
    }

    fn add(&mut self, at: Timestamp, entry: Entry) -> Key {
        let key = Key { at, seq: self.next_seq };
        self.next_seq += 1;
        self.by_id.insert((hash(&entry.record_id()), key));
        self.unread.insert(key);
        self.records.insert(key, entry);
        key
    }

    fn keys_of<'a>(&'a self, record_id: &'a str) -> impl DoubleEndedIterator<Item = Key> + 'a {
        let hash = hash(record_id);
        let first = Key { at: Timestamp::MIN, seq: 0 };
        let last = Key { at: Timestamp::MAX, seq: u64::MAX };
        let same_id = move |key: &Key| self.records.get(key).is_some_and(|entry| entry.record_id() == record_id);
        self.by_id.range((hash, first)..=(hash, last)).map(|(_, key)| *key).filter(same_id)
    }
}

fn hash(record_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    record_id.hash(&mut hasher);
    hasher.finish()
}

fn in_time_order(latest_first: impl Iterator<Item = Key>) -> Vec<Key> {
    let mut keys: Vec<Key> = latest_first.collect();
    keys.reverse();
    keys
}
