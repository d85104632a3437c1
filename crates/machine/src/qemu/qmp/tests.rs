use super::*;

async fn pair() -> (Qmp, UnixStream) {
    let (ours, mut qemu) = UnixStream::pair().unwrap();
    let greet = async {
        qemu.write_all(b"{\"QMP\": {\"version\": {}}}\n")
            .await
            .unwrap();
        let mut buffer = [0; 256];
        let read = qemu.read(&mut buffer).await.unwrap();
        let hello: Value = serde_json::from_slice(&buffer[..read]).unwrap();
        assert_eq!(hello["execute"], "qmp_capabilities");
        qemu.write_all(format!("{{\"return\": {{}}, \"id\": {}}}\n", hello["id"]).as_bytes())
            .await
            .unwrap();
        qemu
    };
    let (qmp, qemu) = tokio::join!(Qmp::open(ours), greet);
    (qmp.unwrap(), qemu)
}

async fn command(qemu: &mut UnixStream) -> Value {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(qemu.read_u8().await.unwrap());
    }
    serde_json::from_slice(&line).unwrap()
}

#[tokio::test]
async fn replies_find_their_commands_in_any_order() {
    let (qmp, mut qemu) = pair().await;
    let answer = async {
        let first = command(&mut qemu).await;
        let second = command(&mut qemu).await;
        for request in [second, first] {
            let line = json!({ "return": request["execute"], "id": request["id"] });
            qemu.write_all(format!("{line}\n").as_bytes())
                .await
                .unwrap();
        }
    };
    let (a, b, ()) = tokio::join!(
        qmp.execute("a", Value::Null),
        qmp.execute("b", json!({"x": 1})),
        answer
    );
    assert_eq!(a, Ok(json!("a")));
    assert_eq!(b, Ok(json!("b")));
}

#[tokio::test]
async fn a_lost_connection_fails_what_waits_and_what_comes() {
    let (qmp, mut qemu) = pair().await;
    let hang_up = async {
        command(&mut qemu).await;
        drop(qemu);
    };
    let (waiting, ()) = tokio::join!(qmp.execute("a", Value::Null), hang_up);
    assert_eq!(waiting, Err(Failure::Lost));
    qmp.ended().await;
    assert_eq!(qmp.execute("b", Value::Null).await, Err(Failure::Lost));
}

#[tokio::test]
async fn an_error_is_told_in_qemus_words() {
    let (qmp, mut qemu) = pair().await;
    let answer = async {
        let request = command(&mut qemu).await;
        let line = json!({"error": {"class": "GenericError", "desc": "no"}, "id": request["id"]});
        qemu.write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    };
    let (reply, ()) = tokio::join!(qmp.execute("a", Value::Null), answer);
    assert_eq!(reply, Err(Failure::Refused("no".to_owned())));
}

#[tokio::test]
async fn the_shutdown_event_is_kept() {
    let (qmp, mut qemu) = pair().await;
    qemu.write_all(
        b"garbage\n{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n",
    )
    .await
    .unwrap();
    drop(qemu);
    qmp.ended().await;
    assert_eq!(qmp.shutdown_reason().as_deref(), Some("guest-reset"));
}

#[tokio::test]
async fn qemu_that_says_nothing_is_an_error() {
    let (ours, qemu) = UnixStream::pair().unwrap();
    drop(qemu);
    assert_eq!(
        Qmp::open(ours).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn odd_lines_are_understood_as_nothing() {
    for line in [
        "",
        "[]",
        "1",
        "{}",
        "{\"id\": 1}",
        "{\"id\": -1, \"return\": 1}",
        "\u{fffd}",
    ] {
        assert_eq!(parse(line.as_bytes()), Message::Other, "{line}");
    }
}
