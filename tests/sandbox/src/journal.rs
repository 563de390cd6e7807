//! Journal: every request in order of arrival, and who waits for one.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long [`Journal::wait`] waits before it gives the test up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a request asks for. `Peek` and `Mark` are UNREAD requests; the other request types have their own variants,
/// whatever their `markAsRead` is.
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
    /// Anything else: an unknown path or method, or a record-request whose body does not tell what it asks for.
    Other,
}

/// One request, as it came and as it was answered. Secrets and tokens are in it: this is a test tool.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it asked for.
    pub endpoint: Endpoint,
    /// The method, in capitals.
    pub method: String,
    /// The path as sent, with the query.
    pub path: String,
    /// The body, as text.
    pub body: String,
    /// The headers in order, with lower-case names.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; `None` while there is none, and where a fault gave none.
    pub status: Option<u16>,
    /// The number of the TCP connection it came on, counted from 1 in order of acceptance.
    pub connection: usize,
    /// `recordCount` of a record-request, or `count` of the simple form.
    pub record_count: Option<u64>,
    /// `markAsRead` of a record-request.
    pub mark_as_read: Option<bool>,
    /// How many records the service put into its answer, also where a fault then spoilt that answer.
    pub returned: usize,
}

/// How far a call has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It is here, and nothing has been done yet.
    Arrived,
    /// It is held; if its rule says so, it has been carried out.
    Held,
    /// All is done but sending the answer.
    Answered,
}

/// The calls so far, and those who wait for more.
#[derive(Default)]
pub(crate) struct Journal {
    pages: Mutex<Pages>,
    changed: Condvar,
}

#[derive(Default)]
struct Pages {
    calls: Vec<(Call, Stage)>,
    /// The places in `calls` of each endpoint's.
    of: HashMap<Endpoint, Vec<usize>>,
}

/// A call's place in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    index: usize,
    /// Which call to its endpoint it is, counted from 1.
    pub(crate) nth: usize,
}

impl Journal {
    /// Writes down a call that came in.
    pub(crate) fn arrive(&self, call: Call) -> Arrival {
        let mut pages = self.pages();
        let index = pages.calls.len();
        let places = pages.of.entry(call.endpoint).or_default();
        places.push(index);
        let nth = places.len();
        pages.calls.push((call, Stage::Arrived));
        self.changed.notify_all();
        Arrival { index, nth }
    }

    /// Notes that a call is held.
    pub(crate) fn hold(&self, arrival: Arrival) {
        self.reach(arrival, Stage::Held, |_| ());
    }

    /// Notes a call's answer.
    pub(crate) fn answer(&self, arrival: Arrival, status: Option<u16>, returned: usize) {
        self.reach(arrival, Stage::Answered, |call| {
            call.status = status;
            call.returned = returned;
        });
    }

    /// All calls in order of arrival.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.pages().calls.iter().map(|(call, _)| call.clone()).collect()
    }

    /// How many calls came in.
    pub(crate) fn len(&self) -> usize {
        self.pages().calls.len()
    }

    /// How many calls came in to one endpoint.
    pub(crate) fn count(&self, endpoint: Endpoint) -> usize {
        self.pages().of.get(&endpoint).map_or(0, Vec::len)
    }

    /// Waits until the `nth` call to `endpoint`, counted from 1, has got to `stage`.
    #[track_caller]
    pub(crate) fn wait(&self, endpoint: Endpoint, nth: usize, stage: Stage) {
        assert!(nth >= 1, "calls count from 1");
        let deadline = Instant::now() + PATIENCE;
        let mut pages = self.pages();
        while !pages.has(endpoint, nth, stage) {
            let left = deadline.saturating_duration_since(Instant::now());
            let came = pages.of.get(&endpoint).map_or(0, Vec::len);
            assert!(!left.is_zero(), "waited in vain for {endpoint:?} {nth} to be {stage:?}: {came} came");
            pages = self.changed.wait_timeout(pages, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn reach(&self, arrival: Arrival, stage: Stage, note: impl FnOnce(&mut Call)) {
        if let Some((call, reached)) = self.pages().calls.get_mut(arrival.index) {
            note(call);
            *reached = stage;
        }
        self.changed.notify_all();
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn has(&self, endpoint: Endpoint, nth: usize, stage: Stage) -> bool {
        let place = self.of.get(&endpoint).and_then(|places| places.get(nth - 1));
        place.and_then(|index| self.calls.get(*index)).is_some_and(|(_, reached)| *reached >= stage)
    }
}
