//! A test with a live stream: it writes one record, drains the stream and looks for the record in
//! the output.
//!
//! It runs only if `TAP_STREAMDUO_LIVE_CONFIG` names a config file. Its client must be a producer
//! and a consumer of the stream.

use std::io::Write;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, io};

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::tap::bare_command;

#[test]
fn a_record_written_to_a_live_stream_comes_out() {
    let Ok(path) = env::var("TAP_STREAMDUO_LIVE_CONFIG") else {
        // Not `eprintln!`: the test runner would hide it if the test passes.
        writeln!(io::stderr(), "the live test did not run: TAP_STREAMDUO_LIVE_CONFIG names no config").unwrap();
        return;
    };
    let config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let setting = |name: &str, default: &str| config[name].as_str().unwrap_or(default).to_owned();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let token = answer(
        client
            .post(setting("authUrl", "https://streamduo-authentication.auth.us-east-1.amazoncognito.com/oauth2/token"))
            .form(&[
                ("grant_type", "client_credentials"),
                ("client_id", &setting("clientId", "")),
                ("client_secret", &setting("clientSecret", "")),
                ("scope", &setting("scope", "https://api.streamduo.com/read:records")),
            ]),
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let payload = json!({"writtenBy": "the live test of tap-streamduo", "at": now.to_string()});
    let api = setting("apiUrl", "https://api.streamduo.com");
    let written = answer(
        client
            .post(format!("{}/stream/{}/record", api.trim_end_matches('/'), setting("streamId", "")))
            .bearer_auth(token["access_token"].as_str().unwrap())
            .json(&json!({"recordId": null, "dataPayload": payload})),
    );

    let output = live_command().args(["--config", &path]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let messages: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(messages.first().map(|message| &message["type"]), Some(&json!("SCHEMA")));
    assert_eq!(messages.last().map(|message| &message["type"]), Some(&json!("STATE")));
    let found: Vec<_> =
        messages.iter().filter(|message| message["record"]["recordId"] == written["recordId"]).collect();
    assert_eq!(found.len(), 1, "the record is not among {} messages", messages.len());
    assert_eq!(found[0]["record"]["dataPayload"], payload);
}

/// Sends a request that must succeed, and parses its answer.
fn answer(request: RequestBuilder) -> Value {
    request.send().unwrap().error_for_status().unwrap().json().unwrap()
}

/// The binary, with the environment's settings of proxies and certificates.
fn live_command() -> Command {
    let mut command = bare_command();
    let passed_on = |name: &str| name.to_ascii_uppercase().ends_with("_PROXY") || name.starts_with("SSL_CERT_");
    command.envs(env::vars().filter(|(name, _)| passed_on(name)));
    command
}
