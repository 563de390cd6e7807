//! One stream of the StreamDuo API. Each request is sent once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use secrecy::SecretString;
use url::Url;

use super::auth::Token;
use super::http::{self, Answer, Http};
use super::http_error::{Failure, HttpError};
use super::request::{RecordRequest, remedy};
use super::retry::Retry;
use super::service::{MarkedAndPeeked, Service};
use crate::config::Config;
use crate::record::{Delivered, Fingerprint, Page};
use crate::shutdown::Shutdown;

/// How many marks by id are sent at once.
const SINGLES_AT_ONCE: usize = 8;

/// One stream of the service.
#[derive(Debug)]
pub struct Api {
    pub(super) http: Http,
    /// Where record-requests go.
    url: Url,
    pub(super) token: Mutex<Option<Token>>,
    /// For requests that do not go through the queue: [`super::Queue`] repeats the others.
    pub(super) policy: Retry,
    pub(super) stop: Shutdown,
}

impl Api {
    /// The stream that the settings name.
    ///
    /// # Errors
    /// [`crate::config::Invalid`] when there is no CA certificate to trust, or the proxy's variable
    /// cannot be used. When `apiUrl` cannot take a path.
    pub fn new(config: &Config, policy: Retry, stop: &Shutdown) -> Result<Api> {
        let http = Http::new(config)?;
        let url = url_of(&config.api_url, &["stream", &config.stream_id, "record-request"])?;
        Ok(Api { http, url, token: Mutex::default(), policy, stop: stop.clone() })
    }

    /// Sends a record-request, and reads the answer.
    pub(super) fn page(&self, request: RecordRequest<'_>) -> Result<Page, Failure> {
        read(self.exchange(request)?, |body| Page::parse(body, request.record_count))
    }

    /// Sends a record-request, and waits for the answer. A stop abandons a request that marks
    /// nothing; the answer to a mark shows what was marked.
    fn exchange(&self, request: RecordRequest<'_>) -> Result<Answer, Failure> {
        let send = |token: &SecretString| {
            let call = self.http.json(request.name, &self.url, &request, token);
            if request.mark_as_read { Ok(call()?) } else { self.http.send_until(call, &self.stop) }
        };
        self.with_token(request.record_count, &self.http.config.scope, send)
    }

    /// Sends a request with a token; a failure says what to do about it. A token that is refused is
    /// renewed once: the request was not applied. The new one is kept, even if it is refused, too:
    /// it may be valid a little later. If it is not, the token endpoint may have handed out an old
    /// one, and the next try fetches another.
    pub(super) fn with_token(
        &self,
        record_count: usize,
        scope: &str,
        send: impl Fn(&SecretString) -> Result<Answer, Failure>,
    ) -> Result<Answer, Failure> {
        let token = || if scope == self.http.config.scope { self.bearer() } else { Ok(self.fetch_token(scope)?.0) };
        let first = token()?;
        let answer = match send(&first) {
            Err(failure) if matches!(failure.http_error(), Some(HttpError::Status { status: 401 | 403, .. })) => {
                self.forget(&first);
                token().and_then(|token| send(&token))
            }
            answer => answer,
        };
        answer.map_err(|failure| failure.with_remedy(|error| remedy(record_count, &self.http.config.stream_id, error)))
    }
}

/// Reads an answer. What is not a page may come from a gateway, and another try may help.
fn read(answer: Answer, parse: impl FnOnce(Bytes) -> Result<Page>) -> Result<Page, Failure> {
    let timing = answer.timing;
    let mut page = parse(answer.body.clone()).map_err(|error| {
        let remedy = "check `apiUrl`, or ask the service's operator".to_owned();
        Failure::Http(answer.is_not(&error.to_string()), Some(remedy))
    })?;
    page.timing = timing;
    Ok(page)
}

/// The URL of a path below the API's base.
pub(super) fn url_of(base: &Url, path: &[&str]) -> Result<Url> {
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| anyhow!("`apiUrl` cannot take a path: {base}"))?.pop_if_empty().extend(path);
    Ok(url)
}

impl Service for Api {
    fn peek(&mut self, count: usize) -> Result<Page, Failure> {
        self.page(RecordRequest::peek(count))
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Page, Failure> {
        let answer = self
            .exchange(RecordRequest::mark(delivered.count()))
            .and_then(|answer| read(answer, |body| delivered.parse_marked(body)));
        match &answer {
            Ok(_) => self.http.keeps_alive = true,
            // The server may close idle connections. If one is left, the peek before the next mark
            // uses it up, and a peek can be repeated.
            Err(failure) if failure.may_have_been_applied() => self.http.keeps_alive = false,
            Err(_) => {}
        }
        answer
    }

    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page, Failure> {
        self.page(RecordRequest::since(timestamp, count))
    }

    fn mark_and_peek(&mut self, delivered: Delivered, count: usize, head_start: Duration) -> MarkedAndPeeked {
        let request = RecordRequest::peek(count);
        let pending = self.bearer().map(|token| {
            let call = self.http.json(request.name, &self.url, &request, &token);
            self.http.start(call, head_start)
        });
        let marked = self.mark(delivered);
        let peeked = pending.and_then(|pending| {
            let answer = http::wait(&pending, &self.stop)?;
            read(answer, |body| Page::parse(body, count))
        });
        (marked, peeked)
    }

    fn mark_singles(&mut self, records: &[(String, Fingerprint)]) -> Vec<(usize, Result<Page, Failure>)> {
        // Before there are threads: each of them would wait for a token that does not come.
        let ready = self.stop.check().map_err(Failure::from).and_then(|()| self.bearer());
        if let Err(failure) = ready {
            return vec![(0, Err(failure))];
        }
        let api = &*self;
        let next = AtomicUsize::new(0);
        let answers = Mutex::new(BTreeMap::new());
        let send = || {
            // A stop is looked for between two requests. The answer to one that is under way shows
            // what was marked.
            while api.stop.check().is_ok() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((record_id, record)) = records.get(index) else { break };
                let answer = api.page(RecordRequest::mark_single(record_id));
                if !answer.as_ref().is_ok_and(|page| page.fingerprints().eq([*record])) {
                    next.store(records.len(), Ordering::Relaxed);
                }
                answers.lock().unwrap_or_else(PoisonError::into_inner).insert(index, answer);
            }
        };
        scope(|scope| {
            for _ in 1..SINGLES_AT_ONCE.min(records.len()) {
                // If one of these threads cannot be started, it takes longer.
                let _ = Builder::new().name("single".to_owned()).spawn_scoped(scope, send);
            }
            send();
        });
        answers.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }
}
