//! https, where the sandbox is built with the feature `tls`. A connection is encrypted or not: the
//! server need not know.

#[cfg(feature = "tls")]
mod server;
#[cfg(not(feature = "tls"))]
#[path = "tls/none.rs"]
mod server;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub(crate) use server::Acceptor;

/// How a sandbox serves https. The certificate is for 127.0.0.1, 0.0.0.0, localhost and
/// streamduo.test, and the sandbox's own CA has signed it, unless the variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// TLS 1.2 or 1.3, with nothing wrong.
    Good,
    /// TLS 1.2 only.
    Only12,
    /// TLS 1.3 only.
    Only13,
    /// The certificate has expired at the end of 2020.
    Expired,
    /// The certificate is not valid before 2100.
    NotYetValid,
    /// The certificate is for other.example.com.
    OtherHost,
    /// The certificate is signed by another CA than [`Sandbox::ca_pem`](crate::Sandbox::ca_pem).
    UnknownCa,
    /// The certificate is the CA's own, with `basicConstraints` CA:TRUE.
    CaItself,
}

/// A connection's bytes, encrypted on the wire or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The connection, once TLS is agreed upon where there is an acceptor.
pub(crate) async fn accept(tls: Option<Acceptor>, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    Ok(match tls {
        Some(tls) => Box::new(tls.accept(stream).await?),
        None => Box::new(stream),
    })
}
