//! The way through a proxy, and what is said when it is barred.

use std::net::TcpListener;

use streamduo_sandbox::{Sandbox, Tls};

use crate::connect_proxy::ConnectProxy;
use crate::tap::{Run, Tap};

/// The user and the password `p@ss/w`, as a URL and as a request's header have them.
const CREDENTIALS: &str = "tap:p%40ss%2Fw@";
const AUTHORIZATION: &str = "proxy-authorization: Basic dGFwOnBAc3Mvdw==\r\n";

/// A tap on a sandbox that serves https as `streamduo.test`, which only a proxy finds.
fn behind_a_proxy(tls: Tls) -> Tap {
    let tap = Tap::on(Sandbox::builder().tls(tls).start().unwrap(), 3);
    let ca = tap.write_file("ca.pem", tap.sandbox.ca_pem().unwrap());
    tap.env("SSL_CERT_FILE", ca.to_str().unwrap())
        .set("apiUrl", "https://streamduo.test")
        .set("authUrl", "https://streamduo.test/oauth2/token")
}

/// The proxy's address in an error is that of its variable.
fn with_address(text: &str, proxy: &ConnectProxy) -> String {
    text.replace("PROXY_ADDRESS", &proxy.address.to_string())
}

/// The password is neither there nor in the form that the header has.
#[track_caller]
fn assert_no_password(run: &Run) {
    for secret in ["p@ss", "p%40ss", "dGFwOnBAc3Mvdw"] {
        assert!(!run.stderr.contains(secret), "{}", run.stderr);
    }
}

#[test]
fn https_goes_through_the_proxy_that_the_environment_names() {
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let tap = behind_a_proxy(Tls::Good);
        let proxy = ConnectProxy::start(&tap.sandbox, |_| 200);
        let tap = tap.env(variable, &format!("http://{}", proxy.address));
        tap.run().assert_all_delivered_when(&tap, variable);
        // One tunnel carries all requests.
        assert_eq!(proxy.targets(), ["streamduo.test:443"], "{variable}");
        assert!(!proxy.heads()[0].contains("proxy-authorization"));
    }
}

#[test]
fn the_proxy_gets_its_password_and_no_log_does() {
    let tap = behind_a_proxy(Tls::Good);
    let proxy = ConnectProxy::start(&tap.sandbox, |head| if head.contains(AUTHORIZATION) { 200 } else { 407 });
    let tap = tap.env("HTTPS_PROXY", &format!("http://{CREDENTIALS}{}", proxy.address)).env("RUST_LOG", "trace");
    let run = tap.run();
    run.assert_all_delivered(&tap);
    assert_no_password(&run);
    assert_eq!(proxy.targets().len(), 1);
}

/// The HTTP library does not tell the status.
const REFUSES: &str = "cannot reach streamduo.test through the proxy PROXY_ADDRESS (`HTTPS_PROXY`): the proxy refuses \
                       the connection (its log has the reason)";

#[test]
fn a_proxy_that_refuses_is_named() {
    let check_url = "check `authUrl`, the network and the proxy";
    for (credentials, status, problem) in [
        (
            "",
            407,
            "the proxy PROXY_ADDRESS (`HTTPS_PROXY`) answers 407 and does not connect to streamduo.test: check its \
             user and password (http://user:password@host:port)"
                .to_owned(),
        ),
        (
            CREDENTIALS,
            407,
            "the proxy PROXY_ADDRESS (`HTTPS_PROXY`) answers 407 and does not connect to streamduo.test: check its \
             user and password (http://user:password@host:port)"
                .to_owned(),
        ),
        (CREDENTIALS, 403, format!("{check_url}: {REFUSES}")),
        ("", 502, format!("{check_url}: {REFUSES}")),
    ] {
        let tap = behind_a_proxy(Tls::Good);
        let proxy = ConnectProxy::start(&tap.sandbox, move |_| status);
        let tap = tap.env("HTTPS_PROXY", &format!("http://{credentials}{}", proxy.address));
        let run = tap.run();
        run.assert_refused(&tap, 1, &format!("fetch an access token: {}", with_address(&problem, &proxy)));
        assert_no_password(&run);
        assert_eq!(tap.sandbox.requests(), 0);
    }
}

#[test]
fn a_refusal_that_does_not_pass_is_not_tried_again() {
    for (status, tries) in [(407, 1), (503, 2)] {
        let tap = behind_a_proxy(Tls::Good).set("maxRetries", 1);
        let proxy = ConnectProxy::start(&tap.sandbox, move |_| status);
        let tap = tap.env("HTTPS_PROXY", &format!("http://{}", proxy.address));
        assert_eq!(tap.run().code, 1);
        assert_eq!(proxy.targets(), vec!["streamduo.test:443"; tries], "{status}");
    }
}

#[test]
fn a_proxy_that_cannot_be_reached_is_named() {
    let tap = behind_a_proxy(Tls::Good).env("https_proxy", &format!("http://{CREDENTIALS}127.0.0.1:1"));
    let run = tap.run();
    run.assert_refused(
        &tap,
        1,
        "fetch an access token: check `authUrl`, the network and the proxy: cannot reach the proxy 127.0.0.1:1 \
         (`https_proxy`): Connection refused (os error 111)",
    );
    assert_no_password(&run);
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let tap =
        behind_a_proxy(Tls::Good).set("requestTimeoutSeconds", 1).env("HTTPS_PROXY", &format!("http://{address}"));
    tap.run().assert_refused(
        &tap,
        1,
        &format!(
            "fetch an access token: check `authUrl`, the network and the proxy: streamduo.test through the proxy {address} \
             (`HTTPS_PROXY`) did not answer within 1 s"
        ),
    );
}

#[test]
fn a_proxy_that_does_not_speak_tls_is_named() {
    let tap = behind_a_proxy(Tls::Good).set("maxRetries", 5);
    let plain = Sandbox::start();
    let address = plain.url().trim_start_matches("http://");
    let tap = tap.env("HTTPS_PROXY", &format!("https://{address}"));
    let fatal =
        format!("fetch an access token: the proxy {address} (`HTTPS_PROXY`) does not speak TLS: check its port");
    tap.run().assert_refused(&tap, 1, &fatal);
}

#[test]
fn a_certificate_is_checked_behind_the_proxy_too() {
    let tap = behind_a_proxy(Tls::OtherHost).set("maxRetries", 5);
    let proxy = ConnectProxy::start(&tap.sandbox, |_| 200);
    let tap = tap.env("HTTPS_PROXY", &format!("http://{}", proxy.address));
    let run = tap.run();
    let fatal = "CRITICAL fetch an access token: the certificate of streamduo.test is not accepted (";
    let remedy = "): use a name that it is for, or have the server's operator replace it";
    assert!(run.last_log_line().starts_with(fatal) && run.last_log_line().ends_with(remedy), "{}", run.stderr);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert_eq!(proxy.targets().len(), 1);
}

#[test]
fn a_proxy_variable_that_is_malformed_is_refused_before_any_request() {
    for variable in ["HTTPS_PROXY", "all_proxy"] {
        for value in ["http:/proxy:3128", "socks5://proxy:1080", "http://tap:p@ss@proxy:3128", "http://tap:p#ss@proxy"]
        {
            let tap = behind_a_proxy(Tls::Good).env(variable, value);
            let run = tap.run();
            run.assert_refused(
                &tap,
                2,
                &format!(
                    "`{variable}` does not name a proxy that can be used: it must be http://host:port or \
                     http://user:password@host:port, with the special characters in user and password percent-encoded"
                ),
            );
        }
    }
}

#[test]
fn no_proxy_lists_hosts_that_are_reached_directly() {
    // Linux takes this address for its own machine, and the tap for another one.
    let tap = behind_a_proxy(Tls::Good);
    let url = tap.sandbox.url().replace("127.0.0.1", "0.0.0.0");
    let tap = tap.set("apiUrl", url.as_str()).set("authUrl", format!("{url}/oauth2/token"));
    let proxy = ConnectProxy::start(&tap.sandbox, |_| 200);
    let tap = tap.env("HTTPS_PROXY", &format!("http://{}", proxy.address));
    tap.run().assert_all_delivered(&tap);
    assert_eq!(proxy.targets().len(), 1);
    for list in ["example.com, 0.0.0.0", "example.com 0.0.0.0", "example.com.,0.0.0.0.", " 0.0.0.0", "*"] {
        tap.sandbox.fill(&tap.stream, 3);
        let mut command = tap.command();
        let run = tap.run_command(command.env("NO_PROXY", list));
        assert_eq!((run.code, tap.unread(), proxy.targets().len()), (0, vec![], 1), "{list}");
    }
}

#[test]
fn this_machine_is_reached_without_the_proxy_over_https_too() {
    let tap = behind_a_proxy(Tls::Good);
    let (url, auth_url) = (tap.sandbox.url().to_owned(), tap.sandbox.auth_url());
    let tap = tap.set("apiUrl", url).set("authUrl", auth_url).env("HTTPS_PROXY", "http:/malformed");
    tap.run().assert_all_delivered(&tap);
}
