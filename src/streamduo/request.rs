//! What is asked of the service, and what to do when it refuses.

use serde::Serialize;

use super::http_error::HttpError;

/// A record-request. All five keys are always sent, as the vendor's SDK does.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordRequest<'a> {
    /// Its name in log lines.
    #[serde(skip)]
    pub name: &'static str,
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
    pub fn peek(record_count: usize) -> RecordRequest<'a> {
        RecordRequest { name: "peek", read_record_request_type: "UNREAD", record_count, ..RecordRequest::default() }
    }

    /// The oldest unread records, which are marked as read.
    pub fn mark(record_count: usize) -> RecordRequest<'a> {
        RecordRequest { name: "mark", mark_as_read: true, ..RecordRequest::peek(record_count) }
    }

    /// The latest version of a record, which is marked as read.
    pub fn mark_single(record_id: &'a str) -> RecordRequest<'a> {
        RecordRequest { read_record_request_type: "SINGLE", record_id: Some(record_id), ..RecordRequest::mark(1) }
    }

    /// The records after a time stamp, read or not.
    pub fn since(timestamp: &'a str, record_count: usize) -> RecordRequest<'a> {
        RecordRequest {
            name: "read since",
            read_record_request_type: "READ_SINCE_TIMESTAMP",
            record_time_stamp_iso: Some(timestamp),
            ..RecordRequest::peek(record_count)
        }
    }

    /// The last records, read or not.
    pub fn last(record_count: usize) -> RecordRequest<'a> {
        RecordRequest { name: "sample", read_record_request_type: "LAST_N", ..RecordRequest::peek(record_count) }
    }
}

/// What to do about a request for so many records that failed; or what it was for, if only another
/// try helps.
pub fn remedy(record_count: usize, stream: &str, cause: &HttpError) -> String {
    if record_count == 1 && cause.is_about_size() {
        let remedy = match cause {
            HttpError::TimedOut { .. } => "raise `requestTimeoutSeconds`",
            HttpError::TooLarge(..) => "raise `maxAnswerMegabytes`",
            HttpError::CutOff { .. } => "check the network, the proxy and `apiUrl`",
            HttpError::Status { status: 413, .. } => "no setting changes that, ask the service's operator",
            _ => "check `streamId`",
        };
        return format!("not even a single record of stream {stream} gets across: {remedy}");
    }
    match cause {
        HttpError::Status { is_page: true, .. } if !cause.is_about_size() => {
            "a firewall or a gateway answers in place of the service: check `apiUrl`, or ask its operator to let this \
             machine through"
                .to_owned()
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
        HttpError::Status { .. } if !cause.is_transient() && !cause.is_about_size() => {
            "check `apiUrl`, or ask the service's operator".to_owned()
        }
        HttpError::Unreachable(..) => "check `apiUrl`, the network and the proxy".to_owned(),
        HttpError::TimedOut { .. } => "check the network, or raise `requestTimeoutSeconds`".to_owned(),
        _ => format!("read stream {stream}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_request_has_all_its_keys() {
        assert_eq!(
            serde_json::to_string(&RecordRequest::mark(100)).unwrap(),
            r#"{"readRecordRequestType":"UNREAD","recordCount":100,"recordId":null,"markAsRead":true,"recordTimeStampISO":null}"#
        );
        assert_eq!(
            serde_json::to_string(&RecordRequest::mark_single("a")).unwrap(),
            r#"{"readRecordRequestType":"SINGLE","recordCount":1,"recordId":"a","markAsRead":true,"recordTimeStampISO":null}"#
        );
    }
}
