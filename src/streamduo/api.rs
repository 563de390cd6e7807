//! One stream of the StreamDuo API. Each request is sent once.

use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use secrecy::SecretString;
use url::Url;

use super::auth::TokenSource;
use super::distance::Distance;
use super::http::{Answer, Http};
use super::http_error::{HttpError, may_have_been_applied};
use super::request::{RecordRequest, remedy};
use super::retry::RetryPolicy;
use super::{Count, Marked, Overlap, Queue};
use crate::config::Config;
use crate::record::{Delivered, InvalidBody, Page, Peeked};
use crate::shutdown::Shutdown;

/// One stream of the service.
#[derive(Debug)]
pub struct Api {
    pub(super) http: Http,
    pub(super) tokens: TokenSource,
    pub(super) stream_id: String,
    pub(super) base: Url,
    /// Where record-requests go.
    url: Url,
    distance: Distance,
    /// Whether `deadLetterFile` takes records without an identity.
    puts_aside: bool,
    /// For requests beside the queue: the queue's own are repeated by a decorator.
    pub(super) policy: RetryPolicy,
    pub(super) stop: Shutdown,
}

impl Api {
    /// The stream that the settings name.
    ///
    /// # Errors
    /// When `apiUrl` cannot take a path.
    pub fn new(config: &Config, http: Http, stop: &Shutdown) -> Result<Api> {
        Ok(Api {
            tokens: TokenSource::new(config, stop.clone()),
            http,
            stream_id: config.stream_id.clone(),
            url: url_of(&config.api_url, &["stream", &config.stream_id, "record-request"])?,
            base: config.api_url.clone(),
            distance: Distance::new(),
            puts_aside: config.dead_letter_file.is_some(),
            policy: RetryPolicy::new(config.max_retries),
            stop: stop.clone(),
        })
    }

    /// Sends a record-request, and parses the answer.
    pub(super) fn page(&mut self, request: RecordRequest<'_>) -> Result<Page> {
        self.request(request, |answer| parse(answer, request))
    }

    /// The page that a peek has shown.
    fn peeked(&self, page: Page) -> Result<Peeked, InvalidBody> {
        if self.puts_aside { Ok(Peeked::with_odd_records(page)) } else { Peeked::new(page) }
    }

    /// Sends a record-request, and learns from its answer how far away the service is.
    fn request(
        &mut self,
        request: RecordRequest<'_>,
        parse: impl FnOnce(Answer) -> Result<Page, InvalidBody>,
    ) -> Result<Page> {
        // A stop abandons a request that marks nothing. One that marks is waited for: its answer shows what was marked.
        let stop = (!request.mark_as_read).then_some(&self.stop);
        let (answer, token) = self.exchange(request, stop)?;
        self.distance.learn(answer.timing);
        parse(answer).map_err(|error| self.explain_body(error, &token))
    }

    /// Sends a record-request, and waits for the answer or a stop. A refused token is renewed once, for a refused request was not
    /// applied. Returns the token, too.
    pub(super) fn exchange(
        &self,
        request: RecordRequest<'_>,
        stop: Option<&Shutdown>,
    ) -> Result<(Answer, SecretString)> {
        let send = |token: &SecretString| {
            let call = self.http.json(request.name(), &self.url, &request, token)?;
            match stop {
                Some(stop) => call.send_until(stop),
                None => Ok(call.send()?),
            }
        };
        let mut token = self.tokens.bearer(&self.http)?;
        let mut answer = send(&token);
        if let Err(error) = &answer
            && error.downcast_ref().and_then(HttpError::status) == Some(401)
        {
            self.tokens.forget(&token);
            token = self.tokens.bearer(&self.http)?;
            answer = send(&token);
        }
        Ok((answer.map_err(|error| self.explain(request, error))?, token))
    }

    /// The error about an answer that is not a page. It may quote the answer, without the token.
    pub(super) fn explain_body(&self, error: InvalidBody, token: &SecretString) -> anyhow::Error {
        match error {
            InvalidBody::NotJson(..) => self.http.invalid_body(&error.to_string(), token).into(),
            other => other.into(),
        }
    }

    /// Adds what to do about it.
    fn explain(&self, request: RecordRequest<'_>, error: Error) -> Error {
        let Some(cause) = error.downcast_ref::<HttpError>() else { return error };
        let stream = &self.stream_id;
        let context = remedy(request, stream, cause).unwrap_or_else(|| format!("read stream {stream}"));
        error.context(context)
    }
}

pub(super) fn parse(answer: Answer, request: RecordRequest<'_>) -> Result<Page, InvalidBody> {
    Ok(Page::parse(answer.body, request.record_count)?.timed(answer.timing).arrived_at(answer.arrived))
}

/// Makes the error of a `take` that may have been applied final: as a text only, nobody takes it for transient, or for one that
/// fewer records would mend.
fn final_if_applied(error: Error) -> Error {
    if !may_have_been_applied(&error) {
        return error;
    }
    anyhow!("the records of this request may be marked as read, and lost (`acknowledge` is `read`): {error:#}")
}

/// The URL of a path below the API's base.
pub(super) fn url_of(base: &Url, path: &[&str]) -> Result<Url> {
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| anyhow!("`apiUrl` cannot take a path: {base}"))?.pop_if_empty().extend(path);
    Ok(url)
}

impl Queue for Api {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        let page = self.page(RecordRequest::unread(count.max(), false))?;
        Ok(self.peeked(page)?)
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        let request = RecordRequest::unread(delivered.count(), true);
        match self.request(request, |answer| delivered.parse_marked(answer.body)) {
            Ok(page) => {
                self.http.keep_alive(true);
                Ok(Marked::Answered(page))
            }
            Err(error) => {
                // An answer that is not a page counts as lost: the mark has been applied.
                let error = match error.downcast::<InvalidBody>() {
                    Ok(invalid) => HttpError::InvalidBody(invalid.to_string()).into(),
                    Err(error) => error,
                };
                if may_have_been_applied(&error) {
                    // The server may close idle connections: the next mark must not be sent on one of them, too.
                    self.http.keep_alive(false);
                }
                Err(error)
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        self.page(RecordRequest::unread(count, true)).map_err(final_if_applied)
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page> {
        self.page(RecordRequest::since(timestamp, count.max()))
    }

    fn versions(&mut self, record_id: &str, count: usize) -> Result<Page> {
        self.page(RecordRequest::single(record_id, count, false))
    }
}

impl Overlap for Api {
    fn mark_and_peek(
        &mut self,
        delivered: Delivered,
        count: Count,
        head_start: Duration,
    ) -> (Result<Marked>, Option<Result<Peeked>>) {
        if !self.distance.is_long_for(head_start) {
            return (self.mark(delivered), None);
        }
        let peek = RecordRequest::unread(count.max(), false);
        let ahead = self
            .tokens
            .bearer(&self.http)
            .and_then(|token| Ok(self.http.json(peek.name(), &self.url, &peek, &token)?.start(head_start)));
        let marked = self.mark(delivered);
        let ahead = ahead.and_then(|ahead| ahead.wait(&self.stop));
        (marked, Some(ahead.and_then(|answer| Ok(self.peeked(parse(answer, peek)?)?))))
    }
}
