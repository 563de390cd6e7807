//! The journal: every request in order of arrival.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long [`Journal::wait`] waits before it fails the test.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a request asks for. `Peek` and `Mark` are UNREAD requests. Each other request type has one
/// variant, for both values of `markAsRead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `POST /oauth2/token`
    Token,
    /// `POST /stream/{id}/record-request`, UNREAD with `markAsRead: false`
    Peek,
    /// `POST /stream/{id}/record-request`, UNREAD with `markAsRead: true`
    Mark,
    /// `POST /stream/{id}/record-request`, LAST_N
    LastN,
    /// `POST /stream/{id}/record-request`, READ_SINCE_TIMESTAMP
    Since,
    /// `POST /stream/{id}/record-request`, SINGLE
    Single,
    /// `GET /stream/{id}/record/unread`
    SimpleUnread,
    /// `POST /stream/{id}/record`
    Write,
    /// `POST /stream/{id}/record/{recordId}/mark-read`
    MarkRead,
    /// `GET /stream/{id}`
    Stream,
    /// `POST /stream`
    CreateStream,
    /// `DELETE /stream/{id}`
    DeleteStream,
    /// `POST /streams/{id}/schemas`
    CreateSchema,
    /// `GET /streams/{id}/schemas/{schemaId}/`
    Schema,
    /// `DELETE /streams/{id}/schemas/{schemaId}/`
    DeleteSchema,
    /// `POST /stream/{id}/schemas/active`
    ActivateSchema,
    /// `GET /health`
    Health,
    /// Anything else: an unknown path or method, or a record-request whose type cannot be read or
    /// is not known.
    Other,
}

/// One request and how it was answered. It holds secrets and tokens.
#[derive(Clone, Debug)]
pub struct Call {
    /// What the request asks for.
    pub endpoint: Endpoint,
    /// The method, in capitals.
    pub method: String,
    /// The path and the query, as sent.
    pub path: String,
    /// The body.
    pub body: String,
    /// The headers in order, with lower-case names.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; `None` before the answer, and if a rule closes the connection
    /// instead.
    pub status: Option<u16>,
    /// The number of its TCP connection, counted from 1 in order of acceptance.
    pub connection: usize,
    /// `recordCount` of a record-request, or `count` of `GET /stream/{id}/record/unread`.
    pub record_count: Option<u64>,
    /// `markAsRead` of a record-request.
    pub mark_as_read: Option<bool>,
    /// The number of records in the service's answer, even if a rule then replaced or cut that
    /// answer.
    pub returned: usize,
}

/// How far a call has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// It has arrived. It may not be carried out yet.
    Arrived,
    /// It is held. If its rule says [`applied`](crate::Rule::applied), it has been carried out.
    Held,
    /// It has been carried out. Only its answer remains to be sent.
    Answered,
}

/// All calls so far. Tests can wait for a call.
#[derive(Default)]
pub(crate) struct Journal {
    entries: Mutex<Entries>,
    changed: Condvar,
}

#[derive(Default)]
struct Entries {
    calls: Vec<(Call, Progress)>,
    /// The indices in `calls` of each endpoint's calls.
    by_endpoint: HashMap<Endpoint, Vec<usize>>,
}

/// Refers to a call in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallId {
    index: usize,
    /// The number of this call among those to its endpoint, counted from 1.
    pub(crate) nth: usize,
}

impl Journal {
    /// Adds a call that has arrived.
    pub(crate) fn add(&self, call: Call) -> CallId {
        let mut entries = self.entries();
        let index = entries.calls.len();
        let indices = entries.by_endpoint.entry(call.endpoint).or_default();
        indices.push(index);
        let nth = indices.len();
        entries.calls.push((call, Progress::Arrived));
        self.changed.notify_all();
        CallId { index, nth }
    }

    /// Notes that a call is held.
    pub(crate) fn set_held(&self, id: CallId) {
        self.update(id, Progress::Held, |_| ());
    }

    /// Notes a call's answer.
    pub(crate) fn set_answered(&self, id: CallId, status: Option<u16>, returned: usize) {
        self.update(id, Progress::Answered, |call| {
            call.status = status;
            call.returned = returned;
        });
    }

    /// All calls in order of arrival.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.entries().calls.iter().map(|(call, _)| call.clone()).collect()
    }

    /// The number of calls.
    pub(crate) fn len(&self) -> usize {
        self.entries().calls.len()
    }

    /// The number of calls to one endpoint.
    pub(crate) fn count(&self, endpoint: Endpoint) -> usize {
        self.entries().count(endpoint)
    }

    /// Waits until the `nth` call to `endpoint`, counted from 1, has got to `progress`.
    #[track_caller]
    pub(crate) fn wait(&self, endpoint: Endpoint, nth: usize, progress: Progress) {
        assert!(nth >= 1, "calls count from 1");
        let deadline = Instant::now() + TIMEOUT;
        let mut entries = self.entries();
        while !entries.has(endpoint, nth, progress) {
            let left = deadline.saturating_duration_since(Instant::now());
            let count = entries.count(endpoint);
            assert!(!left.is_zero(), "timed out: {endpoint:?} {nth} is not {progress:?}; calls so far: {count}");
            entries = self.changed.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn update(&self, id: CallId, progress: Progress, change: impl FnOnce(&mut Call)) {
        if let Some((call, reached)) = self.entries().calls.get_mut(id.index) {
            change(call);
            *reached = progress;
        }
        self.changed.notify_all();
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn count(&self, endpoint: Endpoint) -> usize {
        self.by_endpoint.get(&endpoint).map_or(0, Vec::len)
    }

    fn has(&self, endpoint: Endpoint, nth: usize, progress: Progress) -> bool {
        let index = self.by_endpoint.get(&endpoint).and_then(|indices| indices.get(nth - 1));
        index.and_then(|index| self.calls.get(*index)).is_some_and(|(_, reached)| *reached >= progress)
    }
}
