//! Decides how the guest's receive buffers are filled: resets first, then the links in turn.

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::{BATCH, Device};
use crate::sys::volatile_io;
use crate::vsock::link::Link;
use crate::vsock::packet::{Header, Op};
use crate::vsock::ring;

/// Receive buffers filled by one read of a socket.
const FILL: usize = 48;

impl Device {
    /// Fills the guest's receive buffers. Gives whether any was used, and whether some were missing.
    pub(super) fn receive<'a>(&mut self, mem: &'a GuestMemoryMmap, rx: &mut Queue) -> (bool, bool) {
        let mut used = false;
        let mut slices: Vec<VolatileSlice<'a>> = Vec::new();
        let mut budget = BATCH;
        while budget > 0 {
            budget -= 1;
            slices.clear();
            if let Some(reset) = self.resets.front() {
                let Some(buffer) = next_buffer(mem, rx, &mut slices) else {
                    return (used, true);
                };
                used = true;
                if let Some(buffer) = buffer {
                    let mut header = Header::to_guest(self.guest_cid, reset.key, Op::RST);
                    header.kind = reset.kind;
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
