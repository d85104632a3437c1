//! How this process's own streams are handed to a process in a VM.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{self, Poll};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::context::Context;
use crate::input::Input;
use crate::output;

const CHUNK: usize = 64 << 10;
/// Chunks that may wait: what was read and nobody takes is lost when the process ends.
const WAITING: usize = 2;

/// Stdin, read by a thread of its own: one that waits for input for ever holds nothing up.
pub(crate) struct Stdin {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    taken: usize,
}

impl Stdin {
    /// Stdin, or nothing.
    pub(crate) fn open(connected: bool, context: &Context) -> Result<Self> {
        let (sender, chunks) = mpsc::channel(WAITING);
        if connected {
            let mut input = Input::stdin(context)?;
            std::thread::spawn(move || {
                loop {
                    let mut chunk = vec![0; CHUNK];
                    let read = input.read(&mut chunk).map(|count| {
                        chunk.truncate(count);
                        chunk
                    });
                    let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
                    if sender.blocking_send(read).is_err() || last {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            chunks,
            current: Vec::new(),
            taken: 0,
        })
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken == self.current.len() {
            match task::ready!(self.chunks.poll_recv(context)) {
                Some(Ok(chunk)) => {
                    self.current = chunk;
                    self.taken = 0;
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let rest = self.current.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

/// A stream that goes out of this process, and whose reader may go.
pub(crate) struct Out<W> {
    inner: W,
    /// Whether a reader that has gone ends us quietly.
    is_stdout: bool,
}

/// Stdout.
pub(crate) fn stdout() -> Out<tokio::io::Stdout> {
    Out {
        inner: tokio::io::stdout(),
        is_stdout: true,
    }
}

/// Stderr.
pub(crate) fn stderr() -> Out<tokio::io::Stderr> {
    Out {
        inner: tokio::io::stderr(),
        is_stdout: false,
    }
}

impl<W> Out<W> {
    fn noticed<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && self.is_stdout
        {
            output::notice(error);
        }
        result
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Out<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.noticed(result)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.noticed(result)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(context);
        self.noticed(result)
    }
}
