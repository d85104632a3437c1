//! Connections to the host over vsock, begun without waiting, and how much of their bytes the kernel holds.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionbio},
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt::socket_error},
};

/// Bytes of one connection that wait for their reader here, and that are under way to the host, at most.
/// The kernel's default is 256 KiB: four packets.
const BUFFER: u64 = 1 << 20;

/// `SO_VM_SOCKETS_BUFFER_SIZE` and `…_MAX_SIZE` (`include/uapi/linux/vm_sockets.h`).
const SIZE: libc::c_int = 0;
const MAX_SIZE: libc::c_int = 2;

/// A connection to the host that may not have been answered yet.
pub(crate) struct Begun(OwnedFd);

/// Asks for a connection to a port of the host.
pub(crate) fn begin(port: u32) -> io::Result<Begun> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
    // What the kernel refuses costs speed only. Once connected, each change would cost a packet.
    let _ = enlarge_buffers(&socket);
    match connect(&socket, port) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(Begun(socket)),
        Err(error) => Err(error.into()),
    }
}

impl Begun {
    /// Waits for the host's answer, for as long as the kernel does (2 s unless told otherwise).
    pub(crate) fn finish(self) -> io::Result<OwnedFd> {
        let Self(socket) = self;
        loop {
            match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        socket_error(&socket)??;
        ioctl_fionbio(&socket, false)?;
        Ok(socket)
    }
}

fn connect(socket: impl AsFd, port: u32) -> rustix::io::Result<()> {
    // SAFETY: zeros are a valid address; what counts is set below.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK.try_into().map_err(|_| Errno::INVAL)?;
    address.svm_cid = libc::VMADDR_CID_HOST;
    address.svm_port = port;
    let length = size_of_val(&address).try_into().unwrap_or(0);
    // SAFETY: the descriptor is borrowed, so open; the kernel reads `length` bytes of an address that is so
    // long.
    let result = unsafe {
        libc::connect(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            length,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Lets a connection have more under way than the kernel's default.
fn enlarge_buffers(socket: impl AsFd) -> io::Result<()> {
    let size = BUFFER;
    // The larger bound first: the size is kept within it.
    for option in [MAX_SIZE, SIZE] {
        let length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
        // SAFETY: the descriptor is borrowed, so open; the kernel reads `length` bytes of a number that
        // is so long.
        let result = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::AF_VSOCK,
                option,
                (&raw const size).cast(),
                length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
