//! Decides what becomes of the packets that the guest transmits.

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::{BATCH, Device, MAX_RESETS};
use crate::sys::volatile_io;
use crate::vsock::connection::Verdict;
use crate::vsock::packet::{HOST_CID, Header, Op, TYPE_STREAM};
use crate::vsock::ring;

impl Device {
    /// Handles the packets that the guest transmitted. Gives how many there were.
    pub(crate) fn transmit<'a>(&mut self, mem: &'a GuestMemoryMmap, tx: &mut Queue) -> u16 {
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
        u16::try_from(heads.len()).unwrap_or(u16::MAX)
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
            self.owe_reset(header.key_from_guest(), header.kind);
        }
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
