//! Decides what a connection may do next: its phases, half-closes and credit. No memory, no sockets.
//!
//! ```text
//! guest REQUEST ──► Open (we owe RESPONSE) ─┐          SHUTDOWN both, RST,
//!                                           ├─► Open ──────────────────────► gone from the table
//! we owe REQUEST ─► Requested ──RESPONSE────┘          or a violation (we owe RST)
//! ```
//!
//! Within `Open` each side closes each direction on its own. A connection that we have closed both ways
//! stays until the guest agrees by RST or by closing too.

use super::packet::{Header, Key, Op, Shutdown};

/// The bytes of a new connection that we hold for a slow reader, at most.
pub(crate) const BUFFER: u32 = 256 * 1024;

/// The same for a connection that has proved to move much: a guest that sends stops less often for us.
pub(crate) const LARGE_BUFFER: u32 = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Requested,
    Open,
}

/// What a packet of the guest's amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing for the host's end; we may owe the guest something now.
    Nothing,
    /// Our request was accepted.
    Established,
    /// This many bytes for the host.
    Data(u32),
    /// The guest closed a direction; these are all that it has closed.
    HalfClosed(Shutdown),
    /// The guest closed both directions: an orderly end, to be answered by RST.
    Finished,
    /// The guest reset the connection, or refused our request.
    Reset,
    /// The guest broke the rules: reset the connection and drop it.
    Violation,
}

/// The two credit accounts (VIRTIO 1.2, 5.10.6.3). Counters run modulo 2³².
#[derive(Debug, Clone, Copy)]
struct Credit {
    /// Bytes received from the guest.
    received: u32,
    /// Bytes of these handed on to the host's end.
    forwarded: u32,
    /// `forwarded` as the guest last heard it.
    told: u32,
    /// Bytes sent to the guest.
    sent: u32,
    /// What we hold at most.
    buffer: u32,
    guest_buffer: u32,
    guest_forwarded: u32,
}

impl Credit {
    /// What the guest may still send.
    fn room(&self) -> u32 {
        self.buffer
            .saturating_sub(self.received.wrapping_sub(self.forwarded))
    }

    /// What we may still send. A guest that claims to have read more than it was sent gets nothing.
    fn allowance(&self) -> u32 {
        self.guest_buffer
            .saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }
}

/// A connection's state.
#[derive(Debug)]
pub(crate) struct Connection {
    key: Key,
    phase: Phase,
    credit: Credit,
    guest_closed: Shutdown,
    host_closed: Shutdown,
    announced: Shutdown,
    owe_opening: bool,
    owe_credit: bool,
}

impl Connection {
    /// A connection that the guest asks for by `request`, and that we accept.
    pub(crate) fn accepted(request: &Header) -> Self {
        let mut connection = Self::requested(request.key_from_guest());
        connection.phase = Phase::Open;
        connection.hear_credit(request);
        connection
    }

    /// A connection that we ask for.
    pub(crate) fn requested(key: Key) -> Self {
        Self {
            key,
            phase: Phase::Requested,
            credit: Credit {
                received: 0,
                forwarded: 0,
                told: 0,
                sent: 0,
                buffer: BUFFER,
                guest_buffer: 0,
                guest_forwarded: 0,
            },
            guest_closed: Shutdown::NONE,
            host_closed: Shutdown::NONE,
            announced: Shutdown::NONE,
            owe_opening: true,
            owe_credit: false,
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn guest_closed(&self) -> Shutdown {
        self.guest_closed
    }

    fn hear_credit(&mut self, header: &Header) {
        self.credit.guest_buffer = header.buf_alloc;
        self.credit.guest_forwarded = header.fwd_cnt;
    }

    /// Takes in a packet of the guest's whose payload holds `payload` bytes.
    pub(crate) fn on_packet(&mut self, header: &Header, payload: usize) -> Verdict {
        if header.op == Op::RST {
            return Verdict::Reset;
        }
        if self.owe_opening && self.phase == Phase::Requested {
            // It answers what we have not asked yet.
            return Verdict::Violation;
        }
        self.hear_credit(header);
        match (self.phase, header.op) {
            (Phase::Requested, Op::RESPONSE) => {
                self.phase = Phase::Open;
                Verdict::Established
            }
            (Phase::Open, Op::RW) => self.on_data(header.len, payload),
            (Phase::Open, Op::SHUTDOWN) => {
                self.guest_closed = self.guest_closed.with(Shutdown(header.flags));
                if self.guest_closed == Shutdown::BOTH {
                    Verdict::Finished
                } else {
                    Verdict::HalfClosed(self.guest_closed)
                }
            }
            (Phase::Open, Op::CREDIT_UPDATE) => Verdict::Nothing,
            (Phase::Open, Op::CREDIT_REQUEST) => {
                self.owe_credit = true;
                Verdict::Nothing
            }
            _ => Verdict::Violation,
        }
    }

    fn on_data(&mut self, len: u32, payload: usize) -> Verdict {
        let whole = usize::try_from(len).is_ok_and(|len| len <= payload);
        if !whole || len > self.credit.room() || self.guest_closed.contains(Shutdown::SEND) {
            return Verdict::Violation;
        }
        self.credit.received = self.credit.received.wrapping_add(len);
        Verdict::Data(len)
    }

    /// `bytes` of what was received have left us towards the host's end (or were dropped with it).
    pub(crate) fn forwarded(&mut self, bytes: u32) {
        self.credit.forwarded = self.credit.forwarded.wrapping_add(bytes);
        // The guest is told at half of the buffer, and not for every packet: each costs it an interrupt.
        // Linux since 2026 has no more under way than its own buffer holds, whatever ours holds.
        let window = self.credit.buffer.min(self.credit.guest_buffer);
        if self.credit.forwarded.wrapping_sub(self.credit.told) >= window / 2 {
            self.owe_credit = true;
        }
    }

    /// How many bytes more we should hold at most: as many as the guest holds, when it has filled what we
    /// hold now twice.
    pub(crate) fn wants_growth(&self) -> u32 {
        let wanted = self.credit.guest_buffer.min(LARGE_BUFFER);
        let moves_much = self.phase == Phase::Open && self.credit.forwarded / 2 >= BUFFER;
        if moves_much {
            wanted.saturating_sub(self.credit.buffer)
        } else {
            0
        }
    }

    /// Holds `bytes` more at most, and has the guest told: half of the new buffer may be more than it
    /// believes that it may send.
    pub(crate) fn grow(&mut self, bytes: u32) {
        self.credit.buffer = self.credit.buffer.saturating_add(bytes);
        self.owe_credit = true;
    }

    /// The bytes that we hold at most.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn buffer(&self) -> u32 {
        self.credit.buffer
    }

    /// The bytes that we hold at most beyond a new connection's.
    pub(crate) fn growth(&self) -> u32 {
        self.credit.buffer.saturating_sub(BUFFER)
    }

    /// The host's end will send no more, all that it sent having been passed on.
    pub(crate) fn host_sends_no_more(&mut self) {
        self.host_closed = self.host_closed.with(Shutdown::SEND);
    }

    /// The host's end will take no more.
    pub(crate) fn host_takes_no_more(&mut self) {
        self.host_closed = self.host_closed.with(Shutdown::RECEIVE);
    }

    /// Whether the host's end is closed both ways.
    pub(crate) fn host_is_done(&self) -> bool {
        self.host_closed == Shutdown::BOTH
    }

    /// How many bytes may be sent to the guest now.
    pub(crate) fn allowance(&self) -> u32 {
        if self.may_send() {
            self.credit.allowance()
        } else {
            0
        }
    }

    /// Whether bytes for the guest may go, as far as credit allows: it is open, and nobody closed that way.
    pub(crate) fn may_send(&self) -> bool {
        self.phase == Phase::Open
            && !self.owe_opening
            && !self.guest_closed.contains(Shutdown::RECEIVE)
            && !self.host_closed.contains(Shutdown::SEND)
    }

    /// Whether the guest has not heard of the connection yet.
    pub(crate) fn is_unheard_of(&self) -> bool {
        self.phase == Phase::Requested && self.owe_opening
    }

    /// Whether only the guest's credit keeps us from sending.
    pub(crate) fn lacks_credit(&self) -> bool {
        self.may_send() && self.credit.allowance() == 0
    }

    /// Whether [`control`](Self::control) would give something.
    pub(crate) fn owes(&self) -> bool {
        self.owe_opening
            || (self.phase == Phase::Open
                && (self.host_closed != self.announced || self.owe_credit))
    }

    /// The next packet without payload that we owe the guest.
    pub(crate) fn control(&mut self, guest_cid: u64) -> Option<Header> {
        let (op, flags) = if self.owe_opening {
            self.owe_opening = false;
            match self.phase {
                Phase::Requested => (Op::REQUEST, 0),
                Phase::Open => (Op::RESPONSE, 0),
            }
        } else if self.phase != Phase::Open {
            return None;
        } else if self.host_closed != self.announced {
            self.announced = self.host_closed;
            (Op::SHUTDOWN, self.host_closed.0)
        } else if self.owe_credit {
            (Op::CREDIT_UPDATE, 0)
        } else {
            return None;
        };
        let mut header = self.packet(guest_cid, op);
        header.flags = flags;
        Some(header)
    }

    /// A packet that carries our credit.
    pub(crate) fn packet(&mut self, guest_cid: u64, op: Op) -> Header {
        let mut header = Header::to_guest(guest_cid, self.key, op);
        header.buf_alloc = self.credit.buffer;
        header.fwd_cnt = self.credit.forwarded;
        self.credit.told = self.credit.forwarded;
        self.owe_credit = false;
        header
    }

    /// A packet of `len` bytes of payload; the caller kept to the allowance.
    pub(crate) fn data_packet(&mut self, guest_cid: u64, len: u32) -> Header {
        self.credit.sent = self.credit.sent.wrapping_add(len);
        let mut header = self.packet(guest_cid, Op::RW);
        header.len = len;
        header
    }
}

#[cfg(test)]
#[path = "connection/tests.rs"]
mod tests;
