//! What the server answers with: bytes at once, shared pieces one after the other, or an endless stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use super::gzip::Gzip;

/// The body of a response. It never fails: a stream that cannot go on ends.
pub struct Body(Inner);

enum Inner {
    Pieces { pieces: VecDeque<Bytes>, left: u64 },
    Gzip(Gzip),
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body {
    /// No content.
    #[must_use]
    pub fn empty() -> Self {
        Self::pieces(VecDeque::new())
    }

    /// Several chunks, sent in order and not copied together.
    pub(crate) fn pieces(pieces: VecDeque<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Body(Inner::Pieces { pieces, left })
    }

    /// Chunks as they come; the body ends when the stream does.
    pub fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Body(Inner::Stream(Box::pin(stream)))
    }

    /// Ends a stream when `stopped` is cancelled. Bodies that are at hand are sent to their end.
    pub(crate) fn until(self, stopped: CancellationToken) -> Self {
        match self.0 {
            Inner::Stream(stream) => Self::stream(stream.take_until(stopped.cancelled_owned())),
            at_hand @ (Inner::Pieces { .. } | Inner::Gzip(_)) => Body(at_hand),
        }
    }

    /// Keeps something alive until a stream has ended or is given up; other bodies let go of it at once.
    pub(crate) fn holding(self, thing: impl Send + 'static) -> Self {
        match self.0 {
            Inner::Stream(stream) => Self::stream(stream.inspect(move |_| {
                let _held = &thing;
            })),
            at_hand @ (Inner::Pieces { .. } | Inner::Gzip(_)) => Body(at_hand),
        }
    }

    /// How long it is, if all of it is at hand.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.0 {
            Inner::Pieces { left, .. } => Some(*left),
            Inner::Gzip(_) | Inner::Stream(_) => None,
        }
    }

    /// The same, compressed; streams stay as they are.
    pub(crate) fn compressed(self) -> Self {
        match self.0 {
            Inner::Pieces { pieces, .. } => Body(Inner::Gzip(Gzip::new(pieces))),
            other @ (Inner::Gzip(_) | Inner::Stream(_)) => Body(other),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::pieces(VecDeque::from([bytes.into()]))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Pieces { left, .. } => write!(f, "Body({left} bytes)"),
            Inner::Gzip(_) => f.write_str("Body(gzip)"),
            Inner::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Inner::Pieces { pieces, left } => Poll::Ready(pieces.pop_front().map(|piece| {
                *left -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Inner::Gzip(gzip) => Poll::Ready(gzip.next().map(|piece| Ok(Frame::data(piece)))),
            Inner::Stream(stream) => stream
                .as_mut()
                .poll_next(cx)
                .map(|next| next.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Pieces { pieces, .. } => pieces.is_empty(),
            Inner::Gzip(gzip) => gzip.is_done(),
            Inner::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Pieces { left, .. } => SizeHint::with_exact(*left),
            Inner::Gzip(_) | Inner::Stream(_) => SizeHint::default(),
        }
    }
}
