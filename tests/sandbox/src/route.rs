//! Routes: what a request asks for, by its method, its path and, for a record-request, its body.

use hyper::header;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::answer::{Answer, JSON};
use crate::journal::Endpoint;

/// The number of records that `GET .../record/unread` returns without a `count`.
const DEFAULT_COUNT: u64 = 100;

/// A request's route and what else the journal and the API need of it.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) endpoint: Endpoint,
    pub(crate) action: Action,
    pub(crate) authorization: Option<String>,
    pub(crate) content_type: String,
    pub(crate) record_count: Option<u64>,
    pub(crate) mark_as_read: Option<bool>,
}

/// What to do, and to which stream.
#[derive(Clone)]
pub(crate) enum Action {
    Health,
    Token,
    CreateStream,
    Stream(String),
    DeleteStream(String),
    Read(String, Result<Read, Answer>),
    Write(String),
    MarkRead(String, String),
    CreateSchema(String),
    Schema(String, String),
    DeleteSchema(String, String),
    ActivateSchema(String),
    NotFound,
}

/// Which records to return, and whether to mark them.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) selection: Selection,
    pub(crate) count: usize,
    pub(crate) mark: bool,
}

/// Which records a read returns.
#[derive(Clone)]
pub(crate) enum Selection {
    Unread,
    LastN,
    Since(String),
    Single(String),
}

impl Request {
    /// Reads a request's route.
    pub(crate) fn new(head: &Parts, body: &[u8]) -> Request {
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut request = Request {
            endpoint: Endpoint::Other,
            action: Action::NotFound,
            authorization: text(header::AUTHORIZATION),
            content_type: text(header::CONTENT_TYPE).unwrap_or_default(),
            record_count: None,
            mark_as_read: None,
        };
        (request.endpoint, request.action) = request.route(head, body);
        request
    }

    /// Whether the content type is this media type.
    pub(crate) fn is_of_type(&self, media_type: &str) -> bool {
        let declared = self.content_type.split(';').next().unwrap_or_default();
        declared.trim().eq_ignore_ascii_case(media_type)
    }

    fn route(&mut self, head: &Parts, body: &[u8]) -> (Endpoint, Action) {
        let segments: Vec<String> = head
            .uri
            .path()
            .split('/')
            .skip(1)
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (head.method.as_str(), &segments[..]) {
            ("GET", ["health"]) => (Endpoint::Health, Action::Health),
            ("POST", ["oauth2", "token"]) => (Endpoint::Token, Action::Token),
            ("POST", ["stream"]) => (Endpoint::CreateStream, Action::CreateStream),
            ("GET", ["stream", id]) => (Endpoint::Stream, Action::Stream(id.to_string())),
            ("DELETE", ["stream", id]) => (Endpoint::DeleteStream, Action::DeleteStream(id.to_string())),
            ("POST", ["stream", id, "record-request"]) => {
                let (endpoint, read) = self.record_request(body);
                (endpoint, Action::Read(id.to_string(), read))
            }
            ("GET", ["stream", id, "record", "unread"]) => {
                let read = self.simple_unread(head.uri.query().unwrap_or_default());
                (Endpoint::SimpleUnread, Action::Read(id.to_string(), read))
            }
            ("POST", ["stream", id, "record"]) => (Endpoint::Write, Action::Write(id.to_string())),
            ("POST", ["stream", id, "record", record, "mark-read"]) => {
                (Endpoint::MarkRead, Action::MarkRead(id.to_string(), record.to_string()))
            }
            ("POST", ["stream", id, "schemas", "active"]) => {
                (Endpoint::ActivateSchema, Action::ActivateSchema(id.to_string()))
            }
            ("POST", ["streams", id, "schemas"]) => (Endpoint::CreateSchema, Action::CreateSchema(id.to_string())),
            ("GET", ["streams", id, "schemas", schema, ""]) => {
                (Endpoint::Schema, Action::Schema(id.to_string(), schema.to_string()))
            }
            ("DELETE", ["streams", id, "schemas", schema, ""]) => {
                (Endpoint::DeleteSchema, Action::DeleteSchema(id.to_string(), schema.to_string()))
            }
            _ => (Endpoint::Other, Action::NotFound),
        }
    }

    /// `POST /stream/{id}/record-request`. A body that is refused has an endpoint too, if its
    /// request type is known.
    fn record_request(&mut self, body: &[u8]) -> (Endpoint, Result<Read, Answer>) {
        if !self.is_of_type(JSON) {
            return (Endpoint::Other, Err(Answer::wrong_media_type()));
        }
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => return (Endpoint::Other, Err(bad(format!("the body is not JSON: {error}")))),
        };
        self.record_count = body["recordCount"].as_u64();
        self.mark_as_read = body["markAsRead"].as_bool();
        let endpoint = match (body["readRecordRequestType"].as_str(), self.mark_as_read) {
            (Some("UNREAD"), Some(true)) => Endpoint::Mark,
            (Some("UNREAD"), _) => Endpoint::Peek,
            (Some("LAST_N"), _) => Endpoint::LastN,
            (Some("READ_SINCE_TIMESTAMP"), _) => Endpoint::Since,
            (Some("SINGLE"), _) => Endpoint::Single,
            _ => Endpoint::Other,
        };
        (endpoint, Read::new(endpoint, &body))
    }

    /// `GET /stream/{id}/record/unread`.
    fn simple_unread(&mut self, query: &str) -> Result<Read, Answer> {
        let count = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "count").map(|(_, value)| value);
        self.record_count = count.as_ref().and_then(|count| count.parse().ok());
        match (count, self.record_count) {
            (None, _) => Ok(Read { selection: Selection::Unread, count: to_usize(DEFAULT_COUNT), mark: true }),
            (_, Some(count @ 1..)) => Ok(Read { selection: Selection::Unread, count: to_usize(count), mark: true }),
            (Some(count), _) => Err(bad(format!("count is {count:?}, not a number of 1 or more"))),
        }
    }
}

impl Read {
    fn new(endpoint: Endpoint, body: &Value) -> Result<Read, Answer> {
        let text = |key: &str| {
            body[key].as_str().map(str::to_owned).ok_or_else(|| bad(format!("{key} is {}, not a string", body[key])))
        };
        let selection = match endpoint {
            Endpoint::Peek | Endpoint::Mark => Selection::Unread,
            Endpoint::LastN => Selection::LastN,
            Endpoint::Since => Selection::Since(text("recordTimeStampISO")?),
            Endpoint::Single => Selection::Single(text("recordId").and_then(|id| match id.as_str() {
                "" => Err(bad("recordId is empty".to_owned())),
                _ => Ok(id),
            })?),
            _ => return Err(Read::unknown_type(&body["readRecordRequestType"])),
        };
        let count = match (&body["recordCount"], &selection) {
            (Value::Null, Selection::Single(_)) => 1,
            (count, _) => count
                .as_u64()
                .filter(|count| *count >= 1)
                .ok_or_else(|| bad(format!("recordCount is {count}, not a whole number of 1 or more")))?,
        };
        let mark = body["markAsRead"]
            .as_bool()
            .ok_or_else(|| bad(format!("markAsRead is {}, not true or false", body["markAsRead"])))?;
        Ok(Read { selection, count: to_usize(count), mark })
    }

    fn unknown_type(kind: &Value) -> Answer {
        match kind.as_str() {
            Some("SAMPLE" | "READ_SINCE_RECORD_ID") => bad(format!("{kind} is not supported by the sandbox")),
            _ => bad(format!("readRecordRequestType is {kind}, which is unknown")),
        }
    }
}

fn bad(message: String) -> Answer {
    Answer::bad_request(&message)
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
