//! One door for all requests: the only file that imports reqwest.
//!
//! A request is sent once; whether and when to send it again is for [`crate::retry`] to say. Neither an error nor a log
//! line holds a URL's query, a header or a secret.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use url::Url;

use crate::config::Config;
use crate::logging;
use crate::settings::is_loopback;
use crate::shutdown::{NOTICE, Shutdown};

/// How much of a refusal's text is quoted, in characters.
const QUOTED: usize = 300;

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection, or none in time.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The host and port of the URL.
        host: String,
        /// What the operating system or the TLS library says.
        reason: String,
    },
    /// The answer did not come within `requestTimeoutSeconds`.
    #[error("{host} did not answer within {} s", timeout.as_secs())]
    TimedOut {
        /// The host and port of the URL.
        host: String,
        /// The limit that was set.
        timeout: Duration,
    },
    /// The connection ended before the answer did, or the answer cannot be decoded.
    #[error("the answer of {host} was cut off: {reason}")]
    CutOff {
        /// The host and port of the URL.
        host: String,
        /// What the HTTP library says.
        reason: String,
    },
    /// The answer is complete, but its body is not what it has to be.
    #[error("{0}")]
    Unreadable(String),
    /// An answer that is no success (RFC 9110 section 15).
    #[error("{host} answers {status}{text}")]
    Status {
        /// The host and port of the URL.
        host: String,
        /// The status code.
        status: u16,
        /// What `Retry-After` asks for (RFC 9110 section 10.2.3).
        retry_after: Option<Duration>,
        /// Where the answer points to and what it says, shortened, without secrets.
        text: String,
    },
}

impl HttpError {
    /// The status code of an answer that is no success.
    pub fn status(&self) -> Option<u16> {
        match self {
            HttpError::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the service may have done what it was asked for.
    pub fn may_be_served(&self) -> bool {
        match self {
            HttpError::Unreachable { .. } => false,
            HttpError::TimedOut { .. } | HttpError::CutOff { .. } | HttpError::Unreadable(_) => true,
            HttpError::Status { status, .. } => *status >= 500,
        }
    }
}

/// The HTTP client: keep-alive, gzip, the system's proxy and certificates, no redirects, no retries of its own.
#[derive(Debug, Clone)]
pub struct Http {
    /// For this machine itself: a proxy would see what goes there unencrypted.
    direct: Option<Client>,
    /// For all other machines.
    remote: Option<Client>,
    /// Where requests go that a stop may abandon.
    aside: Sender<Job>,
    timeout: Duration,
    /// The client's secret, which must not get into a message if a server sends it back.
    client_secret: SecretString,
}

impl Http {
    /// Makes the client that the settings ask for.
    ///
    /// # Errors
    /// When the system's certificates cannot be loaded, or the operating system has no thread.
    pub fn new(config: &Config) -> Result<Http> {
        // Fails where a provider is installed already: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let urls = [&config.api_url, &config.auth_url];
        let (near, far): (Vec<&Url>, Vec<&Url>) = urls.into_iter().partition(|url| is_loopback(url));
        let client = |is_near: bool| -> Result<Client> {
            let builder = Client::builder()
                .user_agent(&config.user_agent)
                .timeout(None)
                .redirect(Policy::none())
                .referer(false)
                .retry(reqwest::retry::never());
            let builder = if is_near { builder.no_proxy() } else { builder };
            // To load the system's certificates takes longer than all else, and plain HTTP has no use for them.
            let is_plain = is_near && near.iter().all(|url| url.scheme() == "http");
            let builder = if is_plain { builder.tls_certs_only([]) } else { builder };
            builder.build().context("set up HTTPS with the system's certificates")
        };
        Ok(Http {
            direct: (!near.is_empty()).then(|| client(true)).transpose()?,
            remote: (!far.is_empty()).then(|| client(false)).transpose()?,
            aside: start_aside()?,
            timeout: config.request_timeout,
            client_secret: config.client_secret.clone(),
        })
    }

    /// A POST of a form (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// When the URL is of no host that the settings name.
    pub fn form(&self, endpoint: &'static str, url: &Url, fields: &[(&str, &str)]) -> Result<Call> {
        let request = self.client(url)?.post(url.clone()).form(fields);
        Ok(self.call(endpoint, url, request, self.client_secret.clone()))
    }

    /// A POST of a JSON document, authorized by a bearer token (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// When the URL is of no host that the settings name.
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
    /// When the URL is of no host that the settings name.
    pub fn get(&self, endpoint: &'static str, url: &Url, token: &SecretString) -> Result<Call> {
        let request = self.client(url)?.get(url.clone()).bearer_auth(token.expose_secret());
        Ok(self.call(endpoint, url, request, token.clone()))
    }

    /// Opens a connection, for a later request to find it open, by a GET whose answer is thrown away. Does not wait for it, and
    /// warns of no failure: the later request will meet it too.
    pub fn open(&self, endpoint: &'static str, url: &Url) {
        let Ok(client) = self.client(url) else { return };
        let call = self.call(endpoint, url, client.get(url.clone()), self.client_secret.clone());
        let _ = thread::Builder::new().name("open".to_owned()).spawn(move || drop(call.send()));
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
            aside: self.aside.clone(),
            timeout: self.timeout,
            secrets: [self.client_secret.clone(), secret],
        }
    }

    /// The text without the client's secret and the token, should a server have sent them back.
    pub fn without_secrets(&self, text: &str, token: &SecretString) -> String {
        without(&[self.client_secret.clone(), token.clone()], text)
    }
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub struct Call {
    endpoint: &'static str,
    host: String,
    request: RequestBuilder,
    aside: Sender<Job>,
    timeout: Duration,
    /// What the answer's text must not reveal if the server sends it back.
    secrets: [SecretString; 2],
}

impl Call {
    /// Sends the request and waits for the whole answer, whatever happens meanwhile.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn send(self) -> Result<Bytes, HttpError> {
        let started = Instant::now();
        let Call { endpoint, host, request, timeout, secrets, .. } = self;
        let failed = |error: reqwest::Error| failure(&host, timeout, error);
        let mut status = None;
        let answer = request.send().map_err(failed).and_then(|response| {
            status = Some(response.status().as_u16());
            if response.status().is_success() {
                response.bytes().map_err(failed)
            } else {
                Err(refusal(&host, response, &secrets))
            }
        });
        logging::http_request(endpoint, status, started.elapsed());
        answer
    }

    /// Sends the request and waits for the whole answer, but no longer than until a stop is asked for. Only for
    /// requests that change nothing: whether an abandoned one was served stays unknown.
    ///
    /// # Errors
    /// [`HttpError`] or [`crate::shutdown::Stopped`].
    pub fn send_until(self, stop: &Shutdown) -> Result<Bytes> {
        stop.check()?;
        self.start(Duration::ZERO).wait(stop)
    }

    /// Sends the request after a pause, on a thread of its own.
    pub fn start(self, pause: Duration) -> Pending {
        let (answered, answer) = mpsc::sync_channel(1);
        let (host, aside) = (self.host.clone(), self.aside.clone());
        // Where the thread is gone, so is `answered`: waiting tells.
        let _ = aside.send(Job { call: self, pause, answered });
        Pending { host, answer }
    }
}

/// A request for the thread that sends those that a stop may abandon.
#[derive(Debug)]
struct Job {
    call: Call,
    pause: Duration,
    answered: SyncSender<Result<Bytes, HttpError>>,
}

/// Starts that thread. It sends one request after the other: where a mark needs a new token while the next page is on its
/// way, the token waits for the page. An abandoned request is its last one, and ends with the process.
fn start_aside() -> Result<Sender<Job>> {
    let (jobs, queue) = mpsc::channel::<Job>();
    let serve = move || {
        for Job { call, pause, answered } in queue {
            thread::sleep(pause);
            // Nobody may be waiting any more.
            let _ = answered.send(call.send());
        }
    };
    thread::Builder::new().name("aside".to_owned()).spawn(serve).context("start a thread")?;
    Ok(jobs)
}

/// A request that is under way.
#[derive(Debug)]
pub struct Pending {
    host: String,
    answer: Receiver<Result<Bytes, HttpError>>,
}

impl Pending {
    /// Waits for the whole answer, but no longer than until a stop is asked for.
    ///
    /// # Errors
    /// [`HttpError`] or [`crate::shutdown::Stopped`].
    pub fn wait(self, stop: &Shutdown) -> Result<Bytes> {
        loop {
            match self.answer.recv_timeout(NOTICE) {
                Ok(answer) => return Ok(answer?),
                Err(RecvTimeoutError::Timeout) => stop.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "the request was given up".to_owned();
                    return Err(HttpError::CutOff { host: self.host, reason }.into());
                }
            }
        }
    }
}

/// The host and port of a URL, to name it in a message.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn failure(host: &str, timeout: Duration, error: reqwest::Error) -> HttpError {
    let host = host.to_owned();
    if error.is_timeout() {
        return HttpError::TimedOut { host, timeout };
    }
    let unreachable = error.is_connect();
    let reason = innermost(&error.without_url());
    if unreachable { HttpError::Unreachable { host, reason } } else { HttpError::CutOff { host, reason } }
}

/// What the cause at the bottom says: the layers above it only say that something failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    logging::one_line(&cause.to_string())
}

fn refusal(host: &str, response: Response, secrets: &[SecretString]) -> HttpError {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let mut text = String::new();
    if let Some(location) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()) {
        // A query may hold what is nobody's business.
        let location = location.split(['?', '#']).next().unwrap_or_default();
        text = format!(", pointing to {}", without(secrets, location));
    }
    // The status decides; a text that cannot be read adds nothing.
    let body = response.bytes().unwrap_or_default();
    let said = without(secrets, &String::from_utf8_lossy(&body));
    let said = logging::one_line(said.trim());
    if !said.is_empty() {
        let end = if said.chars().nth(QUOTED).is_some() { "…" } else { "" };
        text = format!("{text}: {}{end}", said.chars().take(QUOTED).collect::<String>());
    }
    HttpError::Status { host: host.to_owned(), status, retry_after, text }
}

/// The text without the secrets, in any of the forms that they are sent in: plain, in a form and in JSON.
fn without(secrets: &[SecretString], text: &str) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().map(ExposeSecret::expose_secret) {
        let in_form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let in_json = serde_json::Value::from(secret).to_string();
        for form in [secret, &in_form, in_json.trim_matches('"')] {
            text = text.replace(form, "[secret]");
        }
    }
    text
}

/// How long `Retry-After` asks to wait: seconds, or a date (RFC 9110 section 10.2.3). A date gone by means no wait.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:48:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_secret_is_taken_out_in_every_form() {
        let secret = [SecretString::from("pa/s\"s wörd")];
        let text = "x=pa%2Fs%22s+w%C3%B6rd {\"a\":\"pa/s\\\"s wörd\"} pa/s\"s wörd";
        assert_eq!(without(&secret, text), "x=[secret] {\"a\":\"[secret]\"} [secret]");
    }

    #[test]
    fn a_host_goes_with_its_port_and_without_path() {
        assert_eq!(host(&Url::parse("https://me:pw@example.com/a?b").unwrap()), "example.com");
        assert_eq!(host(&Url::parse("http://[::1]:8080/a").unwrap()), "[::1]:8080");
    }
}
