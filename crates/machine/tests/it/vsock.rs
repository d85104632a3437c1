//! Connections between this process and a real guest.

use opengcs_machine::{ErrorKind, Machine, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::guest::{Guest, accept};

fn pattern(len: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(len).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_guests_connections_keep_the_five_rules() {
    const MIB: usize = 1 << 20;
    let mut guest = Guest::boot().await;
    let mut listener = guest.machine.listen(Port(2000)).unwrap();
    let taken = guest.machine.listen(Port(2000)).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::PortInUse);

    // Our end of file reaches the guest while its answer still flows, and its end reaches us.
    assert_eq!(guest.order("dial 2000 echo").await, "ok");
    let stream = accept(&guest.machine, &mut listener).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = pattern(8 * MIB);
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut echoed = Vec::new();
    read.read_to_end(&mut echoed).await.unwrap();
    writing.await.unwrap();
    assert!(
        echoed == sent,
        "{} of {} bytes came back",
        echoed.len(),
        sent.len()
    );

    // The guest's half-close is our end of file, and we can still send.
    assert_eq!(guest.order("dial 2000 half").await, "ok");
    let mut stream = accept(&guest.machine, &mut listener).await;
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    stream.write_all(&pattern(100_000)).await.unwrap();
    drop(stream);
    while !guest.machine.console_tail().contains("peer: half 100000") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    // A port where nobody listens is refused at once.
    let answer = guest.order("time 2001").await;
    let (refused, micros) = answer.split_once(' ').unwrap();
    assert_eq!(refused, "true");
    println!("refused after {micros} us");

    // The guest is done long before we read; every byte is there, and then an end of file.
    assert_eq!(guest.order("dial 2000 source 300000 65536").await, "ok");
    let mut stream = accept(&guest.machine, &mut listener).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == pattern(300_000));

    // So it is when the guest closes in no time, with bytes of ours that it has not read.
    for round in 0..5 {
        assert_eq!(guest.order("dial 2000 linger 300000 65536").await, "ok");
        let mut stream = accept(&guest.machine, &mut listener).await;
        // The guest may have closed by then.
        let _ = stream.write_all(&pattern(50_000)).await;
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes).await;
        let kind = end.err().map(|error| error.kind());
        assert!(
            matches!(kind, None | Some(std::io::ErrorKind::ConnectionReset)),
            "round {round}: {kind:?}"
        );
        assert!(
            bytes == pattern(300_000),
            "round {round}: {} bytes",
            bytes.len()
        );
    }

    // We can dial, too.
    assert_eq!(guest.order("listen 77 sink 65536").await, "ok");
    let mut stream = guest.machine.connect(Port(77)).await.unwrap();
    stream.write_all(&pattern(123_456)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "123456\n");
    let refused = guest.machine.connect(Port(78)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    // Many at once, the slow not holding up the others.
    assert_eq!(guest.order("dial 2000 source 4000000 4096").await, "ok");
    let mut slow = accept(&guest.machine, &mut listener).await;
    for _ in 0..100 {
        assert_eq!(guest.order("dial 2000 echo").await, "ok");
        let mut stream = accept(&guest.machine, &mut listener).await;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "hello");
    }
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == pattern(4_000_000));

    // A driver that begins anew knows no connection: ours end, and new ones come.
    assert_eq!(guest.order("dial 2000 half").await, "ok");
    let mut stream = accept(&guest.machine, &mut listener).await;
    assert_eq!(guest.order("dial 2000 ping").await, "ok");
    let mut other = accept(&guest.machine, &mut listener).await;
    guest.rebind().await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let end = other.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(guest.order("dial 2000 echo").await, "ok");
    let mut stream = accept(&guest.machine, &mut listener).await;
    stream.write_all(b"anew").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "anew");

    // The last words of a guest that powers off at once.
    guest.send("stdout-then-poweroff 2000 200000").await;
    let mut stream = accept(&guest.machine, &mut listener).await;
    guest.machine.wait().await;
    let mut bytes = vec![0; 200_000];
    stream.read_exact(&mut bytes).await.unwrap();
    assert!(bytes == pattern(200_000));
    let end = stream.read(&mut [0]).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(
        listener.accept().await.is_err(),
        "nobody will dial any more"
    );
}
