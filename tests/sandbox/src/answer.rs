//! Answers: what the service returns, before a rule of the script changes it.

use hyper::StatusCode;
use serde_json::{Value, json};

/// The media type of nearly all requests and answers.
pub(crate) const JSON: &str = "application/json";

/// The status of a final answer.
///
/// # Panics
/// For a number that is none.
#[track_caller]
pub(crate) fn final_status(code: u16) -> StatusCode {
    let status = StatusCode::from_u16(code).ok().filter(|status| !status.is_informational());
    status.unwrap_or_else(|| panic!("{code} is not the status of a final answer"))
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    /// The number of records in it.
    pub(crate) returned: usize,
}

impl Answer {
    /// 200 with this JSON.
    pub(crate) fn json(value: &Value) -> Answer {
        Answer::records(value.to_string().into_bytes(), 0)
    }

    /// 200 with `returned` records, serialized in `body`.
    pub(crate) fn records(body: Vec<u8>, returned: usize) -> Answer {
        Answer { status: StatusCode::OK, content_type: JSON, body, returned }
    }

    /// 204.
    pub(crate) fn deleted() -> Answer {
        Answer { status: StatusCode::NO_CONTENT, content_type: JSON, body: Vec::new(), returned: 0 }
    }

    /// 200 with plain text.
    pub(crate) fn text(text: &str) -> Answer {
        Answer { content_type: "text/plain", ..Answer::records(text.into(), 0) }
    }

    /// An error with the JSON body `{"message": ...}`.
    pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
        Answer { status, ..Answer::json(&json!({ "message": message })) }
    }

    /// An error of the token endpoint, in Cognito's format.
    pub(crate) fn oauth_error(name: &str) -> Answer {
        Answer { status: StatusCode::BAD_REQUEST, ..Answer::json(&json!({ "error": name })) }
    }

    /// 400.
    pub(crate) fn bad_request(message: &str) -> Answer {
        Answer::error(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub(crate) fn not_found(message: &str) -> Answer {
        Answer::error(StatusCode::NOT_FOUND, message)
    }

    /// 415.
    pub(crate) fn wrong_media_type() -> Answer {
        Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be sent as application/json")
    }
}
