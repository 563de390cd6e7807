//! What the service knows of a stream's payloads: its active schema, and its last records.

use anyhow::Result;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::Count;
use super::api::{Api, url_of};
use super::growth::{Growth, NewSize, is_about_size};
use super::http_error::HttpError;
use super::limits::Limits;
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

/// What is read of a stream's description.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StreamDescription {
    active_schema_id: Option<String>,
}

impl Api {
    /// The last records, read or not: `count` of them, or as many as get across at once.
    ///
    /// # Errors
    /// [`NoSample`] when not even the last record gets across. When the service keeps failing or refuses.
    pub fn last(&mut self, count: usize) -> Result<Page> {
        let (policy, stop) = (self.policy, self.stop.clone());
        let mut growth = Growth::new(count, Limits::NONE, NewSize::TriedAgain);
        retrying(policy, "sample", &stop, || {
            let asked = growth.asked(Count::UpTo(count));
            self.page(RecordRequest::last(asked)).map_err(|error| match growth.read_failed(asked, &error) {
                Some(halved) => error.context(halved),
                None if is_about_size(&error) => NoSample(format!("{error:#}")).into(),
                None => error,
            })
        })
    }

    /// The stream's active schema, if it has one.
    ///
    /// # Errors
    /// When it cannot be read: the client may lack the right to.
    pub fn active_schema(&mut self) -> Result<Option<Schema>> {
        let token = self.tokens.with_scope(MANAGE_STREAMS).bearer(&self.http)?;
        let url = url_of(&self.base, &["stream", &self.stream_id])?;
        let description: StreamDescription = self.get("stream", &url, &token)?;
        let Some(id) = description.active_schema_id else { return Ok(None) };
        let token = self.tokens.bearer(&self.http)?;
        let url = url_of(&self.base, &["streams", &self.stream_id, "schemas", &id, ""])?;
        Ok(Some(self.get("schema", &url, &token)?))
    }

    fn get<T: DeserializeOwned>(&self, endpoint: &'static str, url: &Url, token: &SecretString) -> Result<T> {
        retrying(self.policy, endpoint, &self.stop, || {
            let answer = self.http.get(endpoint, url, token)?.send_until(&self.stop)?;
            Ok(serde_json::from_slice(&answer.body).map_err(|error| invalid_body(endpoint, &error))?)
        })
    }
}

/// The error about an answer that is not what it has to be. It quotes nothing of the answer: a server may send a token back.
fn invalid_body(endpoint: &str, error: &serde_json::Error) -> HttpError {
    let problem = if error.is_data() { "not of the documented form" } else { "not JSON" };
    let (line, column) = (error.line(), error.column());
    HttpError::InvalidBody(format!(
        "the answer that describes the {endpoint} is {problem}, from line {line} column {column} on"
    ))
}
