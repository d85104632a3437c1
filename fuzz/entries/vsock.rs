//! A guest's driver and the host's code as a little program, against the vsock device.
//!
//! Each step is a byte that says what, and the bytes that it needs; where these are missing they are zeros.

use opengcs_machine::testing::{MEMORY, PORT, QUEUE, RX, TX, VsockBench};

const HEADER: u32 = 44;
/// Steps of one program: more only repeat themselves.
const STEPS: usize = 2000;

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let count = N.min(self.0.len());
        bytes[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        bytes
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn long(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

/// The driver's side of one queue.
struct Ring {
    base: u64,
    next: u16,
    used: u16,
}

impl Ring {
    fn describe(
        &self,
        bench: &mut VsockBench,
        at: u16,
        addr: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&addr.to_le_bytes());
        descriptor[8..12].copy_from_slice(&len.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        descriptor[14..].copy_from_slice(&next.to_le_bytes());
        bench.write(self.base + u64::from(at % QUEUE) * 16, &descriptor);
    }

    fn publish(&mut self, bench: &mut VsockBench, head: u16) {
        let entry = self.base + 0x404 + u64::from(self.next % QUEUE) * 2;
        bench.write(entry, &head.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        bench.write(self.base + 0x402, &self.next.to_le_bytes());
    }

    /// Looks at what the device has used since the last time.
    fn collect(&mut self, bench: &VsockBench, judge: impl Fn(u32, u32)) {
        let index = u16::from_le_bytes(bench.read(self.base + 0x802));
        while self.used != index {
            let at = self.base + 0x804 + u64::from(self.used % QUEUE) * 8;
            let head = u32::from_le_bytes(bench.read(at));
            judge(head, u32::from_le_bytes(bench.read(at + 4)));
            self.used = self.used.wrapping_add(1);
        }
    }
}

/// Runs the program. The bench panics when the device holds too much or does not stop; what the device
/// says in buffers that nobody tampered with must be sound.
pub fn run(bytes: &[u8]) {
    let mut program = Program(bytes);
    let mut bench = VsockBench::new();
    let ring = |base| Ring {
        base,
        next: 0,
        used: 0,
    };
    let (mut rx, mut tx) = (ring(RX), ring(TX));
    // Whether the driver has only done what drivers do.
    let mut honest = true;
    for _ in 0..STEPS {
        if program.0.is_empty() {
            break;
        }
        match program.byte() % 16 {
            // A packet in one chain of two descriptors.
            0..=3 => {
                let (ports, op, kind, flags) = (
                    program.byte(),
                    program.byte(),
                    program.byte(),
                    program.byte(),
                );
                let (len, room) = (program.short(), program.short());
                let (buf_alloc, fwd_cnt) = (program.long(), program.long());
                let mut header = [0; HEADER as usize];
                header[0] = 3;
                header[8] = 2;
                header[16] = ports >> 4;
                header[20] = ports & 3;
                header[24..26].copy_from_slice(&len.to_le_bytes());
                header[28] = if kind < 250 { 1 } else { kind };
                header[30] = op % 9;
                header[32] = flags % 4;
                header[36..40].copy_from_slice(&buf_alloc.to_le_bytes());
                header[40..].copy_from_slice(&fwd_cnt.to_le_bytes());
                // A place for each of the queue's halves, apart from each other.
                let at = (tx.next % (QUEUE / 2)) * 2;
                let place = 0x4_0000 + u64::from(at) * 0x2000;
                bench.write(place, &header);
                tx.describe(&mut bench, at, place, HEADER, 1, at + 1);
                tx.describe(
                    &mut bench,
                    at + 1,
                    place + 64,
                    u32::from(room % 0x3000),
                    0,
                    0,
                );
                tx.publish(&mut bench, at);
            }
            // A buffer for a packet.
            4 | 5 => {
                let at = (rx.next % (QUEUE / 2)) * 2;
                let place = 0x8000 + u64::from(at) * 0x1000;
                rx.describe(&mut bench, at, place, HEADER, 3, at + 1);
                rx.describe(&mut bench, at + 1, place + 64, 0xf00, 2, 0);
                rx.publish(&mut bench, at);
            }
            // Any descriptor, anywhere.
            6 => {
                honest = false;
                let which = program.byte();
                let (at, addr) = (program.short(), u64::from(program.long()));
                let (len, flags, next) = (program.long(), program.short(), program.short());
                let ring = if which & 1 == 0 { &mut rx } else { &mut tx };
                // Some of them beyond the memory, some at the top of all addresses.
                let addr = match which >> 6 {
                    0 => addr % MEMORY,
                    1 => addr,
                    2 => u64::MAX - addr % 64,
                    _ => MEMORY - addr % 64,
                };
                ring.describe(&mut bench, at, addr, len, flags, next);
            }
            7 => {
                honest = false;
                let which = program.byte();
                let ring = if which & 1 == 0 { &mut rx } else { &mut tx };
                let head = program.short();
                // Mostly a descriptor that there is.
                let head = if which < 200 { head % QUEUE } else { head };
                ring.publish(&mut bench, head);
            }
            // Any bytes, anywhere, the rings included.
            8 => {
                honest = false;
                let at = u64::from(program.long()) % MEMORY;
                bench.write(at, &program.take::<8>());
            }
            9 => bench.accept(),
            10 => {
                let (which, count) = (program.byte(), program.short());
                bench.host_reads(which.into(), usize::from(count) * 16);
            }
            11 => {
                let (which, count) = (program.byte(), program.short());
                bench.host_writes(which.into(), usize::from(count) * 4);
            }
            12 => bench.host_shuts(program.byte().into()),
            13 => bench.host_drops(program.byte().into()),
            14 => match program.byte() % 3 {
                0 => bench.connect(program.byte().into()),
                1 => bench.wait(),
                _ => {
                    bench.restart();
                    (rx, tx) = (ring(RX), ring(TX));
                }
            },
            _ => {}
        }
        bench.turn();
        if honest {
            rx.collect(&bench, |head, length| judge(&bench, head, length));
            tx.collect(&bench, |_, length| {
                assert_eq!(length, 0, "a sent chain holds nothing");
            });
        }
    }
}

/// What the device says in a buffer of ours.
fn judge(bench: &VsockBench, head: u32, length: u32) {
    let place = 0x8000 + u64::from(head) * 0x1000;
    let header: [u8; HEADER as usize] = bench.read(place);
    let long = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
    assert_eq!(length, HEADER + long(24), "the length of what was received");
    assert_eq!(
        (header[0], header[8]),
        (2, 3),
        "from the host, to the guest"
    );
    assert!((1..=7).contains(&header[30]), "an operation");
    let from_us = long(16);
    assert!(
        header[30] == 3 || from_us == PORT || from_us >= 0xC000_0000,
        "of a connection that we have: {from_us}"
    );
    assert!(header[30] == 5 || long(24) == 0, "data in RW alone");
}
