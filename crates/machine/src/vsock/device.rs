//! Decides what happens in one turn of the device: packets in, packets out, sockets' events, commands.
//!
//! ```text
//!  tx queue ─► transmit ─► Connection ─► Link ─► socket ══► Stream (host)
//!  rx queue ◄─ receive  ◄─ ready links, stray resets ◄── socket ◄══ Stream (host)
//! ```
//!
//! Nothing here blocks, and what a guest can make us hold is bounded: [`MAX_LINKS`] connections of
//! [`BUFFER`](super::connection::BUFFER) bytes, [`GROWTH`] bytes more for all that move much, and
//! [`MAX_RESETS`] resets; while more of these are owed, the guest's packets wait in its own queue.

mod open;
mod receive;
mod transmit;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::completions::{self, Completions, timer};
use super::connection::Verdict;
use super::host::Host;
use super::link::{Link, Pending};
use super::packet::{Key, Shutdown, TYPE_STREAM};

/// Connections at one time, those included whose bytes a slow reader has not taken.
pub(crate) const MAX_LINKS: usize = 1024;

/// Resets owed for connections that are not in the table.
const MAX_RESETS: usize = 512;

/// Bytes that all connections together may hold beyond what each may hold anyway.
const GROWTH: u32 = 64 << 20;

/// Packets handled in one turn, each way.
const BATCH: usize = 256;

/// How long a guest may take to confirm an end; as in the specification's reference driver.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

const WAKE: u64 = 0;
const TIMER: u64 = 1;
const COMPLETIONS: u64 = 2;
const FIRST_LINK: u64 = 3;

/// What one turn did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Receive buffers were used.
    pub(crate) received: bool,
    /// Transmitted chains that were given back.
    pub(crate) transmitted: u16,
    /// Something is owed to the guest, and it offers no buffer.
    pub(crate) starved: bool,
    /// The guest's packets wait until it has taken the resets that it is owed.
    pub(crate) blocked: bool,
}

/// A reset that the guest is owed for a connection that is not in the table (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reset {
    key: Key,
    /// The type of the packet that earned it: a socket of the guest's hears its own type only.
    kind: u16,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device")
    }
}

/// The device's half that knows connections; the rings are lent to it turn by turn.
pub(crate) struct Device {
    guest_cid: u64,
    host: Arc<Host>,
    links: HashMap<u64, Link>,
    by_key: HashMap<Key, u64>,
    ready: VecDeque<u64>,
    resets: VecDeque<Reset>,
    /// The refusal of connections beyond the limit has been logged.
    crowded: bool,
    /// What is left of [`GROWTH`].
    growth: u32,
    next_link: u64,
    next_port: u32,
    /// The guest's news of what has been taken from its queue.
    pub(crate) completions: Completions,
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
        let timer = timer()?;
        let completions = Completions::new()?;
        epoll::add(
            &poll,
            completions.timer_fd(),
            epoll::EventData::new_u64(COMPLETIONS),
            epoll::EventFlags::IN,
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
            crowded: false,
            growth: GROWTH,
            next_link: FIRST_LINK,
            next_port: 0xC000_0000,
            completions,
            poll,
            timer,
            timer_armed: false,
        })
    }

    /// Readable when [`poll`](Self::poll) has work.
    pub(crate) fn poll_fd(&self) -> &OwnedFd {
        &self.poll
    }

    /// Panics when more is held than may be.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_bounds(&self) {
        assert!(self.links.len() <= MAX_LINKS);
        assert!(self.by_key.len() <= self.links.len());
        assert!(self.resets.len() <= MAX_RESETS);
        assert!(self.ready.len() <= self.links.len());
        let grown: u32 = self
            .links
            .values()
            .map(|link| link.connection.growth())
            .sum();
        assert_eq!(grown + self.growth, GROWTH);
        for link in self.links.values() {
            assert!(link.held() <= usize::try_from(link.connection.buffer()).unwrap_or(0));
        }
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
                COMPLETIONS => self.completions.fired(),
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
            blocked: self.resets.len() >= MAX_RESETS,
        }
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
                let key = link.connection.key();
                self.owe_reset(key, TYPE_STREAM);
                self.detach(id, false);
            }
            Verdict::Reset => {
                let agreed = link.connection.host_is_done();
                self.detach(id, !agreed);
            }
            Verdict::Violation => {
                tracing::debug!(key = ?link.connection.key(), "the guest broke a connection's rules");
                let key = link.connection.key();
                self.owe_reset(key, TYPE_STREAM);
                self.detach(id, true);
            }
        }
        self.settle(id);
    }

    fn owe_reset(&mut self, key: Key, kind: u16) {
        self.resets.push_back(Reset { key, kind });
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
            self.growth += link.connection.growth();
            if link.queued {
                // A guest that takes nothing could make the queue grow by one connection after the other.
                self.ready.retain(|ready| *ready != id);
            }
            self.links.remove(&id);
            self.crowded &= self.links.len() > MAX_LINKS / 2;
            return;
        }
        let more = link.connection.wants_growth();
        if more > 0 && more <= self.growth && !link.detached {
            self.growth -= more;
            link.connection.grow(more);
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
        self.timer_armed = completions::arm(&self.timer, Duration::from_secs(1)).is_ok();
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
                let key = link.connection.key();
                self.owe_reset(key, TYPE_STREAM);
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

    /// The guest's driver began anew and knows of no connection. They end as if it had reset them; those
    /// that we were about to ask for are asked for.
    pub(crate) fn forget_guest(&mut self) {
        self.resets.clear();
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in ids {
            if let Some(link) = self.links.get(&id)
                && !link.detached
                && !link.connection.is_unheard_of()
            {
                self.detach(id, true);
                self.settle(id);
            }
        }
    }

    /// The machine is gone. What the guest sent and slow readers have not taken is given to the caller.
    pub(crate) fn into_remainders(self) -> Vec<(UnixStream, VecDeque<u8>)> {
        self.links
            .into_values()
            .filter_map(Link::into_remainder)
            .collect()
    }
}

#[cfg(test)]
mod tests;
