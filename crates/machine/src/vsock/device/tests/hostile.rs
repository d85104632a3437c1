//! A guest that keeps to no rule: floods, odd chains, and packets of nobody.

use super::*;

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
    let refusal = guest.receive()[0].header;
    assert_eq!(refusal.op, Op::RST, "sequenced packets are not offered");
    assert_eq!(refusal.kind, 2, "or no socket of that type would hear it");
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
async fn a_reset_that_the_guest_has_not_taken_spares_its_next_connection() {
    let mut guest = Guest::without_buffers();
    let _listener = guest.host.listen(Port(1)).unwrap();
    guest.data(1, b"of no connection");
    guest.turn();
    assert_eq!(guest.device.resets.len(), 1);
    guest.send(&Guest::packet(Op::REQUEST, 1), &[]);
    guest.turn();
    for chain in 0..CHAINS {
        guest.offer(chain);
    }
    assert_eq!(guest.ops(), [Op::RESPONSE]);
}

#[tokio::test]
async fn connections_that_come_and_go_unheard_leave_nothing() {
    let mut guest = Guest::without_buffers();
    let mut listener = guest.host.listen(Port(1)).unwrap();
    for _ in 0..2000 {
        guest.send(&Guest::packet(Op::REQUEST, 1), &[]);
        guest.send(&Guest::packet(Op::RST, 1), &[]);
        guest.turn();
        drop(listener.accept().await.unwrap());
        guest.device.poll();
        guest.device.check_bounds();
    }
    assert_eq!(guest.device.links(), 0);
}

#[tokio::test]
async fn a_flood_of_credit_requests_is_answered_by_one_update() {
    let mut guest = Guest::without_buffers();
    let _listener = guest.host.listen(Port(1)).unwrap();
    guest.send(&Guest::packet(Op::REQUEST, 1), &[]);
    for _ in 0..10_000 {
        guest.send(&Guest::packet(Op::CREDIT_REQUEST, 1), &[]);
    }
    for _ in 0..10_000 {
        // Resets of connections that are not there ask for nothing.
        guest.send(&Guest::packet(Op::RST, 7), &[]);
    }
    for chain in 0..CHAINS {
        guest.offer(chain);
    }
    assert_eq!(guest.ops(), [Op::RESPONSE], "it carries the credit");
    guest.send(&Guest::packet(Op::CREDIT_REQUEST, 1), &[]);
    assert_eq!(guest.ops(), [Op::CREDIT_UPDATE]);
}

#[tokio::test]
async fn a_guest_that_takes_nothing_gets_no_turns_for_what_it_cannot_have() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    stream.write_all(b"never read").await.unwrap();
    guest.shutdown(1, Shutdown::RECEIVE);
    guest.turn();
    assert_eq!(guest.ops(), [Op::SHUTDOWN]);
    guest.device.poll();
    assert!(guest.device.ready.is_empty());
    let error = stream.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    // The other way is open.
    guest.data(1, b"still");
    guest.turn();
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"still");
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
