use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use streamduo_sandbox::{Endpoint, Rule, Sandbox};

use crate::client::{Api, Reply, connect, read, unread, write};

/// A sandbox with this rule and a stream of `count` sample records.
fn scripted(count: usize, rule: Rule) -> (Sandbox, String) {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill(&stream, count);
    sandbox.script(rule);
    (sandbox, stream)
}

/// Marks 10 of 30 records. Returns how many are unread then, and the answer.
fn mark_with(rule: Rule) -> (usize, Option<Reply>) {
    let (sandbox, stream) = scripted(30, rule);
    let reply = Api::new(&sandbox).try_mark(&stream, 10);
    (sandbox.unread(&stream).len(), reply)
}

/// Checks that the rule marks nothing without `applied`, and 10 records with it. Returns the
/// latter's answer.
fn mark_with_and_without_applied(rule: Rule) -> Reply {
    let (without, _) = mark_with(rule.clone());
    let (with, reply) = mark_with(rule.applied());
    assert_eq!((without, with), (30, 20));
    reply.expect("an answer")
}

#[test]
fn a_status_comes_with_headers_and_a_body() {
    let reply =
        mark_with_and_without_applied(Rule::on(Endpoint::Mark).status(503).header("Retry-After", "1").body("{}"));
    assert_eq!((reply.status, reply.text()), (503, "{}"));
    assert_eq!((reply.header("retry-after"), reply.header("content-type")), (Some("1"), Some("application/json")));
    let plain = mark_with_and_without_applied(Rule::on(Endpoint::Mark).status(429));
    assert_eq!(plain.text(), r#"{"message":"Too Many Requests"}"#);
}

#[test]
fn an_answer_can_have_another_body() {
    let reply = mark_with_and_without_applied(Rule::on(Endpoint::Mark).json(r#"{"a": 1.0}"#));
    assert_eq!((reply.status, reply.text()), (200, r#"{"a": 1.0}"#));
    let page = mark_with_and_without_applied(Rule::on(Endpoint::Mark).not_json());
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().starts_with("<!DOCTYPE html>"));
    assert_eq!(mark_with_and_without_applied(Rule::on(Endpoint::Mark).status(502).not_json()).status, 502);
}

#[test]
fn a_connection_can_close_before_any_answer() {
    let (untouched, reply) = mark_with(Rule::on(Endpoint::Mark).close());
    assert!(untouched == 30 && reply.is_none());
    let (applied, reply) = mark_with(Rule::on(Endpoint::Mark).applied().close());
    assert!(applied == 20 && reply.is_none());
}

#[test]
fn an_answer_can_be_cut_in_the_middle() {
    let cut = mark_with_and_without_applied(Rule::on(Endpoint::Mark).cut());
    let announced: usize = cut.header("content-length").and_then(|text| text.parse().ok()).expect("a length");
    assert_eq!((cut.status, cut.complete, cut.body.len()), (200, false, announced / 2));
    assert!(cut.text().starts_with(r#"[{"recordId":"#));

    let chunked = mark_with_and_without_applied(Rule::on(Endpoint::Mark).cut_chunked());
    assert_eq!((chunked.complete, chunked.header("transfer-encoding")), (false, Some("chunked")));
    assert!(chunked.text().contains(r#"[{"recordId":"#));
}

#[test]
fn half_of_a_cut_answer_arrives_even_if_it_exceeds_the_socket_buffers() {
    let (sandbox, stream) = scripted(20_000, Rule::on(Endpoint::Peek).cut());
    let api = Api::new(&sandbox);
    let cut = api.peek(&stream, 20_000);
    let announced: usize = cut.header("content-length").and_then(|text| text.parse().ok()).expect("a length");
    assert!(announced > 5_000_000, "{announced} bytes may fit into the socket buffers");
    assert_eq!(cut.body.len(), announced / 2);
}

#[test]
fn a_call_whose_answer_is_cut_changes_nothing() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let api = Api::new(&sandbox);
    for endpoint in [Endpoint::Write, Endpoint::DeleteStream, Endpoint::Token] {
        sandbox.script(Rule::on(endpoint).cut());
    }
    let body = r#"{"dataPayload":1}"#;
    assert!(!api.call("POST", &format!("/stream/{stream}/record"), body).complete);
    assert!(!api.call("DELETE", &format!("/stream/{stream}"), "").complete);
    let token = crate::client::ask_token(&sandbox, &crate::client::form(&sandbox, None));
    assert!(!token.complete && token.text().contains("access_token"));
    assert_eq!(sandbox.tally(&stream), (0, 0));
    assert_eq!(api.peek(&stream, 1).status, 200);
}

#[test]
fn the_first_rule_that_matches_a_call_applies() {
    let (sandbox, stream) = scripted(3, Rule::on(Endpoint::Peek).call(2).status(500));
    sandbox.script(Rule::on(Endpoint::Peek).calls(2..=3).status(501));
    sandbox.script(Rule::on(Endpoint::Peek).calls(5..=usize::MAX).status(502));
    let api = Api::new(&sandbox);
    let statuses: Vec<u16> = (0..6).map(|_| api.peek(&stream, 1).status).collect();
    assert_eq!(statuses, [200, 500, 501, 200, 502, 502]);
    assert_eq!(api.mark(&stream, 1).status, 200);
}

#[test]
fn a_cap_limits_what_is_returned_and_what_is_marked() {
    let (sandbox, stream) = scripted(30, Rule::on(Endpoint::Mark).cap(4));
    sandbox.script(Rule::on(Endpoint::Peek).every().cap(7));
    let api = Api::new(&sandbox);
    assert_eq!(api.peek(&stream, 10).ids().len(), 7);
    assert_eq!(api.peek(&stream, 3).ids().len(), 3);
    assert_eq!(api.mark(&stream, 10).ids().len(), 4);
    assert_eq!(sandbox.read(&stream).len(), 4);
}

#[test]
fn an_answer_can_be_pretty_printed_without_changing_its_tokens() {
    let (sandbox, stream) = scripted(0, Rule::on(Endpoint::Peek).pretty());
    sandbox.write(&stream, r#"{"n":10.00,"big":[1e400]}"#);
    let reply = Api::new(&sandbox).peek(&stream, 1);
    assert!(reply.text().contains("\"n\": 10.00,\n"), "{}", reply.text());
    assert!(reply.text().contains("\n        1e400\n"), "{}", reply.text());
    assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
}

#[test]
fn an_answer_can_be_gzipped_and_capped_and_cut() {
    let (sandbox, stream) = scripted(30, Rule::on(Endpoint::Peek).call(1).cap(5).gzip());
    sandbox.script(Rule::on(Endpoint::Peek).call(2).gzip().cut());
    let api = Api::new(&sandbox);
    let reply = api.peek(&stream, 10);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*reply.body).read_to_string(&mut text).expect("gzip");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(5));
    assert!(!api.peek(&stream, 10).complete);
}

#[test]
fn a_delay_delays() {
    let delay = Duration::from_millis(60);
    let (sandbox, stream) = scripted(3, Rule::on(Endpoint::Peek).call(1).delay(delay).status(500));
    let api = Api::new(&sandbox);
    let start = Instant::now();
    assert_eq!(api.peek(&stream, 1).status, 500);
    assert!(start.elapsed() >= delay);
    let slow = Sandbox::builder().latency(delay).start().expect("a sandbox");
    let start = Instant::now();
    Api::new(&slow);
    assert!(start.elapsed() >= delay);
}

#[test]
fn hooks_run_just_before_and_just_after_the_request_is_carried_out() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill(&stream, 3);
    let (before, after) = (stream.clone(), stream.clone());
    sandbox.script(
        Rule::on(Endpoint::Mark)
            .call(1)
            .before(move |service| {
                service.write_as(&before, "late", "2022-01-01T00:00:00Z", "1");
            })
            .after(move |service| {
                assert_eq!(service.read(&after).len(), 2);
                service.mark_oldest(&after, 1);
            }),
    );
    let reply = Api::new(&sandbox).mark(&stream, 2);
    assert_eq!(reply.ids()[0], "late");
    assert_eq!((sandbox.read(&stream).len(), sandbox.unread(&stream).len()), (3, 1));
}

#[test]
fn hooks_run_even_if_the_connection_closes() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill(&stream, 3);
    let hooked = stream.clone();
    sandbox.script(Rule::on(Endpoint::Mark).close().before(move |service| service.write_text(&hooked, "{}")));
    assert!(Api::new(&sandbox).try_mark(&stream, 2).is_none());
    assert_eq!(sandbox.tally(&stream), (4, 4));
}

#[test]
fn a_mark_that_gets_an_error_can_be_applied_after_further_requests() {
    for rule in [Rule::on(Endpoint::Mark).status(504), Rule::on(Endpoint::Mark).cut(), Rule::on(Endpoint::Mark)] {
        let (sandbox, stream) = scripted(30, rule.call(1).applied_after(2));
        let all = sandbox.unread(&stream);
        let api = Api::new(&sandbox);
        let lost = api.mark(&stream, 10);
        assert!(lost.status == 504 || lost.text().contains(&all[0].record_id), "{}", lost.text());
        assert_eq!(api.mark(&stream, 5).ids()[0], all[0].record_id);
        assert_eq!(sandbox.read(&stream), all[..5]);
        // It is applied after this answer: to what is oldest now.
        assert_eq!(api.peek(&stream, 1).ids()[0], all[5].record_id);
        assert_eq!(sandbox.read(&stream), all[..15]);
        api.peek(&stream, 1);
        assert_eq!(sandbox.read(&stream), all[..15], "once");
    }
}

#[test]
fn a_late_mark_is_applied_on_request_and_forgotten_with_the_script() {
    let (sandbox, stream) = scripted(30, Rule::on(Endpoint::Mark).every().close().applied_after(usize::MAX));
    let api = Api::new(&sandbox);
    assert!(api.try_mark(&stream, 10).is_none());
    sandbox.apply_late();
    assert_eq!(sandbox.read(&stream).len(), 10);
    assert!(api.try_mark(&stream, 10).is_none());
    sandbox.clear_script();
    sandbox.apply_late();
    assert_eq!(sandbox.read(&stream).len(), 10);
    assert_eq!(api.mark(&stream, 10).status, 200);
}

#[test]
fn a_mark_can_be_applied_twice_and_its_first_answer_is_passed_on() {
    let (sandbox, stream) = scripted(30, Rule::on(Endpoint::Mark).call(1).applied_twice());
    let all = sandbox.unread(&stream);
    let reply = Api::new(&sandbox).mark(&stream, 10);
    assert_eq!((reply.ids().len(), &reply.ids()[0]), (10, &all[0].record_id));
    assert_eq!(sandbox.read(&stream), all[..20]);
}

#[test]
fn a_hook_runs_between_two_applications() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill(&stream, 3);
    let hooked = stream.clone();
    let rule = Rule::on(Endpoint::Mark).call(1).applied_twice();
    sandbox.script(rule.between(move |service| {
        assert_eq!(service.read(&hooked).len(), 2);
        service.write_as(&hooked, "arrived", "2030-01-01T00:00:00Z", "1");
    }));
    assert_eq!(Api::new(&sandbox).mark(&stream, 2).ids().len(), 2);
    assert_eq!((sandbox.unread(&stream).len(), sandbox.read(&stream)[3].record_id.as_str()), (0, "arrived"));
}

#[test]
fn a_mark_can_get_the_answer_of_an_earlier_attempt_or_a_stale_page() {
    let (sandbox, stream) = scripted(30, Rule::on(Endpoint::Mark).call(1).applied().close());
    sandbox.script(Rule::on(Endpoint::Mark).call(2).answer_of(Endpoint::Mark));
    sandbox.script(Rule::on(Endpoint::Mark).call(3).answer_of(Endpoint::Peek));
    sandbox.script(Rule::on(Endpoint::Mark).call(4).answer_of(Endpoint::LastN));
    let ids: Vec<_> = sandbox.unread(&stream).into_iter().map(|identity| identity.record_id).collect();
    let api = Api::new(&sandbox);
    api.peek(&stream, 3);
    assert!(api.try_mark(&stream, 10).is_none());
    assert_eq!(api.mark(&stream, 5).ids(), ids[..10], "what the first one should have got");
    assert_eq!(api.mark(&stream, 5).ids(), ids[..3], "the last peek");
    assert_eq!(api.mark(&stream, 5).ids(), ids[20..25], "its own: there is no other");
    assert_eq!(sandbox.read(&stream).len(), 25, "each is applied");
}

#[test]
fn a_panic_in_a_hook_fails_the_test_but_not_the_server() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.script(Rule::on(Endpoint::Peek).before(|service| service.fill("no such stream", 1)));
    assert_eq!(Api::new(&sandbox).peek(&stream, 1).status, 200);
    let dropped = thread::spawn(move || drop(sandbox)).join();
    let message = dropped.expect_err("the drop panics");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(message.contains(r#"the sandbox has no stream "no such stream""#), "{message}");
}

#[test]
fn a_held_request_is_answered_once_released() {
    let (sandbox, stream) = scripted(30, Rule::on(Endpoint::Mark).call(1).hold());
    sandbox.script(Rule::on(Endpoint::Mark).call(2).applied().hold());
    let api = Api::new(&sandbox);
    for (nth, unread_while_held, unread_after) in [(1, 30, 20), (2, 10, 10)] {
        thread::scope(|scope| {
            let held = scope.spawn(|| api.mark(&stream, 10).ids().len());
            sandbox.wait_held(Endpoint::Mark, nth);
            assert_eq!(sandbox.unread(&stream).len(), unread_while_held);
            assert_eq!(sandbox.journal().last().and_then(|call| call.status), None);
            sandbox.release();
            sandbox.wait_answered(Endpoint::Mark, nth);
            assert_eq!(held.join().expect("an answer"), 10);
        });
        assert_eq!(sandbox.unread(&stream).len(), unread_after);
    }
}

#[test]
fn a_release_right_after_the_arrival_is_not_missed() {
    let (sandbox, stream) = scripted(1, Rule::on(Endpoint::Peek).every().hold());
    let api = Api::new(&sandbox);
    for nth in 1..=50 {
        thread::scope(|scope| {
            scope.spawn(|| api.peek(&stream, 1));
            sandbox.wait_for(Endpoint::Peek, nth);
            sandbox.release();
        });
    }
}

#[test]
fn a_request_is_carried_out_even_if_its_client_has_disconnected() {
    let (sandbox, stream) = scripted(30, Rule::on(Endpoint::Mark).hold());
    let api = Api::new(&sandbox);
    let mut connection = connect(&sandbox);
    let path = format!("/stream/{stream}/record-request");
    write(&mut connection, "POST", &path, &api.headers(), &unread(10, true).to_string());
    sandbox.wait_held(Endpoint::Mark, 1);
    drop(connection);
    sandbox.release();
    sandbox.wait_answered(Endpoint::Mark, 1);
    assert_eq!(sandbox.unread(&stream).len(), 20);
}

#[test]
fn dropping_the_sandbox_closes_held_and_idle_connections() {
    let (sandbox, stream) = scripted(1, Rule::on(Endpoint::Peek).hold());
    let api = Api::new(&sandbox);
    let (mut held, idle) = (connect(&sandbox), connect(&sandbox));
    let path = format!("/stream/{stream}/record-request");
    write(&mut held, "POST", &path, &api.headers(), &unread(1, false).to_string());
    sandbox.wait_for(Endpoint::Peek, 1);
    drop(sandbox);
    assert!(read(&held).is_none() && read(&idle).is_none());
}

#[test]
fn the_journal_keeps_everything() {
    let (sandbox, stream) = scripted(3, Rule::on(Endpoint::Mark).call(2).applied().close());
    let api = Api::new(&sandbox);
    let mut connection = connect(&sandbox);
    let path = format!("/stream/{stream}/record-request");
    for (count, mark) in [(2, false), (2, true), (9, true)] {
        write(&mut connection, "POST", &path, &api.headers(), &unread(count, mark).to_string());
        assert_eq!(read(&connection).is_none(), count == 9);
    }
    let journal = sandbox.journal();
    let seen: Vec<_> =
        journal.iter().map(|call| (call.endpoint, call.status, call.connection, call.returned)).collect();
    let expected = [
        (Endpoint::Token, Some(200), 1, 0),
        (Endpoint::Peek, Some(200), 2, 2),
        (Endpoint::Mark, Some(200), 2, 2),
        (Endpoint::Mark, None, 2, 1),
    ];
    assert_eq!(seen, expected);
    assert_eq!((journal[3].record_count, journal[3].mark_as_read), (Some(9), Some(true)));
    assert_eq!((&*journal[3].method, &journal[3].path), ("POST", &path));
    assert!(journal[0].body.contains(sandbox.client_secret()));
    assert!(journal[1].headers.iter().any(|(name, value)| name == "authorization" && value.starts_with("Bearer ")));
    assert_eq!((sandbox.requests(), sandbox.count(Endpoint::Mark), sandbox.count(Endpoint::LastN)), (4, 2, 0));
}

#[test]
fn a_bad_rule_or_call_panics_in_the_test() {
    let bad: [fn() -> Rule; 5] = [
        || Rule::on(Endpoint::Mark).call(0),
        || Rule::on(Endpoint::Mark).status(42),
        || Rule::on(Endpoint::Mark).status(100),
        || Rule::on(Endpoint::Mark).header("two words", "x"),
        || Rule::on(Endpoint::Mark).expires_in(1),
    ];
    for rule in bad {
        assert!(thread::spawn(rule).join().is_err());
    }
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    thread::scope(|scope| {
        assert!(scope.spawn(|| sandbox.write(&stream, "{")).join().is_err());
        assert!(scope.spawn(|| sandbox.unread("none")).join().is_err());
    });
    assert_eq!(Api::new(&sandbox).peek(&stream, 1).status, 200);
}
