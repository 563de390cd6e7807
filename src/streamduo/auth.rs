//! Access tokens: fetched with the client's credentials (OAuth 2.0, RFC 6749 section 4.4), kept,
//! and renewed before they expire.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use log::debug;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::api::Api;
use super::http_error::{Failure, HttpError};
use super::retry::retrying;

/// A token is renewed this long before it expires, or after nine tenths of its life if that is
/// later.
const MARGIN: Duration = Duration::from_secs(60);

/// A token, and when to renew it; `None` if the server does not say when it ends.
pub type Token = (SecretString, Option<Instant>);

/// Hands out a token that is good for the next request, to several threads if need be.
impl Api {
    /// The token to use now; a new one is fetched if there is none or it is about to end. Other
    /// threads wait for it. A failure is final: it is not that of the request that needs the token.
    pub(super) fn bearer(&self) -> Result<SecretString, Failure> {
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((bearer, until)) = &*kept
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(bearer.clone());
        }
        let token = self.fetch_token(&self.http.config.scope)?;
        Ok(kept.insert(token).0.clone())
    }

    /// Forgets a token that the service does not accept any more, unless there is a newer one.
    pub(super) fn forget(&self, refused: &SecretString) {
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|(bearer, _)| bearer.expose_secret() == refused.expose_secret());
    }

    /// A new token for a scope, which is not kept.
    pub(super) fn fetch_token(&self, scope: &str) -> Result<Token, Failure> {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &*self.http.config.client_id),
            ("client_secret", self.http.config.client_secret.expose_secret()),
            ("scope", scope),
        ];
        let fetched = retrying(self.policy, "token", &self.stop, || {
            let asked = Instant::now();
            let answer = self.http.send_until(self.http.form("token", &self.http.config.auth_url, &fields), &self.stop);
            let token =
                answer.and_then(|answer| Ok(read(&answer.body, asked).map_err(|problem| answer.is_not(problem))?));
            token.map_err(|failure| self.explain_token(failure, scope))
        });
        let token = fetched.map_err(|failure| Failure::Final(failure.into()))?;
        debug!("new access token");
        Ok(token)
    }

    fn explain_token(&self, failure: Failure, scope: &str) -> Failure {
        let is_final = failure.http_error().is_some_and(is_refusal);
        let explained = failure.with_remedy(|error| match error {
            // It says itself what to do.
            HttpError::Rejected(_) => "fetch an access token".to_owned(),
            error => format!("fetch an access token: {}", self.token_remedy(error, scope)),
        });
        if is_final { Failure::Final(explained.into()) } else { explained }
    }

    fn token_remedy(&self, error: &HttpError, scope: &str) -> String {
        let client = &self.http.config.client_id;
        let remedy = match error {
            HttpError::Status { is_page: true, .. } => {
                "a firewall or a gateway answers in place of the token endpoint: check `authUrl`, or ask its \
                 operator to let this machine through"
            }
            HttpError::Status { status: 429, .. } | HttpError::Status { status: 400, retry_after: Some(_), .. } => {
                "the token endpoint limits requests: run less often, or ask its operator for more"
            }
            HttpError::Status { text, .. } if text.ends_with("invalid_scope") => {
                let remedy = if scope == self.http.config.scope { ": check `scope`" } else { "" };
                return format!("this client may not have the scope {scope:?}{remedy}");
            }
            HttpError::Status { status, text, .. } if *status == 401 || text.ends_with("invalid_client") => {
                return format!(
                    "the credentials of client {client:?} are refused: check `clientId` and `clientSecret`"
                );
            }
            HttpError::Status { text, .. } if text.ends_with("unauthorized_client") => {
                return format!(
                    "client {client:?} may not fetch tokens with its credentials alone: check `clientId`, or ask \
                     for a client with the grant `client_credentials`"
                );
            }
            HttpError::Status { status: 200..300 | 400 | 403, .. } => "check `authUrl`, `clientId` and `clientSecret`",
            HttpError::Status { .. } | HttpError::InvalidBody(_) => "check `authUrl`",
            _ => "check `authUrl`, the network and the proxy",
        };
        remedy.to_owned()
    }
}

/// Whether the token endpoint itself refuses the client, or what it asks for, and for good.
fn is_refusal(error: &HttpError) -> bool {
    let HttpError::Status { status, retry_after: None, is_page: false, text, .. } = error else { return false };
    matches!(status, 200..300 | 400 | 403) && !text.is_empty() || *status == 401
}

/// Reads the token endpoint's answer (RFC 6749 section 5.1). What is wrong with it is said without
/// quoting it: it may hold a token.
fn read(answer: &[u8], asked: Instant) -> Result<Token, &'static str> {
    let answer: Map<String, Value> = serde_json::from_slice(answer).unwrap_or_default();
    let token = answer.get("access_token").and_then(Value::as_str);
    let token = token.ok_or("the answer is not a JSON object with an `access_token`")?;
    // Some servers write "BearerToken".
    let kind = answer.get("token_type").filter(|kind| !kind.is_null());
    let kind = kind.map(|kind| kind.as_str().unwrap_or_default().replace(['_', '-', ' '], "").to_ascii_lowercase());
    if kind.is_some_and(|kind| !matches!(&*kind, "bearer" | "bearertoken")) {
        return Err("the answer's `token_type` is not \"Bearer\"");
    }
    // The form of RFC 6750 section 2.1: it needs no escaping in a header.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the answer's `access_token` is not a bearer token");
    }
    // A string at some servers.
    let lifetime = answer.get("expires_in").and_then(|value| match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    });
    let until = lifetime
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok())
        .and_then(|lifetime| asked.checked_add(lifetime.saturating_sub(MARGIN.min(lifetime / 10))));
    Ok((token.into(), until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(answer: &str) -> Option<Duration> {
        let asked = Instant::now();
        read(answer.as_bytes(), asked).unwrap().1.map(|until| until.duration_since(asked))
    }

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(life(r#"{"access_token":"t","expires_in":3600,"token_type":"Bearer"}"#), seconds(3540));
        assert_eq!(life(r#"{"access_token":"t","expires_in":"100","token_type":"bearer"}"#), seconds(90));
        assert_eq!(life(r#"{"access_token":"t","expires_in":0}"#), seconds(0));
        assert_eq!(life(r#"{"access_token":"t","expires_in":-5}"#), seconds(0));
        assert_eq!(life(r#"{"access_token":"t"}"#), None);
    }

    #[test]
    fn an_answer_that_is_no_token_is_not_quoted() {
        let error = |answer: &str| read(answer.as_bytes(), Instant::now()).unwrap_err();
        for answer in ["hunter2", r#"{"access_token":7,"x":"hunter2"}"#, r#"{"access_token":"hunter2"#, "[]"] {
            assert_eq!(error(answer), "the answer is not a JSON object with an `access_token`");
        }
        assert_eq!(error(r#"{"access_token":"hunter 2"}"#), "the answer's `access_token` is not a bearer token");
        assert_eq!(error(r#"{"access_token":""}"#), "the answer's `access_token` is not a bearer token");
        assert_eq!(
            error(r#"{"access_token":"hunter2","token_type":"mac"}"#),
            "the answer's `token_type` is not \"Bearer\""
        );
    }
}
