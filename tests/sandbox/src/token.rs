//! Tokens: the client-credentials grant of RFC 6749, section 4.4, with the error bodies of Amazon
//! Cognito.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To read and write records, and to read schemas.
    ReadRecords,
    /// To read and manage streams.
    ManageStreams,
}

impl Scope {
    const ALL: [Scope; 2] = [Scope::ReadRecords, Scope::ManageStreams];

    fn name(self) -> &'static str {
        match self {
            Scope::ReadRecords => "https://api.streamduo.com/read:records",
            Scope::ManageStreams => "https://api.streamduo.com/manage:streams",
        }
    }

    fn named(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// Why a request with a bearer token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthError {
    /// No token, or one that is unknown, expired or revoked.
    Unauthorized,
    /// A valid token without the scope that the call requires.
    Forbidden,
}

/// A token as the token endpoint hands it out.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) lifetime: Duration,
}

#[derive(Debug)]
struct Grant {
    scopes: Vec<Scope>,
    expires: Instant,
}

/// The client's credentials, and the tokens issued for them.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    lifetime: Duration,
    valid: HashMap<String, Grant>,
}

impl Tokens {
    /// New credentials; tokens live for `lifetime`.
    pub(crate) fn new(lifetime: Duration) -> Tokens {
        Tokens {
            client_id: random_text(26, fastrand::lowercase),
            client_secret: random_text(52, fastrand::alphanumeric),
            lifetime,
            valid: HashMap::new(),
        }
    }

    /// Issues a token for a request with this form body. The error is the name of an OAuth error.
    /// `lifetime` replaces the usual lifetime.
    pub(crate) fn issue(&mut self, form: &[u8], lifetime: Option<Duration>) -> Result<Token, &'static str> {
        let scopes = self.check_form(form)?;
        let lifetime = lifetime.unwrap_or(self.lifetime);
        let text = random_text(180, fastrand::alphanumeric);
        let now = Instant::now();
        let expires = now.checked_add(lifetime).unwrap_or(now);
        self.valid.insert(text.clone(), Grant { scopes, expires });
        Ok(Token { text, lifetime })
    }

    /// Makes one token invalid.
    pub(crate) fn revoke(&mut self, token: &str) {
        self.valid.remove(token);
    }

    /// Makes all tokens issued so far invalid.
    pub(crate) fn revoke_all(&mut self) {
        self.valid.clear();
    }

    /// Checks the `authorization` header of a call that needs one of the scopes `allowed`.
    pub(crate) fn check(&self, authorization: Option<&str>, allowed: &[Scope]) -> Result<(), AuthError> {
        let token = authorization
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let grant = token.and_then(|token| self.valid.get(token)).ok_or(AuthError::Unauthorized)?;
        if Instant::now() >= grant.expires {
            return Err(AuthError::Unauthorized);
        }
        if grant.scopes.iter().any(|scope| allowed.contains(scope)) { Ok(()) } else { Err(AuthError::Forbidden) }
    }

    fn check_form(&self, form: &[u8]) -> Result<Vec<Scope>, &'static str> {
        let fields: Vec<_> = form_urlencoded::parse(form).collect();
        // RFC 6749, section 3.2: a parameter may occur once, and one without a value counts as
        // omitted.
        let field = |name: &str| -> Result<Option<&str>, &'static str> {
            let mut values = fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_ref());
            let value = values.next().filter(|value| !value.is_empty());
            if values.next().is_some() { Err("invalid_request") } else { Ok(value) }
        };
        if field("grant_type")?.ok_or("invalid_request")? != "client_credentials" {
            return Err("unsupported_grant_type");
        }
        let client_id = field("client_id")?.ok_or("invalid_request")?;
        let client_secret = field("client_secret")?.ok_or("invalid_request")?;
        if client_id != self.client_id || client_secret != self.client_secret {
            return Err("invalid_client");
        }
        match field("scope")? {
            None => Ok(Scope::ALL.to_vec()),
            Some(names) => {
                let scopes = names.split_ascii_whitespace().map(Scope::named).collect::<Option<Vec<_>>>();
                scopes.filter(|scopes| !scopes.is_empty()).ok_or("invalid_scope")
            }
        }
    }
}

fn random_text(length: usize, character: impl Fn() -> char) -> String {
    std::iter::repeat_with(character).take(length).collect()
}
