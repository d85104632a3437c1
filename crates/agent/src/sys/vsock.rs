//! How much of a vsock connection's bytes the kernel holds.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// Bytes of one connection that wait for their reader here, and that are under way to the host, at most.
/// The kernel's default is 256 KiB: four packets.
const BUFFER: u64 = 1 << 20;

/// `SO_VM_SOCKETS_BUFFER_SIZE` and `…_MAX_SIZE` (`include/uapi/linux/vm_sockets.h`).
const SIZE: libc::c_int = 0;
const MAX_SIZE: libc::c_int = 2;

/// Lets a connection have more under way than the kernel's default.
pub(crate) fn enlarge_buffers(connection: impl AsFd) -> io::Result<()> {
    let size = BUFFER;
    // The larger bound first: the size is kept within it.
    for option in [MAX_SIZE, SIZE] {
        let length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
        // SAFETY: the descriptor is borrowed, so open; the kernel reads `length` bytes of a number that
        // is so long.
        let result = unsafe {
            libc::setsockopt(
                connection.as_fd().as_raw_fd(),
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
