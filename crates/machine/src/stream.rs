//! Decides what a connection with the guest looks like to the host's code: [`Stream`] and [`Listener`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::machine::Port;
use crate::sys::socket;

/// What the device tells a stream apart from its bytes.
#[derive(Debug, Default)]
pub(crate) struct StreamStatus {
    /// The guest reset the connection, or the machine ended: what would be a clean end of file is not one.
    pub(crate) reset: AtomicBool,
}

/// A connection with the guest: bytes both ways, each way closed apart.
///
/// `shutdown` closes our sending direction only; the guest reads end of file and can still send. Reading
/// gives end of file when the guest closed its sending direction, and
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) when it reset the connection or died; in every case
/// after all bytes that it had sent. Dropping the stream closes both directions; what was written before is
/// still delivered.
#[derive(Debug)]
pub struct Stream {
    inner: socket::AsyncSocket,
    status: Arc<StreamStatus>,
}

impl Stream {
    /// Must be called in a tokio runtime.
    pub(crate) fn new(inner: socket::Socket, status: Arc<StreamStatus>) -> io::Result<Self> {
        inner.set_nonblocking(true)?;
        Ok(Self {
            inner: socket::AsyncSocket::from_std(inner)?,
            status,
        })
    }

    fn end(&self) -> io::Result<()> {
        if self.status.reset.load(Ordering::Acquire) {
            Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the guest reset the connection",
            ))
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            self.end()?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.inner).poll_shutdown(cx)) {
            // The guest closed both directions first: ours is closed, which is what was asked.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}

/// The host's end of a new connection, before a runtime has it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) socket: socket::Socket,
    pub(crate) status: Arc<StreamStatus>,
}

/// Connections that the guest makes to one port of the host. Dropping it frees the port; connections that
/// nobody has accepted are reset then.
#[derive(Debug)]
pub struct Listener {
    port: Port,
    incoming: mpsc::Receiver<Incoming>,
    /// Frees the port when the listener goes.
    _registration: Registration,
}

impl Listener {
    pub(crate) fn new(
        port: Port,
        incoming: mpsc::Receiver<Incoming>,
        registration: Registration,
    ) -> Self {
        Self {
            port,
            incoming,
            _registration: registration,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// The next connection, if one waits.
    #[cfg(any(test, feature = "testing"))]
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "the vsock device's tests alone take it")
    )]
    pub(crate) fn try_next(&mut self) -> Option<Incoming> {
        self.incoming.try_recv().ok()
    }

    /// Waits for the guest's next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when the machine has ended: no connection will come.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        match self.incoming.recv().await {
            Some(incoming) => Stream::new(incoming.socket, incoming.status),
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "the machine ended: nobody will connect to port {}",
                    self.port
                ),
            )),
        }
    }
}

/// Runs its action when dropped.
pub(crate) struct Registration(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Registration {
    pub(crate) fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registration")
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}
