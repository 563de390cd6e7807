//! A stand-in for the StreamDuo service on loopback, for tests.
//!
//! It keeps to the API page of this project and to nothing else: tokens, streams, records, schemas. What it adds is a
//! *script*: [`Rule`]s that make chosen requests fail, stall, shrink or meet another consumer, and a *journal* of
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
//! Where the API page leaves room, the sandbox decides:
//! - Answers to reads are in time order, also LAST_N and SINGLE. Their `readStatus` is the one *before* the request, so
//!   a record that this very request marks shows as "false".
//! - READ_SINCE_TIMESTAMP takes a time stamp with an offset as exclusive. One without an offset is cut; it is taken in
//!   New York time, and records of that very moment come too.
//! - Read status is per stream. A larger `recordCount` than there are records is no error, and there is no cap.
//! - SAMPLE and READ_SINCE_RECORD_ID are refused with 400, unknown paths with 404, a JSON body that is not declared as
//!   JSON with 415.
//! - Records written over HTTP or by [`Sandbox::write`] get the time stamp of now, or just after the last record's.
//! - The schema calls take a token of either scope.
//!
//! Map of the code: a request comes in by `server` (over `wire`), is told by `route`, carried out by `api` on the one
//! `service` (`store`, `schema`, `token`), and answered as `fault` has it; `journal` keeps book; `stamp`, `sample` and
//! `pretty` are tools.

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

use journal::Stage;
use server::{Server, Shared};

/// A service of its own on 127.0.0.1; dropping it stops it and closes its connections, held ones too.
///
/// # Panics
/// The methods that name a stream panic when there is no such stream. Dropping panics if a hook of the script did.
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
    /// The port to listen on; 0, the default, takes a free one.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = port;
        self
    }

    /// A pause before every request is carried out; none by default.
    pub fn latency(mut self, latency: Duration) -> Builder {
        self.latency = latency;
        self
    }

    /// How long a token is valid; 3600 s by default.
    pub fn token_lifetime_seconds(mut self, seconds: u64) -> Builder {
        self.token_lifetime = Duration::from_secs(seconds);
        self
    }

    /// Starts the sandbox.
    ///
    /// # Errors
    /// When the port is taken, or there is no room for a thread.
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
    /// When it cannot listen on loopback.
    #[track_caller]
    pub fn start() -> Sandbox {
        Sandbox::builder().start().expect("the sandbox cannot listen on 127.0.0.1")
    }

    /// Settings to start a sandbox with.
    pub fn builder() -> Builder {
        Builder { port: 0, latency: Duration::ZERO, token_lifetime: Duration::from_secs(3600) }
    }

    /// The API's address, such as `http://127.0.0.1:43210`. Tokens are at [`auth_url`](Sandbox::auth_url).
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token endpoint's address.
    pub fn auth_url(&self) -> String {
        format!("{}/oauth2/token", self.url)
    }

    /// The id of the one client that gets tokens.
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

    /// Deletes a stream, as another client might; false if there is none.
    pub fn delete_stream(&self, stream: &str) -> bool {
        self.service().delete_stream(stream)
    }

    /// Writes a record with a random id, stamped now or just after the last record. `payload` is JSON text, kept byte for
    /// byte, and not held against the active schema.
    ///
    /// # Panics
    /// For a payload that is no JSON.
    #[track_caller]
    pub fn write(&self, stream: &str, payload: &str) -> Record {
        self.service().write(stream, payload)
    }

    /// Writes a record of a chosen identity to its place in time, which may be before records already read; equal time
    /// stamps stand in order of writing. A time stamp that names no moment, with its offset, stands last.
    ///
    /// # Panics
    /// For a payload that is no JSON.
    #[track_caller]
    pub fn write_as(&self, stream: &str, record_id: &str, timestamp: &str, payload: &str) -> Record {
        self.service().write_as(stream, record_id, timestamp, payload)
    }

    /// Writes any text as the last record. It is served verbatim, whatever it is, and stays so once read.
    #[track_caller]
    pub fn write_text(&self, stream: &str, record: &str) {
        self.service().write_text(stream, record);
    }

    /// Writes `count` sample records, cars for sale as on the API page, after the last record. On an empty stream of a
    /// new sandbox they are always the same; ids and time stamps rise.
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

    /// How many records there are, and how many of them are unread; none in a stream that does not exist.
    pub fn tally(&self, stream: &str) -> (usize, usize) {
        self.service().tally(stream)
    }

    /// Marks the `n` oldest unread records as read, as another consumer might, and returns them.
    #[track_caller]
    pub fn mark_oldest(&self, stream: &str, n: usize) -> Vec<Identity> {
        self.service().mark_oldest(stream, n)
    }

    /// Takes a record out of the stream, the oldest of this identity; false if there is none.
    #[track_caller]
    pub fn remove(&self, stream: &str, identity: &Identity) -> bool {
        self.service().remove(stream, identity)
    }

    /// Takes the client's permission on a stream: from now on calls on its records get 403.
    #[track_caller]
    pub fn restrict(&self, stream: &str) {
        self.service().restrict(stream);
    }

    /// Makes all tokens issued so far invalid.
    pub fn revoke_tokens(&self) {
        self.service().revoke_tokens();
    }

    /// Adds a rule to the script. The first rule that matches a call, in order of adding, applies, and no other.
    pub fn script(&self, rule: Rule) {
        self.shared.script(rule);
    }

    /// Every request so far, in order of arrival.
    pub fn journal(&self) -> Vec<Call> {
        self.shared.journal.calls()
    }

    /// How many requests came so far, to all endpoints.
    pub fn requests(&self) -> usize {
        self.shared.journal.len()
    }

    /// How many calls to an endpoint came so far.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.shared.journal.count(endpoint)
    }

    /// Waits until the `nth` call to an endpoint, counted from 1, has arrived.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_for(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Stage::Arrived);
    }

    /// Waits until the `nth` call to an endpoint, counted from 1, is held (or answered): an applied one has been carried
    /// out by then.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_held(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Stage::Held);
    }

    /// Waits until the `nth` call to an endpoint, counted from 1, has been carried out and its answer, if any, is on its
    /// way.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_answered(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Stage::Answered);
    }

    /// Lets all requests go on that have arrived and are held, or are about to be.
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
        if let Some(failure) = self.shared.take_failure().filter(|_| !thread::panicking()) {
            panic!("a hook of the sandbox's script panicked: {failure}");
        }
    }
}
