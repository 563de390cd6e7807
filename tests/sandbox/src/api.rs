//! The API: carries out a request on the service's state.

use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;

use crate::answer::{Answer, JSON};
use crate::limits::Limits;
use crate::route::{Action, Read, Request, Selection};
use crate::sample;
use crate::schema::Schema;
use crate::service::{Service, Stream};
use crate::token::{AuthError, Scope};

/// What a rule changes in the way a request is carried out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    /// Answers as usual, but changes nothing.
    pub(crate) dry_run: bool,
    /// Shows the records that the request marks as read already.
    pub(crate) show_as_read: bool,
    /// The maximum number of records to return.
    pub(crate) max_records: Option<usize>,
    /// Revokes all tokens before the request; on the token endpoint, the token that it issues.
    pub(crate) revoke: bool,
    /// The lifetime of the token that is issued.
    pub(crate) token_lifetime: Option<Duration>,
}

/// Carries out a request.
pub(crate) fn answer(service: &mut Service, request: Request, body: &[u8], overrides: Overrides) -> Answer {
    perform(service, request, body, overrides).unwrap_or_else(|error| error)
}

/// An error is an answer too.
type Outcome = Result<Answer, Answer>;

fn perform(service: &mut Service, request: Request, body: &[u8], overrides: Overrides) -> Outcome {
    if matches!(request.action, Action::Token) {
        return token(service, &request, body, overrides);
    }
    if overrides.revoke {
        service.revoke_tokens();
    }
    authorize(service, &request)?;
    let declared = request.is_of_type(JSON);
    let body = || if declared { Ok(body) } else { Err(Answer::wrong_media_type()) };
    match request.action {
        Action::Health => Ok(Answer::text("OK")),
        Action::Stream(id) => Ok(Answer::json(&stream(service, &id)?.to_json(&id))),
        Action::Read(id, read) => {
            let limits = service.limits;
            read_records(permitted_stream(service, &id)?, read?, overrides, limits)
        }
        Action::Schema(id, schema) => show_schema(stream(service, &id)?, &schema),
        Action::NotFound | Action::Token => Err(Answer::not_found("Not Found")),
        // All other calls change the service.
        _ if overrides.dry_run => Ok(success()),
        Action::DeleteStream(id) => delete_stream(service, &id),
        Action::DeleteSchema(id, schema) => delete_schema(stream(service, &id)?, &schema),
        Action::CreateStream => create_stream(service, body()?),
        Action::Write(id) => write(permitted_stream(service, &id)?, body()?),
        Action::MarkRead(id, record) => mark_read(permitted_stream(service, &id)?, &record),
        Action::CreateSchema(id) => create_schema(stream(service, &id)?, body()?),
        Action::ActivateSchema(id) => activate_schema(stream(service, &id)?, body()?),
    }
}

fn success() -> Answer {
    Answer::json(&json!({ "status": "Success" }))
}

fn token(service: &mut Service, request: &Request, form: &[u8], overrides: Overrides) -> Outcome {
    if !request.is_of_type("application/x-www-form-urlencoded") {
        return Err(Answer::oauth_error("invalid_request"));
    }
    let token = service.tokens.issue(form, overrides.token_lifetime).map_err(Answer::oauth_error)?;
    if overrides.revoke || overrides.dry_run {
        service.tokens.revoke(&token.text);
    }
    let seconds = token.lifetime.as_secs();
    Ok(Answer::json(&json!({ "access_token": token.text, "expires_in": seconds, "token_type": "Bearer" })))
}

/// Checks the token. The schema calls accept either scope, because the SDK uses both for them.
fn authorize(service: &Service, request: &Request) -> Result<(), Answer> {
    let allowed: &[Scope] = match request.action {
        Action::Health | Action::NotFound => return Ok(()),
        Action::Read(..) | Action::Write(_) | Action::MarkRead(..) => &[Scope::ReadRecords],
        Action::CreateStream | Action::Stream(_) | Action::DeleteStream(_) => &[Scope::ManageStreams],
        _ => &[Scope::ReadRecords, Scope::ManageStreams],
    };
    service.tokens.check(request.authorization.as_deref(), allowed).map_err(|error| match error {
        AuthError::Unauthorized => Answer::error(StatusCode::UNAUTHORIZED, "Unauthorized"),
        AuthError::Forbidden => Answer::error(StatusCode::FORBIDDEN, "Forbidden: the token lacks the required scope"),
    })
}

fn stream<'a>(service: &'a mut Service, id: &str) -> Result<&'a mut Stream, Answer> {
    service.stream_mut(id).ok_or_else(|| Answer::not_found(&format!("there is no stream {id}")))
}

/// The stream, if the client may read and write its records.
fn permitted_stream<'a>(service: &'a mut Service, id: &str) -> Result<&'a mut Stream, Answer> {
    let stream = stream(service, id)?;
    if stream.restricted {
        let message = "Forbidden: the client lacks permission on this stream";
        return Err(Answer::error(StatusCode::FORBIDDEN, message));
    }
    Ok(stream)
}

/// Answers with the read status before the request, unless `show_as_read` is set.
fn read_records(stream: &mut Stream, read: Read, overrides: Overrides, limits: Limits) -> Outcome {
    limits.check_records(read.count)?;
    let since_newest = stream.since_newest;
    let store = &mut stream.store;
    let count = read.count.min(overrides.max_records.unwrap_or(usize::MAX));
    let keys = match &read.selection {
        Selection::Unread => store.oldest_unread(count),
        Selection::LastN => store.last_n(count),
        Selection::Single(id) => store.versions(id, count),
        Selection::Since(text) => {
            let invalid = || Answer::bad_request(&format!("recordTimeStampISO {text:?} is not a time stamp"));
            store.since(store.clock().since(text).ok_or_else(invalid)?, count, since_newest)
        }
    };
    let marks = read.mark && !overrides.dry_run;
    let body = store.answer(&keys, marks && overrides.show_as_read);
    limits.check_bytes(body.len())?;
    if marks {
        store.mark(&keys);
    }
    Ok(Answer::records(body, keys.len()))
}

/// Keeps a `null` apart from a missing value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The body of `POST /stream/{id}/record`. The SDK sends further keys, all null.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewRecord<'a> {
    record_id: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data_payload: Option<&'a RawValue>,
}

fn write(stream: &mut Stream, body: &[u8]) -> Outcome {
    let record: NewRecord<'_> = parse(body)?;
    let payload = record.data_payload.ok_or_else(|| Answer::bad_request("dataPayload is missing"))?;
    stream.check(payload.get()).map_err(|message| Answer::bad_request(&message))?;
    let id = record.record_id.unwrap_or_else(sample::random_id);
    let key = stream.store.append(&id, payload);
    let text = stream.store.record(key).map(|record| record.json).unwrap_or_default();
    Ok(Answer::records(text.into_bytes(), 1))
}

/// Marks the latest version of a record.
fn mark_read(stream: &mut Stream, record_id: &str) -> Outcome {
    let latest = stream.store.versions(record_id, 1);
    if latest.is_empty() {
        return Err(Answer::not_found(&format!("there is no record {record_id}")));
    }
    stream.store.mark(&latest);
    Ok(success())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewStream {
    display_name: String,
}

fn create_stream(service: &mut Service, body: &[u8]) -> Outcome {
    let new: NewStream = parse(body)?;
    let id = service.create_stream(&new.display_name);
    Ok(Answer::json(&stream(service, &id)?.to_json(&id)))
}

fn delete_stream(service: &mut Service, id: &str) -> Outcome {
    stream(service, id)?;
    service.delete_stream(id);
    Ok(Answer::deleted())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewSchema<'a> {
    #[serde(borrow)]
    schema: &'a RawValue,
    schema_type: String,
}

fn create_schema(stream: &mut Stream, body: &[u8]) -> Outcome {
    let new: NewSchema<'_> = parse(body)?;
    let schema = Schema::new(&new.schema_type, new.schema.get()).map_err(|message| Answer::bad_request(&message))?;
    let id = sample::random_id();
    stream.schemas.insert(id.clone(), schema);
    show_schema(stream, &id)
}

fn show_schema(stream: &Stream, id: &str) -> Outcome {
    let schema = stream.schemas.get(id).ok_or_else(|| no_schema(id))?;
    Ok(Answer::json(&json!({ "schemaId": id, "schemaType": schema.kind, "schema": schema.text })))
}

fn delete_schema(stream: &mut Stream, id: &str) -> Outcome {
    stream.schemas.remove(id).ok_or_else(|| no_schema(id))?;
    stream.active_schema.take_if(|active| active == id);
    Ok(Answer::deleted())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActiveSchema {
    schema_id: String,
}

fn activate_schema(stream: &mut Stream, body: &[u8]) -> Outcome {
    let active: ActiveSchema = parse(body)?;
    if !stream.schemas.contains_key(&active.schema_id) {
        return Err(no_schema(&active.schema_id));
    }
    stream.active_schema = Some(active.schema_id);
    Ok(success())
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| Answer::bad_request(&format!("the body is not valid: {error}")))
}

fn no_schema(id: &str) -> Answer {
    Answer::not_found(&format!("there is no schema {id}"))
}
