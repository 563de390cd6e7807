//! https: which certificates are accepted, and what is said about the others.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::thread;

use rustix::process::Signal;
use streamduo_sandbox::{Endpoint, Rule, Sandbox, Tls};

use crate::tap::{Tap, record_lines};

/// Changes a rule so that the answer to its request is lost.
type Fault = fn(Rule) -> Rule;

/// A tap on a sandbox that serves https. It trusts the sandbox's CA by `SSL_CERT_FILE`. It forgives
/// failures, so that a run that ends at once shows that a failure was not retried.
fn https(tls: Tls, records: usize) -> Tap {
    let tap = without_ca(tls, records);
    let ca = tap.write_file("ca.pem", tap.sandbox.ca_pem().unwrap());
    tap.env("SSL_CERT_FILE", ca.to_str().unwrap())
}

/// Like [`https`], without the variable.
fn without_ca(tls: Tls, records: usize) -> Tap {
    Tap::on(Sandbox::builder().tls(tls).start().unwrap(), records).set("maxRetries", 5)
}

/// The connections that requests came on.
fn connections(tap: &Tap) -> BTreeSet<usize> {
    tap.sandbox.journal().iter().map(|call| call.connection).collect()
}

/// The run ends at once with this fatal line. No request arrives.
#[track_caller]
fn assert_refused_at_once(tap: &Tap, code: i32, fatal: &str) {
    let run = tap.run();
    run.assert_refused(tap, code, fatal);
    assert!(!run.stderr.contains("trying again"), "{}", run.stderr);
    assert_eq!(tap.sandbox.requests(), 0);
}

#[test]
fn https_is_spoken_in_versions_1_2_and_1_3_on_one_connection() {
    for tls in [Tls::Good, Tls::Only12, Tls::Only13] {
        let tap = https(tls, 250);
        tap.run().assert_all_delivered_when(&tap, &format!("{tls:?}"));
        assert_eq!((connections(&tap).len(), tap.sandbox.requests()), (1, 7), "{tls:?}");
    }
}

#[test]
fn a_server_that_closes_the_connection_after_each_answer_is_read_to_the_end() {
    let tap = https(Tls::Good, 150);
    for endpoint in [Endpoint::Token, Endpoint::Peek, Endpoint::Mark] {
        tap.sandbox.script(Rule::on(endpoint).every().header("connection", "close"));
    }
    tap.run().assert_all_delivered(&tap);
    assert_eq!(connections(&tap).len(), tap.sandbox.requests());
}

#[test]
fn a_connection_that_was_closed_between_two_polls_is_replaced() {
    let tap = https(Tls::Good, 1).args(&["--follow"]).set("pollIntervalSeconds", 1);
    let mut running = tap.start();
    let first = running.read_lines(3);
    tap.sandbox.wait_answered(Endpoint::Peek, 2);
    tap.sandbox.close_connections();
    tap.sandbox.write(&tap.stream, "{}");
    assert_eq!((first, running.read_line()), (tap.messages(&tap.records()[..1]), record_lines(&tap.records()[1..])));
    running.signal(Signal::TERM);
    assert_eq!(running.wait(&tap).code, 143);
    assert!(connections(&tap).len() > 1);
}

#[test]
fn a_private_ca_is_trusted_by_its_folder() {
    let tap = without_ca(Tls::Good, 3);
    let ca = tap.write_file("ca.pem", tap.sandbox.ca_pem().unwrap());
    let tap = tap.env("SSL_CERT_DIR", ca.parent().unwrap().to_str().unwrap());
    tap.run().assert_all_delivered(&tap);
}

/// Runs the tap, which must refuse a certificate for a reason, say what to do, and send nothing.
#[track_caller]
fn assert_certificate_refused(tap: &Tap, request: &str, remedy: &str) {
    let run = tap.run();
    let fatal = format!("CRITICAL {request}: the certificate of HOST is not accepted (");
    let line = run.last_log_line();
    assert!(line.starts_with(&fatal) && line.ends_with(&format!("): {remedy}")), "{line}");
    assert!(!run.stderr.contains("trying again"), "{}", run.stderr);
    assert_eq!((run.code, run.stdout.as_str(), tap.sandbox.requests()), (1, "", 0));
}

#[test]
fn a_certificate_that_cannot_be_accepted_ends_the_run_at_once() {
    for (tls, remedy) in [
        (Tls::UnknownCa, "put the CA's certificate into `SSL_CERT_FILE` DIR/ca.pem"),
        (Tls::Expired, "check this machine's clock, or have the server's operator renew it"),
        (Tls::NotYetValid, "check this machine's clock, or have the server's operator renew it"),
        (Tls::OtherHost, "use a name that it is for, or have the server's operator replace it"),
        (Tls::CaItself, "have the server's operator replace it"),
    ] {
        assert_certificate_refused(&https(tls, 3), "fetch an access token", remedy);
    }
}

#[test]
fn the_certificate_of_the_api_is_checked_as_that_of_the_token_endpoint_is() {
    let tokens = Sandbox::start();
    let tap = https(Tls::Expired, 3).set("authUrl", tokens.auth_url());
    let tap = tap.set("clientId", tokens.client_id()).set("clientSecret", tokens.client_secret());
    assert_certificate_refused(
        &tap,
        "read stream STREAM",
        "check this machine's clock, or have the server's operator renew it",
    );
}

#[test]
fn an_unknown_ca_is_looked_for_where_the_environment_says() {
    // Whether the system has CA certificates, this one is not among them.
    let tap = without_ca(Tls::Good, 3);
    let run = tap.run();
    assert!(run.last_log_line().contains("`SSL_CERT_FILE`"), "{}", run.stderr);
    assert_eq!((tap.sandbox.requests(), run.stdout.as_str()), (0, ""));

    let others = Sandbox::builder().tls(Tls::Good).start().unwrap();
    let dir = tap.path("certificates");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("other.pem"), others.ca_pem().unwrap()).unwrap();
    let tap = tap.env("SSL_CERT_DIR", dir.to_str().unwrap()).env("SSL_CERT_FILE", "/no/such/ca.pem");
    assert_certificate_refused(
        &tap,
        "fetch an access token",
        "put the CA's certificate into `SSL_CERT_FILE` /no/such/ca.pem or `SSL_CERT_DIR` DIR/certificates",
    );
}

#[test]
fn a_certificate_file_that_is_missing_or_garbage_is_refused_before_any_request() {
    let remedy = "set `SSL_CERT_FILE` to a PEM file, or unset it and install ca-certificates";
    let tap = without_ca(Tls::Good, 3).env("SSL_CERT_FILE", "/no/such/ca.pem");
    assert_refused_at_once(
        &tap,
        2,
        &format!(
            "there is no CA certificate in `SSL_CERT_FILE` /no/such/ca.pem: \
             {remedy}"
        ),
    );
    for (content, problem) in [
        ("", ""),
        ("garbage", ""),
        ("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n", ""),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", ""),
        ("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n", ""),
    ] {
        let tap = without_ca(Tls::Good, 3);
        let file = tap.write_file("ca.pem", content);
        let tap = tap.env("SSL_CERT_FILE", file.to_str().unwrap());
        assert_refused_at_once(
            &tap,
            2,
            &format!(
                "there is no CA certificate in `SSL_CERT_FILE` \
                        DIR/ca.pem{problem}: {remedy}"
            ),
        );
    }
}

#[test]
fn certificates_are_not_loaded_for_plain_http_on_this_machine() {
    let tap = Tap::with_records(3).env("SSL_CERT_FILE", "/no/such/ca.pem");
    tap.run().assert_all_delivered(&tap);
}

#[test]
fn a_server_that_does_not_speak_tls_ends_the_run_at_once() {
    let tap = Tap::with_records(3).set("maxRetries", 5);
    let url = tap.sandbox.auth_url().replace("http:", "https:");
    let ca = Sandbox::builder().tls(Tls::Good).start().unwrap().ca_pem().unwrap().to_owned();
    let ca = tap.write_file("ca.pem", &ca);
    let tap = tap.set("authUrl", url).env("SSL_CERT_FILE", ca.to_str().unwrap());
    assert_refused_at_once(&tap, 1, "fetch an access token: HOST does not speak TLS: check its port");
}

#[test]
fn a_server_without_a_common_version_of_tls_ends_the_run_at_once() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let serve = move || {
        // A fatal alert: protocol_version (RFC 8446 section 6.2).
        server.incoming().for_each(|client| client.unwrap().write_all(&[21, 3, 3, 0, 2, 2, 70]).unwrap());
    };
    thread::spawn(serve);
    let tap = https(Tls::Good, 3).set("authUrl", format!("https://{address}"));
    let fatal = format!(
        "fetch an access token: {address} does not agree on a way to encrypt (received fatal alert: \
         ProtocolVersion): its server needs TLS 1.2 or 1.3"
    );
    assert_refused_at_once(&tap, 1, &fatal);
}

#[test]
fn an_answer_that_is_cut_off_over_tls_is_asked_for_again() {
    let lost =
        "read stream STREAM: the answer of HOST was cut off: peer closed connection without sending TLS close_notify";
    let halved = format!("INFO peek: asking for 50 records instead of 100: {lost}");
    let faults: [(Fault, _); 3] = [
        (Rule::close, format!("WARNING peek: {lost}; trying again in # s (1 of 5)")),
        (Rule::cut, halved.clone()),
        (Rule::cut_chunked, halved),
    ];
    for (fault, line) in faults {
        let tap = https(Tls::Good, 3);
        tap.sandbox.script(fault(Rule::on(Endpoint::Peek).call(1)));
        let run = tap.run();
        run.assert_all_delivered(&tap);
        run.assert_logged(&line);
    }
}
