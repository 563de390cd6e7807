//! What is asked of the service, and what to do when it refuses.

use serde::Serialize;

use super::http_error::HttpError;

/// A record-request. All five keys are always sent, as the vendor's SDK does.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordRequest<'a> {
    read_record_request_type: &'static str,
    /// The maximum number of records to return.
    pub record_count: usize,
    record_id: Option<&'a str>,
    /// Whether the returned records are marked as read.
    pub mark_as_read: bool,
    #[serde(rename = "recordTimeStampISO")]
    record_time_stamp_iso: Option<&'a str>,
}

impl<'a> RecordRequest<'a> {
    /// The oldest unread records.
    pub fn unread(record_count: usize, mark_as_read: bool) -> RecordRequest<'a> {
        RecordRequest {
            read_record_request_type: "UNREAD",
            record_count,
            record_id: None,
            mark_as_read,
            record_time_stamp_iso: None,
        }
    }

    /// The records after a time stamp, read or not.
    pub fn since(timestamp: &'a str, record_count: usize) -> RecordRequest<'a> {
        RecordRequest {
            read_record_request_type: "READ_SINCE_TIMESTAMP",
            record_time_stamp_iso: Some(timestamp),
            ..RecordRequest::unread(record_count, false)
        }
    }

    /// The last versions of a record, read or not.
    pub fn single(record_id: &'a str, record_count: usize, mark_as_read: bool) -> RecordRequest<'a> {
        RecordRequest {
            read_record_request_type: "SINGLE",
            record_id: Some(record_id),
            ..RecordRequest::unread(record_count, mark_as_read)
        }
    }

    /// The last records, read or not.
    pub fn last(record_count: usize) -> RecordRequest<'a> {
        RecordRequest { read_record_request_type: "LAST_N", ..RecordRequest::unread(record_count, false) }
    }

    /// Its name in log lines.
    pub fn name(self) -> &'static str {
        match (self.read_record_request_type, self.mark_as_read) {
            ("UNREAD" | "SINGLE", true) => "mark",
            ("SINGLE", false) => "look up",
            ("UNREAD", false) => "peek",
            ("LAST_N", _) => "sample",
            _ => "read since",
        }
    }
}

/// What to do about a record-request that failed; `None` where nothing can be done but try again.
pub fn remedy(request: RecordRequest<'_>, stream: &str, cause: &HttpError) -> Option<String> {
    Some(match cause {
        HttpError::Status { status: 413, .. } if request.record_count == 1 => format!(
            "a single record of stream {stream} is too large for the service: no setting changes that, ask the service's operator"
        ),
        error if error.is_refusal() && request.record_count == 1 => {
            format!("the service refuses to read even 1 record of stream {stream}: check `streamId`")
        }
        HttpError::Status { status: 401, .. } => {
            "a fresh access token is refused: check `scope`, and that `apiUrl` and `authUrl` belong together".to_owned()
        }
        HttpError::Status { status: 403, .. } => format!(
            "this client may not read stream {stream}: check `clientId` and `scope`, or ask the stream's owner to make \
             the client a consumer of it"
        ),
        HttpError::Status { status: 404, .. } => {
            format!("there is no stream {stream}: check `streamId` and `apiUrl`")
        }
        HttpError::Status { status: 300..=399, .. } => "redirects are not followed: check `apiUrl`".to_owned(),
        HttpError::Unreachable { .. } => "check `apiUrl`, the network and the proxy".to_owned(),
        HttpError::TimedOut { has_begun: true, .. } if request.record_count == 1 => {
            format!("a single record of stream {stream} takes too long to arrive: raise `requestTimeoutSeconds`")
        }
        HttpError::CutOff { has_begun: true, .. } if request.record_count == 1 => {
            format!(
                "a single record of stream {stream} does not arrive complete: check the network, the proxy and `apiUrl`"
            )
        }
        HttpError::TooLarge { .. } if request.record_count == 1 => {
            format!("a single record of stream {stream} is too large: raise `maxAnswerMegabytes`")
        }
        HttpError::TimedOut { .. } => "check the network, or raise `requestTimeoutSeconds`".to_owned(),
        _ => return None,
    })
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
        assert_eq!(
            serde_json::to_string(&RecordRequest::single("a", 2, false)).unwrap(),
            r#"{"readRecordRequestType":"SINGLE","recordCount":2,"recordId":"a","markAsRead":false,"recordTimeStampISO":null}"#
        );
    }
}
