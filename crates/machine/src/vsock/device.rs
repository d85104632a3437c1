//! Decides what happens in one turn of the device: packets in, packets out, sockets' events, commands.
//!
//! ```text
//!  tx queue ─► transmit ─► Connection ─► Link ─► socket ══► Stream (host)
//!  rx queue ◄─ receive  ◄─ ready links, stray resets ◄── socket ◄══ Stream (host)
//! ```
//!
//! Nothing here blocks, and what a guest can make us hold is bounded: [`MAX_LINKS`] connections of
//! [`BUFFER`](super::connection::BUFFER) bytes, and [`MAX_RESETS`] resets; while more of these are owed, the
//! guest's packets wait in its own queue.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::connection::{Connection, Verdict};
use super::host::{Command, Host};
use super::link::{Link, Pending};
use super::packet::{HOST_CID, Header, Key, Op, Shutdown, TYPE_STREAM};
use super::ring;
use crate::stream::{Incoming, StreamStatus};
use crate::sys::volatile_io;

/// Connections at one time, those included whose bytes a slow reader has not taken.
pub(crate) const MAX_LINKS: usize = 1024;

/// Resets owed for connections that are not in the table.
const MAX_RESETS: usize = 512;

/// Packets of the guest's handled in one turn.
const BATCH: usize = 256;

/// Receive buffers filled by one read of a socket.
const FILL: usize = 48;

/// How long a guest may take to confirm an end; as in the specification's reference driver.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

const WAKE: u64 = 0;
const TIMER: u64 = 1;
const FIRST_LINK: u64 = 2;

/// What one turn did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Receive buffers were used.
    pub(crate) received: bool,
    /// Transmitted chains were given back.
    pub(crate) transmitted: bool,
    /// Something is owed to the guest, and it offers no buffer.
    pub(crate) starved: bool,
}

/// The device's half that knows connections; the rings are lent to it turn by turn.
pub(crate) struct Device {
    guest_cid: u64,
    host: Arc<Host>,
    links: HashMap<u64, Link>,
    by_key: HashMap<Key, u64>,
    ready: VecDeque<u64>,
    resets: VecDeque<Key>,
    next_link: u64,
    next_port: u32,
    poll: OwnedFd,
    timer: OwnedFd,
    timer_armed: bool,
}

impl Device {
    pub(crate) fn new(guest_cid: u64, host: Arc<Host>) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &poll,
            host.wake_fd(),
            epoll::EventData::new_u64(WAKE),
            epoll::EventFlags::IN,
        )?;
        let timer = rustix::time::timerfd_create(
            rustix::time::TimerfdClockId::Monotonic,
            rustix::time::TimerfdFlags::CLOEXEC | rustix::time::TimerfdFlags::NONBLOCK,
        )?;
        epoll::add(
            &poll,
            &timer,
            epoll::EventData::new_u64(TIMER),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            guest_cid,
            host,
            links: HashMap::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_link: FIRST_LINK,
            next_port: 0xC000_0000,
            poll,
            timer,
            timer_armed: false,
        })
    }

    /// Readable when [`poll`](Self::poll) has work.
    pub(crate) fn poll_fd(&self) -> &OwnedFd {
        &self.poll
    }

    #[cfg(test)]
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// Takes in what happened at the host's ends, without waiting.
    pub(crate) fn poll(&mut self) {
        let mut events = Vec::with_capacity(64);
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let waited = epoll::wait(
            &self.poll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&timeout),
        );
        if waited.is_err() {
            return;
        }
        for event in events {
            match event.data.u64() {
                WAKE => {
                    for command in self.host.take_commands() {
                        self.on_command(command);
                    }
                }
                TIMER => {
                    let mut ticks = [0; 8];
                    let _ = rustix::io::read(&self.timer, &mut ticks);
                    self.timer_armed = false;
                    self.on_tick(Instant::now());
                }
                id => {
                    use epoll::EventFlags as Flags;
                    let flags = event.flags;
                    if let Some(link) = self.links.get_mut(&id) {
                        link.on_event(
                            flags.contains(Flags::IN),
                            flags.contains(Flags::OUT),
                            flags.contains(Flags::RDHUP),
                            flags.intersects(Flags::HUP | Flags::ERR),
                        );
                        self.settle(id);
                    }
                }
            }
        }
    }

    /// One turn: the guest's packets, then ours.
    pub(crate) fn turn(&mut self, mem: &GuestMemoryMmap, rx: &mut Queue, tx: &mut Queue) -> Turn {
        let transmitted = self.transmit(mem, tx);
        let (received, starved) = self.receive(mem, rx);
        Turn {
            received,
            transmitted,
            starved,
        }
    }

    /// Handles the packets that the guest transmitted. Gives whether there were any.
    pub(crate) fn transmit<'a>(&mut self, mem: &'a GuestMemoryMmap, tx: &mut Queue) -> bool {
        let mut slices: Vec<VolatileSlice<'a>> = Vec::with_capacity(BATCH);
        let mut heads = Vec::with_capacity(BATCH);
        let mut packets = Vec::with_capacity(BATCH);
        while heads.len() < BATCH
            && slices.len() + ring::MAX_CHAIN <= volatile_io::MAX_SLICES
            && self.resets.len() + heads.len() < MAX_RESETS
        {
            let Some(chain) = tx.pop_descriptor_chain(mem) else {
                break;
            };
            heads.push(chain.head_index());
            match ring::outgoing(mem, chain, &mut slices) {
                Some(packet) => packets.push(packet),
                None => tracing::debug!("the guest sent a malformed vsock packet"),
            }
        }
        // Consecutive payloads of one connection go out in one system call.
        let mut run: Option<Run> = None;
        for packet in &packets {
            let header = &packet.header;
            let Some(id) = self.known(header) else {
                self.deliver(run.take(), &slices);
                self.on_stray(header);
                continue;
            };
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            let verdict = link.connection.on_packet(header, packet.payload);
            let data = match verdict {
                Verdict::Data(len) => usize::try_from(len).unwrap_or(0),
                _ => 0,
            };
            if data > 0 {
                match &mut run {
                    Some(run) if run.id == id && run.end == packet.first && !run.padded => {
                        run.end = packet.end;
                        run.len += data;
                    }
                    _ => {
                        self.deliver(run.take(), &slices);
                        run = Some(Run {
                            id,
                            first: packet.first,
                            end: packet.end,
                            len: data,
                            padded: false,
                        });
                    }
                }
                if let Some(run) = &mut run {
                    run.padded = data != packet.payload;
                }
            } else {
                self.deliver(run.take(), &slices);
                self.on_verdict(id, verdict);
            }
        }
        self.deliver(run.take(), &slices);
        for head in &heads {
            if let Err(error) = tx.add_used(mem, *head, 0) {
                tracing::debug!(%error, "the guest's transmit ring is broken");
            }
        }
        !heads.is_empty()
    }

    fn deliver(&mut self, run: Option<Run>, slices: &[VolatileSlice<'_>]) {
        let Some(run) = run else { return };
        if let Some(link) = self.links.get_mut(&run.id)
            && let Some(slices) = slices.get(run.first..run.end)
        {
            link.deliver(slices, run.len);
        }
        self.settle(run.id);
    }

    /// The link a packet belongs to, if it is a sound packet of a connection in the table.
    fn known(&self, header: &Header) -> Option<u64> {
        let sound = header.kind == TYPE_STREAM
            && header.dst_cid == HOST_CID
            && header.src_cid == self.guest_cid;
        sound.then(|| self.by_key.get(&header.key_from_guest()).copied())?
    }

    /// A packet of no connection: a request, or something to be reset.
    fn on_stray(&mut self, header: &Header) {
        if header.dst_cid != HOST_CID || header.src_cid != self.guest_cid || header.op == Op::RST {
            return;
        }
        let accepted =
            header.kind == TYPE_STREAM && header.op == Op::REQUEST && self.accept(header).is_some();
        if !accepted {
            self.resets.push_back(header.key_from_guest());
        }
    }

    /// Accepts a request if somebody listens, has room for it, and so have we.
    fn accept(&mut self, request: &Header) -> Option<()> {
        if self.links.len() >= MAX_LINKS {
            tracing::warn!("the guest has too many connections: one more is refused");
            return None;
        }
        let sender = self.host.listener(request.dst_port)?;
        let place = sender.try_reserve().ok()?;
        let (incoming, socket) = pair().ok()?;
        let status = Arc::clone(&incoming.status);
        let link = Link::new(Connection::accepted(request), socket, status, None);
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

    fn on_verdict(&mut self, id: u64, verdict: Verdict) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match verdict {
            Verdict::Nothing | Verdict::Data(_) => {}
            Verdict::Established => {
                if let Some(Pending { reply, incoming }) = link.pending.take() {
                    // If nobody waits any more, dropping the socket closes the connection.
                    let _ = reply.send(Ok(incoming));
                }
            }
            Verdict::HalfClosed(closed) => {
                if closed.contains(Shutdown::RECEIVE) {
                    link.guest_takes_no_more();
                }
                link.flush();
            }
            Verdict::Finished => {
                self.resets.push_back(link.connection.key());
                self.detach(id, false);
            }
            Verdict::Reset => {
                let agreed = link.connection.host_is_done();
                self.detach(id, !agreed);
            }
            Verdict::Violation => {
                tracing::debug!(key = ?link.connection.key(), "the guest broke a connection's rules");
                self.resets.push_back(link.connection.key());
                self.detach(id, true);
            }
        }
        self.settle(id);
    }

    fn detach(&mut self, id: u64, reset: bool) {
        if let Some(link) = self.links.get_mut(&id) {
            self.by_key.remove(&link.connection.key());
            link.detach(reset);
        }
    }

    /// After anything that may have changed a link: queues it, starts its time-out, or forgets it.
    fn settle(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.is_over() {
            self.links.remove(&id);
            return;
        }
        if link.has_for_guest() && !link.queued {
            link.queued = true;
            self.ready.push_back(id);
        }
        if !link.detached && link.connection.host_is_done() && link.has_socket() {
            // Nothing can pass in either direction: only the guest's agreement is missing.
            link.close();
            link.deadline = Some(Instant::now() + CLOSE_TIMEOUT);
        }
        if (link.deadline.is_some() || link.pending.is_some()) && !self.timer_armed {
            self.arm_timer();
        }
    }

    fn arm_timer(&mut self) {
        let second = rustix::time::Itimerspec {
            it_interval: rustix::time::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: rustix::time::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
        };
        let flags = rustix::time::TimerfdTimerFlags::empty();
        self.timer_armed = rustix::time::timerfd_settime(&self.timer, flags, &second).is_ok();
    }

    /// Resets what has waited too long, and what nobody waits for any more; asks for credit where there has
    /// been none for a while. (A guest tells of its own accord when it has read; asking each time would
    /// cost a packet each way for a few bytes of room.)
    pub(crate) fn on_tick(&mut self, now: Instant) {
        let mut late = Vec::new();
        let mut waiting = false;
        for (id, link) in &mut self.links {
            if link.is_hungry() {
                waiting = true;
                link.ask = true;
                if !link.queued {
                    link.queued = true;
                    self.ready.push_back(*id);
                }
            }
            let abandoned = link
                .pending
                .as_ref()
                .is_some_and(|pending| pending.reply.is_closed());
            if abandoned || link.deadline.is_some_and(|deadline| deadline <= now) {
                late.push(*id);
            } else {
                waiting |= link.deadline.is_some() || link.pending.is_some();
            }
        }
        for id in late {
            if self.resets.len() < MAX_RESETS
                && let Some(link) = self.links.get(&id)
            {
                self.resets.push_back(link.connection.key());
                self.detach(id, true);
                self.settle(id);
            } else {
                waiting = true;
            }
        }
        if waiting && !self.timer_armed {
            self.arm_timer();
        }
    }

    fn on_command(&mut self, command: Command) {
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

    /// Fills the guest's receive buffers. Gives whether any was used, and whether some were missing.
    fn receive<'a>(&mut self, mem: &'a GuestMemoryMmap, rx: &mut Queue) -> (bool, bool) {
        let mut used = false;
        let mut slices: Vec<VolatileSlice<'a>> = Vec::new();
        let mut budget = BATCH;
        while budget > 0 {
            budget -= 1;
            slices.clear();
            if let Some(key) = self.resets.front() {
                let Some(buffer) = next_buffer(mem, rx, &mut slices) else {
                    return (used, true);
                };
                used = true;
                if let Some(buffer) = buffer {
                    let header = Header::to_guest(self.guest_cid, *key, Op::RST);
                    give(mem, rx, &buffer, &header);
                    self.resets.pop_front();
                }
                continue;
            }
            let Some(id) = self.ready.front().copied() else {
                return (used, false);
            };
            let Some(link) = self.links.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            if !link.has_for_guest() {
                link.queued = false;
                self.ready.pop_front();
                continue;
            }
            if link.connection.owes() {
                let Some(buffer) = next_buffer(mem, rx, &mut slices) else {
                    return (used, true);
                };
                used = true;
                if let Some(buffer) = buffer
                    && let Some(header) = link.connection.control(self.guest_cid)
                {
                    give(mem, rx, &buffer, &header);
                }
            } else {
                match receive_data(self.guest_cid, link, mem, rx, &mut slices) {
                    Fill::NoBuffer => return (used, true),
                    Fill::Used => used = true,
                    Fill::Nothing => {}
                }
            }
            // Others' turn: to the end of the queue, if there is more.
            link.queued = false;
            self.ready.pop_front();
            if !link.is_hungry() {
                self.settle(id);
            } else if !self.timer_armed {
                self.arm_timer();
            }
        }
        (used, false)
    }

    /// The machine is gone. What the guest sent and slow readers have not taken is given to the caller.
    pub(crate) fn into_remainders(self) -> Vec<(UnixStream, VecDeque<u8>)> {
        self.links
            .into_values()
            .filter_map(Link::into_remainder)
            .collect()
    }
}

/// Adjacent payloads of one connection.
struct Run {
    id: u64,
    first: usize,
    end: usize,
    len: usize,
    /// The last payload is longer than its header says: nothing can follow.
    padded: bool,
}

enum Fill {
    NoBuffer,
    Used,
    Nothing,
}

/// Reads from a link's socket into as many receive buffers as its credit and the guest allow.
fn receive_data<'a>(
    guest_cid: u64,
    link: &mut Link,
    mem: &'a GuestMemoryMmap,
    rx: &mut Queue,
    slices: &mut Vec<VolatileSlice<'a>>,
) -> Fill {
    let allowance = usize::try_from(link.connection.allowance()).unwrap_or(usize::MAX);
    if allowance == 0 {
        if !std::mem::take(&mut link.ask) {
            return Fill::Nothing;
        }
        return match next_buffer(mem, rx, slices) {
            None => Fill::NoBuffer,
            Some(buffer) => {
                if let Some(buffer) = buffer {
                    let header = link.connection.packet(guest_cid, Op::CREDIT_REQUEST);
                    give(mem, rx, &buffer, &header);
                }
                Fill::Used
            }
        };
    }
    let first = rx.next_avail();
    let mut buffers = Vec::with_capacity(FILL);
    let mut room = 0_usize;
    while buffers.len() < FILL
        && room < allowance
        && slices.len() + ring::MAX_CHAIN <= volatile_io::MAX_SLICES
    {
        let before = rx.next_avail();
        match next_chain(mem, rx, slices) {
            Chain::None => break,
            Chain::Sound(buffer) => {
                room = room.saturating_add(buffer.capacity);
                buffers.push(buffer);
            }
            Chain::Broken(head) => {
                if buffers.is_empty() {
                    let _ = rx.add_used(mem, head, 0);
                    return Fill::Used;
                }
                rx.set_next_avail(before);
                break;
            }
        }
    }
    if buffers.is_empty() {
        return Fill::NoBuffer;
    }
    let limit = room.min(allowance);
    if limit == 0 {
        // Buffers without room for payload: give them back, or they would be all we ever see.
        for buffer in &buffers {
            let _ = rx.add_used(mem, buffer.head_index, 0);
        }
        return Fill::Used;
    }
    let mut left = link.read(slices, limit).unwrap_or(0);
    let mut count = 0_u16;
    for buffer in &buffers {
        if left == 0 {
            break;
        }
        let part = left.min(buffer.capacity);
        left -= part;
        let len = u32::try_from(part).expect("a chain holds less than 4 GiB");
        let header = link.connection.data_packet(guest_cid, len);
        give(mem, rx, buffer, &header);
        count += 1;
    }
    rx.set_next_avail(first.wrapping_add(count));
    if count > 0 { Fill::Used } else { Fill::Nothing }
}

enum Chain<'a> {
    None,
    Sound(ring::Buffer<'a>),
    Broken(u16),
}

fn next_chain<'a>(
    mem: &'a GuestMemoryMmap,
    rx: &mut Queue,
    slices: &mut Vec<VolatileSlice<'a>>,
) -> Chain<'a> {
    let Some(chain) = rx.pop_descriptor_chain(mem) else {
        return Chain::None;
    };
    let head = chain.head_index();
    ring::Buffer::new(mem, chain, slices).map_or(Chain::Broken(head), Chain::Sound)
}

/// The guest's next buffer; `Some(None)` for a broken one, which has been given back.
#[expect(
    clippy::option_option,
    reason = "nothing offered and nothing usable differ"
)]
fn next_buffer<'a>(
    mem: &'a GuestMemoryMmap,
    rx: &mut Queue,
    slices: &mut Vec<VolatileSlice<'a>>,
) -> Option<Option<ring::Buffer<'a>>> {
    match next_chain(mem, rx, slices) {
        Chain::None => None,
        Chain::Sound(buffer) => Some(Some(buffer)),
        Chain::Broken(head) => {
            let _ = rx.add_used(mem, head, 0);
            Some(None)
        }
    }
}

fn give(mem: &GuestMemoryMmap, rx: &mut Queue, buffer: &ring::Buffer<'_>, header: &Header) {
    let len = buffer.finish(header);
    if let Err(error) = rx.add_used(mem, buffer.head_index, len) {
        tracing::debug!(%error, "the guest's receive ring is broken");
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

#[cfg(test)]
#[path = "device/tests.rs"]
mod tests;
