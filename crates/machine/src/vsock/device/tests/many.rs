//! Many connections, one after the other and at once, and the driver's beginning anew.

use super::*;

/// A packet of the connection between the guest's `guest_port` and the host's `port`.
fn from(guest_port: u32, op: Op, port: u32) -> Header {
    Header {
        src_port: guest_port,
        ..Guest::packet(op, port)
    }
}

#[tokio::test]
async fn three_hundred_connections_keep_their_bytes_apart() {
    const COUNT: u32 = 300;
    let mut guest = Guest::new();
    let mut listener = guest.host.listen(Port(1)).unwrap();
    let mut streams = Vec::new();
    for port in 0..COUNT {
        guest.send(&from(port, Op::REQUEST, 1), &[]);
        assert_eq!(guest.ops(), [Op::RESPONSE]);
        streams.push(listener.accept().await.unwrap());
    }
    for round in 0..3_u32 {
        for port in 0..COUNT {
            let bytes = (port + round * 1000).to_le_bytes();
            let header = Header {
                len: 4,
                ..from(port, Op::RW, 1)
            };
            guest.send(&header, &bytes);
        }
        guest.turn();
        for (port, stream) in (0..COUNT).zip(&mut streams) {
            let number = stream.read_u32_le().await.unwrap();
            assert_eq!(number, port + round * 1000);
            stream.write_u32_le(number * 2).await.unwrap();
        }
        let mut seen = vec![false; COUNT as usize];
        loop {
            let all = guest.receive();
            if all.is_empty() {
                break;
            }
            for got in all {
                let port = got.header.dst_port;
                assert_eq!(got.payload, ((port + round * 1000) * 2).to_le_bytes());
                assert!(!std::mem::replace(&mut seen[port as usize], true));
            }
        }
        assert!(seen.iter().all(|seen| *seen), "round {round}");
    }
    drop(streams);
    let mut ends = 0;
    loop {
        let all = guest.receive();
        if all.is_empty() {
            break;
        }
        for got in all {
            if got.header.op == Op::SHUTDOWN && got.header.flags == Shutdown::BOTH.0 {
                guest.send(&from(got.header.dst_port, Op::RST, 1), &[]);
                ends += 1;
            }
        }
    }
    assert_eq!((ends, guest.device.links()), (COUNT, 0));
}

#[tokio::test]
async fn ports_are_used_again_while_the_old_bytes_wait_for_their_reader() {
    let mut guest = Guest::new();
    let (mut listener, mut old) = guest.connected(1).await;
    let sent = pattern(BUFFER as usize);
    for chunk in sent.chunks(65536) {
        guest.data(1, chunk);
    }
    guest.shutdown(1, Shutdown::BOTH);
    assert_eq!(guest.ops().last(), Some(&Op::RST));
    guest.send(&Guest::packet(Op::REQUEST, 1), &[]);
    assert_eq!(guest.ops(), [Op::RESPONSE]);
    let mut new = listener.accept().await.unwrap();
    guest.data(1, b"new");
    guest.turn();
    let mut bytes = [0; 3];
    new.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"new");
    let mut bytes = vec![0; sent.len()];
    let mut at = 0;
    while at < bytes.len() {
        at += old.read(&mut bytes[at..]).await.unwrap();
        guest.turn();
    }
    assert!(bytes == sent);
    assert_eq!(old.read(&mut [0]).await.unwrap(), 0);
    new.write_all(b"x").await.unwrap();
    assert_eq!(guest.receive().last().unwrap().payload, b"x");
}

#[tokio::test]
async fn a_full_backlog_refuses_and_takes_again_when_it_has_room() {
    let mut guest = Guest::new();
    let mut listener = guest.host.listen(Port(1)).unwrap();
    let mut port = 0;
    loop {
        guest.send(&from(port, Op::REQUEST, 1), &[]);
        port += 1;
        match guest.ops()[..] {
            [Op::RESPONSE] => {}
            [Op::RST] => break,
            ref other => panic!("{other:?}"),
        }
    }
    let _first = listener.accept().await.unwrap();
    guest.send(&from(port, Op::REQUEST, 1), &[]);
    assert_eq!(guest.ops(), [Op::RESPONSE]);
}

#[tokio::test]
async fn a_driver_that_begins_anew_ends_what_the_old_one_knew() {
    let mut guest = Guest::new();
    let (_listener, mut stream) = guest.connected(1).await;
    guest.data(1, b"last words");
    let (reply, mut asked) = oneshot::channel();
    guest.host.send(Command::Connect { port: 80, reply });
    assert_eq!(guest.ops(), [Op::REQUEST]);
    let (reply, mut unasked) = oneshot::channel();
    guest.host.send(Command::Connect { port: 81, reply });
    guest.device.poll();
    guest.send(&Guest::packet(Op::REQUEST, 7), &[]);
    guest.device.forget_guest();

    let mut bytes = [0; 10];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"last words");
    let end = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    assert!(asked.try_recv().unwrap().is_err(), "its request is lost");
    assert!(unasked.try_recv().is_err(), "it is asked for now");
    let got = guest.receive();
    let open: Vec<_> = got
        .iter()
        .filter(|got| got.header.op == Op::REQUEST)
        .map(|got| got.header.dst_port)
        .collect();
    assert_eq!(open, [81]);
}
