use streamduo_sandbox::{Endpoint, Rule, Sandbox};

use crate::client::{Api, RECORDS, STREAMS, ask_token, form, send};

#[test]
fn a_token_answer_has_the_fields_of_cognitos() {
    let sandbox = Sandbox::start();
    let json = ask_token(&sandbox, &form(&sandbox, Some(RECORDS))).json();
    assert_eq!((&json["expires_in"], &json["token_type"]), (&3600.into(), &"Bearer".into()));
    assert!(json["access_token"].as_str().is_some_and(|token| token.len() > 100));
}

#[test]
fn the_token_endpoint_refuses_with_cognitos_errors() {
    let sandbox = Sandbox::start();
    let good = form(&sandbox, None);
    let (id, secret) = (sandbox.client_id(), sandbox.client_secret());
    let cases = [
        (good.replace(secret, "guess"), "invalid_client"),
        (good.replace(id, "someone"), "invalid_client"),
        (good.replace(secret, ""), "invalid_request"),
        (good.replace("client_id", "clientId"), "invalid_request"),
        (good.replace("grant_type=client_credentials&", ""), "invalid_request"),
        (good.clone() + "&client_id=twice", "invalid_request"),
        (good.replace("client_credentials", "password"), "unsupported_grant_type"),
        (form(&sandbox, Some("https://api.streamduo.com/delete:everything")), "invalid_scope"),
        (form(&sandbox, Some(&format!("{RECORDS}%20and:more"))), "invalid_scope"),
    ];
    for (body, error) in cases {
        let reply = ask_token(&sandbox, &body);
        assert_eq!((reply.status, reply.json()), (400, serde_json::json!({ "error": error })), "{body}");
    }
}

#[test]
fn the_token_endpoint_accepts_only_forms() {
    let sandbox = Sandbox::start();
    let reply = send(&sandbox, "POST", "/oauth2/token", &[("content-type", "application/json")], &form(&sandbox, None));
    let reply = reply.expect("an answer");
    assert_eq!((reply.status, reply.text()), (400, r#"{"error":"invalid_request"}"#));
    let reply = send(&sandbox, "GET", "/oauth2/token", &[], "").expect("an answer");
    assert_eq!(reply.status, 404);
}

#[test]
fn calls_need_the_right_scope() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let schema = format!("/streams/{stream}/schemas/none/");
    let both = format!("{RECORDS}+{STREAMS}");
    for (scope, peek_and_stream) in
        [(None, (200, 200)), (Some(RECORDS), (200, 403)), (Some(STREAMS), (403, 200)), (Some(&*both), (200, 200))]
    {
        let api = Api::with_scope(&sandbox, scope);
        assert_eq!(api.statuses(&stream), peek_and_stream, "{scope:?}");
        assert_eq!(api.get(&schema).status, 404, "the schema calls accept either scope");
    }
}

#[test]
fn calls_without_a_valid_token_get_401_except_health() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    for headers in [vec![], vec![("authorization", "Bearer guess")], vec![("authorization", "Basic Z3Vlc3M=")]] {
        let reply = send(&sandbox, "GET", &format!("/stream/{stream}"), &headers, "").expect("an answer");
        assert_eq!((reply.status, reply.text()), (401, r#"{"message":"Unauthorized"}"#));
        let health = send(&sandbox, "GET", "/health", &headers, "").expect("an answer");
        assert_eq!((health.status, health.text()), (200, "OK"));
    }
}

#[test]
fn tokens_expire() {
    let sandbox = Sandbox::builder().token_lifetime_seconds(0).start().expect("a sandbox");
    let stream = sandbox.create_stream("cars");
    assert_eq!(Api::new(&sandbox).peek(&stream, 1).status, 401);
}

#[test]
fn a_token_can_be_given_its_own_lifetime() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.script(Rule::on(Endpoint::Token).call(1).expires_in(0));
    sandbox.script(Rule::on(Endpoint::Token).call(2).expires_in(7));
    assert_eq!(Api::new(&sandbox).peek(&stream, 1).status, 401);
    let json = ask_token(&sandbox, &form(&sandbox, None)).json();
    assert_eq!(json["expires_in"], 7);
    assert_eq!(Api::new(&sandbox).peek(&stream, 1).status, 200);
}

#[test]
fn a_rule_revokes_all_tokens_before_a_call_or_the_one_that_is_issued() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.script(Rule::on(Endpoint::Peek).call(2).revoke_token());
    sandbox.script(Rule::on(Endpoint::Token).call(2).revoke_token());
    let api = Api::new(&sandbox);
    let statuses = [1, 2, 3].map(|_| api.peek(&stream, 1).status);
    assert_eq!(statuses, [200, 401, 401]);
    assert_eq!(Api::new(&sandbox).peek(&stream, 1).status, 401);
    let api = Api::new(&sandbox);
    assert_eq!(api.peek(&stream, 1).status, 200);
    sandbox.revoke_tokens();
    assert_eq!(api.peek(&stream, 1).status, 401);
}
