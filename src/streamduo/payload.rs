//! What the service knows of a stream's payloads: its active schema, and its last records.

use anyhow::Result;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;

use super::api::{Api, url_of};
use super::growth::Growth;
use super::http_error::{Failure, HttpError};
use super::queue::Count;
use super::request::RecordRequest;
use super::retry::retrying;
use crate::record::Page;

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

/// Not even one record can be had as a sample.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoSample(String);

impl Api {
    /// The last records, read or not: `count` of them, or as many as get across at once.
    ///
    /// # Errors
    /// [`NoSample`] when not even the last record gets across.
    pub fn last(&mut self, count: usize) -> Result<Page> {
        self.sample(count, RecordRequest::last)
    }

    /// The oldest unread records, in the same way.
    ///
    /// # Errors
    /// [`NoSample`] when not even the first one gets across.
    pub fn oldest_unread(&mut self, count: usize) -> Result<Page> {
        self.sample(count, |count| RecordRequest::unread(count, false))
    }

    fn sample(&mut self, count: usize, request: fn(usize) -> RecordRequest<'static>) -> Result<Page> {
        let mut growth = Growth::new(count);
        Ok(retrying(self.policy, "sample", &self.stop, || {
            let asked = growth.asked(Count::UpTo(count));
            self.page(request(asked)).map_err(|failure| match growth.read_failed(asked, failure) {
                Failure::Http(error, remedy) if error.is_about_size() => {
                    let failure = Failure::Http(error, remedy);
                    Failure::Final(NoSample(failure.to_string()).into())
                }
                failure => failure,
            })
        })?)
    }

    /// The stream's active schema, if it has one.
    ///
    /// # Errors
    /// When it cannot be read: the client may lack the right to.
    pub fn active_schema(&mut self) -> Result<Option<Schema>> {
        let token = self.tokens.bearer_for(&self.http, MANAGE_STREAMS)?;
        let url = url_of(&self.base, &["stream", &self.stream_id])?;
        let stream: Map<String, Value> = self.get("stream", &url, &token)?;
        let Some(id) = stream.get("activeSchemaId").and_then(Value::as_str) else { return Ok(None) };
        let token = self.tokens.bearer(&self.http)?;
        let url = url_of(&self.base, &["streams", &self.stream_id, "schemas", id, ""])?;
        Ok(Some(self.get("schema", &url, &token)?))
    }

    /// A client that lacks a right will not get it by waiting.
    fn get<T: DeserializeOwned>(&self, endpoint: &'static str, url: &Url, token: &SecretString) -> Result<T> {
        Ok(retrying(self.policy, endpoint, &self.stop, || {
            let answer = self.http.get(endpoint, url, token).send_until(&self.stop);
            let answer =
                answer.map_err(|failure| if failure.is_unauthorized() { failure.into_final() } else { failure })?;
            Ok(serde_json::from_slice(&answer.body).map_err(|error| invalid_body(endpoint, &error))?)
        })?)
    }
}

/// The error about an answer that is not what it has to be. It quotes nothing of the answer: a server
/// may send a token back.
fn invalid_body(endpoint: &str, error: &serde_json::Error) -> HttpError {
    let problem = if error.is_data() { "not of the documented form" } else { "not JSON" };
    let (line, column) = (error.line(), error.column());
    HttpError::InvalidBody(format!(
        "the answer that describes the {endpoint} is {problem}, from line {line} column {column} on"
    ))
}
