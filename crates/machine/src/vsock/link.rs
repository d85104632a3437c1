//! Decides how a connection's bytes reach the host's end: at once where its socket takes them, from a
//! bounded backlog otherwise, and always before its end of file.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown as Direction;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::net::{RecvFlags, SendFlags};
use tokio::sync::oneshot;
use vm_memory::VolatileSlice;

use super::connection::Connection;
use super::packet::Shutdown;
use crate::stream::{Incoming, StreamStatus};
use crate::sys::volatile_io;

/// How a [connect](super::Vsock::connect) is answered.
pub(crate) type ConnectReply = oneshot::Sender<io::Result<Incoming>>;

/// A connect that the guest has not answered.
pub(crate) struct Pending {
    pub(crate) reply: ConnectReply,
    pub(crate) incoming: Incoming,
}

/// A connection and the device's end of its socket pair.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    socket: Option<UnixStream>,
    status: Arc<StreamStatus>,
    backlog: VecDeque<u8>,
    /// The socket may have bytes for us (or its end).
    pub(crate) readable: bool,
    /// The socket may take bytes.
    writable: bool,
    /// The host's end closed its sending direction or both: reads lead to an end of file.
    ending: bool,
    /// The guest no longer knows the connection; only the backlog keeps it.
    pub(crate) detached: bool,
    /// The guest is to be asked for credit.
    pub(crate) ask: bool,
    /// It stands in the device's queue of links with something for the guest.
    pub(crate) queued: bool,
    pub(crate) pending: Option<Pending>,
    /// When a guest that owes us its RST is no longer waited for.
    pub(crate) deadline: Option<Instant>,
}

impl Link {
    pub(crate) fn new(
        connection: Connection,
        socket: UnixStream,
        status: Arc<StreamStatus>,
        pending: Option<Pending>,
    ) -> Self {
        Self {
            connection,
            socket: Some(socket),
            status,
            backlog: VecDeque::new(),
            readable: true,
            writable: true,
            ending: false,
            detached: false,
            ask: false,
            queued: false,
            pending,
            deadline: None,
        }
    }

    pub(crate) fn socket_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Bytes that the host's end has not taken.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn held(&self) -> usize {
        self.backlog.len()
    }

    /// Whether the host's end is still held.
    pub(crate) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether there may be something to send to the guest.
    pub(crate) fn has_for_guest(&self) -> bool {
        let bytes = self.readable && self.socket.is_some() && self.connection.may_send();
        !self.detached && (bytes || self.connection.owes())
    }

    /// Whether it has bytes for the guest, perhaps, and no credit to send them.
    pub(crate) fn is_hungry(&self) -> bool {
        self.has_for_guest() && !self.connection.owes() && self.connection.lacks_credit()
    }

    /// The host's end became readable, writable, or closed.
    pub(crate) fn on_event(&mut self, readable: bool, writable: bool, ending: bool, gone: bool) {
        self.readable |= readable;
        self.writable |= writable;
        if ending || gone {
            self.ending = true;
            self.readable = true;
        }
        if gone {
            self.host_gone();
        }
        self.flush();
    }

    /// Nobody will read what the guest sends.
    fn host_gone(&mut self) {
        self.drop_backlog();
        self.connection.host_takes_no_more();
    }

    fn drop_backlog(&mut self) {
        let dropped = self.backlog.len();
        self.backlog = VecDeque::new();
        self.forwarded(dropped);
    }

    fn forwarded(&mut self, bytes: usize) {
        self.connection
            .forwarded(u32::try_from(bytes).expect("the credit bounds what is held"));
    }

    /// Passes `len` bytes of the guest's on; what the socket does not take is kept.
    pub(crate) fn deliver(&mut self, slices: &[VolatileSlice<'_>], len: usize) {
        let Some(socket) = &self.socket else {
            return self.forwarded(len);
        };
        if self.connection.host_is_done() {
            return self.forwarded(len);
        }
        let mut done = 0;
        if self.backlog.is_empty() && self.writable {
            match volatile_io::send(socket.as_fd(), slices, len) {
                Ok(sent) => {
                    done = sent;
                    self.writable = sent == len || slices.len() > volatile_io::MAX_SLICES;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.host_gone();
                    return self.forwarded(len);
                }
            }
        }
        self.forwarded(done);
        let mut skip = done;
        let mut left = len - done;
        for slice in slices {
            if left == 0 {
                break;
            }
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            let part = (slice.len() - skip).min(left);
            if let Ok(rest) = slice.subslice(skip, part) {
                let at = self.backlog.len();
                self.backlog.resize(at + part, 0);
                copy_to_tail(&rest, &mut self.backlog, at);
            }
            skip = 0;
            left -= part;
        }
        self.flush();
    }

    /// Writes as much of the backlog as the socket takes, and the end of file after it.
    pub(crate) fn flush(&mut self) {
        while self.writable && !self.backlog.is_empty() {
            let Some(socket) = &self.socket else { break };
            let (first, _) = self.backlog.as_slices();
            match rustix::net::send(socket, first, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.backlog.drain(..sent);
                    self.forwarded(sent);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.writable = false,
                Err(_) => self.host_gone(),
            }
        }
        if self.backlog.is_empty() {
            // A burst must not be paid for until the connection's end.
            self.backlog.shrink_to(4096);
            if self.detached {
                self.close();
            } else if self.connection.guest_closed().contains(Shutdown::SEND)
                && let Some(socket) = &self.socket
            {
                let _ = socket.shutdown(Direction::Write);
            }
        }
    }

    /// The guest will take no more: the host's writes fail from now on.
    pub(crate) fn guest_takes_no_more(&mut self) {
        if let Some(socket) = &self.socket {
            let _ = socket.shutdown(Direction::Read);
        }
        self.connection.host_sends_no_more();
    }

    /// Reads what the host's end sent into the guest's buffers. `Some(0)` is the end of file.
    pub(crate) fn read(&mut self, slices: &[VolatileSlice<'_>], limit: usize) -> Option<usize> {
        let socket = self.socket.as_ref()?;
        match volatile_io::receive(socket.as_fd(), slices, limit) {
            Ok(0) => {
                self.readable = false;
                self.connection.host_sends_no_more();
                Some(0)
            }
            Ok(read) => {
                // A short read means that the socket is empty: its next event will tell. An end that has
                // been told already must be read, though.
                self.readable = self.ending || read == limit;
                Some(read)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => {
                // The host's end went away with bytes unread: no more will come, none will be taken.
                self.readable = false;
                self.connection.host_sends_no_more();
                self.host_gone();
                Some(0)
            }
        }
    }

    /// The guest has finished with the connection (`reset`: not in an orderly way). What it sent is still
    /// delivered.
    pub(crate) fn detach(&mut self, reset: bool) {
        self.detached = true;
        self.deadline = None;
        if let Some(pending) = self.pending.take() {
            let _ = pending
                .reply
                .send(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        if reset && !self.connection.guest_closed().contains(Shutdown::SEND) {
            self.status.reset.store(true, Ordering::Release);
        }
        self.guest_takes_no_more();
        self.flush();
    }

    /// Whether the link can be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        self.detached && self.socket.is_none()
    }

    /// Closes the socket. Bytes that the guest never took are read first: leaving them would turn the end
    /// of file that the host reads into a reset.
    pub(crate) fn close(&mut self) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        let _ = socket.shutdown(Direction::Both);
        let mut scratch = [0; 4096];
        while let Ok((read, _)) = rustix::net::recv(&socket, &mut scratch, RecvFlags::DONTWAIT) {
            if read == 0 {
                break;
            }
        }
        self.readable = false;
    }

    /// The socket and the bytes still owed to it, for somebody who can wait.
    pub(crate) fn into_remainder(mut self) -> Option<(UnixStream, VecDeque<u8>)> {
        self.detach(true);
        let backlog = std::mem::take(&mut self.backlog);
        (!backlog.is_empty()).then_some(())?;
        Some((self.socket.take()?, backlog))
    }
}

fn copy_to_tail(from: &VolatileSlice<'_>, to: &mut VecDeque<u8>, at: usize) {
    let (first, second) = to.as_mut_slices();
    if at >= first.len() {
        let second_at = at - first.len();
        if let Some(tail) = second.get_mut(second_at..) {
            from.copy_to(tail);
        }
    } else if let Some(tail) = first.get_mut(at..) {
        let split = tail.len().min(from.len());
        from.copy_to(tail);
        if let Ok(rest) = from.offset(split) {
            rest.copy_to(second);
        }
    }
}
