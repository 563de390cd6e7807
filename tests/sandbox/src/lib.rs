//! A stand-in for the StreamDuo service on loopback, for tests.
//!
//! It implements the API's tokens, streams, records and schemas, and adds a *script* and a *journal*. The script's
//! [`Rule`]s make chosen requests fail or wait, limit what they return, or run a hook beside them. The journal keeps
//! every [`Call`].
//!
//! ```
//! use streamduo_sandbox::{Endpoint, Rule, Sandbox};
//!
//! let sandbox = Sandbox::start();
//! let stream = sandbox.create_stream("cars");
//! sandbox.fill(&stream, 12);
//! sandbox.script(Rule::on(Endpoint::Mark).call(1).applied().status(503));
//! // ... run a consumer with sandbox.config(&stream) ...
//! assert_eq!(sandbox.unread(&stream).len(), 12);
//! assert_eq!(sandbox.count(Endpoint::Mark), 0);
//! ```
//!
//! Where the API's behaviour is not known, the sandbox chooses:
//! - All reads return records in time order. `readStatus` is the status *before* the request: "false" for a record that
//!   the request itself marks.
//! - READ_SINCE_TIMESTAMP excludes records at a time stamp with an offset. A time stamp without an offset is in New York
//!   time, and records at that time are included.
//! - Read status is per stream. `recordCount` has no upper limit, and may exceed the number of records.
//! - SAMPLE and READ_SINCE_RECORD_ID get 400, unknown paths 404, and a JSON body with another content type 415.
//! - Records written over HTTP or by [`Sandbox::write`] get the current time as their time stamp, or 1 µs after the last
//!   record's if that is later.
//! - The schema calls accept a token of either scope.
//!
//! Map of the code: `server` accepts requests (over `wire`), `route` determines what they ask for, `api` carries them out
//! on the one `service` (`store`, `schema`, `token`), and `fault` changes their answers. `journal` keeps every call.
//! `stamp`, `sample` and `pretty` are tools.

mod answer;
mod api;
mod fault;
mod journal;
mod pretty;
mod route;
mod sample;
mod schema;
mod server;
mod service;
mod stamp;
mod store;
mod token;
mod wire;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

pub use fault::Rule;
pub use journal::{Call, Endpoint};
pub use service::Service;
pub use store::{Identity, Record};

use journal::Progress;
use server::{Server, Shared};

/// A running service on 127.0.0.1. Dropping it stops the service and closes all connections, even of held requests.
///
/// # Panics
/// Most methods that take a stream panic if there is no such stream. Dropping panics if a hook of a rule panicked.
pub struct Sandbox {
    url: String,
    client_id: String,
    client_secret: String,
    shared: Arc<Shared>,
    /// `None` only while dropping.
    server: Option<Server>,
}

/// Settings of a [`Sandbox`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    port: u16,
    latency: Duration,
    token_lifetime: Duration,
}

impl Builder {
    /// The port to listen on. The default, 0, takes a free one.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = port;
        self
    }

    /// A pause before every request is carried out. The default is none.
    pub fn latency(mut self, latency: Duration) -> Builder {
        self.latency = latency;
        self
    }

    /// How long a token is valid. The default is 3600 s.
    pub fn token_lifetime_seconds(mut self, seconds: u64) -> Builder {
        self.token_lifetime = Duration::from_secs(seconds);
        self
    }

    /// Starts the sandbox.
    ///
    /// # Errors
    /// If the port is taken or the server's thread cannot be started.
    pub fn start(self) -> io::Result<Sandbox> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = Service::new(self.token_lifetime);
        let (client_id, client_secret) = (service.tokens.client_id.clone(), service.tokens.client_secret.clone());
        let shared = Arc::new(Shared::new(service, self.latency));
        let server = Server::start(listener, Arc::clone(&shared))?;
        Ok(Sandbox { url, client_id, client_secret, shared, server: Some(server) })
    }
}

impl Sandbox {
    /// Starts a sandbox on a free port, without latency.
    ///
    /// # Panics
    /// If it cannot listen on loopback.
    #[track_caller]
    pub fn start() -> Sandbox {
        Sandbox::builder().start().expect("the sandbox cannot listen on 127.0.0.1")
    }

    /// Settings to start a sandbox with.
    pub fn builder() -> Builder {
        Builder { port: 0, latency: Duration::ZERO, token_lifetime: Duration::from_secs(3600) }
    }

    /// The API's address, such as `http://127.0.0.1:43210`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token endpoint's address.
    pub fn auth_url(&self) -> String {
        format!("{}/oauth2/token", self.url)
    }

    /// The id of the only client.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The secret of that client.
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// The tap's settings for a stream: `streamId`, `clientId`, `clientSecret`, `apiUrl`, `authUrl`.
    pub fn config(&self, stream_id: &str) -> Value {
        json!({
            "streamId": stream_id,
            "clientId": self.client_id,
            "clientSecret": self.client_secret,
            "apiUrl": self.url,
            "authUrl": self.auth_url(),
        })
    }

    /// Creates a stream and returns its id. The n-th stream of any sandbox has the same id.
    pub fn create_stream(&self, name: &str) -> String {
        self.service().create_stream(name)
    }

    /// Deletes a stream, as another client might. False if there is no such stream.
    pub fn delete_stream(&self, stream: &str) -> bool {
        self.service().delete_stream(stream)
    }

    /// Writes a record with a random id and the current time as its time stamp, or 1 µs after the last record if that is
    /// later. `payload` is JSON text. It is kept byte for byte, and not validated against the active schema.
    ///
    /// # Panics
    /// For a payload that is not JSON.
    #[track_caller]
    pub fn write(&self, stream: &str, payload: &str) -> Record {
        self.service().write(stream, payload)
    }

    /// Writes a record with this id and this time stamp to its place in time order, which may be before records that are
    /// already read. Records with equal time stamps are in the order of writing. With a text that is not a time stamp with
    /// an offset, the record goes to the end.
    ///
    /// # Panics
    /// For a payload that is not JSON.
    #[track_caller]
    pub fn write_as(&self, stream: &str, record_id: &str, timestamp: &str, payload: &str) -> Record {
        self.service().write_as(stream, record_id, timestamp, payload)
    }

    /// Writes any text as the last record. It is served verbatim, read or unread.
    #[track_caller]
    pub fn write_text(&self, stream: &str, record: &str) {
        self.service().write_text(stream, record);
    }

    /// Writes `count` sample records after the last record: cars for sale, shaped like the vendor's example. On an empty
    /// stream of a new sandbox they are always the same. Ids and time stamps rise.
    #[track_caller]
    pub fn fill(&self, stream: &str, count: usize) {
        self.service().fill(stream, count);
    }

    /// The unread records, in time order.
    #[track_caller]
    pub fn unread(&self, stream: &str) -> Vec<Identity> {
        self.service().unread(stream)
    }

    /// The read records, in time order.
    #[track_caller]
    pub fn read(&self, stream: &str) -> Vec<Identity> {
        self.service().read(stream)
    }

    /// All records, in time order.
    #[track_caller]
    pub fn records(&self, stream: &str) -> Vec<Record> {
        self.service().records(stream)
    }

    /// The number of records, and how many of them are unread; zeros for a stream that does not exist.
    pub fn tally(&self, stream: &str) -> (usize, usize) {
        self.service().tally(stream)
    }

    /// Marks the `n` oldest unread records as read, as another consumer might, and returns them.
    #[track_caller]
    pub fn mark_oldest(&self, stream: &str, n: usize) -> Vec<Identity> {
        self.service().mark_oldest(stream, n)
    }

    /// Removes the oldest record with this identity. False if there is none.
    #[track_caller]
    pub fn remove(&self, stream: &str, identity: &Identity) -> bool {
        self.service().remove(stream, identity)
    }

    /// Withdraws the client's permission on a stream: from now on calls on its records get 403.
    #[track_caller]
    pub fn restrict(&self, stream: &str) {
        self.service().restrict(stream);
    }

    /// Revokes all tokens issued so far.
    pub fn revoke_tokens(&self) {
        self.service().revoke_tokens();
    }

    /// Adds a rule to the script. Only the first rule that matches a call, in order of adding, applies to it.
    pub fn script(&self, rule: Rule) {
        self.shared.script(rule);
    }

    /// Every request so far, in order of arrival.
    pub fn journal(&self) -> Vec<Call> {
        self.shared.journal.calls()
    }

    /// The number of requests so far, to all endpoints.
    pub fn requests(&self) -> usize {
        self.shared.journal.len()
    }

    /// The number of calls to an endpoint so far.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.shared.journal.count(endpoint)
    }

    /// Waits until the `nth` call to an endpoint, counted from 1, has arrived.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_for(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Progress::Arrived);
    }

    /// Waits until the `nth` call to an endpoint, counted from 1, is held or answered. If its rule is
    /// [`applied`](Rule::applied), it has been carried out by then.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_held(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Progress::Held);
    }

    /// Waits until the `nth` call to an endpoint, counted from 1, has been carried out and its answer, if any, is about to
    /// be sent.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_answered(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Progress::Answered);
    }

    /// Releases all requests that have arrived: those that are held, and those that a rule is about to hold.
    pub fn release(&self) {
        self.shared.release();
    }

    fn service(&self) -> MutexGuard<'_, Service> {
        self.shared.service()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(message) = self.shared.take_hook_panic().filter(|_| !thread::panicking()) {
            panic!("a hook of a rule panicked: {message}");
        }
    }
}
