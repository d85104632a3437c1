//! Decides what the device's thread and the host's tasks share: who listens where, and what is asked.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::link::ConnectReply;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Port;
use crate::stream::{Incoming, Listener, Registration};

/// Connections that wait for `accept` on one port; more are refused.
const BACKLOG: usize = 128;

/// What a task asks of the device.
pub(crate) enum Command {
    Connect { port: u32, reply: ConnectReply },
}

#[derive(Default)]
struct Shared {
    listeners: HashMap<u32, mpsc::Sender<Incoming>>,
    commands: Vec<Command>,
    closed: bool,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

/// The host's side of the device.
pub(crate) struct Host {
    shared: Mutex<Shared>,
    wake: OwnedFd,
}

impl Host {
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self {
            shared: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics with the lock held; if it did, the maps would still be whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    /// Makes the device take another turn.
    pub(crate) fn wake(&self) {
        // It fails only when it is already set.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        std::mem::take(&mut self.shared().commands)
    }

    /// Who listens on `port`.
    pub(crate) fn listener(&self, port: u32) -> Option<mpsc::Sender<Incoming>> {
        let shared = self.shared();
        shared
            .listeners
            .get(&port)
            .filter(|sender| !sender.is_closed())
            .cloned()
    }

    pub(crate) fn listen(self: &Arc<Self>, port: Port) -> Result<Listener> {
        let mut shared = self.shared();
        if shared.closed {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("cannot listen on port {port}: the machine has ended"),
            ));
        }
        if shared.listeners.contains_key(&port.0) {
            return Err(Error::new(
                ErrorKind::PortInUse,
                format!("cannot listen on port {port}: this machine has a listener there"),
            ));
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        shared.listeners.insert(port.0, sender);
        let host = Arc::clone(self);
        let release = Registration::new(move || {
            host.shared().listeners.remove(&port.0);
        });
        Ok(Listener::new(port, receiver, release))
    }

    pub(crate) fn send(&self, command: Command) {
        let mut shared = self.shared();
        if !shared.closed {
            shared.commands.push(command);
            drop(shared);
            self.wake();
        }
    }

    /// The machine has ended: listeners get nothing more, commands are not taken.
    pub(crate) fn close(&self) {
        let mut shared = self.shared();
        shared.closed = true;
        shared.listeners.clear();
        shared.commands.clear();
    }
}
