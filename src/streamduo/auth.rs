//! Access tokens: fetched with the client's credentials (OAuth 2.0, RFC 6749 section 4.4), kept, and renewed before they
//! expire.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use log::debug;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::http::Http;
use super::http_error::HttpError;
use super::retry::{RetryPolicy, retrying};
use crate::config::Config;
use crate::shutdown::Shutdown;

/// A token is renewed this long before it expires, or after nine tenths of its life if that is later.
const MARGIN: Duration = Duration::from_secs(60);

/// The token endpoint's answer (RFC 6749 section 5.1). No `Debug`: it holds the token.
#[derive(Deserialize)]
struct Answer {
    access_token: SecretString,
    token_type: Option<String>,
    /// Seconds; a number, and a string at some servers.
    expires_in: Option<Value>,
}

#[derive(Debug, Clone)]
struct Token {
    bearer: SecretString,
    /// When to renew it; `None` where the server does not say when it ends.
    until: Option<Instant>,
}

/// Hands out a token that is good for the next request, to several threads if need be. Clones share it.
#[derive(Debug, Clone)]
pub struct TokenSource {
    url: Url,
    client_id: String,
    client_secret: SecretString,
    scope: String,
    /// Whether the scope is the one that the settings name.
    scope_is_from_settings: bool,
    policy: RetryPolicy,
    stop: Shutdown,
    token: Arc<Mutex<Option<Token>>>,
}

impl TokenSource {
    /// A source of tokens for the client and the scope of these settings.
    pub fn new(config: &Config, stop: Shutdown) -> TokenSource {
        TokenSource {
            url: config.auth_url.clone(),
            client_id: config.client_id.clone(),
            client_secret: config.client_secret.clone(),
            scope: config.scope.clone(),
            scope_is_from_settings: true,
            policy: RetryPolicy::new(config.max_retries),
            stop,
            token: Arc::default(),
        }
    }

    /// A source of tokens for the same client with another scope.
    pub fn with_scope(&self, scope: &str) -> TokenSource {
        TokenSource {
            scope: scope.to_owned(),
            scope_is_from_settings: scope == self.scope,
            token: Arc::default(),
            ..self.clone()
        }
    }

    /// The token to use now; a new one is fetched over `http` where there is none or it is about to end.
    /// Other threads wait for it.
    ///
    /// # Errors
    /// When there is no token; the error names the setting to mend.
    pub fn bearer(&self, http: &Http) -> Result<SecretString> {
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*kept
            && token.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(token.bearer.clone());
        }
        let token = retrying(self.policy, "token", &self.stop, || self.fetch(http)).map_err(without_type)?;
        let bearer = token.bearer.clone();
        *kept = Some(token);
        Ok(bearer)
    }

    /// Forgets a token that the service does not accept any more, unless there is a newer one.
    pub fn forget(&self, refused: &SecretString) {
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|token| token.bearer.expose_secret() == refused.expose_secret());
    }

    fn fetch(&self, http: &Http) -> Result<Token> {
        let asked = Instant::now();
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose_secret()),
            ("scope", &self.scope),
        ];
        let call = http.form("token", &self.url, &fields)?;
        let answer = call.send_until(&self.stop).map_err(|error| self.explain(error))?;
        let token = read(&answer.body, asked).context("fetch an access token: check `authUrl`")?;
        debug!("new access token");
        Ok(token)
    }

    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(cause) = error.downcast_ref::<HttpError>() else { return error };
        let remedy = match cause {
            HttpError::Status { status: 400 | 401 | 403, text, .. } => {
                if text.contains("invalid_scope") {
                    let remedy = if self.scope_is_from_settings { ": check `scope`" } else { "" };
                    format!("this client may not have the scope {:?}{remedy}", self.scope)
                } else {
                    format!(
                        "the credentials of client {:?} are refused: check `clientId` and `clientSecret`",
                        self.client_id
                    )
                }
            }
            HttpError::Status { .. } => "check `authUrl`".to_owned(),
            HttpError::Rejected(_) => return error.context("fetch an access token"),
            HttpError::Unreachable { .. } => "check `authUrl`, the network and the proxy".to_owned(),
            HttpError::TimedOut { .. }
            | HttpError::CutOff { .. }
            | HttpError::TooLarge { .. }
            | HttpError::InvalidBody(_) => "check `authUrl` and the network".to_owned(),
        };
        error.context(format!("fetch an access token: {remedy}"))
    }
}

/// The error as a text only, so that nobody takes it for the failure of the request that needs the token.
fn without_type(error: anyhow::Error) -> anyhow::Error {
    if error.is::<HttpError>() { anyhow!("{error:#}") } else { error }
}

/// Reads the token endpoint's answer, without ever quoting it: it may hold a token.
fn read(answer: &[u8], asked: Instant) -> Result<Token> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|_| HttpError::InvalidBody("the answer is no JSON object with an `access_token`".to_owned()))?;
    if let Some(kind) = answer.token_type.filter(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        bail!("the answer's `token_type` is {kind:?}, not \"Bearer\"");
    }
    // The form of RFC 6750 section 2.1: it needs no escaping in a header.
    let token = answer.access_token.expose_secret();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("the answer's `access_token` is no bearer token");
    }
    let lifetime = answer.expires_in.and_then(|value| match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    });
    let until = lifetime
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok())
        .and_then(|lifetime| asked.checked_add(lifetime.saturating_sub(MARGIN.min(lifetime / 10))));
    Ok(Token { bearer: answer.access_token, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(answer: &str) -> Option<Duration> {
        let asked = Instant::now();
        read(answer.as_bytes(), asked).unwrap().until.map(|until| until.duration_since(asked))
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
        let error = |answer: &str| format!("{:#}", read(answer.as_bytes(), Instant::now()).unwrap_err());
        for answer in ["hunter2", r#"{"access_token":7,"x":"hunter2"}"#, r#"{"access_token":"hunter2"#, "[]"] {
            assert_eq!(error(answer), "the answer is no JSON object with an `access_token`");
        }
        assert_eq!(error(r#"{"access_token":"hunter 2"}"#), "the answer's `access_token` is no bearer token");
        assert_eq!(error(r#"{"access_token":""}"#), "the answer's `access_token` is no bearer token");
        assert_eq!(
            error(r#"{"access_token":"hunter2","token_type":"mac"}"#),
            "the answer's `token_type` is \"mac\", not \"Bearer\""
        );
    }
}
