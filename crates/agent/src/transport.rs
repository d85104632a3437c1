//! How the host is reached: ports of the host, dialled over vsock, or Unix sockets in a folder
//! when the agent runs as an ordinary process for development.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
};

use vsock::{VMADDR_CID_HOST, VsockStream};

use crate::sys;

/// Reaches ports of the host.
pub(crate) trait Dial: Send + Sync {
    /// Connects to a port.
    fn dial(&self, port: u32) -> io::Result<OwnedFd>;
}

/// The host of this virtual machine.
pub(crate) struct Vsock;

impl Dial for Vsock {
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        loop {
            match VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(connection) => {
                    // What the kernel refuses costs speed only.
                    let _ = sys::vsock::enlarge_buffers(&connection);
                    return Ok(connection.into());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sockets in a folder: port N is the socket named N.
pub(crate) struct UnixFolder(pub(crate) PathBuf);

impl Dial for UnixFolder {
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        UnixStream::connect(self.0.join(port.to_string())).map(OwnedFd::from)
    }
}
