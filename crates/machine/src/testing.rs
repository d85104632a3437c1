//! Decides how tests and fuzzers reach the vsock device: with a driver in plain memory, and no machine.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::machine::Port;
use crate::stream::Listener;
use crate::vsock::GUEST_CID;
use crate::vsock::device::{Device, MAX_LINKS};
use crate::vsock::host::{Command, Host};

/// Bytes of the guest's memory.
pub const MEMORY: u64 = 1 << 20;
/// Descriptors of each queue.
pub const QUEUE: u16 = 32;
/// Where the receive queue lies: descriptors, then offers at `+ 0x400`, then used ones at `+ 0x800`.
pub const RX: u64 = 0;
/// Where the transmit queue lies, in the same order.
pub const TX: u64 = 0x1000;
/// The port on which the host listens.
pub const PORT: u32 = 1;

/// A vsock device, the host's end of its connections, and memory in which a driver can do as it likes.
#[derive(Debug)]
pub struct VsockBench {
    memory: GuestMemoryMmap,
    rx: Queue,
    tx: Queue,
    device: Device,
    host: Arc<Host>,
    listener: Listener,
    streams: Vec<UnixStream>,
    now: Instant,
}

impl VsockBench {
    /// A device that nobody has spoken to.
    ///
    /// # Panics
    /// The system has no descriptors or no memory left.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "it takes what the system may not have"
    )]
    pub fn new() -> Self {
        let length = usize::try_from(MEMORY).expect("a MiB");
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), length)]).expect("memory");
        let host = Arc::new(Host::new().expect("a descriptor"));
        let listener = host.listen(Port(PORT)).expect("the port is free");
        Self {
            memory,
            rx: queue(RX),
            tx: queue(TX),
            device: Device::new(GUEST_CID, Arc::clone(&host)).expect("descriptors"),
            host,
            listener,
            streams: Vec::new(),
            now: Instant::now(),
        }
    }

    /// Writes into the guest's memory what fits there.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let _ = self.memory.write(bytes, GuestAddress(at));
    }

    /// Reads from the guest's memory; zeros beyond its end.
    #[must_use]
    pub fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let _ = self.memory.read(&mut bytes, GuestAddress(at));
        bytes
    }

    /// Lets the device do what it has to do, and holds it to its bounds.
    ///
    /// # Panics
    /// It holds more than it may, or does not come to an end.
    pub fn turn(&mut self) {
        // A turn takes chains or gives them back, of which a queue has so many.
        for _ in 0..=4 * QUEUE {
            self.device.poll();
            let turn = self.device.turn(&self.memory, &mut self.rx, &mut self.tx);
            self.device.check_bounds();
            if !turn.received && turn.transmitted == 0 {
                return;
            }
        }
        panic!("the device goes on without chains");
    }

    /// The host accepts a connection, if one waits.
    pub fn accept(&mut self) {
        // Two descriptors each: far from what a process may have.
        if self.streams.len() < MAX_LINKS / 8
            && let Some(incoming) = self.listener.try_next()
        {
            self.streams.push(incoming.socket);
        }
    }

    fn stream(&mut self, which: usize) -> Option<&mut UnixStream> {
        let count = self.streams.len().max(1);
        self.streams.get_mut(which % count)
    }

    /// The host reads up to so many bytes of a connection.
    pub fn host_reads(&mut self, which: usize, count: usize) {
        if let Some(stream) = self.stream(which) {
            let _ = stream.read(&mut vec![0; count]);
        }
    }

    /// The host writes so many bytes.
    pub fn host_writes(&mut self, which: usize, count: usize) {
        if let Some(stream) = self.stream(which) {
            let _ = stream.write(&vec![0x5a; count]);
        }
    }

    /// The host closes its sending direction.
    pub fn host_shuts(&mut self, which: usize) {
        if let Some(stream) = self.stream(which) {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// The host lets go of a connection.
    pub fn host_drops(&mut self, which: usize) {
        if !self.streams.is_empty() {
            self.streams.swap_remove(which % self.streams.len());
        }
    }

    /// The host asks for a connection, and does not wait for it.
    pub fn connect(&mut self, port: u32) {
        let (reply, _) = tokio::sync::oneshot::channel();
        self.host.send(Command::Connect { port, reply });
    }

    /// Nine seconds pass.
    pub fn wait(&mut self) {
        self.now += Duration::from_secs(9);
        self.device.on_tick(self.now);
        self.device.check_bounds();
    }

    /// The driver begins anew.
    pub fn restart(&mut self) {
        self.device.forget_guest();
        self.rx = queue(RX);
        self.tx = queue(TX);
        self.write(RX, &[0; 0x2000]);
    }
}

fn queue(base: u64) -> Queue {
    let mut queue = Queue::new(QUEUE).expect("a power of two");
    let places = [
        Queue::try_set_desc_table_address,
        Queue::try_set_avail_ring_address,
        Queue::try_set_used_ring_address,
    ];
    for (at, set) in (0..).zip(places) {
        set(&mut queue, GuestAddress(base + at * 0x400)).expect("aligned");
    }
    queue.set_ready(true);
    queue
}
