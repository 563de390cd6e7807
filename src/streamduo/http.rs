//! The HTTP client. Only this file and `http_error.rs` import reqwest.
//!
//! A request is sent once; [`super::retry`] decides whether and when to send it again. Neither an error nor a log line holds a
//! URL's query, a header or a secret.

use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use jiff::Timestamp;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use url::Url;

use super::http_error::{HttpError, diagnose, host, refusal, transfer_failure};
use super::redact::redact;
use super::{certificate, proxy};
use crate::config::url::is_loopback;
use crate::config::{Config, Invalid};
use crate::metrics;
use crate::record::Timing;
use crate::shutdown::Shutdown;

/// The most that the answer of a token endpoint may hold, in bytes. Tokens take a few kilobytes.
const MAX_TOKEN_ANSWER: usize = 256 * 1024;

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Its body, decompressed.
    pub body: Bytes,
    /// How long it took.
    pub timing: Timing,
    /// When its last byte arrived.
    pub arrived: Timestamp,
}

/// The HTTP client: keep-alive, gzip, the system's proxy and certificates, no redirects, no retries of its own.
#[derive(Debug, Clone)]
pub struct Http {
    blueprint: Blueprint,
    /// For this machine itself: a proxy would see what goes there unencrypted.
    direct: Option<Client>,
    /// For all other machines.
    remote: Option<Client>,
    /// Sends the requests that a stop may abandon.
    background: Sender<Job>,
    timeout: Duration,
    max_answer: usize,
    /// The client's secret, which must not get into a message if a server sends it back.
    client_secret: SecretString,
}

/// What the clients are made from.
#[derive(Debug, Clone)]
struct Blueprint {
    user_agent: String,
    urls: [Url; 2],
    keeps_alive: bool,
}

impl Blueprint {
    /// A client for the URLs on this machine, or for the others; `None` if there are none.
    fn client(&self, is_near: bool) -> Result<Option<Client>> {
        let urls: Vec<_> = self.urls.iter().filter(|url| is_loopback(url) == is_near).collect();
        if urls.is_empty() {
            return Ok(None);
        }
        let builder = Client::builder()
            .user_agent(&self.user_agent)
            .timeout(None)
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never());
        let builder = if is_near { builder.no_proxy() } else { builder };
        let builder = if self.keeps_alive { builder } else { builder.pool_max_idle_per_host(0) };
        // To load the system's certificates takes longer than all else, and plain HTTP has no use for them.
        let is_plain = is_near && urls.iter().all(|url| url.scheme() == "http");
        let builder = if is_plain { builder.tls_certs_only([]) } else { builder };
        builder.build().map(Some).map_err(|error| match certificate::no_trusted_ca(&error) {
            Some(problem) => Invalid::new(problem).into(),
            None => Error::new(error).context("set up HTTPS"),
        })
    }
}

impl Http {
    /// Makes the client that the settings ask for.
    ///
    /// # Errors
    /// [`Invalid`] when there is no CA certificate to trust, or the proxy's variable cannot be used. When the operating system has
    /// no thread.
    pub fn new(config: &Config) -> Result<Http> {
        // Fails where a provider is installed already: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let urls = [config.api_url.clone(), config.auth_url.clone()];
        if !urls.iter().all(is_loopback) {
            proxy::check()?;
        }
        let blueprint = Blueprint { user_agent: config.user_agent.clone(), urls, keeps_alive: true };
        Ok(Http {
            direct: blueprint.client(true)?,
            remote: blueprint.client(false)?,
            blueprint,
            background: start_background()?,
            timeout: config.request_timeout,
            max_answer: config.max_answer,
            client_secret: config.client_secret.clone(),
        })
    }

    /// Keeps connections alive from now on, or closes all that are idle and makes a new one for each request.
    pub fn keep_alive(&mut self, keeps_alive: bool) {
        let blueprint = Blueprint { keeps_alive, ..self.blueprint.clone() };
        // Ignore the error: the old clients still work.
        if self.blueprint.keeps_alive != keeps_alive
            && let (Ok(direct), Ok(remote)) = (blueprint.client(true), blueprint.client(false))
        {
            (self.direct, self.remote, self.blueprint) = (direct, remote, blueprint);
        }
    }

    /// A POST of a form (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// When the settings name no URL of this kind, loopback or not.
    pub fn form(&self, endpoint: &'static str, url: &Url, fields: &[(&str, &str)]) -> Result<Call> {
        let request = self.client(url)?.post(url.clone()).form(fields);
        let call = self.call(endpoint, url, request, self.client_secret.clone());
        Ok(Call { max_answer: MAX_TOKEN_ANSWER, ..call })
    }

    /// A POST of a JSON document, authorized by a bearer token (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// When the settings name no URL of this kind, loopback or not.
    pub fn json(
        &self,
        endpoint: &'static str,
        url: &Url,
        document: &impl Serialize,
        token: &SecretString,
    ) -> Result<Call> {
        let request = self.client(url)?.post(url.clone()).bearer_auth(token.expose_secret()).json(document);
        Ok(self.call(endpoint, url, request, token.clone()))
    }

    /// A GET, authorized by a bearer token.
    ///
    /// # Errors
    /// When the settings name no URL of this kind, loopback or not.
    pub fn get(&self, endpoint: &'static str, url: &Url, token: &SecretString) -> Result<Call> {
        let request = self.client(url)?.get(url.clone()).bearer_auth(token.expose_secret());
        Ok(self.call(endpoint, url, request, token.clone()))
    }

    fn client(&self, url: &Url) -> Result<&Client> {
        let client = if is_loopback(url) { &self.direct } else { &self.remote };
        client.as_ref().with_context(|| format!("no client for {}", host(url)))
    }

    fn call(&self, endpoint: &'static str, url: &Url, request: RequestBuilder, secret: SecretString) -> Call {
        Call {
            endpoint,
            host: host(url),
            // On the request and not on the client: only so it bounds the whole exchange, to the last byte.
            request: request.timeout(self.timeout),
            background: self.background.clone(),
            timeout: self.timeout,
            max_answer: self.max_answer,
            secrets: [self.client_secret.clone(), secret],
        }
    }

    /// The error about a body that quotes it, without the client's secret and the token: a server may have sent them back.
    pub fn invalid_body(&self, problem: &str, token: &SecretString) -> HttpError {
        HttpError::InvalidBody(redact(&[self.client_secret.clone(), token.clone()], problem))
    }
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub struct Call {
    endpoint: &'static str,
    host: String,
    request: RequestBuilder,
    background: Sender<Job>,
    timeout: Duration,
    /// The most that the answer may hold, in bytes, decompressed.
    max_answer: usize,
    /// What the answer's text must not reveal if the server sends it back.
    secrets: [SecretString; 2],
}

impl Call {
    /// Sends the request and waits for the whole answer, whatever happens meanwhile. A proxy that does not let it through is not
    /// asked why: nothing could end that wait, and the next request asks.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn send(self) -> Result<Answer, HttpError> {
        self.exchange(None)
    }

    fn exchange(self, ask_proxy_until: Option<Instant>) -> Result<Answer, HttpError> {
        let started = Instant::now();
        let Call { endpoint, host, request, timeout, max_answer, secrets, .. } = self;
        let mut status = None;
        let no_answer = |error| diagnose(&host, timeout, error, ask_proxy_until);
        let answer = request.send().map_err(no_answer).and_then(|response| {
            status = Some(response.status().as_u16());
            if !response.status().is_success() {
                return Err(refusal(&host, response, &secrets));
            }
            let first_byte = started.elapsed();
            let body = read_body(response, max_answer, &host, timeout)?;
            let timing = Timing { first_byte, transfer: started.elapsed() - first_byte };
            Ok(Answer { body, timing, arrived: Timestamp::now() })
        });
        metrics::http_request(endpoint, status, started.elapsed());
        answer
    }

    /// Sends the request and waits for the whole answer, but no longer than until a stop is asked for. Only for
    /// requests that change nothing: whether an abandoned one was served stays unknown.
    ///
    /// # Errors
    /// [`HttpError`] or [`crate::shutdown::Stopped`].
    pub fn send_until(self, stop: &Shutdown) -> Result<Answer> {
        stop.check()?;
        if stop.is_deferred() {
            // Not on the background thread: a request that the stop has abandoned may still keep it busy.
            return Ok(self.send()?);
        }
        self.start(Duration::ZERO).wait(stop)
    }

    /// Sends the request after a pause, on the background thread.
    pub fn start(self, pause: Duration) -> Pending {
        let (answered, answer) = bounded(1);
        let (host, background) = (self.host.clone(), self.background.clone());
        // If the thread is gone, `answered` is dropped, and `wait` returns an error.
        let _ = background.send(Box::new(move || {
            thread::sleep(pause);
            // Ignore that nobody waits any more: a stop has abandoned the request.
            let deadline = Instant::now() + self.timeout;
            let _ = answered.send(self.exchange(Some(deadline)));
        }));
        Pending { host, answer }
    }
}

/// Reads the body of an answer, but no more than `max` bytes: decompressed, an answer may be endless.
fn read_body(mut response: Response, max: usize, host: &str, timeout: Duration) -> Result<Bytes, HttpError> {
    let length = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    // One byte more than the body holds, so that its end is seen without growing the buffer.
    let mut body = Vec::with_capacity(length.min(max) + 1);
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    response.by_ref().take(limit).read_to_end(&mut body).map_err(|error| transfer_failure(host, timeout, error))?;
    if body.len() > max {
        return Err(HttpError::TooLarge { host: host.to_owned(), max });
    }
    Ok(body.into())
}

/// A request for the background thread.
type Job = Box<dyn FnOnce() + Send>;

/// Starts the background thread. It sends one request after the other. If a mark needs a new token while the next page is under
/// way, the token waits for the page. An abandoned request is the thread's last one, and ends with the process.
fn start_background() -> Result<Sender<Job>> {
    let (jobs, queue) = unbounded::<Job>();
    let serve = move || queue.into_iter().for_each(|job| job());
    thread::Builder::new().name("background".to_owned()).spawn(serve).context("start a thread")?;
    Ok(jobs)
}

/// A request that is under way.
#[derive(Debug)]
pub struct Pending {
    host: String,
    answer: Receiver<Result<Answer, HttpError>>,
}

impl Pending {
    /// Waits for the whole answer, but no longer than until a stop is asked for.
    ///
    /// # Errors
    /// [`HttpError`] or [`crate::shutdown::Stopped`].
    pub fn wait(self, stop: &Shutdown) -> Result<Answer> {
        let answer = select! {
            recv(self.answer) -> answer => answer,
            recv(stop.requested()) -> _ => {
                stop.check()?;
                self.answer.recv()
            }
        };
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                let reason = "the request was given up".to_owned();
                Err(HttpError::CutOff { host: self.host, reason, has_begun: false }.into())
            }
        }
    }
}
