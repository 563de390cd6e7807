//! The proxy between the tap and the service: whether the variable that names it can be used, and why it lets nothing through.
//!
//! reqwest finds the proxy with the same [`Matcher`], but ignores a value that it cannot parse, and keeps a refusal's status to itself.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use url::Url;

use super::certificate;
use super::http_error::{HttpError, host, innermost};
use super::retry::is_transient_status;
use crate::config::Invalid;
use crate::config::url::is_loopback;

/// The variables that name a proxy for https; of each pair the first that is set counts, and of the pairs the first that is not empty.
const VARIABLES: [[&str; 2]; 2] = [["HTTPS_PROXY", "https_proxy"], ["ALL_PROXY", "all_proxy"]];

/// The most that a proxy may take for each step of saying why it refuses.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a status line is read, in bytes: the version and the status, as in `HTTP/1.1 407`.
const STATUS_LENGTH: u64 = 13;

/// Checks the variable that names the proxy. Its value is not quoted: it may hold a password.
///
/// # Errors
/// When it names none that can be used.
pub fn check() -> Result<(), Invalid> {
    match variable() {
        Some((name, value)) if !value.as_deref().is_some_and(is_usable) => Err(Invalid::new(format!(
            "`{name}` names no proxy that can be used: it must be http://host:port or http://user:password@host:port, \
             with the special characters in user and password percent-encoded"
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

/// Whether reqwest can use a proxy with this address, and takes it as it is meant.
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

/// The proxy that requests for a URL go through. `Display` shows its host and port, and the variable that names it.
#[derive(Debug)]
pub struct Proxy {
    url: Url,
    intercept: Intercept,
    place: String,
}

impl Proxy {
    /// The proxy for this URL, if the environment or the system names one. Requests to this machine itself go through none.
    pub fn of(url: &Url) -> Option<Proxy> {
        if is_loopback(url) {
            return None;
        }
        let intercept = Matcher::from_system().intercept(&url.as_str().parse().ok()?)?;
        let place = variable().map_or_else(|| "the system's settings".to_owned(), |(name, _)| format!("`{name}`"));
        Some(Proxy { url: url.clone(), intercept, place })
    }

    /// Why there is no connection, if that is the proxy's fault. If it refuses, it is asked why, until the deadline.
    pub fn diagnose(&self, error: &(dyn Error + 'static), ask_until: Option<Instant>) -> Option<HttpError> {
        let tunnel = tunnel_error(error)?;
        if let Some(problem) = certificate::problem(&self.to_string(), &self.place, tunnel) {
            return Some(HttpError::Rejected(problem));
        }
        let Some(cause) = tunnel.source() else { return Some(self.refusal(tunnel, ask_until)) };
        Some(HttpError::Unreachable { host: self.to_string(), reason: innermost(cause) })
    }

    /// Why the proxy does not let the request through. The HTTP library does not tell the status, so the proxy is asked again.
    fn refusal(&self, tunnel: &(dyn Error + 'static), ask_until: Option<Instant>) -> HttpError {
        let host = host(&self.url);
        let answer =
            ask_until.ok_or_else(|| io::ErrorKind::Unsupported.into()).and_then(|until| self.ask_status(until));
        let (status, remedy) = match answer {
            Ok(407) if self.intercept.basic_auth().is_none() => {
                (407, "give it a user and a password (http://user:password@host:port)")
            }
            Ok(407) => (407, "check the user and the password"),
            Ok(status) if status >= 300 && !is_transient_status(status) => {
                (status, "have it allow that, or check `NO_PROXY`")
            }
            answer => {
                let status = answer.ok().filter(|status| *status >= 300);
                let reason = status.map_or_else(|| tunnel.to_string(), |status| format!("the proxy answers {status}"));
                return HttpError::Unreachable { host: format!("{host} through {self}"), reason };
            }
        };
        HttpError::Rejected(format!("{self} answers {status} and does not connect to {host}: {remedy}"))
    }

    /// The status that the proxy answers to CONNECT (RFC 9110 section 9.3.6). Opens a connection for that. Only for a proxy that is
    /// spoken to without TLS.
    fn ask_status(&self, deadline: Instant) -> io::Result<u16> {
        let (uri, url) = (self.intercept.uri(), &self.url);
        let (Some("http"), Some(name), Some(target)) = (uri.scheme_str(), uri.host(), url.host_str()) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let target = format!("{target}:{}", url.port_or_known_default().unwrap_or(443));
        let address = (name.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80)).to_socket_addrs()?.next();
        let mut stream = TcpStream::connect_timeout(&address.ok_or(io::ErrorKind::NotFound)?, left(deadline)?)?;
        stream.set_write_timeout(Some(left(deadline)?))?;
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
        if let Some(auth) = self.intercept.basic_auth() {
            request.extend([b"proxy-authorization: ", auth.as_bytes(), b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        stream.write_all(&request)?;
        stream.set_read_timeout(Some(left(deadline)?))?;
        let mut line = String::new();
        BufReader::new(stream.take(STATUS_LENGTH)).read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.trim_end().parse().ok());
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.intercept.uri();
        write!(f, "the proxy {} ({})", uri.authority().map_or("", |authority| authority.as_str()), self.place)
    }
}

/// How long the next step may take. An error once the deadline has passed.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now()).min(STATUS_TIMEOUT);
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The error that kept the tunnel through the proxy from opening, if it did. Its type is private. An [`io::Error`] comes from beyond
/// the tunnel.
fn tunnel_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let mut cause = error;
    while !cause.is::<legacy::Error>() {
        cause = cause.source()?;
    }
    cause.source().filter(|cause| !cause.is::<io::Error>())
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
