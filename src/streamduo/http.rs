//! The HTTP client. Only this file and `diagnose.rs` import reqwest.
//!
//! A request is sent once. Neither an error nor a log line holds a URL's query, a header or a
//! secret.

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

use super::diagnose::{diagnose, host, refusal, transfer_failure};
use super::http_error::{Failure, HttpError};
use super::{certificate, proxy};
use crate::config::{Config, Invalid};
use crate::metrics;
use crate::record::Timing;
use crate::shutdown::Shutdown;

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

/// The HTTP client: keep-alive, gzip, the system's proxy and certificates, no redirects, no retries
/// of its own.
#[derive(Debug)]
pub struct Http {
    /// For this machine itself, where a proxy would see what goes there unencrypted, and for what
    /// `NO_PROXY` lists.
    near: Client,
    /// For all other machines.
    far: Client,
    keeps_alive: bool,
    urls: [Url; 2],
    user_agent: String,
    /// Sends the requests that a stop may abandon.
    background: Sender<Job>,
    timeout: Duration,
    max_answer: usize,
    /// It must not get into a message if a server sends it back.
    client_secret: SecretString,
}

impl Http {
    /// Makes the client that the settings ask for.
    ///
    /// # Errors
    /// [`Invalid`] when there is no CA certificate to trust, or the proxy's variable cannot be used.
    pub fn new(config: &Config) -> Result<Http> {
        // Fails if a provider is installed already: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let urls = [config.api_url.clone(), config.auth_url.clone()];
        if !urls.iter().all(proxy::is_direct) {
            proxy::check()?;
        }
        let (near, far) = clients(&urls, &config.user_agent, true)?;
        Ok(Http {
            near,
            far,
            keeps_alive: true,
            urls,
            user_agent: config.user_agent.clone(),
            background: start_background()?,
            timeout: config.request_timeout,
            max_answer: config.max_answer,
            client_secret: config.client_secret.clone(),
        })
    }

    /// Keeps connections alive from now on, or closes all that are idle and makes a new one for each
    /// request.
    pub fn keep_alive(&mut self, keeps_alive: bool) {
        // Ignore the error: the old clients still work.
        if self.keeps_alive != keeps_alive
            && let Ok((near, far)) = clients(&self.urls, &self.user_agent, keeps_alive)
        {
            self.near = near;
            self.far = far;
            self.keeps_alive = keeps_alive;
        }
    }

    /// A POST of a form (`application/x-www-form-urlencoded`) to the token endpoint.
    pub fn form(&self, endpoint: &'static str, url: &Url, fields: &[(&str, &str)]) -> Call {
        let request = self.client(url).post(url.clone()).form(fields);
        self.call(endpoint, url, request, None)
    }

    /// A POST of a JSON document, authorized by a bearer token (RFC 6750 section 2.1).
    pub fn json(&self, endpoint: &'static str, url: &Url, document: &impl Serialize, token: &SecretString) -> Call {
        let request = self.client(url).post(url.clone()).bearer_auth(token.expose_secret()).json(document);
        self.call(endpoint, url, request, Some(self.secrets(token)))
    }

    /// A GET, authorized by a bearer token.
    pub fn get(&self, endpoint: &'static str, url: &Url, token: &SecretString) -> Call {
        let request = self.client(url).get(url.clone()).bearer_auth(token.expose_secret());
        self.call(endpoint, url, request, Some(self.secrets(token)))
    }

    /// What a message must not hold.
    pub fn secrets(&self, token: &SecretString) -> [SecretString; 2] {
        [self.client_secret.clone(), token.clone()]
    }

    fn client(&self, url: &Url) -> &Client {
        if proxy::is_direct(url) { &self.near } else { &self.far }
    }

    fn call(
        &self,
        endpoint: &'static str,
        url: &Url,
        request: RequestBuilder,
        secrets: Option<[SecretString; 2]>,
    ) -> Call {
        Call {
            endpoint,
            host: host(url),
            // On the request and not on the client: only so it bounds the whole exchange.
            request: request.timeout(self.timeout),
            background: self.background.clone(),
            timeout: self.timeout,
            max_answer: self.max_answer,
            secrets,
        }
    }
}

/// A client for the URLs that no proxy is between, and one for the others.
fn clients(urls: &[Url], user_agent: &str, keeps_alive: bool) -> Result<(Client, Client)> {
    let (near, far): (Vec<&Url>, Vec<&Url>) = urls.iter().partition(|url| proxy::is_direct(url));
    let build = |urls: &[&Url], is_near: bool| {
        let mut builder = Client::builder()
            .user_agent(user_agent)
            .timeout(None)
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never());
        if is_near {
            builder = builder.no_proxy();
        }
        if !keeps_alive {
            builder = builder.pool_max_idle_per_host(0);
        }
        // To load the system's certificates takes longer than all else, and plain HTTP has no use
        // for them.
        if is_near && urls.iter().all(|url| url.scheme() == "http") {
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(|error| match certificate::no_trusted_ca(&error) {
            Some(problem) => Invalid::new(problem).into(),
            None => Error::new(error).context("set up HTTPS"),
        })
    };
    let near = build(&near, true)?;
    let far = if far.is_empty() { near.clone() } else { build(&far, false)? };
    Ok((near, far))
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
    /// What the answer's text must not reveal; `None` at the token endpoint.
    secrets: Option<[SecretString; 2]>,
}

impl Call {
    /// Sends the request and waits for the whole answer, whatever happens meanwhile.
    pub fn send(self) -> Result<Answer, HttpError> {
        let started = Instant::now();
        let Call { endpoint, host, request, timeout, max_answer, secrets, .. } = self;
        let mut status = None;
        let no_answer = |error| diagnose(&host, timeout, error);
        let answer = request.send().map_err(no_answer).and_then(|response| {
            status = Some(response.status().as_u16());
            if !response.status().is_success() {
                return Err(refusal(&host, response, secrets.as_ref().map(|secrets| &secrets[..])));
            }
            let first_byte = started.elapsed();
            let body = read_body(response, max_answer, &host, timeout)?;
            let timing = Timing { first_byte, transfer: started.elapsed() - first_byte };
            Ok(Answer { body, timing, arrived: Timestamp::now() })
        });
        metrics::http_request(endpoint, status, started.elapsed());
        answer
    }

    /// Sends the request and waits for the whole answer, but no longer than until a stop is asked
    /// for. Only for requests that change nothing: whether an abandoned one was served stays unknown.
    pub fn send_until(self, stop: &Shutdown) -> Result<Answer, Failure> {
        stop.check()?;
        if stop.is_deferred() {
            // Not on the background thread: an abandoned request may still keep it busy.
            return Ok(self.send()?);
        }
        self.start(Duration::ZERO).wait(stop)
    }

    /// Sends the request after a pause, on the background thread.
    pub fn start(self, pause: Duration) -> Pending {
        let (answered, answer) = bounded(1);
        let background = self.background.clone();
        // If the thread is gone, `answered` is dropped, and `wait` returns an error.
        let _ = background.send(Box::new(move || {
            thread::sleep(pause);
            // Ignore that nobody waits any more: a stop has abandoned the request.
            let _ = answered.send(self.send());
        }));
        Pending(answer)
    }
}

/// Reads the body of an answer, but no more than `max` bytes: decompressed, it may be endless.
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

/// Starts the background thread. It sends one request after the other. If a mark needs a new token
/// while the next page is under way, the token waits for the page. An abandoned request is the
/// thread's last one, and ends with the process.
fn start_background() -> Result<Sender<Job>> {
    let (jobs, queue) = unbounded::<Job>();
    let serve = move || queue.into_iter().for_each(|job| job());
    thread::Builder::new().name("background".to_owned()).spawn(serve).context("start a thread")?;
    Ok(jobs)
}

/// A request that is under way.
#[derive(Debug)]
pub struct Pending(Receiver<Result<Answer, HttpError>>);

impl Pending {
    /// Waits for the whole answer, but no longer than until a stop is asked for.
    pub fn wait(self, stop: &Shutdown) -> Result<Answer, Failure> {
        let answer = select! {
            recv(self.0) -> answer => answer,
            recv(stop.requested()) -> _ => {
                stop.check()?;
                self.0.recv()
            }
        };
        Ok(answer.context("the request was given up")??)
    }
}
