//! The HTTP client. Only this file, `diagnose.rs` and `proxy.rs` import reqwest.
//!
//! A request is sent once. Neither an error nor a log line holds a URL's query, a header or a
//! secret.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use jiff::Timestamp;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT_ENCODING, CONNECTION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use url::Url;

use super::diagnose::{diagnose, host, media_type, message, oauth_error, redact, refusal, transfer_failure};
use super::gzip::unpacked;
use super::http_error::{Failure, HttpError};
use super::{certificate, proxy};
use crate::config::{Config, Invalid};
use crate::metrics;
use crate::record::Timing;
use crate::shutdown::Shutdown;

/// A complete answer of success.
#[derive(Debug)]
pub struct Answer {
    /// Its body, decompressed.
    pub body: Bytes,
    host: String,
    status: u16,
    media_type: Option<&'static str>,
    /// What its text must not reveal; none at the token endpoint, which is not quoted at all.
    secrets: Vec<SecretString>,
    /// How long it took, and when it was complete.
    pub timing: Timing,
}

impl Answer {
    /// The error about a body that is not what was asked for. It may be a gateway's, and pass: it
    /// quotes the message. At the token endpoint it may refuse the request in spite of the status.
    pub fn is_not(self, problem: &str) -> HttpError {
        let Answer { host, status, .. } = self;
        if let Some(code) = oauth_error(&self.body).filter(|_| self.secrets.is_empty()) {
            return HttpError::Status { host, status, retry_after: None, is_page: false, text: format!(": {code}") };
        }
        let problem = if self.body.trim_ascii().is_empty() { "the answer is empty" } else { problem };
        let said = message(&self.body).filter(|_| !self.secrets.is_empty());
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        let problem = redact(&self.secrets, &format!("{problem}{said}"));
        let media_type = self.media_type.map_or_else(String::new, |media_type| format!(" ({media_type})"));
        HttpError::InvalidBody(format!("{host} answers {status}{media_type}: {problem}"))
    }
}

/// A request that is ready to be sent, once. It returns with the whole answer, whatever happens
/// meanwhile.
pub type Call = Box<dyn FnOnce() -> Result<Answer, HttpError> + Send>;

type Job = Box<dyn FnOnce() + Send>;

/// The HTTP client: keep-alive, gzip, the system's proxy and certificates, no redirects, no retries
/// of its own.
#[derive(Debug)]
pub struct Http {
    /// The settings of the stream.
    pub config: Config,
    client: Client,
    /// Whether a connection is used again. If not, each request has one of its own.
    pub keeps_alive: bool,
    /// The thread for requests that a stop may abandon, which sends one after the other: to start
    /// one for each takes ten times as long. If a mark needs a new token while the next page is
    /// under way, the token waits for the page. An abandoned request is the last one, and ends with
    /// the process.
    background: Sender<Job>,
}

impl Http {
    /// Makes the client that the settings ask for.
    ///
    /// # Errors
    /// [`Invalid`] when there is no CA certificate to trust, or the proxy's variable cannot be
    /// used.
    pub fn new(config: &Config) -> Result<Http> {
        let urls = [&config.api_url, &config.auth_url];
        if !urls.into_iter().all(proxy::is_direct) {
            proxy::check()?;
        }
        // Fails if a provider is installed already: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(&config.user_agent)
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]))
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .proxy(proxy::for_client(&urls));
        // To load the system's certificates takes longer than all else, and plain HTTP has no use
        // for them.
        if urls.iter().all(|url| url.scheme() == "http") {
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(|error| match certificate::no_trusted_ca(&error) {
            Some(problem) => Invalid::new(problem).into(),
            None => Error::new(error).context("set up HTTPS"),
        })?;
        let (background, jobs) = unbounded::<Job>();
        let serve = move || jobs.into_iter().for_each(|job| job());
        thread::Builder::new().name("background".to_owned()).spawn(serve).context("start a thread")?;
        Ok(Http { config: config.clone(), client, keeps_alive: true, background })
    }

    /// Sends the request and waits for the whole answer, but no longer than until a stop is asked
    /// for. Only for requests that change nothing: whether an abandoned one was served stays
    /// unknown.
    pub fn send_until(&self, call: Call, stop: &Shutdown) -> Result<Answer, Failure> {
        stop.check()?;
        if stop.is_deferred() {
            // Not on the background thread: an abandoned request may still keep it busy.
            return Ok(call()?);
        }
        wait(&self.start(call, Duration::ZERO), stop)
    }

    /// Sends the request after a pause, on the background thread.
    pub fn start(&self, call: Call, pause: Duration) -> Receiver<Result<Answer, HttpError>> {
        let (answered, answer) = bounded(1);
        // If the thread is gone, `answered` is dropped, and `wait` returns an error.
        let _ = self.background.send(Box::new(move || {
            thread::sleep(pause);
            // Ignore that nobody waits any more: a stop has abandoned the request.
            let _ = answered.send(call());
        }));
        answer
    }

    /// A POST of a form (`application/x-www-form-urlencoded`) to the token endpoint.
    pub fn form(&self, endpoint: &'static str, url: &Url, fields: &[(&str, &str)]) -> Call {
        self.call(endpoint, url, self.client.post(url.clone()).form(fields), None)
    }

    /// A POST of a JSON document, authorized by a bearer token (RFC 6750 section 2.1).
    pub fn json(&self, endpoint: &'static str, url: &Url, document: &impl Serialize, token: &SecretString) -> Call {
        self.call(endpoint, url, self.client.post(url.clone()).json(document), Some(token))
    }

    /// A GET, authorized by a bearer token.
    pub fn get(&self, endpoint: &'static str, url: &Url, token: &SecretString) -> Call {
        self.call(endpoint, url, self.client.get(url.clone()), Some(token))
    }

    /// Without a token it goes to the token endpoint.
    fn call(&self, endpoint: &'static str, url: &Url, request: RequestBuilder, token: Option<&SecretString>) -> Call {
        let host = host(url);
        let timeout = self.config.request_timeout;
        let max_answer = self.config.max_answer;
        // Neither must get into a message if a server sends it back.
        let secrets = token.map_or_else(Vec::new, |token| vec![self.config.client_secret.clone(), token.clone()]);
        let request = match token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let request = if self.keeps_alive { request } else { request.header(CONNECTION, "close") };
        // On the request and not on the client: only so it bounds the whole exchange.
        let request = request.timeout(timeout);
        Box::new(move || {
            let started = Instant::now();
            let answer = request.send().map_err(|error| diagnose(&host, timeout, error));
            let status = answer.as_ref().ok().map(|response| response.status().as_u16());
            let answer = answer.and_then(|response| {
                if !response.status().is_success() {
                    return Err(refusal(&host, response, &secrets));
                }
                let first_byte = started.elapsed();
                let status = response.status().as_u16();
                let media_type = media_type(&response);
                let body = read_body(response, max_answer, &host, timeout)?;
                let timing = Timing { first_byte, transfer: started.elapsed() - first_byte, arrived: Timestamp::now() };
                Ok(Answer { body, host, status, media_type, secrets, timing })
            });
            metrics::http_request(endpoint, status, started.elapsed());
            answer
        })
    }
}

/// Waits for the answer to a request that was started, but no longer than until a stop is asked
/// for.
pub fn wait(answer: &Receiver<Result<Answer, HttpError>>, stop: &Shutdown) -> Result<Answer, Failure> {
    let answer = select! {
        recv(answer) -> answer => answer,
        recv(stop.requested()) -> _ => {
            stop.check()?;
            answer.recv()
        }
    };
    Ok(answer.context("the request was given up")??)
}

/// Reads the body of an answer, but no more than `max` bytes: decompressed, it may be endless. A
/// byte order mark is not a part of it.
fn read_body(response: Response, max: usize, host: &str, timeout: Duration) -> Result<Bytes, HttpError> {
    let length = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    // One byte more than the body holds, so that its end is seen without growing the buffer.
    let mut body = Vec::with_capacity(length.min(max) + 1);
    unpacked(response)
        .and_then(|response| response.take(max as u64 + 1).read_to_end(&mut body))
        .map_err(|error| transfer_failure(host, timeout, error))?;
    if body.len() > max {
        return Err(HttpError::TooLarge(host.to_owned(), max));
    }
    let body = Bytes::from(body);
    Ok(if body.starts_with("\u{feff}".as_bytes()) { body.slice(3..) } else { body })
}
