//! The device against a driver of ours in plain memory: what it must do for any guest, and to any.

use super::super::connection::BUFFER;
use super::super::packet::HEADER_LEN_U32;
use super::*;
use crate::machine::Port;
use crate::stream::{Listener, Stream};
use crate::vsock::packet::{HOST_CID, Op, TYPE_STREAM};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

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
            if !turn.received && !turn.transmitted {
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
        self.send(&Self::packet(Op::REQUEST, port), &[]);
        assert_eq!(self.ops(), [Op::RESPONSE]);
        let stream = listener.accept().await.unwrap();
        (listener, stream)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(len).collect()
}

#[tokio::test]
async fn the_guests_half_close_is_end_of_file_and_only_that() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    guest.data(1, b"last");
    guest.shutdown(1, Shutdown::SEND);
    assert!(guest.receive().is_empty());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"last");
    stream.write_all(b"answer").await.unwrap();
    let got = guest.receive();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].payload, b"answer");
}

#[tokio::test]
async fn our_half_close_is_a_shutdown_of_one_direction() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    stream.write_all(b"in").await.unwrap();
    stream.shutdown().await.unwrap();
    let got = guest.receive();
    assert_eq!(got[0].payload, b"in", "the bytes come before the end");
    assert_eq!(got[1].header.op, Op::SHUTDOWN);
    assert_eq!(got[1].header.flags, Shutdown::SEND.0);
    guest.data(1, b"out");
    guest.shutdown(1, Shutdown::BOTH);
    assert_eq!(guest.ops(), [Op::RST], "a full close is confirmed at once");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"out");
    assert_eq!(guest.device.links(), 0);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_reset_at_once() {
    let mut guest = Guest::new();
    guest.send(&Guest::packet(Op::REQUEST, 1), &[]);
    let got = guest.receive();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].header.op, Op::RST);
    assert_eq!((got[0].header.src_port, got[0].header.dst_port), (1, 5000));
    let listener = guest.host.listen(Port(1)).unwrap();
    drop(listener);
    guest.send(&Guest::packet(Op::REQUEST, 1), &[]);
    assert_eq!(guest.ops(), [Op::RST], "nobody listens any more");
}

#[tokio::test]
async fn bytes_are_delivered_before_a_reset() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    let sent = pattern(BUFFER as usize);
    for chunk in sent.chunks(65536) {
        guest.data(1, chunk);
    }
    // The socket has taken some, so there is room for more in the device.
    guest.turn();
    let more = pattern(100_000);
    guest.data(1, &more[..50_000]);
    guest.data(1, &more[50_000..]);
    guest.send(&Guest::packet(Op::RST, 1), &[]);
    guest.turn();
    let mut bytes = vec![0; sent.len() + more.len()];
    let mut at = 0;
    while at < bytes.len() {
        at += stream.read(&mut bytes[at..]).await.unwrap();
        guest.turn();
    }
    assert!(bytes[..sent.len()] == sent && bytes[sent.len()..] == more);
    let end = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(guest.device.links(), 0);
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else() {
    let mut guest = Guest::new();
    let (_one, _slow) = guest.connected(1).await;
    let mut window = 0;
    loop {
        // Until the guest's credit is used up.
        guest.data(1, &pattern(32768));
        window += 32768;
        let ops = guest.ops();
        if !ops.contains(&Op::CREDIT_UPDATE) && window >= 8 * BUFFER as usize {
            break;
        }
        if ops.contains(&Op::RST) {
            break;
        }
    }
    let (_two, mut stream) = guest.connected(2).await;
    guest.data(2, b"quick");
    guest.turn();
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"quick");
}

#[tokio::test]
async fn a_guest_beyond_its_credit_is_reset() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    let mut sent = 0;
    let reset = loop {
        guest.data(1, &pattern(65536));
        sent += 65536;
        if guest.ops().contains(&Op::RST) {
            break true;
        }
        if sent > 64 << 20 {
            break false;
        }
    };
    assert!(reset, "{sent} bytes are held for nobody");
    let mut bytes = Vec::new();
    let read = async {
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(0) => break Ok(()),
                Ok(_) => guest.turn(),
                Err(error) => break Err(error.kind()),
            }
        }
    };
    assert_eq!(read.await, Err(io::ErrorKind::ConnectionReset));
    assert_eq!(
        bytes.len(),
        sent - 65536,
        "what was within the credit is delivered"
    );
}

#[tokio::test]
async fn we_keep_to_the_guests_credit() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    let writing = tokio::spawn(async move {
        let mut stream_bytes = pattern(400_000);
        stream.write_all(&stream_bytes).await.unwrap();
        stream_bytes.clear();
        stream
    });
    let mut bytes = Vec::new();
    let mut asked = false;
    let mut forwarded = 0;
    while bytes.len() < 400_000 {
        tokio::task::yield_now().await;
        for got in guest.receive() {
            asked |= got.header.op == Op::CREDIT_REQUEST;
            bytes.extend(got.payload);
        }
        assert!(bytes.len() - forwarded <= 256 * 1024);
        guest.device.on_tick(Instant::now());
        if asked {
            asked = false;
            forwarded = bytes.len();
            let header = Header {
                fwd_cnt: u32::try_from(forwarded).unwrap(),
                ..Guest::packet(Op::CREDIT_UPDATE, 1)
            };
            guest.send(&header, &[]);
        }
    }
    assert!(bytes == pattern(400_000));
    writing.await.unwrap();
}

#[tokio::test]
async fn a_dropped_stream_closes_both_ways_after_its_bytes() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    stream.write_all(b"bye").await.unwrap();
    drop(stream);
    let got = guest.receive();
    let data: Vec<u8> = got.iter().flat_map(|got| got.payload.clone()).collect();
    assert_eq!(data, b"bye");
    let last = got.last().unwrap().header;
    assert_eq!((last.op, last.flags), (Op::SHUTDOWN, Shutdown::BOTH.0));
    assert_eq!(guest.device.links(), 1, "the guest has not agreed yet");
    guest.send(&Guest::packet(Op::RST, 1), &[]);
    guest.turn();
    assert_eq!(guest.device.links(), 0);
}

#[tokio::test]
async fn a_guest_that_never_agrees_is_not_waited_for() {
    let mut guest = Guest::new();
    let (_listener, stream) = guest.connected(1).await;
    drop(stream);
    guest.turn();
    guest.device.on_tick(Instant::now());
    assert_eq!(guest.device.links(), 1);
    guest.device.on_tick(Instant::now() + CLOSE_TIMEOUT * 2);
    assert_eq!(guest.device.links(), 0);
    assert_eq!(guest.ops().last(), Some(&Op::RST));
}

#[tokio::test]
async fn we_connect_and_are_refused() {
    let mut guest = Guest::new();
    let (reply, mut answer) = oneshot::channel();
    guest.host.send(Command::Connect { port: 80, reply });
    let got = guest.receive();
    assert_eq!(got[0].header.op, Op::REQUEST);
    let (ours, theirs) = (got[0].header.src_port, got[0].header.dst_port);
    assert_eq!(theirs, 80);
    let from_80 = |op| Header {
        src_port: 80,
        ..Guest::packet(op, ours)
    };
    guest.send(&from_80(Op::RESPONSE), &[]);
    guest.turn();
    let incoming = answer.try_recv().unwrap().unwrap();
    let mut stream = Stream::new(incoming.socket, incoming.status).unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(guest.receive()[0].payload, b"x");

    let (reply, mut answer) = oneshot::channel();
    guest.host.send(Command::Connect { port: 81, reply });
    let ours = guest.receive()[0].header.src_port;
    let refusal = Header {
        src_port: 81,
        ..Guest::packet(Op::RST, ours)
    };
    guest.send(&refusal, &[]);
    guest.turn();
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    let (reply, answer) = oneshot::channel();
    guest.host.send(Command::Connect { port: 82, reply });
    guest.turn();
    drop(answer);
    guest.device.on_tick(Instant::now());
    assert_eq!(guest.device.links(), 1, "nobody waits for port 82");
}

#[tokio::test]
async fn a_flood_of_requests_is_bounded() {
    let mut guest = Guest::new();
    let mut listener = guest.host.listen(Port(1)).unwrap();
    let mut responses = 0;
    let mut resets = 0;
    let mut streams = Vec::new();
    for src_port in 0..3000 {
        let request = Header {
            src_port,
            ..Guest::packet(Op::REQUEST, 1)
        };
        guest.send(&request, &[]);
        for op in guest.ops() {
            match op {
                Op::RESPONSE => {
                    responses += 1;
                    if streams.len() < 400 {
                        streams.push(listener.accept().await.unwrap());
                    }
                }
                Op::RST => resets += 1,
                _ => unreachable!(),
            }
        }
        assert!(guest.device.links() <= MAX_LINKS);
    }
    assert_eq!(responses, 400 + 128, "those accepted, and the backlog");
    assert_eq!(responses + resets, 3000);
}

#[tokio::test]
async fn a_guest_without_receive_buffers_waits_and_loses_nothing() {
    let mut guest = Guest::without_buffers();
    for src_port in 0..2000 {
        let stray = Header {
            src_port,
            ..Guest::packet(Op::REQUEST, 1)
        };
        if guest.free.is_empty() {
            guest.turn();
            if guest.free.is_empty() {
                break;
            }
        }
        guest.send(&stray, &[]);
    }
    assert!(guest.free.is_empty(), "the device stops taking packets");
    assert!(guest.device.resets.len() <= MAX_RESETS);
    for chain in 0..CHAINS {
        guest.offer(chain);
    }
    let mut resets = 0;
    loop {
        let ops = guest.ops();
        if ops.is_empty() {
            break;
        }
        resets += ops.len();
    }
    assert_eq!(resets, MAX_RESETS + usize::from(CHAINS));
}

#[tokio::test]
async fn packets_of_other_machines_and_types_go_nowhere() {
    let mut guest = Guest::new();
    let _listener = guest.host.listen(Port(1)).unwrap();
    let request = Guest::packet(Op::REQUEST, 1);
    for (src_cid, dst_cid) in [(4, HOST_CID), (CID, 5), (HOST_CID, CID), (u64::MAX, 0)] {
        let header = Header {
            src_cid,
            dst_cid,
            ..request
        };
        guest.send(&header, &[]);
        assert!(guest.receive().is_empty());
    }
    guest.send(&Header { kind: 2, ..request }, &[]);
    assert_eq!(guest.ops(), [Op::RST], "sequenced packets are not offered");
    assert_eq!(guest.device.links(), 0);
}

#[tokio::test]
async fn a_second_request_for_the_same_ports_resets_the_first() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    guest.send(&Guest::packet(Op::REQUEST, 1), &[]);
    assert_eq!(guest.ops(), [Op::RST]);
    let end = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn odd_chains_are_given_back_unused() {
    let mut guest = Guest::new();
    let header = HEADER_LEN_U32;
    let cases: [(u64, u32, u16, u16); 6] = [
        (TX_BUFFERS, header - 1, 0, 0),
        (TX_BUFFERS, header, WRITE, 0),
        (u64::MAX - 8, header, 0, 0),
        (0x140_0000 - 8, header, 0, 0),
        (TX_BUFFERS, 0, 0, 0),
        // A loop of empty descriptors.
        (TX_BUFFERS, 0, NEXT, 0),
    ];
    for (addr, len, flags, next) in cases {
        guest.tx.descriptor(&guest.mem, 0, addr, len, flags, next);
        guest.tx.publish(&guest.mem, 0);
        guest.turn();
        assert_eq!(guest.free.len(), usize::from(CHAINS) + 1);
        guest.free.pop();
    }
    // A head beyond the table.
    guest.tx.publish(&guest.mem, SIZE + 7);
    guest.turn();
    assert_eq!(guest.device.links(), 0);
}

#[tokio::test]
async fn a_header_in_pieces_is_read_and_written_whole() {
    let mut guest = Guest::without_buffers();
    let mut listener = guest.host.listen(Port(1)).unwrap();
    // Receive: 10 bytes, 34 + 5 bytes, 1 byte.
    let base = RX_BUFFERS;
    for (at, (addr, len)) in [(base, 10), (base + 100, 39), (base + 200, 1)]
        .into_iter()
        .enumerate()
    {
        let at = u16::try_from(at).unwrap();
        let next = if at < 2 { NEXT } else { 0 };
        guest
            .rx
            .descriptor(&guest.mem, at, addr, len, WRITE | next, at + 1);
    }
    let request = Guest::packet(Op::REQUEST, 1).encode();
    guest
        .mem
        .write_slice(&request[..20], GuestAddress(TX_BUFFERS))
        .unwrap();
    guest
        .mem
        .write_slice(&request[20..], GuestAddress(TX_BUFFERS + 500))
        .unwrap();
    guest.tx.descriptor(&guest.mem, 0, TX_BUFFERS, 20, NEXT, 1);
    guest
        .tx
        .descriptor(&guest.mem, 1, TX_BUFFERS + 500, 24, 0, 0);
    guest.tx.publish(&guest.mem, 0);
    guest.rx.publish(&guest.mem, 0);
    guest.turn();
    assert_eq!(guest.rx.used(&guest.mem), Some((0, HEADER_LEN_U32)));
    let mut stream = listener.accept().await.unwrap();
    stream.write_all(b"123456789").await.unwrap();
    guest.rx.publish(&guest.mem, 0);
    guest.turn();
    assert_eq!(guest.rx.used(&guest.mem), Some((0, HEADER_LEN_U32 + 6)));
    let mut bytes = [0; 39];
    guest
        .mem
        .read_slice(&mut bytes, GuestAddress(base + 100))
        .unwrap();
    assert_eq!(&bytes[34..], b"12345");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the rings hold, the device neither panics nor grows without bound.
    #[test]
    fn hostile_rings_do_no_harm(
        descriptors in proptest::collection::vec(
            (0_u64..0x142_0000, 0_u32..0x2_0000, 0_u16..8, 0_u16..140, 0_u16..140), 1..64
        ),
        headers in proptest::collection::vec(
            (0_u32..4, 0_u32..4, any::<u32>(), 0_u16..3, 0_u16..10, any::<u32>(), any::<u32>()), 1..64
        ),
    ) {
        let mut guest = Guest::new();
        let _listener = guest.host.listen(Port(1)).unwrap();
        for ((addr, len, flags, next, head), (src, dst, size, kind, op, alloc, fwd)) in
            descriptors.into_iter().zip(headers)
        {
            let header = Header {
                src_port: src,
                dst_port: dst,
                len: size % 0x2_0000,
                kind,
                op: Op(op),
                flags: size,
                buf_alloc: alloc,
                fwd_cnt: fwd,
                ..Guest::packet(Op::RW, dst)
            };
            let at = addr.min(0x140_0000 - 64);
            if at > 0x3_0000 {
                guest.mem.write_slice(&header.encode(), GuestAddress(at)).unwrap();
            }
            let ring = if flags & 1 == 0 { &mut guest.tx } else { &mut guest.rx };
            ring.descriptor(&guest.mem, head % SIZE, addr, len, flags, next);
            ring.publish(&guest.mem, head);
            guest.device.poll();
            guest.device.turn(&guest.mem, &mut guest.rx.queue, &mut guest.tx.queue);
        }
        prop_assert!(guest.device.links() <= MAX_LINKS);
        prop_assert!(guest.device.resets.len() <= MAX_RESETS);
    }
}
