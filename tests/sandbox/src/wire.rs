//! The wire: answers that are sent completely, cut off, without end or not at all.
//!
//! The first half of a cut answer must reach the client, however long it is. So its body waits for
//! hyper to flush that half before it fails. [`Connection`] notifies it of the flush.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::link::Pace;
use crate::tls::Stream;

/// How much of an answer is sent before the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// All of it. The connection stays open.
    Complete,
    /// Nothing.
    Close,
    /// The full length and half of the body.
    Cut,
    /// Half of the body, in chunks.
    CutChunked,
    /// All of it, and then spaces without end, with a length that is never reached.
    Endless,
    /// All of it, and then spaces without end, in chunks.
    EndlessChunked,
}

/// The length that an endless body claims to have.
const ENDLESS: u64 = 1 << 50;

/// How many of the spaces of an endless body are sent at once.
const SPACES: usize = 64 * 1024;

/// A connection that notifies of every flush.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    flushed: Arc<Notify>,
}

impl Connection {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Connection {
        Connection { stream, flushed: Arc::new(Notify::new()) }
    }

    /// Notified of every flush.
    pub(crate) fn flushed(&self) -> Arc<Notify> {
        Arc::clone(&self.flushed)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
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
pub(crate) struct AnswerBody {
    /// What is not sent yet; `None` once all is sent.
    data: Option<Bytes>,
    /// What is sent after the data, again and again.
    repeated: Option<Bytes>,
    pace: Pace,
    /// The `content-length`; `None` for chunks.
    content_length: Option<u64>,
    /// Makes the body fail once its data is flushed.
    cut: Option<Cut>,
}

enum Cut {
    AfterData(Arc<Notify>),
    AfterFlush(Pin<Box<OwnedNotified>>),
}

impl AnswerBody {
    /// The whole of `body`.
    pub(crate) fn complete(body: Bytes, pace: Pace) -> AnswerBody {
        AnswerBody { content_length: Some(body.len() as u64), data: Some(body), repeated: None, pace, cut: None }
    }

    /// The whole of `body` and then spaces without end, in chunks or with a length that is never
    /// reached.
    pub(crate) fn endless(body: Bytes, chunked: bool, pace: Pace) -> AnswerBody {
        AnswerBody {
            content_length: (!chunked).then_some(ENDLESS),
            data: Some(body),
            repeated: Some(vec![b' '; SPACES].into()),
            pace,
            cut: None,
        }
    }

    /// Half of `body`, in chunks or with the full length as its `content-length`.
    pub(crate) fn half(body: &Bytes, chunked: bool, flushed: Arc<Notify>, pace: Pace) -> AnswerBody {
        AnswerBody {
            content_length: (!chunked).then_some(body.len() as u64),
            data: Some(body.slice(..body.len() / 2)),
            repeated: None,
            pace,
            cut: Some(Cut::AfterData(flushed)),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(left) = &mut this.data {
            let piece = ready!(this.pace.poll_piece(left.len(), cx));
            let piece = left.split_to(piece);
            if left.is_empty() {
                this.data = this.repeated.clone();
                if let Some(Cut::AfterData(flushed)) = &this.cut {
                    this.cut = Some(Cut::AfterFlush(Box::pin(Arc::clone(flushed).notified_owned())));
                }
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(Cut::AfterFlush(flushed)) = &mut this.cut else { return Poll::Ready(None) };
        ready!(flushed.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::other("cut by the script"))))
    }

    fn size_hint(&self) -> SizeHint {
        self.content_length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
