//! Streams by the rules: half-closes, resets, credit, and no byte lost.

use super::*;

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

/// A guest that counts as the specification says, over more than its counters hold when `start` is near
/// their end.
#[tokio::test]
async fn a_guest_that_keeps_to_its_credit_is_never_stuck() {
    for buf_alloc in [65536, 256 * 1024, 700_000, 4 << 20] {
        keep_to_credit(buf_alloc).await;
    }
}

async fn keep_to_credit(buf_alloc: u32) {
    let mut guest = Guest::new();
    guest.buf_alloc = buf_alloc;
    let (_listener, mut stream) = guest.connected(1).await;
    let chunk = pattern(65536);
    let mut credit = (BUFFER, 0_u32);
    let (mut sent, mut read) = (0_u32, 0_u32);
    let mut buffer = vec![0; 100_000];
    while sent < 16 << 20 {
        // As Linux does since 2026.
        while sent - credit.1 + 65536 <= credit.0.min(buf_alloc) {
            guest.data(1, &chunk);
            sent += 65536;
        }
        while read < sent {
            for got in guest.receive() {
                credit = (got.header.buf_alloc, got.header.fwd_cnt);
            }
            let want = buffer.len().min((sent - read) as usize);
            let count = stream.read(&mut buffer[..want]).await.unwrap();
            let at = read as usize % 65536;
            assert_eq!(buffer[0], chunk[at]);
            read += u32::try_from(count).unwrap();
        }
        for got in guest.receive() {
            credit = (got.header.buf_alloc, got.header.fwd_cnt);
        }
        assert!(
            sent - credit.1 + 65536 <= credit.0.min(buf_alloc),
            "all was read, and the guest may not send: {credit:?}"
        );
    }
    assert_eq!(credit.0, buf_alloc.clamp(BUFFER, LARGE_BUFFER));
    guest.shutdown(1, Shutdown::BOTH);
    guest.turn();
    drop(stream);
    guest.turn();
    assert_eq!(guest.device.growth, GROWTH, "what it took is given back");
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
