//! The service's state: streams with their schemas, and tokens. Requests, hooks of rules and the
//! test's own calls share it.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::limits::Limits;
use crate::sample::{self, Samples};
use crate::schema::Schema;
use crate::store::{Identity, Record, Store};
use crate::token::Tokens;

/// The service's state, which the hooks of a [`Rule`](crate::Rule) work on. Each method does what
/// the method of [`Sandbox`](crate::Sandbox) with the same name does, and panics for the same
/// reasons. A panic in a hook reaches the test when its sandbox is dropped.
pub struct Service {
    pub(crate) tokens: Tokens,
    pub(crate) limits: Limits,
    streams: HashMap<String, Stream>,
    created: u64,
}

/// A stream.
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) store: Store,
    pub(crate) schemas: HashMap<String, Schema>,
    pub(crate) active_schema: Option<String>,
    pub(crate) restricted: bool,
    /// Whether READ_SINCE_TIMESTAMP returns the newest records.
    pub(crate) since_newest: bool,
}

impl Service {
    pub(crate) fn new(token_lifetime: Duration) -> Service {
        Service { tokens: Tokens::new(token_lifetime), limits: Limits::default(), streams: HashMap::new(), created: 0 }
    }

    /// See [`Sandbox::create_stream`](crate::Sandbox::create_stream).
    pub fn create_stream(&mut self, name: &str) -> String {
        let id = sample::stream_id(self.created);
        self.created += 1;
        let stream = Stream {
            name: name.to_owned(),
            store: Store::new(&id),
            schemas: HashMap::new(),
            active_schema: None,
            restricted: false,
            since_newest: false,
        };
        self.streams.insert(id.clone(), stream);
        id
    }

    /// See [`Sandbox::write`](crate::Sandbox::write).
    #[track_caller]
    pub fn write(&mut self, stream: &str, payload: &str) -> Record {
        let payload = json_text(payload);
        let store = self.store_mut(stream);
        let key = store.append(&sample::random_id(), payload);
        store.record(key).expect("the record was just written")
    }

    /// See [`Sandbox::write_as`](crate::Sandbox::write_as).
    #[track_caller]
    pub fn write_as(&mut self, stream: &str, record_id: &str, timestamp: &str, payload: &str) -> Record {
        let payload = json_text(payload);
        let store = self.store_mut(stream);
        let key = store.insert_as(record_id, timestamp, payload);
        store.record(key).expect("the record was just written")
    }

    /// See [`Sandbox::write_text`](crate::Sandbox::write_text).
    #[track_caller]
    pub fn write_text(&mut self, stream: &str, record: &str) {
        self.store_mut(stream).append_text(record);
    }

    /// See [`Sandbox::fill`](crate::Sandbox::fill).
    #[track_caller]
    pub fn fill(&mut self, stream: &str, count: usize) {
        self.fill_with(stream, count, Samples::default());
    }

    /// See [`Sandbox::fill_sized`](crate::Sandbox::fill_sized).
    #[track_caller]
    pub fn fill_sized(&mut self, stream: &str, count: usize, bytes: usize) {
        self.fill_with(stream, count, Samples { bytes, ..Samples::default() });
    }

    /// See [`Sandbox::fill_with`](crate::Sandbox::fill_with).
    #[track_caller]
    pub fn fill_with(&mut self, stream: &str, count: usize, samples: Samples) {
        self.store_mut(stream).fill(count, samples);
    }

    /// See [`Sandbox::slip_in`](crate::Sandbox::slip_in).
    #[track_caller]
    pub fn slip_in(&mut self, stream: &str) -> Option<Record> {
        let store = self.store_mut(stream);
        let key = store.slip_in()?;
        store.record(key)
    }

    /// See [`Sandbox::unread`](crate::Sandbox::unread).
    #[track_caller]
    pub fn unread(&self, stream: &str) -> Vec<Identity> {
        self.store(stream).with_status(false)
    }

    /// See [`Sandbox::read`](crate::Sandbox::read).
    #[track_caller]
    pub fn read(&self, stream: &str) -> Vec<Identity> {
        self.store(stream).with_status(true)
    }

    /// See [`Sandbox::records`](crate::Sandbox::records).
    #[track_caller]
    pub fn records(&self, stream: &str) -> Vec<Record> {
        self.store(stream).records()
    }

    /// See [`Sandbox::tally`](crate::Sandbox::tally).
    pub fn tally(&self, stream: &str) -> (usize, usize) {
        self.streams.get(stream).map_or((0, 0), |stream| stream.store.tally())
    }

    /// See [`Sandbox::mark_oldest`](crate::Sandbox::mark_oldest).
    #[track_caller]
    pub fn mark_oldest(&mut self, stream: &str, n: usize) -> Vec<Identity> {
        let store = self.store_mut(stream);
        let keys = store.oldest_unread(n);
        store.mark(&keys);
        store.identities(&keys)
    }

    /// See [`Sandbox::remove`](crate::Sandbox::remove).
    #[track_caller]
    pub fn remove(&mut self, stream: &str, identity: &Identity) -> bool {
        self.store_mut(stream).remove(identity)
    }

    /// See [`Sandbox::delete_stream`](crate::Sandbox::delete_stream).
    pub fn delete_stream(&mut self, stream: &str) -> bool {
        self.streams.remove(stream).is_some()
    }

    /// See [`Sandbox::restrict`](crate::Sandbox::restrict).
    #[track_caller]
    pub fn restrict(&mut self, stream: &str) {
        self.existing(stream).restricted = true;
    }

    /// See [`Sandbox::return_newest_since`](crate::Sandbox::return_newest_since).
    #[track_caller]
    pub fn return_newest_since(&mut self, stream: &str) {
        self.existing(stream).since_newest = true;
    }

    /// See [`Sandbox::revoke_tokens`](crate::Sandbox::revoke_tokens).
    pub fn revoke_tokens(&mut self) {
        self.tokens.revoke_all();
    }

    pub(crate) fn stream_mut(&mut self, id: &str) -> Option<&mut Stream> {
        self.streams.get_mut(id)
    }

    #[track_caller]
    fn existing(&mut self, id: &str) -> &mut Stream {
        self.streams.get_mut(id).unwrap_or_else(|| panic!("the sandbox has no stream {id:?}"))
    }

    #[track_caller]
    fn store_mut(&mut self, id: &str) -> &mut Store {
        &mut self.existing(id).store
    }

    #[track_caller]
    fn store(&self, id: &str) -> &Store {
        self.streams.get(id).map(|stream| &stream.store).unwrap_or_else(|| panic!("the sandbox has no stream {id:?}"))
    }
}

impl Stream {
    /// The stream as `GET /stream/{id}` shows it.
    pub(crate) fn to_json(&self, id: &str) -> Value {
        json!({
            "streamId": id,
            "displayName": self.name,
            "activeSchemaId": self.active_schema,
            "streamActorPermissionRecords": [{
                "actorId": "owner",
                "actorDisplayName": "owner@sandbox.example",
                "actorType": "USER",
                "isOwner": true,
                "isProducer": true,
                "isConsumer": true,
            }],
        })
    }

    /// Validates a payload against the active schema. The error says what is wrong with it.
    pub(crate) fn check(&self, payload: &str) -> Result<(), String> {
        match self.active_schema.as_ref().and_then(|id| self.schemas.get(id)) {
            Some(schema) => schema.check(payload),
            None => Ok(()),
        }
    }
}

#[track_caller]
fn json_text(payload: &str) -> &RawValue {
    serde_json::from_str(payload).unwrap_or_else(|error| panic!("the payload {payload:?} is not JSON: {error}"))
}
