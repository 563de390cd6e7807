//! Why a TLS connection fails, and who can fix that: the server's operator, or the user who says
//! which CAs this machine trusts.
//!
//! On Linux the trusted CAs are those of `SSL_CERT_FILE` and `SSL_CERT_DIR` if either is set, and
//! else those of the system's store. Windows and macOS know only their own store.

use std::env;
use std::error::Error;
use std::io;

use anyhow::Chain;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// What rules TLS with the host out, and the remedy. `None` if another try may succeed.
pub fn problem(host: &str, error: &(dyn Error + 'static)) -> Option<String> {
    Some(match tls_error(error)? {
        rustls::Error::InvalidCertificate(error) => {
            format!("the certificate of {host} is not accepted ({error}): {}", remedy(error))
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("{host} does not speak TLS: check its port")
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

fn remedy(error: &CertificateError) -> String {
    match error {
        // A bad signature: a trusted CA has the name of the one that signed, but another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            return format!("put the CA's certificate into {}", trusted_cas());
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "check this machine's clock, or have the server's operator renew it"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use a name that it is for, or have the server's operator replace it"
        }
        _ => "have the server's operator replace it",
    }
    .to_owned()
}

/// Why no HTTPS client can be made, if there is no CA to trust, and the remedy.
pub fn no_trusted_ca(error: &(dyn Error + 'static)) -> Option<String> {
    tls_error(error)?;
    Some(format!(
        "there is no CA certificate in {}: set `SSL_CERT_FILE` to a PEM file, or unset it and install \
         ca-certificates",
        trusted_cas()
    ))
}

/// Where the trusted CAs are.
fn trusted_cas() -> String {
    if cfg!(any(not(unix), target_vendor = "apple")) {
        return "the system's store".to_owned();
    }
    let set = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(|name| {
        // An empty list of folders counts as none.
        let value = env::var_os(name).filter(|value| name == "SSL_CERT_FILE" || !value.is_empty())?;
        Some(format!("`{name}` {}", value.display()))
    });
    let set = set.reduce(|file, dir| format!("{file} or {dir}"));
    set.unwrap_or_else(|| "the system's store (or a PEM file that `SSL_CERT_FILE` names)".to_owned())
}

/// The first TLS error among the causes. What an [`io::Error`] wraps is not its source but itself.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    Chain::new(error).find_map(|cause| match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => tls_error(wrapped),
        None => cause.downcast_ref(),
    })
}
