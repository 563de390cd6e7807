//! What the service knows of a stream's payloads: its active schema, and its last records.

use anyhow::{Context, Result, ensure};
use log::warn;
use secrecy::SecretString;
use serde_json::Value;

use super::api::{Api, url_of};
use super::growth::Growth;
use super::http_error::{Failure, HttpError};
use super::request::RecordRequest;
use super::retry::retrying;
use super::service::Count;
use crate::record::Page;

/// The scope that reading a stream's description needs; reading records does not.
const MANAGE_STREAMS: &str = "https://api.streamduo.com/manage:streams";

/// How many records a sample holds.
const SAMPLE: usize = 100;

impl Api {
    /// A sample of records, or as many of them as get across at once: [`RecordRequest::last`], or
    /// the oldest unread ones ([`RecordRequest::peek`]). `None`, with a warning, if not even one
    /// gets across.
    pub fn sample(&self, request: fn(usize) -> RecordRequest<'static>) -> Result<Option<Page>> {
        let mut growth = Growth::new(SAMPLE);
        Ok(retrying(self.policy, "sample", &self.stop, || {
            let asked = growth.asked(Count::UpTo(SAMPLE));
            match self.page(request(asked)).map_err(|failure| growth.read_failed(asked, failure)) {
                Err(failure) if matches!(&failure, Failure::Http(error, _) if error.is_about_size()) => {
                    warn!("cannot read a sample of records: {failure}");
                    Ok(None)
                }
                page => page.map(Some),
            }
        })?)
    }

    /// The stream's active JSON schema, as text.
    ///
    /// # Errors
    /// When there is none, or it cannot be read: the client may lack the right to.
    pub fn active_schema(&self) -> Result<String> {
        let stream_id = &self.http.config.stream_id;
        let stream = self.get("stream", &["stream", stream_id], MANAGE_STREAMS, &["streamId"])?;
        let id = stream["activeSchemaId"].as_str().context("the stream has none")?;
        let path = ["streams", stream_id, "schemas", id, ""];
        let schema = self.get("schema", &path, &self.http.config.scope, &["schemaType", "schema"])?;
        // Its kind is not quoted: what a gateway puts there may be a secret.
        ensure!(schema["schemaType"] == "JSON", "it is not a JSON schema");
        Ok(schema["schema"].as_str().unwrap_or_default().to_owned())
    }

    /// A JSON object with these texts. A client that lacks a right will not get it by waiting.
    fn get(&self, endpoint: &'static str, path: &[&str], scope: &str, texts: &[&str]) -> Result<Value> {
        let url = url_of(&self.http.config.api_url, path)?;
        let send = |token: &SecretString| self.http.send_until(self.http.get(endpoint, &url, token), &self.stop);
        Ok(retrying(self.policy, endpoint, &self.stop, || {
            let answer = self.with_token(0, scope, send).map_err(|failure| match failure.http_error() {
                Some(HttpError::Status { status: 403, is_page: false, .. }) => Failure::Final(failure.into()),
                _ => failure,
            })?;
            let object: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let is_right = texts.iter().all(|name| object[name].is_string());
            let problem = format!("the answer is not a JSON object that describes the {endpoint}");
            if is_right { Ok(object) } else { Err(answer.is_not(&problem).into()) }
        })?)
    }
}
