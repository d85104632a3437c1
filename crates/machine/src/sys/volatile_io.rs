//! Decides how bytes go between guest memory and a socket: in one system call, without a copy of ours.
#![allow(
    unsafe_code,
    reason = "guest memory may change under us, so it can only be handed to the kernel as raw pointers"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// The slices that one call takes; callers loop or send less.
pub(crate) const MAX_SLICES: usize = 256;

fn message(
    slices: &[VolatileSlice<'_>],
    limit: usize,
    vectors: &mut [libc::iovec; MAX_SLICES],
) -> libc::msghdr {
    let mut count = 0;
    let mut left = limit;
    for (slice, vector) in slices.iter().zip(vectors.iter_mut()) {
        if left == 0 {
            break;
        }
        let len = slice.len().min(left);
        // The pointer outlives the guard because the mapping outlives the slice: `VolatileSlice` borrows
        // it, and no bitmap or on-demand mapping feature is in use.
        *vector = libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: len,
        };
        left -= len;
        count += 1;
    }
    // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = count;
    message
}

const EMPTY: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

fn result(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// Sends the first `limit` bytes of `slices` without blocking and without a signal.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_>],
    limit: usize,
) -> io::Result<usize> {
    let mut vectors = [EMPTY; MAX_SLICES];
    let message = message(slices, limit, &mut vectors);
    // SAFETY: the vectors point into live guest mappings (borrowed by `slices`) and are as long as these;
    // the kernel only reads there. The descriptor is borrowed, so open.
    result(unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const message,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    })
}

/// Receives into the first `limit` bytes of `slices` without blocking.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_>],
    limit: usize,
) -> io::Result<usize> {
    let mut vectors = [EMPTY; MAX_SLICES];
    let mut message = message(slices, limit, &mut vectors);
    // SAFETY: as for `send`; the kernel writes there, which volatile memory allows at any time.
    result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
}
