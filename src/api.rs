//! The StreamDuo API, as far as the tap needs it: peek, mark and take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use log::warn;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::auth::TokenSource;
use crate::config::Config;
use crate::http::{Http, HttpError};
use crate::record::{Delivered, NoPage, Page, Peeked};
use crate::retry::{Retry, retrying};
use crate::shutdown::Shutdown;

/// What the poll loop asks of the service, so that its tests can force every failure.
pub trait Queue {
    /// The `count` oldest unread records. Changes nothing, and is tried again when it fails.
    ///
    /// # Errors
    /// When the service keeps failing or refuses.
    fn peek(&mut self, count: usize) -> Result<Peeked>;

    /// Marks as many of the oldest unread records as were delivered: whichever they are at that moment. Sent once.
    ///
    /// # Errors
    /// When the service refuses, or answers have been lost too often in a row.
    fn mark(&mut self, delivered: Delivered) -> Result<Marked>;

    /// The same as a peek, tried once.
    ///
    /// # Errors
    /// When the service fails or refuses.
    fn try_peek(&mut self, count: usize) -> Result<Peeked>;

    /// Marks, and peeks at the next records meanwhile, where the way to the service is long enough for that to pay. The peek
    /// may overtake the mark, and show records that the mark then marks.
    fn mark_and_peek(&mut self, delivered: Delivered, count: usize) -> (Result<Marked>, Option<Result<Peeked>>);

    /// The `count` oldest unread records, marked as read in the same request: what is lost on its way is lost.
    ///
    /// # Errors
    /// When the service keeps failing or refuses.
    fn take(&mut self, count: usize) -> Result<Page>;

    /// Up to `count` records after a time stamp, read or not. Changes nothing, and is tried again when it fails.
    ///
    /// # Errors
    /// When the service keeps failing or refuses.
    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page>;
}

/// What is known of a mark.
#[derive(Debug)]
pub enum Marked {
    /// These records are marked now. The page behind it may hold others than the page that was delivered.
    Answered(Page),
    /// The answer was lost: it may have been applied, or not. The next peek tells.
    Unknown,
}

/// A record-request. All five keys are always sent, as the vendor's SDK does.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordRequest<'a> {
    read_record_request_type: &'static str,
    record_count: usize,
    record_id: Option<&'static str>,
    mark_as_read: bool,
    #[serde(rename = "recordTimeStampISO")]
    record_time_stamp_iso: Option<&'a str>,
}

impl<'a> RecordRequest<'a> {
    fn unread(record_count: usize, mark_as_read: bool) -> RecordRequest<'a> {
        RecordRequest {
            read_record_request_type: "UNREAD",
            record_count,
            record_id: None,
            mark_as_read,
            record_time_stamp_iso: None,
        }
    }

    fn since(timestamp: &'a str, record_count: usize) -> RecordRequest<'a> {
        RecordRequest {
            read_record_request_type: "READ_SINCE_TIMESTAMP",
            record_time_stamp_iso: Some(timestamp),
            ..RecordRequest::unread(record_count, false)
        }
    }

    fn last(record_count: usize) -> RecordRequest<'a> {
        RecordRequest { read_record_request_type: "LAST_N", ..RecordRequest::unread(record_count, false) }
    }

    /// What a log line calls it.
    fn name(self) -> &'static str {
        match (self.read_record_request_type, self.mark_as_read) {
            ("UNREAD", true) => "mark",
            ("UNREAD", false) => "peek",
            ("LAST_N", _) => "sample",
            _ => "look back",
        }
    }
}

/// From which round trip on a peek on a second connection saves more than it costs.
const LONG_WAY: Duration = Duration::from_millis(15);

/// How many round trips tell how long the way is: the shortest counts, for a busy machine makes each of them longer.
const TRIPS: usize = 3;

/// How far a peek lets the mark go ahead that is sent with it.
const HEAD_START: Duration = Duration::from_millis(1);

/// The scope that reading a stream's description needs; reading records does not.
const MANAGE_STREAMS: &str = "https://api.streamduo.com/manage:streams";

/// A schema that is registered for a stream.
#[derive(Debug, Deserialize)]
pub struct Schema {
    /// `JSON`, `AVRO` or `GREAT_EXPECTATIONS`.
    #[serde(rename = "schemaType")]
    pub kind: String,
    /// The schema itself, a string that holds JSON.
    #[serde(rename = "schema")]
    pub text: String,
}

/// What is read of a stream's description.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StreamDescription {
    active_schema_id: Option<String>,
}

/// One stream of the service.
#[derive(Debug)]
pub struct Api {
    http: Http,
    tokens: TokenSource,
    /// Tokens to read the stream's own description with.
    managing: TokenSource,
    stream_id: String,
    base: Url,
    /// Where record-requests go.
    url: Url,
    /// What opens a connection to the API, until it is asked for: nothing, where the one for the token leads there too.
    opening: Option<Url>,
    max_retries: usize,
    /// How many record-requests there were, and how long the shortest took.
    trips: usize,
    shortest_trip: Duration,
    /// The marks in a row whose answers were lost.
    lost_marks: Retry,
    stop: Shutdown,
}

impl Api {
    /// The stream that the settings name.
    ///
    /// # Errors
    /// When `apiUrl` cannot take a path.
    pub fn new(config: &Config, http: Http, stop: Shutdown) -> Result<Api> {
        let is_elsewhere = config.api_url.origin() != config.auth_url.origin();
        Ok(Api {
            tokens: TokenSource::new(config, &config.scope, http.clone(), stop.clone()),
            managing: TokenSource::new(config, MANAGE_STREAMS, http.clone(), stop.clone()),
            http,
            stream_id: config.stream_id.clone(),
            url: url_of(&config.api_url, &["stream", &config.stream_id, "record-request"])?,
            opening: is_elsewhere.then(|| url_of(&config.api_url, &["health"])).transpose()?,
            base: config.api_url.clone(),
            max_retries: config.max_retries,
            trips: 0,
            shortest_trip: Duration::MAX,
            lost_marks: Retry::new(config.max_retries),
            stop,
        })
    }

    /// Opens a connection to the API before the first token is fetched: that takes a request to another host, and time enough to
    /// shake hands with this one.
    fn open(&mut self) {
        if let Some(url) = self.opening.take() {
            self.http.open("health", &url);
        }
    }

    /// Sends a record-request once; a token that is refused is renewed once, for a refused request was not served.
    fn request(
        &mut self,
        request: RecordRequest<'_>,
        read: impl FnOnce(Bytes) -> Result<Page, NoPage>,
    ) -> Result<Page> {
        self.open();
        let mut token = self.tokens.bearer()?;
        let mut answer = self.send(request, &token);
        if let Err(error) = &answer
            && error.downcast_ref().and_then(HttpError::status) == Some(401)
        {
            self.tokens.forget();
            token = self.tokens.bearer()?;
            answer = self.send(request, &token);
        }
        let answer = answer.map_err(|error| self.explain(request, error))?;
        read(answer).map_err(|error| match error {
            NoPage::NotJson(..) => HttpError::Unreadable(self.http.without_secrets(&error.to_string(), &token)).into(),
            other => other.into(),
        })
    }

    /// The last records, read or not, without marking them.
    ///
    /// # Errors
    /// When the service keeps failing or refuses.
    pub fn last(&mut self, count: usize) -> Result<Page> {
        self.look(RecordRequest::last(count))
    }

    /// Sends a record-request that changes nothing, and sends it again when it fails.
    fn look(&mut self, request: RecordRequest<'_>) -> Result<Page> {
        let stop = self.stop.clone();
        retrying(self.max_retries, request.name(), &stop, || self.request(request, Page::parse))
    }

    /// The stream's active schema, if it has one.
    ///
    /// # Errors
    /// When it cannot be read: the client may lack the right to.
    pub fn active_schema(&mut self) -> Result<Option<Schema>> {
        self.open();
        let token = self.managing.bearer()?;
        let url = url_of(&self.base, &["stream", &self.stream_id])?;
        let description: StreamDescription = self.get("stream", &url, &token)?;
        let Some(id) = description.active_schema_id else { return Ok(None) };
        let token = self.tokens.bearer()?;
        let url = url_of(&self.base, &["streams", &self.stream_id, "schemas", &id, ""])?;
        Ok(Some(self.get("schema", &url, &token)?))
    }

    fn get<T: DeserializeOwned>(&self, endpoint: &'static str, url: &Url, token: &SecretString) -> Result<T> {
        retrying(self.max_retries, endpoint, &self.stop, || {
            let answer = self.http.get(endpoint, url, token)?.send_until(&self.stop)?;
            Ok(serde_json::from_slice(&answer)
                .map_err(|error| HttpError::Unreadable(format!("the {endpoint} cannot be read: {error}")))?)
        })
    }

    /// A stop may cut a peek short; any other request is waited for, because its answer tells what was marked.
    fn send(&mut self, request: RecordRequest<'_>, token: &SecretString) -> Result<Bytes> {
        let started = Instant::now();
        let call = self.http.json(request.name(), &self.url, &request, token)?;
        let answer = if request.mark_as_read { call.send().map_err(Into::into) } else { call.send_until(&self.stop) };
        self.trips += 1;
        self.shortest_trip = self.shortest_trip.min(started.elapsed());
        answer
    }

    /// Adds what to do about it.
    fn explain(&self, request: RecordRequest<'_>, error: anyhow::Error) -> anyhow::Error {
        let Some(cause) = error.downcast_ref::<HttpError>() else { return error };
        let stream = &self.stream_id;
        let remedy = match cause {
            HttpError::Status { status: 400 | 413 | 422, .. } => format!(
                "the service refuses to read {} records of stream {stream}: check `streamId`, or make `pageSize` (in \
                 `commit` mode `maxPending`) smaller",
                request.record_count
            ),
            HttpError::Status { status: 401, .. } => {
                "a fresh access token is refused: check `scope`, and that `apiUrl` and `authUrl` belong together"
                    .to_owned()
            }
            HttpError::Status { status: 403, .. } => format!(
                "this client may not read stream {stream}: check `clientId` and `scope`, or ask the stream's owner to \
                 make the client a consumer of it"
            ),
            HttpError::Status { status: 404, .. } => {
                format!("there is no stream {stream}: check `streamId` and `apiUrl`")
            }
            HttpError::Status { status: 300..400, .. } => "redirects are not followed: check `apiUrl`".to_owned(),
            HttpError::Unreachable { .. } => "check `apiUrl`, the network and the proxy".to_owned(),
            HttpError::TimedOut { .. } => {
                "check the network, raise `requestTimeoutSeconds` or make `pageSize` smaller".to_owned()
            }
            _ => return error.context(format!("read stream {stream}")),
        };
        error.context(remedy)
    }
}

/// The URL of a path below the API's base.
fn url_of(base: &Url, path: &[&str]) -> Result<Url> {
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| anyhow!("`apiUrl` cannot take a path: {base}"))?.pop_if_empty().extend(path);
    Ok(url)
}

impl Queue for Api {
    fn peek(&mut self, count: usize) -> Result<Peeked> {
        Ok(Peeked::new(self.look(RecordRequest::unread(count, false))?)?)
    }

    fn try_peek(&mut self, count: usize) -> Result<Peeked> {
        Ok(Peeked::new(self.request(RecordRequest::unread(count, false), Page::parse)?)?)
    }

    fn mark_and_peek(&mut self, delivered: Delivered, count: usize) -> (Result<Marked>, Option<Result<Peeked>>) {
        if self.trips < TRIPS || self.shortest_trip < LONG_WAY {
            return (self.mark(delivered), None);
        }
        let peek = RecordRequest::unread(count, false);
        let ahead = self
            .tokens
            .bearer()
            .and_then(|token| Ok(self.http.json(peek.name(), &self.url, &peek, &token)?.start(HEAD_START)));
        let marked = self.mark(delivered);
        let ahead = ahead.and_then(|ahead| ahead.wait(&self.stop));
        (marked, Some(ahead.and_then(|answer| Ok(Page::parse(answer).and_then(Peeked::new)?))))
    }

    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page> {
        self.look(RecordRequest::since(timestamp, count))
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        let request = RecordRequest::unread(delivered.count(), true);
        match self.request(request, |answer| delivered.read_marked(answer)) {
            Ok(page) => {
                self.lost_marks.reset();
                Ok(Marked::Answered(page))
            }
            Err(error) => {
                // No page at all is a lost answer too: the mark has been applied.
                let lost = match error.downcast::<NoPage>() {
                    Ok(no_page) => HttpError::Unreadable(no_page.to_string()).into(),
                    Err(error) => error,
                };
                self.lost_marks.wait("mark", lost, &self.stop)?;
                Ok(Marked::Unknown)
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        let stop = self.stop.clone();
        retrying(self.max_retries, "mark", &stop, || {
            let page = self.request(RecordRequest::unread(count, true), Page::parse);
            if page.as_ref().err().and_then(|error| error.downcast_ref()).is_some_and(HttpError::may_be_served) {
                warn!("what this request has marked as read, if it was served, is lost (`acknowledge` is `read`)");
            }
            page
        })
        .context("take records")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_request_has_all_its_keys() {
        assert_eq!(
            serde_json::to_string(&RecordRequest::unread(100, true)).unwrap(),
            r#"{"readRecordRequestType":"UNREAD","recordCount":100,"recordId":null,"markAsRead":true,"recordTimeStampISO":null}"#
        );
    }
}
