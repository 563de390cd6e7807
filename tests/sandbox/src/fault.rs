//! Faults: what a script makes of chosen requests.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use crate::answer::{Answer, JSON};
use crate::api::Twist;
use crate::journal::Endpoint;
use crate::service::Service;
use crate::wire::Delivery;

/// The page that [`Rule::not_json`] serves.
const PAGE: &str =
    "<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head><body>Come back later</body></html>\n";

/// One fault of a script: some calls to one endpoint, and what happens to them.
///
/// ```
/// use streamduo_sandbox::{Endpoint, Rule};
///
/// // The second mark is carried out, but its answer is lost half-way.
/// let lost = Rule::on(Endpoint::Mark).call(2).applied().cut();
/// // Every peek returns 100 records at most.
/// let capped = Rule::on(Endpoint::Peek).every().cap(100);
/// ```
///
/// Without [`call`](Rule::call) or [`calls`](Rule::calls) a rule means every call. Effects add up: what the request
/// does ([`cap`](Rule::cap), [`before`](Rule::before), ...), what is answered ([`status`](Rule::status),
/// [`json`](Rule::json), [`gzip`](Rule::gzip), ...), when ([`delay`](Rule::delay), [`hold`](Rule::hold)) and how it gets
/// across ([`close`](Rule::close), [`cut`](Rule::cut), [`cut_chunked`](Rule::cut_chunked)).
///
/// A request whose answer is replaced or lost leaves the service's state untouched, unless the rule is
/// [`applied`](Rule::applied). A half-way answer of such a request shows what would have been returned.
#[derive(Clone)]
#[must_use = "a rule does nothing until it is given to Sandbox::script"]
pub struct Rule {
    endpoint: Endpoint,
    calls: RangeInclusive<usize>,
    applied: bool,
    status: Option<StatusCode>,
    body: Option<(String, &'static str)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    pretty: bool,
    pub(crate) gzip: bool,
    pub(crate) delivery: Delivery,
    pub(crate) hold: bool,
    pub(crate) delay: Duration,
    as_read: bool,
    cap: Option<usize>,
    revoke: bool,
    expires_in: Option<Duration>,
    pub(crate) before: Option<Hook>,
    pub(crate) after: Option<Hook>,
}

type Function = dyn FnMut(&mut Service) + Send;

/// A function of a script, shared by the calls of its rule.
#[derive(Clone)]
pub(crate) struct Hook(Arc<Mutex<Function>>);

impl Hook {
    fn new(hook: impl FnMut(&mut Service) + Send + 'static) -> Hook {
        Hook(Arc::new(Mutex::new(hook)))
    }

    pub(crate) fn run(&self, service: &mut Service) {
        let mut hook = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hook(service);
    }
}

impl Rule {
    /// A rule for calls to `endpoint`, with no effect as yet.
    pub fn on(endpoint: Endpoint) -> Rule {
        Rule {
            endpoint,
            calls: 1..=usize::MAX,
            applied: false,
            status: None,
            body: None,
            headers: Vec::new(),
            pretty: false,
            gzip: false,
            delivery: Delivery::Whole,
            hold: false,
            delay: Duration::ZERO,
            as_read: false,
            cap: None,
            revoke: false,
            expires_in: None,
            before: None,
            after: None,
        }
    }

    /// The `k`-th call to the endpoint, counted from 1 over the sandbox's life.
    pub fn call(self, k: usize) -> Rule {
        self.calls(k..=k)
    }

    /// The calls of this range, counted from 1 over the sandbox's life.
    ///
    /// # Panics
    /// For a range that no call is in.
    #[track_caller]
    pub fn calls(mut self, range: RangeInclusive<usize>) -> Rule {
        assert!(*range.start() >= 1 && !range.is_empty(), "no call is in {range:?}: they count from 1");
        self.calls = range;
        self
    }

    /// Every call to the endpoint.
    pub fn every(self) -> Rule {
        self.calls(1..=usize::MAX)
    }

    /// The request is carried out, once, before its answer is replaced, lost, held or delayed.
    pub fn applied(mut self) -> Rule {
        self.applied = true;
        self
    }

    /// Answers with this status, and a JSON message unless there is a body as well.
    ///
    /// # Panics
    /// For a number that is no status of a final answer.
    #[track_caller]
    pub fn status(mut self, code: u16) -> Rule {
        let status = StatusCode::from_u16(code).ok().filter(|status| !status.is_informational());
        self.status = Some(status.unwrap_or_else(|| panic!("{code} is no status to answer with")));
        self
    }

    /// Adds a header to the answer, in place of the sandbox's own of this name.
    ///
    /// # Panics
    /// For a name or a value that HTTP does not allow.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Rule {
        let name: HeaderName = name.parse().unwrap_or_else(|_| panic!("{name:?} is no header name"));
        let value: HeaderValue = value.parse().unwrap_or_else(|_| panic!("{value:?} is no header value"));
        self.headers.push((name, value));
        self
    }

    /// Answers with this body, as `application/json` unless a header says otherwise; with status 200 unless another is
    /// given.
    pub fn body(mut self, text: impl Into<String>) -> Rule {
        self.body = Some((text.into(), JSON));
        self
    }

    /// Answers with this JSON text, with status 200 unless another is given.
    pub fn json(self, text: impl Into<String>) -> Rule {
        self.body(text)
    }

    /// Answers with an HTML page, with status 200 unless another is given.
    pub fn not_json(mut self) -> Rule {
        self.body = Some((PAGE.to_owned(), "text/html; charset=utf-8"));
        self
    }

    /// Closes the connection before any byte of an answer.
    pub fn close(mut self) -> Rule {
        self.delivery = Delivery::Close;
        self
    }

    /// Announces the whole length in `content-length`, sends half of the body and closes the connection. An answer
    /// without a body is closed before any byte.
    pub fn cut(mut self) -> Rule {
        self.delivery = Delivery::Cut;
        self
    }

    /// Sends half of the body with `transfer-encoding: chunked`, and closes the connection without the last chunk.
    pub fn cut_chunked(mut self) -> Rule {
        self.delivery = Delivery::CutChunked;
        self
    }

    /// Holds the request until [`Sandbox::release`](crate::Sandbox::release), then goes on with it; on a sandbox that is
    /// dropped, the connection closes. With [`applied`](Rule::applied) only the answer is held.
    pub fn hold(mut self) -> Rule {
        self.hold = true;
        self
    }

    /// Waits before the request is carried out; with [`applied`](Rule::applied), after it.
    pub fn delay(mut self, delay: Duration) -> Rule {
        self.delay = delay;
        self
    }

    /// Returns `n` records at most, whatever was asked for; a mark marks only those.
    pub fn cap(mut self, n: usize) -> Rule {
        self.cap = Some(n);
        self
    }

    /// Shows the records that the request marks as read already. Which of the two the service does is not known.
    pub fn as_read(mut self) -> Rule {
        self.as_read = true;
        self
    }

    /// Lays the answer's JSON out over several lines; only white space between tokens changes.
    pub fn pretty(mut self) -> Rule {
        self.pretty = true;
        self
    }

    /// Sends the body with `content-encoding: gzip`, whatever the client accepts.
    pub fn gzip(mut self) -> Rule {
        self.gzip = true;
        self
    }

    /// Makes all tokens issued so far invalid just before the request is checked, so that it gets 401. On
    /// [`Endpoint::Token`], makes the token that this call issues invalid at once.
    pub fn revoke_token(mut self) -> Rule {
        self.revoke = true;
        self
    }

    /// Gives the token this lifetime, in what it says and in what it does; 0 expires at once.
    ///
    /// # Panics
    /// For an endpoint that issues no token.
    #[track_caller]
    pub fn expires_in(mut self, seconds: u64) -> Rule {
        assert_eq!(self.endpoint, Endpoint::Token, "only the token endpoint sets a lifetime");
        self.expires_in = Some(Duration::from_secs(seconds));
        self
    }

    /// Runs on the service just before the request is carried out (or would have been). Use the [`Service`], not the
    /// sandbox, which is locked meanwhile.
    pub fn before(mut self, hook: impl FnMut(&mut Service) + Send + 'static) -> Rule {
        self.before = Some(Hook::new(hook));
        self
    }

    /// Runs on the service right after the request is carried out (or would have been), before the answer goes out.
    pub fn after(mut self, hook: impl FnMut(&mut Service) + Send + 'static) -> Rule {
        self.after = Some(Hook::new(hook));
        self
    }

    /// Whether this rule is for the `nth` call to `endpoint`.
    pub(crate) fn matches(&self, endpoint: Endpoint, nth: usize) -> bool {
        self.endpoint == endpoint && self.calls.contains(&nth)
    }

    /// Whether delays come after the request is carried out.
    pub(crate) fn applies_first(&self) -> bool {
        self.applied
    }

    /// Whether the request is not carried out and its answer is not looked at, so that it need not be worked out.
    pub(crate) fn skips(&self) -> bool {
        !self.applied && (self.replaces() || self.delivery == Delivery::Close)
    }

    /// How the request is carried out.
    pub(crate) fn twist(&self) -> Twist {
        Twist {
            dry: !self.applied && self.delivery != Delivery::Whole,
            as_read: self.as_read,
            cap: self.cap,
            revoke: self.revoke,
            lifetime: self.expires_in,
        }
    }

    /// Whether all of an answer's content comes from the script.
    fn replaces(&self) -> bool {
        self.status.is_some() || self.body.is_some()
    }

    /// Makes the service's answer the script's, but for its encoding.
    pub(crate) fn shape(&self, answer: Answer) -> Answer {
        let mut answer = if self.replaces() { self.replacement(answer.returned) } else { answer };
        if self.pretty {
            answer.body = crate::pretty::pretty(&answer.body);
        }
        answer
    }

    /// The answer's headers that the script adds.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    fn replacement(&self, returned: usize) -> Answer {
        let status = self.status.unwrap_or(StatusCode::OK);
        let mut answer = Answer::error(status, status.canonical_reason().unwrap_or("scripted"));
        if let Some((text, content_type)) = &self.body {
            answer.body = text.clone().into_bytes();
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
