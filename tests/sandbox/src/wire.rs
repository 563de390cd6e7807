//! The wire: how an answer gets across, or does not.
//!
//! A cut answer has to reach the client up to the cut, however long it is, so its body breaks off only once hyper has
//! flushed what came before; [`Wire`] tells it when.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// How an answer gets across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As it should.
    Whole,
    /// Not a byte of it.
    Close,
    /// With its length, but half.
    Cut,
    /// In chunks, but half.
    CutChunked,
}

/// A connection that tells when it has been flushed.
pub(crate) struct Wire {
    stream: TcpStream,
    flushed: Arc<Notify>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Wire {
        Wire { stream, flushed: Arc::new(Notify::new()) }
    }

    /// Notified of every flush.
    pub(crate) fn flushed(&self) -> Arc<Notify> {
        Arc::clone(&self.flushed)
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushed.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The body of an answer.
pub(crate) struct Reply {
    data: Option<Bytes>,
    /// The length to announce; `None` for chunks.
    announced: Option<u64>,
    /// Where the body is to break off: after the next flush.
    cut: Option<Cut>,
}

enum Cut {
    After(Arc<Notify>),
    Flushing(Pin<Box<OwnedNotified>>),
}

impl Reply {
    /// The whole of `body`.
    pub(crate) fn whole(body: Bytes) -> Reply {
        Reply { announced: Some(body.len() as u64), data: Some(body), cut: None }
    }

    /// Half of `body`, in chunks or under its whole length.
    pub(crate) fn half(body: &Bytes, chunked: bool, flushed: Arc<Notify>) -> Reply {
        Reply {
            announced: (!chunked).then_some(body.len() as u64),
            data: Some(body.slice(..body.len() / 2)),
            cut: Some(Cut::After(flushed)),
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.data.take() {
            if let Some(Cut::After(flushed)) = &self.cut {
                self.cut = Some(Cut::Flushing(Box::pin(Arc::clone(flushed).notified_owned())));
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(Cut::Flushing(flushed)) = &mut self.cut else { return Poll::Ready(None) };
        ready!(flushed.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::other("cut by the script"))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
