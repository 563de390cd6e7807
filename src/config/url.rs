//! Where a URL leads.

use std::net::IpAddr;

use url::Url;

/// Whether the URL leads to this machine: 127.0.0.0/8, ::1 or localhost (RFC 6761 section 6.3).
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
