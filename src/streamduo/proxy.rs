//! The proxy between the tap and the service: whether the variable that names it can be used, and
//! why it lets nothing through.
//!
//! reqwest finds the proxy with the same [`Matcher`], but ignores a value that it cannot parse.

use std::error::Error;
use std::sync::LazyLock;

use anyhow::Chain;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::Proxy;
use url::Url;

use super::certificate;
use super::diagnose::innermost;
use super::http_error::HttpError;
use crate::config::{Invalid, is_loopback};

/// The variables that name a proxy for https; of each pair the first that is set counts, and of the
/// pairs the first that is not empty.
const VARIABLES: [[&str; 2]; 2] = [["HTTPS_PROXY", "https_proxy"], ["ALL_PROXY", "all_proxy"]];

/// Checks the variable that names the proxy. Its value is not quoted: it may hold a password.
pub fn check() -> Result<(), Invalid> {
    match variable() {
        Some((name, value)) if !value.as_deref().is_some_and(is_usable) => Err(Invalid::new(format!(
            "`{name}` does not name a proxy that can be used: it must be http://host:port or \
             http://user:password@host:port, with the special characters in user and password percent-encoded"
        ))),
        _ => Ok(()),
    }
}

/// The variable that names the proxy for https, and its value if that is Unicode.
fn variable() -> Option<(&'static str, Option<String>)> {
    let is_set = |name: &&str| std::env::var_os(name).is_some();
    let set = VARIABLES.iter().filter_map(|pair| pair.iter().copied().find(is_set));
    set.map(|name| (name, std::env::var(name).ok())).find(|(_, value)| value.as_deref() != Some(""))
}

/// The system's settings.
static SYSTEM: LazyLock<Matcher> = LazyLock::new(Matcher::from_system);

/// What `NO_PROXY` does not list would go through a proxy; `None` if it lists everything. As in
/// curl, and not in reqwest, names may have only spaces between them, and end with a dot.
static LISTED: LazyLock<Option<Matcher>> = LazyLock::new(|| {
    let names = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    let names: Vec<_> = names.split([',', ' ']).map(|name| name.trim_end_matches('.')).collect();
    let all = Matcher::builder().all("http://proxy").no(names.join(","));
    (!names.contains(&"*")).then(|| all.build())
});

/// Whether requests for a URL go through no proxy: it leads to this machine itself, or `NO_PROXY`
/// has its host.
pub fn is_direct(url: &Url) -> bool {
    let is_listed = |all: &Matcher| url.as_str().parse().is_ok_and(|uri| all.intercept(&uri).is_none());
    is_loopback(url) || LISTED.as_ref().is_none_or(is_listed)
}

/// Whether reqwest can use a proxy with this address, and reads the address as the user does.
fn is_usable(value: &str) -> bool {
    let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let authority = with_scheme.split_once("://").map_or("", |(_, rest)| rest.strip_suffix('/').unwrap_or(rest));
    let is_plain = !authority.contains(['/', '?', '#']) && authority.matches('@').count() <= 1;
    let proxy =
        "https://example.com".parse().ok().and_then(|uri| Matcher::builder().https(value).build().intercept(&uri));
    is_plain
        && Url::parse(&with_scheme).is_ok_and(|url| url.has_host())
        && proxy.is_some_and(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https")))
}

/// The proxy that requests for a URL go through.
fn of(url: &Url) -> Option<Intercept> {
    if is_direct(url) { None } else { SYSTEM.intercept(&url.as_str().parse().ok()?) }
}

/// The proxy that the client is to take for these URLs.
pub fn for_client(urls: &[&Url]) -> Proxy {
    let auth = urls.iter().find_map(|url| of(url)?.basic_auth().cloned());
    let proxy = Proxy::custom(|url| of(url).map(|proxy| proxy.uri().to_string()));
    match auth {
        Some(auth) => proxy.custom_http_auth(auth),
        None => proxy,
    }
}

/// The name of the proxy for a URL in messages: its host and port, and the variable that names it.
pub fn name(url: &Url) -> Option<String> {
    let proxy = of(url)?;
    let place = variable().map_or_else(|| "the system's settings".to_owned(), |(name, _)| format!("`{name}`"));
    Some(format!("the proxy {} ({place})", proxy.uri().authority().map_or("", |authority| authority.as_str())))
}

/// Why there is no connection to the host, if that is the proxy's fault.
pub fn diagnose(proxy: &str, host: &str, error: &(dyn Error + 'static)) -> Option<HttpError> {
    // Its type is private.
    let tunnel = Chain::new(error).find(|cause| cause.to_string().starts_with("tunnel error"))?;
    if let Some(problem) = certificate::problem(proxy, tunnel) {
        return Some(HttpError::Rejected(problem));
    }
    if let Some(cause) = tunnel.source() {
        return Some(HttpError::Unreachable(proxy.to_owned(), innermost(cause)));
    }
    let problem = tunnel.to_string();
    if problem.ends_with("proxy authorization required") {
        return Some(HttpError::Rejected(format!(
            "{proxy} answers 407 and does not connect to {host}: check its user and password (http://user:password@host:port)"
        )));
    }
    // The library does not tell the status.
    let is_refusal = problem.ends_with("unsuccessful");
    let reason =
        if is_refusal { "the proxy refuses the connection (its log has the reason)".to_owned() } else { problem };
    Some(HttpError::Unreachable(format!("{host} through {proxy}"), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_usable_if_it_is_taken_as_it_is_meant() {
        for usable in [
            "http://proxy:3128",
            "http://proxy.example.com:3128/",
            "https://proxy",
            "proxy:3128",
            "http://me:p%40ss@[::1]:3128",
            "me:pw@10.0.0.1:80",
        ] {
            assert!(is_usable(usable), "{usable}");
        }
        for unusable in [
            " ",
            "http:/proxy:3128",
            "http://",
            "http://:3128",
            "http://proxy:port",
            "http://proxy:3128/path",
            "http://proxy:99999",
            "ftp://proxy",
            "socks5://proxy:1080",
            "http://me:p@ss@proxy:3128",
            "http://me:12/34@proxy:3128",
            "http://me:12#34@proxy:3128",
            "http://pro xy:3128",
        ] {
            assert!(!is_usable(unusable), "{unusable}");
        }
    }
}
