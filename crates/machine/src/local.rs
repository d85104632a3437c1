//! Decides how a machine of another maker (another hypervisor, a test) makes what [`Machine`] gives out.
//!
//! [`Machine`]: crate::Machine

use std::io;

use tokio::sync::mpsc;

use crate::machine::{Description, Exit, ExitReason, Port};
use crate::stream::{Incoming, Listener, Registration, Stream, StreamStatus};

/// Dials that may wait for the listener.
const BACKLOG: usize = 64;

/// The other end of a [`Listener`]: what the guest's dials come in by.
#[derive(Debug, Clone)]
pub struct Dialer {
    incoming: mpsc::Sender<Incoming>,
}

/// A listener for `port` whose connections are made by its dialer, in the host's memory. `free` runs
/// when the listener is dropped.
pub fn listener(port: Port, free: impl FnOnce() + Send + Sync + 'static) -> (Dialer, Listener) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let listener = Listener::new(port, receiver, Registration::new(free));
    (Dialer { incoming: sender }, listener)
}

impl Dialer {
    /// Connects to the listener. Gives the guest's end.
    ///
    /// # Errors
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) when the listener is gone or has too many
    /// dials waiting; those of making a pair of sockets.
    pub fn dial(&self) -> io::Result<Stream> {
        let (ours, theirs) = crate::sys::socket::pair()?;
        let incoming = Incoming {
            socket: theirs,
            status: std::sync::Arc::new(StreamStatus::default()),
        };
        self.incoming
            .try_send(incoming)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Stream::new(ours, std::sync::Arc::new(StreamStatus::default()))
    }
}

impl Exit {
    /// A report of a machine's end.
    #[must_use]
    pub fn new(reason: ExitReason, stderr: impl Into<String>) -> Self {
        Self {
            reason,
            stderr: stderr.into(),
        }
    }
}

impl Description {
    /// A description with no process and no command line.
    pub fn new(
        hypervisor: impl Into<String>,
        acceleration: impl Into<String>,
        acceleration_reason: impl Into<String>,
        chipset: impl Into<String>,
    ) -> Self {
        Self {
            hypervisor: hypervisor.into(),
            acceleration: acceleration.into(),
            acceleration_reason: acceleration_reason.into(),
            chipset: chipset.into(),
            command_line: Vec::new(),
            process_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_dial_is_accepted_and_refused_when_the_listener_is_gone() {
        let (dialer, mut listener) = listener(Port(7), || {});
        let mut guest = dialer.dial().unwrap();
        let mut host = listener.accept().await.unwrap();
        guest.write_all(b"hello").await.unwrap();
        guest.shutdown().await.unwrap();
        let mut heard = String::new();
        host.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        drop(listener);
        let refused = dialer.dial().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
