//! A process's streams: each is one connection, and the end of one is not the end of another.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use opengcs_machine::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A process's standard input.
///
/// `shutdown` or dropping it is the process's end of file; what was written before arrives.
#[derive(Debug)]
pub struct ProcessInput {
    stream: Stream,
}

impl ProcessInput {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream }
    }
}

impl AsyncWrite for ProcessInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A process's standard output or standard error.
///
/// At its end our side of the connection is closed too: an agent that relays a container's streams
/// waits for that before it says that the process has ended.
#[derive(Debug)]
pub struct ProcessOutput {
    stream: Option<Stream>,
}

impl ProcessOutput {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream: Some(stream),
        }
    }
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = self.stream.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(stream).poll_read(context, buffer));
        let ended = buffer.filled().len() == before && buffer.remaining() > 0;
        if outcome.is_err() || ended {
            self.stream = None;
        }
        Poll::Ready(outcome)
    }
}
