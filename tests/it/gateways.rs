//! Each answer that a gateway may give meets each kind of request: the run goes on, tries again, or
//! ends with a line that names the host, the status and what to do. No record is lost, and no run
//! ends that the next answer would have served.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use streamduo_sandbox::{Endpoint, Rule};

use crate::columns::register;
use crate::tap::{Tap, assert_nothing_lost, identities};

const REQUESTS: [Endpoint; 6] =
    [Endpoint::Token, Endpoint::Peek, Endpoint::Mark, Endpoint::Since, Endpoint::Stream, Endpoint::Schema];

/// Most of the time each case waits for its retry.
const CASES_AT_ONCE: usize = 16;

/// The shortest pause before a retry.
const PAUSE: Duration = Duration::from_millis(500);

/// A page as firewalls show it. Its text is not to be taken for the service's.
const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Request blocked</title></head><body>hunter2</body></html>\n";

/// What an answer leads to.
enum Outcome {
    /// As without it: no line of the log warns.
    GoesOn,
    /// A line with this text says that the request is sent again, after a pause.
    Retried(String),
    /// The last line has these texts. If it was about the schema, it is a warning, and no value is
    /// lost.
    Ends(String, &'static str),
}

use Outcome::{Ends, GoesOn, Retried};

const CREDENTIALS: &str = "the credentials of client \"CLIENT\" are refused: check `clientId` and `clientSecret`";

fn answers(status: u16) -> String {
    format!("HOST answers {status}")
}

fn retried(status: u16) -> Outcome {
    Retried(answers(status))
}

/// All answers to requests of a kind, and what they lead to with `maxRetries` 1.
fn cases(request: Endpoint) -> Vec<(String, Rule, Outcome)> {
    let once = || Rule::on(request).call(1);
    let always = || Rule::on(request).every();
    let is_token = request == Endpoint::Token;
    // What may come from behind the token endpoint is not quoted.
    let says = |text: &str| Retried(if is_token { answers(200) } else { text.to_owned() });
    let ends = |status: u16, token, other| Ends(answers(status), if is_token { token } else { other });
    // A token that is refused is renewed at once.
    let refused_once = |status: u16| if is_token { retried(status) } else { GoesOn };
    let firewall = "a firewall or a gateway answers in ";
    let mut cases = vec![
        ("a byte order mark", once().rewrite(with_byte_order_mark), GoesOn),
        ("x-gzip", once().gzip().header("content-encoding", "x-gzip"), GoesOn),
        ("two gzip members", once().rewrite(in_two_members).header("content-encoding", "gzip"), GoesOn),
        ("packed twice", once().rewrite(gzip).gzip(), GoesOn),
        ("packed twice and called so", once().rewrite(gzip).gzip().header("content-encoding", "gzip, gzip"), GoesOn),
        ("200 of a function", once().json(r#"{"errorMessage":"timed out after 29 s"}"#), says("timed out after 29 s")),
        ("200 with a null message", once().json(r#"{"message": null}"#), retried(200)),
        ("200 with another object", once().json(r#"{"status":"ok"}"#), retried(200)),
        ("200 without a body", once().body(""), says("(application/json): the answer is empty")),
        ("200 with a page", once().not_json(), says("HOST answers 200 (text/html): the answer is not ")),
        ("204", once().status(204).body(""), Retried(format!("{}: the answer is empty", answers(204)))),
        ("a limit as 400", once().status(400).json(r#"{"__type":"TooManyRequestsException"}"#), retried(400)),
        ("429 that asks for 0 s", once().status(429).header("retry-after", "0"), retried(429)),
        ("429 that asks for the past", past(once().status(429)), retried(429)),
        ("403", once().status(403), refused_once(403)),
        ("403 for good", always().status(403), ends(403, "check `authUrl`", "this client may not read stream STREAM")),
        ("403 with a page", page(once().status(403)), refused_once(403)),
        ("403 with a page for good", page(always().status(403)), ends(403, firewall, firewall)),
        (
            "401 for good",
            always().status(401),
            ends(401, CREDENTIALS, "a fresh access token is refused: check `scope`"),
        ),
        (
            "a redirect",
            once().status(302).header("location", "https://login.example.com/?hunter2"),
            ends(302, "check `authUrl`", "redirects are not followed: check `apiUrl`"),
        ),
    ];
    if is_token {
        cases.extend(cases_of_tokens());
    } else {
        cases.push(("401", once().status(401), GoesOn));
        // The token endpoint hands out an old token for a while.
        cases.push(("401 for the next token, too", Rule::on(request).calls(1..=3).status(401), retried(401)));
    }
    let mut cases: Vec<_> = cases.into_iter().map(|(name, rule, outcome)| (name.to_owned(), rule, outcome)).collect();
    for status in [408, 425, 500, 502, 503, 504, 522, 599] {
        cases.push((status.to_string(), once().status(status), retried(status)));
    }
    for status in [501, 505] {
        // A mark may have been applied all the same, so that the run looks first.
        let is_mark = request == Endpoint::Mark;
        let outcome = if is_mark { retried(status) } else { ends(status, "check `authUrl`", "check `apiUrl`") };
        cases.push((status.to_string(), once().status(status), outcome));
    }
    cases
}

/// What a token endpoint alone may answer.
fn cases_of_tokens() -> Vec<(&'static str, Rule, Outcome)> {
    let once = || Rule::on(Endpoint::Token).call(1);
    let unauthorized = "client \"CLIENT\" may not fetch tokens with its credentials alone: check `clientId`";
    let error = |code| format!(r#"{{"error":"{code}","error_description":"hunter2"}}"#);
    vec![
        ("invalid_client", once().status(400).json(error("invalid_client")), Ends(answers(400), CREDENTIALS)),
        ("invalid_client as 200", once().json(error("invalid_client")), Ends(answers(200), CREDENTIALS)),
        ("invalid_client as 401", once().status(401).json(error("invalid_client")), Ends(answers(401), CREDENTIALS)),
        (
            "unauthorized_client",
            once().status(400).json(error("unauthorized_client")),
            Ends(answers(400), unauthorized),
        ),
        ("another error", once().status(400).json(error("hunter2")), Ends(answers(400), "check `authUrl`, `clientId`")),
        ("slow_down", once().status(400).json(error("slow_down")), retried(400)),
        ("an error that nobody knows as 200", once().json(error("hunter2")), retried(200)),
        ("BearerToken", once().rewrite(|body| replaced(body, "Bearer", "BearerToken")), GoesOn),
        ("an odd token_type", once().rewrite(|body| replaced(body, "Bearer", "hunter2")), retried(200)),
    ]
}

/// One of the answers above. None of them is about a mark that was applied, but for those that
/// rewrite the true answer.
pub fn any_answer(rule: Rule, random: &mut Rng) -> Rule {
    const STATUSES: [u16; 12] = [401, 403, 408, 425, 500, 501, 502, 503, 504, 505, 522, 599];
    match random.usize(..13) {
        0 => rule.rewrite(with_byte_order_mark),
        1 => rule.gzip().header("content-encoding", "x-gzip"),
        2 => rule.rewrite(in_two_members).header("content-encoding", "gzip"),
        3 => rule.rewrite(gzip).gzip(),
        4 => rule.json(r#"{"errorMessage":"timed out after 29 s"}"#),
        5 => rule.json(r#"{"message": null}"#),
        6 => rule.body(""),
        7 => rule.status(204).body(""),
        8 => rule.status(400).json(r#"{"__type":"TooManyRequestsException"}"#),
        9 => past(rule.status(429)),
        10 => page(rule.status(403)),
        11 => rule.status(302).header("location", "https://login.example.com/"),
        _ => rule.status(*random.choice(&STATUSES).unwrap()),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn in_two_members(body: &[u8]) -> Vec<u8> {
    let (first, second) = body.split_at(body.len() / 2);
    [gzip(first), gzip(second)].concat()
}

fn with_byte_order_mark(body: &[u8]) -> Vec<u8> {
    ["\u{feff}".as_bytes(), body].concat()
}

fn replaced(body: &[u8], from: &str, to: &str) -> Vec<u8> {
    str::from_utf8(body).unwrap().replace(from, to).into_bytes()
}

fn past(rule: Rule) -> Rule {
    rule.header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")
}

fn page(rule: Rule) -> Rule {
    rule.body(PAGE).header("content-type", "text/html; charset=utf-8")
}

/// A tap that sends requests of this kind.
fn tap_for(request: Endpoint) -> Tap {
    let tap = Tap::with_records(3).set("maxRetries", 1);
    match request {
        Endpoint::Since => tap.set("acknowledge", "never"),
        Endpoint::Stream | Endpoint::Schema => {
            let file = tap.path("columns.json").display().to_string();
            let tap = tap.set("payloadSchema", "registered").set("columnsFile", file);
            register(&tap, "JSON", &json!({"type": "object", "properties": {"registered": {"type": "string"}}}));
            tap
        }
        _ => tap,
    }
}

fn check(request: Endpoint, name: &str, rule: Rule, outcome: &Outcome) {
    let case = format!("{request:?}, {name}");
    let tap = tap_for(request);
    tap.sandbox.script(rule);
    let started = Instant::now();
    let run = tap.run();
    let took = started.elapsed();
    let written = run.written();
    assert_nothing_lost(&tap, &written, &format!("{case}\n{}", run.stderr));
    assert!(!run.stderr.contains("hunter2") || !matches!(request, Endpoint::Token), "{case}\n{}", run.stderr);
    let is_about_schema = matches!(request, Endpoint::Stream | Endpoint::Schema);
    if matches!(outcome, Ends(..)) && !is_about_schema {
        assert_eq!(run.code, 1, "{case}\n{}", run.stderr);
    } else {
        let all = identities(&tap.records());
        assert_eq!((run.code, written), (0, all), "{case}\n{}", run.stderr);
        assert!(request == Endpoint::Since || tap.unread().is_empty(), "{case}\n{}", run.stderr);
    }
    let schema = run.stdout.lines().next().unwrap_or_default();
    let has_schema = schema.contains("\"registered\":");
    let is_warning = |line: &&str| !line.starts_with("INFO") && !line.contains("`dataPayloadRest`");
    let warnings: Vec<_> = run.stderr.lines().filter(is_warning).collect();
    match outcome {
        GoesOn => {
            assert_eq!((warnings, has_schema), (vec![], is_about_schema), "{case}");
        }
        Retried(text) => {
            let retry = |line: &&&str| line.contains(text) && line.ends_with("; trying again in # s (1 of 1)");
            assert_eq!(warnings.iter().filter(retry).count(), 1, "{case}: {text}\n{}", run.stderr);
            assert!(took >= PAUSE && has_schema == is_about_schema, "{case}: {took:?}\n{}", run.stderr);
        }
        Ends(status, remedy) => {
            let level = if is_about_schema { "WARNING no registered schema to use: " } else { "CRITICAL " };
            let last = warnings.last().unwrap_or_else(|| panic!("{case}\n{}", run.stderr));
            assert!(last.starts_with(level) && last.contains(status), "{case}: {last}");
            assert!(last.contains(remedy) && !has_schema, "{case}: {remedy:?} is not in {last}");
        }
    }
}

#[test]
fn each_answer_of_a_gateway_to_each_request_is_read_or_retried_or_explained() {
    let cases: Vec<_> = REQUESTS
        .into_iter()
        .flat_map(|request| cases(request).into_iter().map(move |(name, rule, outcome)| (request, name, rule, outcome)))
        .collect();
    let next = AtomicUsize::new(0);
    let failed = thread::scope(|scope| {
        let work = || {
            while let Some((request, name, rule, outcome)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                check(*request, name, rule.clone(), outcome);
            }
        };
        let threads: Vec<_> = (0..CASES_AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().is_err()).collect::<BTreeSet<_>>()
    });
    assert!(!failed.contains(&true));
}
