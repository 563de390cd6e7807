//! Where a URL leads.

use url::{Host, Url};

/// Whether the URL leads to this machine: 127.0.0.0/8, ::1 or localhost (RFC 6761 section 6.3).
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
