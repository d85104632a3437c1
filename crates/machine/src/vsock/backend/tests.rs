//! The event loop's one step, for guests that break their queues or flood them: it ends, and it is asked for
//! again only while there is something to do.

use std::sync::mpsc;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::vsock::packet::{HOST_CID, Header, Op, TYPE_STREAM};

const CID: u64 = 3;
const SIZE: u16 = 128;
const RX_BASE: u64 = 0x1_0000;
const TX_BASE: u64 = 0x2_0000;
/// One packet, which all chains of a test share.
const PACKET: u64 = 0x3_0000;
const PACKET_LEN: u32 = 44;

/// A device whose driver is this test.
struct Loop {
    backend: Arc<Backend>,
    memory: GuestMemoryMmap,
    vrings: Vec<Vring>,
}

impl Loop {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap();
        let shared = GuestMemoryAtomic::new(memory.clone());
        let host = Arc::new(Host::new().unwrap());
        let backend = Backend::new(CID, host, shared.clone()).unwrap();
        let vrings: Vec<Vring> = [RX_BASE, TX_BASE, 0]
            .into_iter()
            .map(|base| {
                let vring = Vring::new(shared.clone(), 1024).unwrap();
                if base != 0 {
                    vring.set_queue_size(SIZE);
                    vring
                        .set_queue_info(base, base + 0x1000, base + 0x2000)
                        .unwrap();
                    vring.set_queue_event_idx(true);
                    vring.set_queue_ready(true);
                    vring.set_enabled(true);
                }
                vring
            })
            .collect();
        Self {
            backend: Arc::new(backend),
            memory,
            vrings,
        }
    }

    /// Makes each descriptor of a queue `packet` alone.
    fn fill(&self, base: u64, packet: &Header) {
        let at = GuestAddress(PACKET);
        self.memory.write_slice(&packet.encode(), at).unwrap();
        for index in 0..SIZE {
            let at = GuestAddress(base + u64::from(index) * 16);
            self.memory.write_obj(PACKET, at).unwrap();
            let rest = [PACKET_LEN.to_le_bytes(), [0; 4]].concat();
            self.memory
                .write_slice(&rest, GuestAddress(at.0 + 8))
                .unwrap();
            let entry = GuestAddress(base + 0x1004 + u64::from(index) * 2);
            self.memory.write_obj(index, entry).unwrap();
        }
    }

    fn claim(&self, base: u64, available: u16) {
        let index = GuestAddress(base + 0x1002);
        self.memory.write_obj(available, index).unwrap();
    }

    fn taken(&self, base: u64) -> u16 {
        self.memory.read_obj(GuestAddress(base + 0x2002)).unwrap()
    }

    /// One step of the event loop, on a thread: one that never ends fails the test. Gives whether the loop
    /// would go round at once.
    fn step(&self) -> bool {
        let (tell, told) = mpsc::channel();
        let (backend, vrings) = (Arc::clone(&self.backend), self.vrings.clone());
        std::thread::spawn(move || {
            let outcome = backend.handle_event(HOST_EVENT, EventSet::IN, &vrings, 0);
            let _ = tell.send(outcome.is_ok());
        });
        let ended = told.recv_timeout(Duration::from_secs(60));
        assert!(ended.expect("the step ends"));
        let device = self.backend.device();
        let fd = device.as_ref().unwrap().poll_fd();
        let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut fds, Some(&now)).unwrap() > 0
    }

    /// The steps until the loop rests; a timer that fires in between is no spinning.
    fn comes_to_rest(&self) {
        let rests = (0..100).any(|_| !self.step());
        assert!(rests, "the loop goes round and round");
    }
}

fn request(port: u32) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: 5000,
        dst_port: port,
        len: 0,
        kind: TYPE_STREAM,
        op: Op::REQUEST,
        flags: 0,
        buf_alloc: 256 * 1024,
        fwd_cnt: 0,
    }
}

#[test]
fn a_queue_that_claims_more_than_it_holds_is_left_alone() {
    for base in [TX_BASE, RX_BASE] {
        for available in [SIZE + 1, 5000, u16::MAX] {
            let guest = Loop::new();
            guest.fill(base, &request(9));
            guest.claim(base, available);
            guest.comes_to_rest();
        }
    }
}

#[test]
fn broken_descriptors_do_not_keep_the_loop_busy() {
    for break_it in [
        // A chain that is its own next.
        |guest: &Loop, index: u64| {
            let flags = GuestAddress(TX_BASE + index * 16 + 12);
            let next = [
                1_u16.to_le_bytes(),
                u16::try_from(index).unwrap().to_le_bytes(),
            ]
            .concat();
            guest.memory.write_slice(&next, flags).unwrap();
        },
        // Memory that is not there.
        |guest: &Loop, index: u64| {
            let address = GuestAddress(TX_BASE + index * 16);
            guest.memory.write_obj(u64::MAX - 8, address).unwrap();
        },
        // A head beyond the table.
        |guest: &Loop, index: u64| {
            let entry = GuestAddress(TX_BASE + 0x1004 + index * 2);
            guest.memory.write_obj(0xfff0_u16, entry).unwrap();
        },
    ] as [fn(&Loop, u64); 3]
    {
        let guest = Loop::new();
        guest.fill(TX_BASE, &request(9));
        for index in 0..u64::from(SIZE) {
            break_it(&guest, index);
        }
        guest.claim(TX_BASE, SIZE);
        guest.comes_to_rest();
    }
}

#[test]
fn resets_that_the_guest_takes_no_buffers_for_are_waited_with() {
    let guest = Loop::new();
    guest.fill(TX_BASE, &request(9));
    // Nobody listens at 9, so each of them is owed a reset; more than are kept.
    for round in 1..=20_u16 {
        guest.claim(
            TX_BASE,
            guest.taken(TX_BASE).wrapping_add(SIZE).min(round * SIZE),
        );
        guest.comes_to_rest();
    }
    assert!(guest.taken(TX_BASE) < 20 * SIZE, "it takes in no more");
}

#[test]
fn a_flood_gets_its_share_of_the_loop_and_no_more() {
    let guest = Loop::new();
    // Credit for a connection that is not there: it is looked at, and nothing is owed for it.
    let packet = Header {
        op: Op::CREDIT_UPDATE,
        dst_cid: 77,
        ..request(9)
    };
    guest.fill(TX_BASE, &packet);
    guest.claim(TX_BASE, SIZE);
    let (stop, stopped) = mpsc::channel::<()>();
    let memory = guest.memory.clone();
    let flood = std::thread::spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let taken: u16 = memory.read_obj(GuestAddress(TX_BASE + 0x2002)).unwrap();
            let index = GuestAddress(TX_BASE + 0x1002);
            memory.write_obj(taken.wrapping_add(SIZE), index).unwrap();
        }
    });
    for _ in 0..20 {
        guest.step();
    }
    drop(stop);
    flood.join().unwrap();
    guest.comes_to_rest();
    assert!(guest.taken(TX_BASE) > 0, "it is served");
}
