//! How the host is reached: ports of the host, dialled over vsock, or Unix sockets in a folder
//! when the agent runs as an ordinary process for development.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
};

use crate::sys::vsock;

/// Reaches ports of the host.
pub(crate) trait Dial: Send + Sync {
    /// Connects to a port.
    fn dial(&self, port: u32) -> io::Result<OwnedFd>;

    /// Connects to ports, asked for in this order, and waits for the answers together.
    fn dial_each(&self, ports: &[u32]) -> Vec<io::Result<OwnedFd>> {
        ports.iter().map(|port| self.dial(*port)).collect()
    }
}

/// The host of this virtual machine.
pub(crate) struct Vsock;

impl Dial for Vsock {
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        vsock::begin(port)?.finish()
    }

    fn dial_each(&self, ports: &[u32]) -> Vec<io::Result<OwnedFd>> {
        let begun: Vec<_> = ports.iter().map(|port| vsock::begin(*port)).collect();
        let finish = |begun: io::Result<vsock::Begun>| begun?.finish();
        begun.into_iter().map(finish).collect()
    }
}

/// Sockets in a folder: port N is the socket named N.
pub(crate) struct UnixFolder(pub(crate) PathBuf);

impl Dial for UnixFolder {
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        UnixStream::connect(self.0.join(port.to_string())).map(OwnedFd::from)
    }
}
