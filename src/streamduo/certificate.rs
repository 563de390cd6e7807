//! Why TLS does not come about, and who mends it: the operator of the server, or whoever says which CAs this machine trusts.
//!
//! On Linux the trusted CAs are those of `SSL_CERT_FILE` and `SSL_CERT_DIR` if either is set, and else those of the system's store.
//! Windows and macOS know only their own store.

use std::error::Error;
use std::fmt::Display;
use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};

/// What rules TLS with the host out, and the remedy. `None` where another try may succeed.
pub fn problem(host: &str, error: &(dyn Error + 'static)) -> Option<String> {
    Some(match tls_error(error)? {
        rustls::Error::InvalidCertificate(error) => {
            format!("the certificate of {host} {}", problem_with_certificate(error))
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("{host} does not speak TLS: check the port in `apiUrl` and `authUrl`")
        }
        error @ (rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        )) => {
            format!("{host} does not agree on a way to encrypt ({error}): its server needs TLS 1.2 or 1.3")
        }
        _ => return None,
    })
}

/// What is wrong, to follow the certificate's host, and the remedy.
fn problem_with_certificate(error: &CertificateError) -> String {
    match error {
        // A bad signature: a trusted CA has the name of the one that signed, but another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("is signed by no CA that this machine trusts: {}", trusted::remedy())
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "has expired on {}: its operator has to renew it, unless this machine's clock is wrong ({})",
            day(*not_after),
            day(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "is not valid before {}: check this machine's clock ({}), or have its operator replace it",
            day(*not_before),
            day(*time)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "is for {} and not for {}: use such a name in `apiUrl` and `authUrl`, or have its operator replace it",
            names(presented),
            expected.to_str()
        ),
        CertificateError::Other(OtherError(error)) if is_ca_as_server(error.as_ref()) => {
            "is that of a CA (CA:TRUE): its operator has to replace it by a server's own, which the CA may sign"
                .to_owned()
        }
        error => format!("is not accepted ({error}): its operator has to replace it"),
    }
}

/// The first of the names, which rustls wraps as in `DnsName("example.com")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').map_or(name.as_str(), |(_, name)| name);
        name.trim_matches(['"', ')']).to_owned()
    };
    match presented {
        [] => "no name".to_owned(),
        [name] => bare(name),
        [name, ..] => format!("{} and others", bare(name)),
    }
}

/// Whether the server sent a CA's certificate as its own, which RFC 5280 section 4.2.1.9 does not provide for.
fn is_ca_as_server(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// The day, in UTC.
fn day(time: UnixTime) -> impl Display {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.unwrap_or(Timestamp::MAX).to_zoned(TimeZone::UTC).date()
}

/// The first TLS error among the causes. What an [`io::Error`] wraps is not its source but itself.
fn tls_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    loop {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        error = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => wrapped,
            None => error.source()?,
        };
    }
}

/// Where there is no CA to trust, so that no HTTPS client can be made: what is wrong, and the remedy.
pub fn no_trusted_ca(error: &(dyn Error + 'static)) -> Option<String> {
    tls_error(error).map(|_| trusted::none())
}

/// The CAs that this machine trusts.
#[cfg(all(unix, not(target_vendor = "apple")))]
mod trusted {
    use std::env;

    use rustls_native_certs::{ErrorKind, load_native_certs};

    /// What a user may do to have a CA trusted.
    pub(super) fn remedy() -> String {
        let Some(set) = variables() else {
            return "put the CA's certificate into the system's store, or into a PEM file, and its path into \
                    `SSL_CERT_FILE`"
                .to_owned();
        };
        format!("put the CA's certificate into {set}{}", problem())
    }

    /// Why there are none.
    pub(super) fn none() -> String {
        let Some(set) = variables() else {
            return "this machine has no CA certificates: install them (on most Linux systems the package \
                    ca-certificates), or name a PEM file with `SSL_CERT_FILE`"
                .to_owned();
        };
        format!("no CA certificate in {set}{}: name a PEM file with `SSL_CERT_FILE`, or unset it", problem())
    }

    /// The variables that take the place of the system's store, with their values.
    fn variables() -> Option<String> {
        let set = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(|name| {
            let value = env::var_os(name)?;
            Some(format!("`{name}` {}", value.display()))
        });
        set.reduce(|file, dir| format!("{file} or {dir}"))
    }

    /// Why not all certificates there can be loaded, in brackets; empty if all can.
    fn problem() -> String {
        match load_native_certs().errors.first().map(|error| &error.kind) {
            None => String::new(),
            Some(ErrorKind::Io { inner, path }) => format!(" ({}: {inner})", path.display()),
            Some(_) => " (a certificate in it is not PEM)".to_owned(),
        }
    }
}

/// The CAs that this machine trusts.
#[cfg(not(all(unix, not(target_vendor = "apple"))))]
mod trusted {
    /// What a user may do to have a CA trusted.
    pub(super) fn remedy() -> String {
        "put the CA's certificate into the system's store".to_owned()
    }

    /// Why there are none.
    pub(super) fn none() -> String {
        "the system's store of CA certificates cannot be used".to_owned()
    }
}
