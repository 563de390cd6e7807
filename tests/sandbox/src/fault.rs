//! The rules of a script: which requests fail or change, and how.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use crate::answer::{Answer, JSON, final_status};
use crate::api::Overrides;
use crate::hook::Hook;
use crate::journal::Endpoint;
use crate::service::Service;
use crate::wire::Transfer;

/// The body that [`Rule::not_json`] sends.
const HTML: &str =
    "<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head><body>Come back later</body></html>\n";

/// What makes one body of another.
pub type Rewrite = fn(&[u8]) -> Vec<u8>;

/// Some calls to one endpoint, and what happens to them.
///
/// ```
/// use streamduo_sandbox::{Endpoint, Rule};
///
/// // The second mark is carried out, but its answer is cut in half.
/// let lost = Rule::on(Endpoint::Mark).call(2).applied().cut();
/// // Every peek returns 100 records at most.
/// let capped = Rule::on(Endpoint::Peek).every().cap(100);
/// ```
///
/// Without [`call`](Rule::call), [`calls`](Rule::calls) or [`every_nth`](Rule::every_nth) a rule
/// applies to every call. A rule can combine effects:
///
/// - on what the request does: [`cap`](Rule::cap), [`before`](Rule::before), ...
/// - on the answer: [`status`](Rule::status), [`json`](Rule::json), [`gzip`](Rule::gzip), ...
/// - on the time: [`delay`](Rule::delay), [`hold`](Rule::hold)
/// - on the connection: [`close`](Rule::close), [`cut`](Rule::cut), [`endless`](Rule::endless), ...
/// - on the gateway in front of the service: [`applied_after`](Rule::applied_after),
///   [`applied_twice`](Rule::applied_twice), [`answer_of`](Rule::answer_of)
///
/// A request whose answer is replaced or lost does not change the service's state, unless the rule
/// is [`applied`](Rule::applied). If its answer is cut, the first half shows what would have been
/// returned.
#[derive(Clone)]
#[must_use = "a rule does nothing until it is given to Sandbox::script"]
pub struct Rule {
    endpoint: Endpoint,
    calls: RangeInclusive<usize>,
    /// Of the calls, those that this divides.
    every: usize,
    pub(crate) applied: bool,
    status: Option<StatusCode>,
    /// The body and its content type.
    body: Option<(Vec<u8>, &'static str)>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pretty: bool,
    rewrite: Option<Rewrite>,
    pub(crate) gzip: bool,
    pub(crate) transfer: Transfer,
    pub(crate) hold: bool,
    pub(crate) delay: Duration,
    as_read: bool,
    cap: Option<usize>,
    revoke: bool,
    expires_in: Option<Duration>,
    pub(crate) before: Option<Hook>,
    pub(crate) after: Option<Hook>,
    /// After how many further requests this one is carried out, or carried out again.
    pub(crate) applied_after: Option<usize>,
    pub(crate) between: Option<Hook>,
    /// Whose last answer is passed on instead of its own.
    pub(crate) answer_of: Option<Endpoint>,
}

impl Rule {
    /// A rule for every call to `endpoint`. It has no effect yet.
    pub fn on(endpoint: Endpoint) -> Rule {
        Rule {
            endpoint,
            calls: 1..=usize::MAX,
            every: 1,
            applied: false,
            status: None,
            body: None,
            headers: Vec::new(),
            pretty: false,
            rewrite: None,
            gzip: false,
            transfer: Transfer::Complete,
            hold: false,
            delay: Duration::ZERO,
            as_read: false,
            cap: None,
            revoke: false,
            expires_in: None,
            before: None,
            after: None,
            applied_after: None,
            between: None,
            answer_of: None,
        }
    }

    /// Applies the rule only to the `k`-th call to the endpoint, counted from 1 over the sandbox's
    /// life.
    pub fn call(self, k: usize) -> Rule {
        self.calls(k..=k)
    }

    /// Applies the rule only to the calls in this range, counted from 1 over the sandbox's life.
    ///
    /// # Panics
    /// For an empty range, and for one that starts at 0.
    #[track_caller]
    pub fn calls(mut self, range: RangeInclusive<usize>) -> Rule {
        assert!(*range.start() >= 1 && !range.is_empty(), "no calls are in {range:?}: calls count from 1");
        self.calls = range;
        self
    }

    /// Applies the rule to every call to the endpoint.
    pub fn every(self) -> Rule {
        self.calls(1..=usize::MAX)
    }

    /// Applies the rule only to the calls `n`, `2 * n`, `3 * n` and so on, of those that it applies
    /// to otherwise.
    ///
    /// # Panics
    /// For 0.
    #[track_caller]
    pub fn every_nth(mut self, n: usize) -> Rule {
        assert!(n >= 1, "there is no 0th call");
        self.every = n;
        self
    }

    /// Carries the request out before its answer is replaced, lost, held or delayed.
    pub fn applied(mut self) -> Rule {
        self.applied = true;
        self
    }

    /// Carries the request out late: right after `n` further requests, of any kind, have been
    /// carried out. By then a mark hits whatever is oldest. Its answer then goes nowhere; the
    /// answer that is sent is that of a request which has changed nothing, unless the rule replaces
    /// or loses it. Together with [`applied`](Rule::applied) the request is carried out at once,
    /// and then once more.
    ///
    /// ```
    /// # use streamduo_sandbox::{Endpoint, Rule};
    /// // The first mark gets 504, and is applied after the next three requests.
    /// let late = Rule::on(Endpoint::Mark).call(1).status(504).applied_after(3);
    /// ```
    pub fn applied_after(mut self, n: usize) -> Rule {
        self.applied_after = Some(n);
        self
    }

    /// Carries the request out twice, as if a gateway had repeated it, and passes on the first
    /// answer.
    pub fn applied_twice(self) -> Rule {
        self.applied().applied_after(0)
    }

    /// Runs a hook on the service just before the request is carried out late, or for the second
    /// time.
    pub fn between(mut self, hook: impl FnMut(&mut Service) + Send + 'static) -> Rule {
        self.between = Some(Hook::new(hook));
        self
    }

    /// Carries the request out, and passes on the answer that the last call to `endpoint` before it
    /// got from the service, even if that answer was lost on its way. Answers are kept from the
    /// moment that a script has such a rule for their endpoint. If there is none yet, the request
    /// gets its own.
    pub fn answer_of(mut self, endpoint: Endpoint) -> Rule {
        self.answer_of = Some(endpoint);
        self
    }

    /// Answers with this status. The body is a JSON message, unless the rule has another body.
    ///
    /// # Panics
    /// For a number that is not the status of a final answer.
    #[track_caller]
    pub fn status(mut self, code: u16) -> Rule {
        self.status = Some(final_status(code));
        self
    }

    /// Adds a header to the answer. It replaces the sandbox's own header of this name.
    ///
    /// # Panics
    /// For a name or a value that HTTP does not allow.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Rule {
        let name: HeaderName = name.parse().unwrap_or_else(|_| panic!("{name:?} is not a header name"));
        let value: HeaderValue = value.parse().unwrap_or_else(|_| panic!("{value:?} is not a header value"));
        self.headers.push((name, value));
        self
    }

    /// Answers with this body; as `application/json` and with status 200, unless the rule has
    /// another content type or status.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Rule {
        self.body = Some((body.into(), JSON));
        self
    }

    /// Like [`body`](Rule::body), for a JSON text.
    pub fn json(self, text: impl Into<String>) -> Rule {
        self.body(text.into())
    }

    /// Answers with an HTML page; with status 200, unless the rule has another status.
    pub fn not_json(mut self) -> Rule {
        self.body = Some((HTML.into(), "text/html; charset=utf-8"));
        self
    }

    /// Closes the connection before the first byte of the answer.
    pub fn close(mut self) -> Rule {
        self.transfer = Transfer::Close;
        self
    }

    /// Sends the full length in `content-length` and half of the body, then closes the connection.
    /// If the answer has no body, the connection closes before the first byte.
    pub fn cut(mut self) -> Rule {
        self.transfer = Transfer::Cut;
        self
    }

    /// Sends half of the body with `transfer-encoding: chunked`, and closes the connection without
    /// the last chunk.
    pub fn cut_chunked(mut self) -> Rule {
        self.transfer = Transfer::CutChunked;
        self
    }

    /// Sends the body and then spaces without end, until the client closes the connection. The
    /// `content-length` is 2^50.
    pub fn endless(mut self) -> Rule {
        self.transfer = Transfer::Endless;
        self
    }

    /// Like [`endless`](Rule::endless), with `transfer-encoding: chunked`.
    pub fn endless_chunked(mut self) -> Rule {
        self.transfer = Transfer::EndlessChunked;
        self
    }

    /// Holds the request until [`Sandbox::release`](crate::Sandbox::release). If the sandbox is
    /// dropped first, the connection closes. With [`applied`](Rule::applied) only the answer is
    /// held.
    pub fn hold(mut self) -> Rule {
        self.hold = true;
        self
    }

    /// Waits before the request is carried out; with [`applied`](Rule::applied), waits afterwards.
    pub fn delay(mut self, delay: Duration) -> Rule {
        self.delay = delay;
        self
    }

    /// Returns `n` records at most, even if the request asks for more. A mark marks only those.
    pub fn cap(mut self, n: usize) -> Rule {
        self.cap = Some(n);
        self
    }

    /// Shows the records that the request marks with `readStatus` "true" instead of "false". Which
    /// one the real service sends is not known.
    pub fn as_read(mut self) -> Rule {
        self.as_read = true;
        self
    }

    /// Pretty-prints the answer's JSON. Only white space between tokens changes.
    pub fn pretty(mut self) -> Rule {
        self.pretty = true;
        self
    }

    /// Sends what this function makes of the body.
    pub fn rewrite(mut self, rewrite: Rewrite) -> Rule {
        self.rewrite = Some(rewrite);
        self
    }

    /// Sends the body with `content-encoding: gzip`, even if the client does not accept it.
    pub fn gzip(mut self) -> Rule {
        self.gzip = true;
        self
    }

    /// Revokes all tokens just before the request is checked, so that it gets 401. On
    /// [`Endpoint::Token`], revokes only the token that this call issues.
    pub fn revoke_token(mut self) -> Rule {
        self.revoke = true;
        self
    }

    /// Issues the token with this lifetime, and says so in `expires_in`. A token with a lifetime of
    /// 0 expires at once.
    ///
    /// # Panics
    /// For any other endpoint than [`Endpoint::Token`].
    #[track_caller]
    pub fn expires_in(mut self, seconds: u64) -> Rule {
        assert_eq!(self.endpoint, Endpoint::Token, "only the token endpoint sets a lifetime");
        self.expires_in = Some(Duration::from_secs(seconds));
        self
    }

    /// Runs a hook on the service just before the request is carried out. It runs even if another
    /// effect of the rule keeps the request from being carried out. The hook must use the
    /// [`Service`], because the sandbox is locked meanwhile.
    pub fn before(mut self, hook: impl FnMut(&mut Service) + Send + 'static) -> Rule {
        self.before = Some(Hook::new(hook));
        self
    }

    /// Like [`before`](Rule::before), but runs right after the request is carried out, before its
    /// answer is sent.
    pub fn after(mut self, hook: impl FnMut(&mut Service) + Send + 'static) -> Rule {
        self.after = Some(Hook::new(hook));
        self
    }

    /// Whether this rule is for the `nth` call to `endpoint`.
    pub(crate) fn matches(&self, endpoint: Endpoint, nth: usize) -> bool {
        self.endpoint == endpoint && self.calls.contains(&nth) && nth.is_multiple_of(self.every)
    }

    /// Whether the service's own answer is not needed, because the request is not applied and
    /// nothing of the answer is sent.
    pub(crate) fn skips_service(&self) -> bool {
        !self.applied && (self.replaces_answer() || self.transfer == Transfer::Close)
    }

    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            dry_run: !self.applied && (self.transfer != Transfer::Complete || self.applied_after.is_some()),
            show_as_read: self.as_read,
            max_records: self.cap,
            revoke: self.revoke,
            token_lifetime: self.expires_in,
        }
    }

    fn replaces_answer(&self) -> bool {
        self.status.is_some() || self.body.is_some()
    }

    /// Replaces or pretty-prints the service's answer.
    pub(crate) fn change(&self, answer: Answer) -> Answer {
        let mut answer = if self.replaces_answer() { self.replacement(answer.returned) } else { answer };
        if self.pretty {
            answer.body = crate::pretty::pretty(&answer.body);
        }
        if let Some(rewrite) = self.rewrite {
            answer.body = rewrite(&answer.body);
        }
        answer
    }

    fn replacement(&self, returned: usize) -> Answer {
        let status = self.status.unwrap_or(StatusCode::OK);
        let mut answer = Answer::error(status, status.canonical_reason().unwrap_or("scripted"));
        if let Some((body, content_type)) = &self.body {
            answer.body = body.clone();
            answer.content_type = content_type;
        }
        answer.returned = returned;
        answer
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("endpoint", &self.endpoint).field("calls", &self.calls).finish_non_exhaustive()
    }
}
