//! Where secrets may be sent.

use url::{Host, Url};

use super::found::quoted;

/// Parses a URL that secrets may be sent to. A URL that carries a password or a query is not quoted.
///
/// # Errors
/// What is wrong with it, to follow the setting's name.
pub fn check_url(text: &str) -> Result<Url, String> {
    // What is no URL may still hold a password or a token.
    let found = || if text.contains(['@', '?', '#']) { String::new() } else { format!(", not {}", quoted(text)) };
    let url =
        Url::parse(text).map_err(|error| format!("must be a URL that begins with https://{} ({error})", found()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password: use clientId and clientSecret".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path, without `?` or `#`".to_owned());
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(format!("must begin with https:// unless it leads to this machine itself{}", found())),
        _ => Err(format!("must begin with https://{}", found())),
    }
}

/// Whether the URL leads to this machine: 127.0.0.0/8, ::1 or localhost (RFC 6761 section 6.3).
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_for_loopback_only() {
        for url in ["http://127.0.0.1:80", "http://[::1]", "http://localhost:1/x", "https://example.com/api"] {
            assert!(check_url(url).is_ok(), "{url}");
        }
        for url in ["http://example.com", "http://10.0.0.1", "http://localhost.example.com", "http://x.localhost"] {
            assert_eq!(
                check_url(url).unwrap_err(),
                format!("must begin with https:// unless it leads to this machine itself, not {url:?}")
            );
        }
        for (url, problem) in [
            ("ftp://x", "must begin with https://, not \"ftp://x\""),
            ("nowhere", "must be a URL that begins with https://, not \"nowhere\" (relative URL without a base)"),
            ("1:hunter2@example.com", "must be a URL that begins with https:// (relative URL without a base)"),
            ("me:hunter2@example.com", "must begin with https://"),
            ("https://example.com?token=hunter2", "must end with its path, without `?` or `#`"),
            ("https://me:hunter2@example.com", "must not hold a user name or password: use clientId and clientSecret"),
        ] {
            assert_eq!(check_url(url).unwrap_err(), problem);
        }
    }
}
