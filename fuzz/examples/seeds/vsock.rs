//! What a driver and the host do to the vsock device.

use crate::Corpus;

/// Programs for the vsock device: steps as `entries/vsock.rs` reads them.
pub fn make() {
    let corpus = Corpus::open("vsock");
    let packet = |port: u8, op: u8, flags: u8, len: u16| {
        let mut step = vec![0, port << 4 | 1, op, 0, flags];
        step.extend(len.to_le_bytes());
        step.extend(len.to_le_bytes());
        step.extend((256_u32 << 10).to_le_bytes());
        step.extend([0; 4]);
        step
    };
    const REQUEST: u8 = 1;
    const RST: u8 = 3;
    const SHUTDOWN: u8 = 4;
    const RW: u8 = 5;
    const CREDIT_REQUEST: u8 = 7;
    let buffers = vec![4; 16];
    let open = [&buffers[..], &packet(1, REQUEST, 0, 0), &[9]].concat();
    let put =
        |name: &str, steps: &[&[u8]]| corpus.put(name, &[&open[..], &steps.concat()].concat());
    let data = packet(1, RW, 0, 4096);
    put(
        "data-and-half-closes",
        &[
            &data,
            &[10, 0, 0xff, 0],
            &packet(1, SHUTDOWN, 2, 0),
            &[11, 0, 100, 0],
            &[12, 0],
            &packet(1, SHUTDOWN, 3, 0),
        ],
    );
    put(
        "slow-reader-reset",
        &[
            &data.repeat(40),
            &packet(1, RST, 0, 0),
            &[10, 0, 0xff, 0xff],
        ],
    );
    put(
        "host-drops",
        &[&[11, 0, 0xff, 0xff], &[13, 0], &data, &[14, 1], &[14, 1]],
    );
    put("beyond-the-credit", &[&data.repeat(200)]);
    put(
        "restart",
        &[
            &data,
            &[14, 2],
            &buffers,
            &packet(1, REQUEST, 0, 0),
            &[9],
            &data,
        ],
    );
    put("connect", &[&[14, 0, 80], &[4; 4], &[14, 0, 81], &[14, 1]]);
    put(
        "strays",
        &[
            &packet(2, RW, 0, 10),
            &packet(3, CREDIT_REQUEST, 0, 0).repeat(60),
        ],
    );
    put(
        "request-flood",
        &[&(0..16)
            .flat_map(|port| packet(port, REQUEST, 0, 0))
            .collect::<Vec<_>>()
            .repeat(12)],
    );
    // A loop of empty descriptors, a chain out of memory, an index beyond the queue.
    put(
        "odd-chains",
        &[
            &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            &[7, 1, 0, 0],
            &[6, 0x81, 1, 0, 8, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0],
            &[7, 1, 1, 0],
            &[8, 2, 0x14, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0],
        ],
    );
}
