//! Why a TLS connection fails, and who can mend that: the server's operator, or the user who says which CAs this machine trusts.
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

/// What to do about a certificate that has expired.
const RENEW: &str = "have the server's operator renew it, unless this machine's clock is wrong";

/// What to do about a certificate that cannot be used.
const REPLACE: &str = "have the server's operator replace it";

/// What rules TLS with the host out, and the remedy. `None` where another try may succeed. `settings` is where the host's address
/// is from.
pub fn problem(host: &str, settings: &str, error: &(dyn Error + 'static)) -> Option<String> {
    Some(match tls_error(error)? {
        rustls::Error::InvalidCertificate(error) => {
            format!("the certificate of {host} {}", problem_with_certificate(settings, error))
        }
        // The verifiers of Windows and macOS pass on what they have no name for.
        rustls::Error::Other(error) => {
            format!("the certificate of {host} is not accepted ({error}): {REPLACE}")
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("{host} does not speak TLS: check the port in {settings}")
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
fn problem_with_certificate(settings: &str, error: &CertificateError) -> String {
    match error {
        // A bad signature: a trusted CA has the name of the one that signed, but another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("is signed by no CA that this machine trusts: {}", trusted::remedy())
        }
        CertificateError::Expired => format!("has expired: {RENEW}"),
        CertificateError::ExpiredContext { not_after, .. } => format!("has expired on {}: {RENEW}", day(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}: check this machine's clock, or {REPLACE}", day(*not_before))
        }
        CertificateError::NotValidForName => {
            format!("is not for this host: use a name that it is for in {settings}, or {REPLACE}")
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "is for {} and not for {}: use such a name in {settings}, or {REPLACE}",
            names(presented),
            expected.to_str()
        ),
        CertificateError::Other(OtherError(error)) if is_ca_as_server(error.as_ref()) => {
            format!("is that of a CA (CA:TRUE): {REPLACE} by a server's own, which the CA may sign")
        }
        error => format!("is not accepted ({error}): {REPLACE}"),
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

/// Whether the server sent a CA's certificate as its own, which webpki refuses.
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

/// Why no HTTPS client can be made, if that is for want of a CA to trust, and the remedy.
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
            return "put the CA's certificate into the system's store, or name a PEM file by `SSL_CERT_FILE` that takes the \
                    store's place"
                .to_owned();
        };
        format!("put the CA's certificate into {set}{}", problem())
    }

    /// Why there are none.
    pub(super) fn none() -> String {
        let Some(set) = variables() else {
            return "this machine has no CA certificates: install them (on most Linux systems the package \
                    ca-certificates), or name a PEM file by `SSL_CERT_FILE`"
                .to_owned();
        };
        format!("no CA certificate in {set}{}: name a PEM file by `SSL_CERT_FILE`, or unset it", problem())
    }

    /// The variables that take the place of the system's store, with their values.
    fn variables() -> Option<String> {
        let set = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(|name| {
            // An empty list of folders counts as none.
            let value = env::var_os(name).filter(|value| name == "SSL_CERT_FILE" || !value.is_empty())?;
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
