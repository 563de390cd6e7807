//! The API: carries a request out on the service's state.

use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;

use crate::answer::{Answer, JSON};
use crate::route::{Action, Read, Request, Which};
use crate::sample;
use crate::schema::Schema;
use crate::service::{Service, Stream};
use crate::token::{Refusal, Scope};

/// How a script has a request carried out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Twist {
    /// Answer as if, and change nothing.
    pub(crate) dry: bool,
    /// Show what the request marks as read already.
    pub(crate) as_read: bool,
    /// Return at most so many records.
    pub(crate) cap: Option<usize>,
    /// Revoke: all tokens before, or for the token endpoint the one it issues.
    pub(crate) revoke: bool,
    /// The lifetime of the token it issues.
    pub(crate) lifetime: Option<Duration>,
}

/// Carries out a request.
pub(crate) fn answer(service: &mut Service, request: Request, body: &[u8], twist: Twist) -> Answer {
    perform(service, request, body, twist).unwrap_or_else(|refused| refused)
}

/// Either way an answer: an error is one, too.
type Outcome = Result<Answer, Answer>;

fn perform(service: &mut Service, request: Request, body: &[u8], twist: Twist) -> Outcome {
    if matches!(request.action, Action::Token) {
        return token(service, &request, body, twist);
    }
    if twist.revoke {
        service.revoke_tokens();
    }
    authorize(service, &request)?;
    let declared = request.is_of_type(JSON);
    let body = || if declared { Ok(body) } else { Err(Answer::wrong_media_type()) };
    match request.action {
        Action::Health => Ok(Answer::text("OK")),
        Action::Stream(id) => Ok(Answer::json(&stream(service, &id)?.to_json(&id))),
        Action::Read(id, read) => read_records(records_of(service, &id)?, read?, twist),
        Action::Schema(id, schema) => show_schema(stream(service, &id)?, &schema),
        Action::NotFound | Action::Token => Err(Answer::error(StatusCode::NOT_FOUND, "Not Found")),
        // What is left changes the service, which a dry run must not.
        _ if twist.dry => Ok(Answer::json(&json!({ "status": "Success" }))),
        Action::DeleteStream(id) => delete_stream(service, &id),
        Action::DeleteSchema(id, schema) => delete_schema(stream(service, &id)?, &schema),
        Action::CreateStream => create_stream(service, body()?),
        Action::Write(id) => write(records_of(service, &id)?, body()?),
        Action::CreateSchema(id) => create_schema(stream(service, &id)?, body()?),
        Action::ActivateSchema(id) => activate_schema(stream(service, &id)?, body()?),
    }
}

fn token(service: &mut Service, request: &Request, form: &[u8], twist: Twist) -> Outcome {
    if !request.is_of_type("application/x-www-form-urlencoded") {
        return Err(Answer::oauth_error("invalid_request"));
    }
    let token = service.tokens.issue(form, twist.lifetime).map_err(Answer::oauth_error)?;
    if twist.revoke || twist.dry {
        service.tokens.revoke(&token.text);
    }
    let seconds = token.lifetime.as_secs();
    Ok(Answer::json(&json!({ "access_token": token.text, "expires_in": seconds, "token_type": "Bearer" })))
}

/// Checks the token. Schemas take either scope: the SDK comes with the one for records or the one for streams.
fn authorize(service: &Service, request: &Request) -> Result<(), Answer> {
    let allowed: &[Scope] = match request.action {
        Action::Health | Action::NotFound => return Ok(()),
        Action::Read(..) | Action::Write(_) => &[Scope::ReadRecords],
        Action::CreateStream | Action::Stream(_) | Action::DeleteStream(_) => &[Scope::ManageStreams],
        _ => &[Scope::ReadRecords, Scope::ManageStreams],
    };
    service.tokens.check(request.authorization.as_deref(), allowed).map_err(|refusal| match refusal {
        Refusal::Unauthorized => Answer::error(StatusCode::UNAUTHORIZED, "Unauthorized"),
        Refusal::Forbidden => Answer::error(StatusCode::FORBIDDEN, "Forbidden: the token lacks the scope needed"),
    })
}

fn stream<'a>(service: &'a mut Service, id: &str) -> Result<&'a mut Stream, Answer> {
    service.stream_mut(id).ok_or_else(|| Answer::error(StatusCode::NOT_FOUND, &format!("there is no stream {id}")))
}

/// The stream, for a call on its records.
fn records_of<'a>(service: &'a mut Service, id: &str) -> Result<&'a mut Stream, Answer> {
    let stream = stream(service, id)?;
    if stream.restricted {
        let message = "Forbidden: the client lacks permission on this stream";
        return Err(Answer::error(StatusCode::FORBIDDEN, message));
    }
    Ok(stream)
}

/// Answers with the read status before marking, so a record that is marked here shows as unread, unless the script says otherwise.
fn read_records(stream: &mut Stream, read: Read, twist: Twist) -> Outcome {
    let store = &mut stream.store;
    let count = read.count.min(twist.cap.unwrap_or(usize::MAX));
    let keys = match &read.which {
        Which::Unread => store.oldest_unread(count),
        Which::LastN => store.last_n(count),
        Which::Single(id) => store.versions(id, count),
        Which::Since(text) => {
            let since = store.clock().since(text);
            store.since(since.ok_or_else(|| bad(&format!("recordTimeStampISO {text:?} is no time stamp")))?, count)
        }
    };
    let marks = read.mark && !twist.dry;
    if marks && twist.as_read {
        store.mark(&keys);
    }
    let body = store.answer(&keys);
    if marks && !twist.as_read {
        store.mark(&keys);
    }
    Ok(Answer::records(body, keys.len()))
}

/// A value that has to be there, though it may be null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The body of `POST /stream/{id}/record`; the SDK sends further keys, all null.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewRecord<'a> {
    record_id: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data_payload: Option<&'a RawValue>,
}

fn write(stream: &mut Stream, body: &[u8]) -> Outcome {
    let record: NewRecord<'_> = parse(body)?;
    let payload = record.data_payload.ok_or_else(|| bad("dataPayload is missing"))?;
    stream.check(payload.get()).map_err(|message| bad(&message))?;
    let id = record.record_id.unwrap_or_else(sample::random_id);
    let key = stream.store.append(&id, payload);
    let text = stream.store.record(key).map(|record| record.json).unwrap_or_default();
    Ok(Answer::records(text.into_bytes(), 1))
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
    let schema = Schema::new(&new.schema_type, new.schema.get()).map_err(|message| bad(&message))?;
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
    Ok(Answer::json(&json!({ "status": "Success" })))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| bad(&format!("the body does not fit: {error}")))
}

fn bad(message: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, message)
}

fn no_schema(id: &str) -> Answer {
    Answer::error(StatusCode::NOT_FOUND, &format!("there is no schema {id}"))
}
