//! Decides how vsock reaches the guest on Linux: a vhost-user device in this very process.
//!
//! ```text
//!   guest AF_VSOCK ══ virtqueues in shared memory ══ device thread ══ socket pairs ══ Stream (tokio)
//!                                                        ▲
//!   QEMU ══════════ vhost-user: memory, kicks ═══════════╝
//! ```
//!
//! No root, no kernel module, no port shared with other machines. Each connection is a socket pair between
//! the device's thread and the host's code, so bytes go from guest memory into a socket and back in one
//! copy, back-pressure is the socket's, and the thread never waits for anybody.

pub(crate) mod backend;
pub(crate) mod completions;
pub(crate) mod connection;
pub(crate) mod device;
pub(crate) mod host;
pub(crate) mod link;
pub(crate) mod packet;
pub(crate) mod ring;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use vhost::vhost_user::Listener as VhostListener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::Port;
use crate::stream::{Listener, Stream};
use backend::{Backend, HOST_EVENT};
use host::{Command, Host};

/// The guest's CID. Every machine has a device of its own, so they can all have the same.
pub(crate) const GUEST_CID: u64 = 3;

type Daemon = VhostUserDaemon<Arc<Backend>>;

/// The host's handle on the device of one machine.
pub(crate) struct Vsock {
    host: Arc<Host>,
    running: Mutex<Option<(Daemon, Arc<Backend>)>>,
}

impl std::fmt::Debug for Vsock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vsock")
    }
}

impl Vsock {
    pub(crate) fn new() -> Result<Self> {
        let host = Host::new().map_err(|error| Error::io("cannot make the vsock device", error))?;
        Ok(Self {
            host: Arc::new(host),
            running: Mutex::new(None),
        })
    }

    pub(crate) fn listen(&self, port: Port) -> Result<Listener> {
        self.host.listen(port)
    }

    pub(crate) async fn connect(&self, port: Port) -> Result<Stream> {
        let what = format!("cannot connect to port {port} of the guest");
        let (reply, answer) = oneshot::channel();
        self.host.send(Command::Connect {
            port: port.0,
            reply,
        });
        let answer = answer.await.map_err(|_| {
            Error::new(
                ErrorKind::GuestDied,
                format!("{what}: the machine has ended"),
            )
        })?;
        let incoming = answer.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Error::new(
                ErrorKind::ConnectionRefused,
                format!("{what}: nobody listens there"),
            ),
            _ => Error::io(&what, error),
        })?;
        Stream::new(incoming.socket, incoming.status).map_err(|error| Error::io(&what, error))
    }

    /// Starts the device's threads and gives the connected socket that QEMU is to inherit.
    ///
    /// The crate that speaks vhost-user takes connections from a listener only. So there is one, for a
    /// moment, at a path in the machine's private folder, which is reached through `/proc/self/fd` because
    /// a socket's path is limited to 107 bytes.
    pub(crate) fn start(&self, dir: &Path) -> Result<UnixStream> {
        let fail = |error: io::Error| Error::io("cannot start the vsock device", error);
        let folder = std::fs::File::open(dir).map_err(|error| Error::path("open", dir, error))?;
        let path = format!("/proc/self/fd/{}/vsock", folder.as_raw_fd());
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::<()>::default());
        let backend = Backend::new(GUEST_CID, Arc::clone(&self.host), memory.clone());
        let backend = Arc::new(backend.map_err(fail)?);
        let other = |error: vhost_user_backend::Error| fail(io::Error::other(error.to_string()));
        let mut daemon = VhostUserDaemon::new("vsock".to_owned(), Arc::clone(&backend), memory)
            .map_err(other)?;
        let started = (|| {
            let mut listener = VhostListener::new(&path, true)
                .map_err(|error| fail(io::Error::other(error.to_string())))?;
            let qemu = UnixStream::connect(&path).map_err(fail)?;
            daemon.start(&mut listener).map_err(other)?;
            Ok(qemu)
        })();
        let registered = daemon
            .get_epoll_handlers()
            .first()
            .ok_or(io::ErrorKind::NotFound.into())
            .and_then(|handler| match backend.device().as_ref() {
                Some(device) => handler.register_listener(
                    device.poll_fd().as_raw_fd(),
                    EventSet::IN,
                    u64::from(HOST_EVENT),
                ),
                None => Err(io::ErrorKind::NotFound.into()),
            });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = Some((daemon, backend));
        drop(running);
        registered.map_err(fail)?;
        started
    }

    /// Ends the device. Streams get what the guest had sent and then their end; listeners get nothing more.
    pub(crate) fn stop(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((mut daemon, backend)) = running {
            daemon.request_shutdown();
            let _ = daemon.wait();
            backend.stop();
            // Joins the worker, which `stop` has told to end.
            drop(daemon);
            if let Some(device) = backend.device().take() {
                drain(device.into_remainders());
            }
        }
        self.host.close();
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes what slow readers have not taken yet, on a thread that ends when they have, or are gone.
fn drain(mut remainders: Vec<(UnixStream, VecDeque<u8>)>) {
    use rustix::net::SendFlags;
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if remainders.is_empty() {
        return;
    }
    let work = move || {
        while !remainders.is_empty() {
            remainders.retain_mut(|(socket, backlog)| {
                loop {
                    let (first, _) = backlog.as_slices();
                    match rustix::net::send(&*socket, first, flags) {
                        Ok(sent) => {
                            backlog.drain(..sent);
                            if backlog.is_empty() {
                                return false;
                            }
                        }
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return error == rustix::io::Errno::AGAIN,
                    }
                }
            });
            let mut polled: Vec<_> = remainders
                .iter()
                .map(|(socket, _)| {
                    rustix::event::PollFd::new(socket, rustix::event::PollFlags::OUT)
                })
                .collect();
            if !polled.is_empty() {
                let _ = rustix::event::poll(&mut polled, None);
            }
        }
    };
    let spawned = std::thread::Builder::new()
        .name("vsock-drain".to_owned())
        .spawn(work);
    if let Err(error) = spawned {
        tracing::warn!(%error, "bytes of the guest's are lost: cannot start a thread");
    }
}
