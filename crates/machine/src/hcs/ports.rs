//! Decides which ports of the host a machine can dial: those listened on before it has a runtime id are bound
//! once it has one, which is before its first instruction.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::sys::socket::{Acceptor, Family};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Port;
use crate::stream::{Incoming, Listener, Registration, StreamStatus};

/// Connections that wait for `accept` on one port; more are closed.
const BACKLOG: usize = 128;

#[derive(Debug)]
struct Entry {
    sender: mpsc::Sender<Incoming>,
    acceptor: Option<Acceptor>,
}

#[derive(Debug, Default)]
struct Table {
    listeners: HashMap<u32, Entry>,
    vm: Option<Uuid>,
    closed: bool,
}

/// The ports of one machine.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) family: Family,
    table: Mutex<Table>,
}

impl Ports {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            table: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn listen(self: &Arc<Self>, port: Port) -> Result<Listener> {
        let mut table = self.table();
        if table.closed {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("cannot listen on port {port}: the machine has ended"),
            ));
        }
        if table.listeners.contains_key(&port.0) {
            return Err(Error::new(
                ErrorKind::PortInUse,
                format!("cannot listen on port {port}: this machine has a listener there"),
            ));
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let acceptor = match table.vm {
            Some(vm) => Some(self.accept(vm, port, sender.clone())?),
            None => None,
        };
        table.listeners.insert(port.0, Entry { sender, acceptor });
        let ports = Arc::clone(self);
        let release = Registration::new(move || {
            ports.table().listeners.remove(&port.0);
        });
        Ok(Listener::new(port, receiver, release))
    }

    fn accept(&self, vm: Uuid, port: Port, sender: mpsc::Sender<Incoming>) -> Result<Acceptor> {
        let deliver = move |socket: TcpStream| {
            let status = Arc::new(StreamStatus::default());
            if let Err(error) = sender.try_send(Incoming { socket, status }) {
                tracing::warn!(%port, %error, "a connection of the guest's is closed: nobody takes it");
            }
        };
        Acceptor::listen(&self.family, vm, port, deliver).map_err(|error| {
            let what = format!("cannot listen on port {port}");
            match error.kind() {
                // Hyper-V's administrators may make machines, and not bind their sockets.
                io::ErrorKind::PermissionDenied => Error::caused(
                    ErrorKind::Refused,
                    format!("{what}: run as administrator"),
                    error,
                ),
                _ => Error::io(what, error),
            }
        })
    }

    /// Binds what is listened on, for the machine that now has an id.
    pub(super) fn bind(&self, vm: Uuid) -> Result<()> {
        let mut table = self.table();
        for (port, entry) in &mut table.listeners {
            entry.acceptor = Some(self.accept(vm, Port(*port), entry.sender.clone())?);
        }
        table.vm = Some(vm);
        Ok(())
    }

    /// The machine's id, once it has one and until it has ended.
    pub(super) fn vm(&self) -> Option<Uuid> {
        let table = self.table();
        table.vm.filter(|_| !table.closed)
    }

    /// The machine has ended: listeners get what was accepted, and nothing more.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        table.listeners.clear();
    }
}
