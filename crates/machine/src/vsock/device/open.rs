//! Decides which connections come into being: those that the guest asks for, and those that we ask for.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::epoll;

use super::{Device, MAX_LINKS};
use crate::stream::{Incoming, StreamStatus};
use crate::vsock::connection::Connection;
use crate::vsock::host::Command;
use crate::vsock::link::{Link, Pending};
use crate::vsock::packet::{Header, Key};

impl Device {
    /// Accepts a request if somebody listens, has room for it, and so have we.
    pub(super) fn accept(&mut self, request: &Header) -> Option<()> {
        if self.links.len() >= MAX_LINKS {
            if !std::mem::replace(&mut self.crowded, true) {
                tracing::warn!("the guest has {MAX_LINKS} connections: more are refused");
            }
            return None;
        }
        let sender = self.host.listener(request.dst_port)?;
        let place = sender.try_reserve().ok()?;
        let (incoming, socket) = pair().ok()?;
        let status = Arc::clone(&incoming.status);
        let link = Link::new(Connection::accepted(request), socket, status, None);
        // The guest has given up an earlier connection of these ports: a reset would hit the new one.
        let key = link.connection.key();
        self.resets.retain(|reset| reset.key != key);
        self.insert(link)?;
        place.send(incoming);
        Some(())
    }

    fn insert(&mut self, link: Link) -> Option<u64> {
        use epoll::EventFlags as Flags;
        let id = self.next_link;
        self.next_link += 1;
        epoll::add(
            &self.poll,
            link.socket_fd()?,
            epoll::EventData::new_u64(id),
            Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET,
        )
        .ok()?;
        self.by_key.insert(link.connection.key(), id);
        self.links.insert(id, link);
        self.settle(id);
        Some(id)
    }

    pub(super) fn on_command(&mut self, command: Command) {
        let Command::Connect { port, reply } = command;
        let opened = self.open(port);
        match opened {
            Ok((mut link, incoming)) => {
                link.pending = Some(Pending { reply, incoming });
                self.insert(link);
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// A connection to be asked of the guest, from a port of ours that is free.
    fn open(&mut self, guest_port: u32) -> io::Result<(Link, Incoming)> {
        if self.links.len() >= MAX_LINKS {
            return Err(io::Error::other("too many connections with the guest"));
        }
        let mut key = Key {
            host_port: self.next_port,
            guest_port,
        };
        // The table is smaller than the range, so this ends.
        while self.by_key.contains_key(&key) {
            key.host_port = key.host_port.wrapping_add(1).max(0xC000_0000);
        }
        self.next_port = key.host_port.wrapping_add(1).max(0xC000_0000);
        let (incoming, socket) = pair()?;
        let status = Arc::clone(&incoming.status);
        let link = Link::new(Connection::requested(key), socket, status, None);
        Ok((link, incoming))
    }
}

/// A socket pair with large buffers: the host's end, and ours.
fn pair() -> io::Result<(Incoming, UnixStream)> {
    let (host, device) = UnixStream::pair()?;
    host.set_nonblocking(true)?;
    device.set_nonblocking(true)?;
    for socket in [&host, &device] {
        // The system may grant less; that costs speed only.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket.as_fd(), 512 * 1024);
    }
    let incoming = Incoming {
        socket: host,
        status: Arc::new(StreamStatus::default()),
    };
    Ok((incoming, device))
}
