//! The server's side of TLS, with a CA and a certificate that are made anew for each sandbox.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};

use super::Tls;

pub(crate) use tokio_rustls::TlsAcceptor as Acceptor;

/// The names that a certificate is for.
const NAMES: [&str; 4] = ["127.0.0.1", "0.0.0.0", "localhost", "streamduo.test"];

/// The server's side of TLS.
pub(crate) struct ServerTls {
    pub(crate) acceptor: Acceptor,
    /// The certificate of the CA to trust, in PEM.
    pub(crate) ca_pem: String,
}

impl Tls {
    /// Makes the certificates.
    pub(crate) fn server(self) -> io::Result<ServerTls> {
        let ca = ca("Sandbox CA")?;
        let ca_pem = ca.pem();
        let (certificate, key) = match self {
            Tls::CaItself => (ca.der().clone(), ca.key().serialize_der()),
            Tls::UnknownCa => self.leaf(&self::ca("Another CA")?)?,
            _ => self.leaf(&ca)?,
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&self.versions())
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(other)?;
        Ok(ServerTls { acceptor: Acceptor::from(Arc::new(config)), ca_pem })
    }

    /// A certificate that the CA has signed, and its key.
    fn leaf(self, ca: &CertifiedIssuer<'_, KeyPair>) -> io::Result<(CertificateDer<'static>, Vec<u8>)> {
        let names = if self == Tls::OtherHost { vec!["other.example.com".to_owned()] } else { names() };
        let mut params = CertificateParams::new(names).map_err(other)?;
        match self {
            Tls::Expired => params.not_after = date_time_ymd(2020, 12, 31),
            Tls::NotYetValid => params.not_before = date_time_ymd(2100, 1, 1),
            _ => {}
        }
        let key = KeyPair::generate().map_err(other)?;
        let certificate = params.signed_by(&key, ca).map_err(other)?;
        Ok((certificate.der().clone(), key.serialize_der()))
    }

    fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Tls::Only12 => vec![&TLS12],
            Tls::Only13 => vec![&TLS13],
            _ => vec![&TLS12, &TLS13],
        }
    }
}

/// A CA that signs itself. It has the names of a server, too: only that it is a CA is wrong about
/// [`Tls::CaItself`].
fn ca(name: &str) -> io::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(names()).map_err(other)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(other)?).map_err(other)
}

fn names() -> Vec<String> {
    NAMES.map(str::to_owned).to_vec()
}

fn other(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}
