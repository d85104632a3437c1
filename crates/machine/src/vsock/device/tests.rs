//! The device against a driver of ours in plain memory: what it must do for any guest, and to any.

use super::super::connection::{BUFFER, LARGE_BUFFER};
use super::super::packet::HEADER_LEN_U32;
use super::*;
use crate::machine::Port;
use crate::stream::{Listener, Stream};
use crate::vsock::host::Command;
use crate::vsock::packet::{HOST_CID, Header, Op, TYPE_STREAM};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

mod hostile;
mod many;
mod streams;

const CID: u64 = 3;
const SIZE: u16 = 128;
/// `VIRTQ_DESC_F_NEXT`.
const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`.
const WRITE: u16 = 2;

/// A split ring as a driver sees it.
struct Ring {
    base: u64,
    queue: Queue,
    next: u16,
    seen: u16,
}

impl Ring {
    fn new(base: u64) -> Self {
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_size(SIZE);
        queue
            .try_set_desc_table_address(GuestAddress(base))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(base + 0x1000))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(base + 0x2000))
            .unwrap();
        queue.set_ready(true);
        Self {
            base,
            queue,
            next: 0,
            seen: 0,
        }
    }

    fn descriptor(
        &self,
        mem: &GuestMemoryMmap,
        at: u16,
        addr: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let base = GuestAddress(self.base + u64::from(at) * 16);
        mem.write_obj(addr, base).unwrap();
        mem.write_obj(len, GuestAddress(base.0 + 8)).unwrap();
        mem.write_obj(flags, GuestAddress(base.0 + 12)).unwrap();
        mem.write_obj(next, GuestAddress(base.0 + 14)).unwrap();
    }

    fn publish(&mut self, mem: &GuestMemoryMmap, head: u16) {
        let avail = self.base + 0x1000;
        let entry = avail + 4 + u64::from(self.next % SIZE) * 2;
        mem.write_obj(head, GuestAddress(entry)).unwrap();
        self.next = self.next.wrapping_add(1);
        mem.write_obj(self.next, GuestAddress(avail + 2)).unwrap();
    }

    fn used(&mut self, mem: &GuestMemoryMmap) -> Option<(u16, u32)> {
        let used = self.base + 0x2000;
        let index: u16 = mem.read_obj(GuestAddress(used + 2)).unwrap();
        if index == self.seen {
            return None;
        }
        let entry = used + 4 + u64::from(self.seen % SIZE) * 8;
        self.seen = self.seen.wrapping_add(1);
        let head: u32 = mem.read_obj(GuestAddress(entry)).unwrap();
        let len: u32 = mem.read_obj(GuestAddress(entry + 4)).unwrap();
        Some((u16::try_from(head).unwrap(), len))
    }
}

/// Two descriptors a chain: 64 of them are in a ring.
const CHAINS: u16 = SIZE / 2;
const RX_BUFFERS: u64 = 0x10_0000;
const TX_BUFFERS: u64 = 0x80_0000;
const STRIDE: u64 = 0x1_1000;
/// As in Linux.
const RX_ROOM: u32 = 4096;

/// A packet that the guest got.
#[derive(Debug)]
struct Got {
    header: Header,
    payload: Vec<u8>,
}

struct Guest {
    mem: GuestMemoryMmap,
    rx: Ring,
    tx: Ring,
    free: Vec<u16>,
    /// What its connections hold.
    buf_alloc: u32,
    device: Device,
    host: Arc<Host>,
}

impl Guest {
    fn new() -> Self {
        let mut guest = Self::without_buffers();
        for chain in 0..CHAINS {
            guest.offer(chain);
        }
        guest
    }

    fn without_buffers() -> Self {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x140_0000)]).unwrap();
        let host = Arc::new(Host::new().unwrap());
        Self {
            mem,
            rx: Ring::new(0x1_0000),
            tx: Ring::new(0x2_0000),
            free: (0..CHAINS).collect(),
            buf_alloc: 256 * 1024,
            device: Device::new(CID, Arc::clone(&host)).unwrap(),
            host,
        }
    }

    fn offer(&mut self, chain: u16) {
        let addr = RX_BUFFERS + u64::from(chain) * 0x2000;
        let at = chain * 2;
        let header = HEADER_LEN_U32;
        self.rx
            .descriptor(&self.mem, at, addr, header, NEXT | WRITE, at + 1);
        self.rx
            .descriptor(&self.mem, at + 1, addr + 64, RX_ROOM, WRITE, 0);
        self.rx.publish(&self.mem, at);
    }

    fn send(&mut self, header: &Header, payload: &[u8]) {
        let chain = loop {
            if let Some(chain) = self.free.pop() {
                break chain;
            }
            self.turn();
            assert!(!self.free.is_empty(), "the device takes no packets");
        };
        let addr = TX_BUFFERS + u64::from(chain) * STRIDE;
        let at = chain * 2;
        self.mem
            .write_slice(&header.encode(), GuestAddress(addr))
            .unwrap();
        self.mem
            .write_slice(payload, GuestAddress(addr + 64))
            .unwrap();
        let next = if payload.is_empty() { 0 } else { NEXT };
        self.tx
            .descriptor(&self.mem, at, addr, HEADER_LEN_U32, next, at + 1);
        let len = u32::try_from(payload.len()).unwrap();
        self.tx.descriptor(&self.mem, at + 1, addr + 64, len, 0, 0);
        self.tx.publish(&self.mem, at);
    }

    fn turn(&mut self) {
        for _ in 0..64 {
            self.device.poll();
            let turn = self
                .device
                .turn(&self.mem, &mut self.rx.queue, &mut self.tx.queue);
            while let Some((head, len)) = self.tx.used(&self.mem) {
                assert_eq!(len, 0);
                self.free.push(head / 2);
            }
            if !turn.received && turn.transmitted == 0 {
                break;
            }
        }
    }

    /// Lets the device work and gives what it sent.
    fn receive(&mut self) -> Vec<Got> {
        self.turn();
        let mut all = Vec::new();
        while let Some((head, len)) = self.rx.used(&self.mem) {
            let chain = head / 2;
            let addr = RX_BUFFERS + u64::from(chain) * 0x2000;
            let mut header = [0; super::super::packet::HEADER_LEN];
            self.mem
                .read_slice(&mut header, GuestAddress(addr))
                .unwrap();
            let header = Header::parse(&header);
            assert_eq!(len, HEADER_LEN_U32 + header.len);
            let mut payload = vec![0; header.len as usize];
            self.mem
                .read_slice(&mut payload, GuestAddress(addr + 64))
                .unwrap();
            all.push(Got { header, payload });
            self.offer(chain);
        }
        all
    }

    fn ops(&mut self) -> Vec<Op> {
        self.receive().iter().map(|got| got.header.op).collect()
    }

    fn packet(op: Op, port: u32) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: 5000,
            dst_port: port,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: 256 * 1024,
            fwd_cnt: 0,
        }
    }

    fn data(&mut self, port: u32, payload: &[u8]) {
        let header = Header {
            buf_alloc: self.buf_alloc,
            len: u32::try_from(payload.len()).unwrap(),
            ..Self::packet(Op::RW, port)
        };
        self.send(&header, payload);
    }

    fn shutdown(&mut self, port: u32, flags: Shutdown) {
        let header = Header {
            flags: flags.0,
            ..Self::packet(Op::SHUTDOWN, port)
        };
        self.send(&header, &[]);
    }

    /// A connection from the guest to `port`.
    async fn connected(&mut self, port: u32) -> (Listener, Stream) {
        let mut listener = self.host.listen(Port(port)).unwrap();
        let request = Header {
            buf_alloc: self.buf_alloc,
            ..Self::packet(Op::REQUEST, port)
        };
        self.send(&request, &[]);
        assert_eq!(self.ops(), [Op::RESPONSE]);
        let stream = listener.accept().await.unwrap();
        (listener, stream)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(len).collect()
}
