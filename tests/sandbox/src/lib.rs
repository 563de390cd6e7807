//! A stand-in for the StreamDuo service on loopback, for tests.
//!
//! It implements the API's tokens, streams, records and schemas, and adds a *script* and a
//! *journal*. The script's [`Rule`]s make chosen requests fail or wait, limit what they return, or
//! run a hook beside them. The journal keeps every [`Call`].
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
//! The network can be slow: see [`Builder::latency`], [`jitter`](Builder::jitter),
//! [`connect`](Builder::connect) and [`bandwidth`](Builder::bandwidth). The service can have
//! limits: see [`Sandbox::limit_records`] and [`limit_bytes`](Sandbox::limit_bytes). By default the
//! network takes no time, and nothing is limited.
//!
//! Where the API's behaviour is not known, the sandbox chooses:
//! - All reads return records in time order. `readStatus` is the status *before* the request:
//!   "false" for a record that the request itself marks.
//! - READ_SINCE_TIMESTAMP excludes records at a time stamp with an offset. A time stamp without an
//!   offset is in New York time, and records at that time are included. The oldest records are
//!   returned, unless it is told to return the newest.
//! - SINGLE refuses an empty id with 400.
//! - `mark-read` marks the latest version of a record, and answers `{"status":"Success"}`.
//! - Read status is per stream. `recordCount` may exceed the number of records, and has no upper
//!   limit unless one is set.
//! - SAMPLE and READ_SINCE_RECORD_ID get 400, unknown paths 404, and a JSON body with another
//!   content type 415.
//! - Records written over HTTP or by [`Sandbox::write`] get the current time as their time stamp,
//!   or 1 µs after the last record's if that is later.
//! - The schema calls accept a token of either scope.
//!
//! Map of the code: `server` accepts requests (over `wire`, and `tls`), `route` determines what
//! they ask for, `api` carries them out on the one `service` (`store`, `entry`, `schema`,
//! `validator`, `token`, `limits`), and `fault` (`hook`) changes their answers. `gateway` carries
//! requests out late or twice, and mixes answers up. `link` is the network: it delays requests and
//! paces answers. `state` is the test's own way to the service. `journal` keeps every call.
//! `stamp`, `sample` and `pretty` are tools.

mod answer;
mod api;
mod entry;
mod fault;
mod gateway;
mod hook;
mod journal;
mod limits;
mod link;
mod pretty;
mod route;
mod sample;
mod schema;
mod server;
mod service;
mod stamp;
mod state;
mod store;
mod tls;
mod token;
#[cfg(feature = "validate")]
mod validator;
mod wire;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

pub use fault::{Rewrite, Rule};
pub use journal::{Call, Endpoint};
pub use sample::Samples;
pub use service::Service;
pub use stamp::Stamps;
pub use store::{Identity, Record};
pub use tls::Tls;

use journal::Progress;
use link::{Link, Settings};
use server::{Server, Shared};

/// A running service on 127.0.0.1. Dropping it stops the service and closes all connections, even
/// of held requests.
///
/// # Panics
/// Most methods that take a stream panic if there is no such stream. Dropping panics if a hook of a
/// rule panicked.
pub struct Sandbox {
    url: String,
    ca_pem: Option<String>,
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
    link: Settings,
    token_lifetime: Duration,
    tls: Option<Tls>,
}

impl Builder {
    /// The port to listen on. The default, 0, takes a free one.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = port;
        self
    }

    /// A pause before every request is carried out. The default is none.
    pub fn latency(mut self, latency: Duration) -> Builder {
        self.link.latency = latency;
        self
    }

    /// How long a token is valid. The default is 3600 s.
    pub fn token_lifetime_seconds(mut self, seconds: u64) -> Builder {
        self.token_lifetime = Duration::from_secs(seconds);
        self
    }

    /// Serves https. The default is http.
    pub fn tls(mut self, tls: Tls) -> Builder {
        self.tls = Some(tls);
        self
    }

    /// Starts the sandbox.
    ///
    /// # Errors
    /// If the port is taken, a certificate cannot be made or the server's thread cannot be started.
    pub fn start(self) -> io::Result<Sandbox> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        let tls = self.tls.map(Tls::server).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let (acceptor, ca_pem) = tls.map(|tls| (tls.acceptor, tls.ca_pem)).unzip();
        let service = Service::new(self.token_lifetime);
        let (client_id, client_secret) = (service.tokens.client_id.clone(), service.tokens.client_secret.clone());
        let shared = Arc::new(Shared::new(service, Link::new(&self.link)));
        let server = Server::start(listener, acceptor, Arc::clone(&shared))?;
        Ok(Sandbox { url, ca_pem, client_id, client_secret, shared, server: Some(server) })
    }
}

impl Sandbox {
    /// Starts a sandbox on a free port, on a network that takes no time.
    ///
    /// # Panics
    /// If it cannot listen on loopback.
    #[track_caller]
    pub fn start() -> Sandbox {
        Sandbox::builder().start().expect("the sandbox cannot listen on 127.0.0.1")
    }

    /// Settings to start a sandbox with.
    pub fn builder() -> Builder {
        Builder { port: 0, link: Settings::default(), token_lifetime: Duration::from_secs(3600), tls: None }
    }

    /// The API's address, such as `http://127.0.0.1:43210`; with TLS, such as
    /// `https://127.0.0.1:43210`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token endpoint's address.
    pub fn auth_url(&self) -> String {
        format!("{}/oauth2/token", self.url)
    }

    /// The certificate of the CA to trust, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The id of the only client.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The secret of that client.
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// The tap's settings for a stream: `streamId`, `clientId`, `clientSecret`, `apiUrl`,
    /// `authUrl`.
    pub fn config(&self, stream_id: &str) -> Value {
        json!({
            "streamId": stream_id,
            "clientId": self.client_id,
            "clientSecret": self.client_secret,
            "apiUrl": self.url,
            "authUrl": self.auth_url(),
        })
    }

    /// Adds a rule to the script. Only the first rule that matches a call, in order of adding,
    /// applies to it.
    pub fn script(&self, rule: Rule) {
        self.shared.script(rule);
    }

    /// Removes all rules, and never carries out the requests that are still to be carried out by
    /// [`Rule::applied_after`].
    pub fn clear_script(&self) {
        self.shared.clear_script();
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

    /// Waits until the `nth` call to an endpoint, counted from 1, is held or answered. If its rule
    /// is [`applied`](Rule::applied), it has been carried out by then.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_held(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Progress::Held);
    }

    /// Waits until the `nth` call to an endpoint, counted from 1, has been carried out and its
    /// answer, if any, is about to be sent.
    ///
    /// # Panics
    /// After 30 s.
    #[track_caller]
    pub fn wait_answered(&self, endpoint: Endpoint, nth: usize) {
        self.shared.journal.wait(endpoint, nth, Progress::Answered);
    }

    /// Releases all requests that have arrived: those that are held, and those that a rule is about
    /// to hold.
    pub fn release(&self) {
        self.shared.release();
    }

    /// Carries out all requests at once that are still to be carried out by
    /// [`Rule::applied_after`].
    pub fn apply_late(&self) {
        self.shared.apply_late();
    }

    /// Closes all connections, as a server closes idle ones: without a word. Requests that have
    /// arrived are carried out.
    pub fn close_connections(&self) {
        self.shared.close_connections();
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
