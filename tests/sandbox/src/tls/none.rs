//! In place of the server's side of TLS, where the sandbox is built without the feature `tls`.

use std::convert::Infallible;
use std::io;

use tokio::net::TcpStream;

use super::Tls;

/// There is none.
#[derive(Clone)]
pub(crate) struct Acceptor(Infallible);

impl Acceptor {
    pub(super) async fn accept(&self, _stream: TcpStream) -> io::Result<TcpStream> {
        match self.0 {}
    }
}

/// There is none.
pub(crate) struct ServerTls {
    pub(crate) acceptor: Acceptor,
    pub(crate) ca_pem: String,
}

impl Tls {
    /// Says how to build a sandbox that serves https.
    pub(crate) fn server(self) -> io::Result<ServerTls> {
        Err(io::Error::other(
            "this sandbox is built without TLS: build it with `--package streamduo-sandbox --features tls`",
        ))
    }
}
