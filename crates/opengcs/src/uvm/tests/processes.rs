use super::*;

async fn vm(bench: &Bench) -> (Arc<Fake>, UtilityVm) {
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    (machine, vm)
}

#[tokio::test]
async fn all_of_a_large_stream_goes_round() {
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    let data: Vec<u8> = (0..8_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    let mut back = Vec::new();
    let status = vm
        .run_process_with(["cat"], data.as_slice(), &mut back, tokio::io::sink())
        .await
        .unwrap();
    assert!(status.success());
    assert!(back == data);
}

#[tokio::test]
async fn codes_come_back_and_the_environment_is_the_usual_one() {
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    let output = vm.output("exit 7", 10).await.unwrap();
    assert_eq!(output.status.code(), 7);
    let output = vm.output("say hello", 1000).await.unwrap();
    assert_eq!(output.stdout, b"hello in /bin\n");
    assert!(output.stderr.starts_with(b"/usr/local/sbin:"));
    assert_eq!(
        vm.output("exit 137", 0).await.unwrap().status.signal(),
        Some(9)
    );
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    let error = vm.run_process(["nonsense", "a"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GuestRefused);
    let line = error.report();
    assert!(
        line.contains("nonsense a") && line.contains("no such program"),
        "{line}"
    );
}

#[tokio::test]
async fn commands_that_make_no_sense_are_refused_here() {
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    let huge = ProcessSpec::new(["cat".to_owned(), "x".repeat(70_000)]);
    for spec in [
        ProcessSpec::line(" "),
        ProcessSpec::new(Vec::<String>::new()),
        ProcessSpec::new(["a\0b"]),
        ProcessSpec::new(["cat"]).env("A=B", "c"),
        huge,
    ] {
        let error = vm.run_process(spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }
    // The connection is as good as before.
    assert!(vm.output("exit 0", 0).await.unwrap().status.success());
}

#[tokio::test]
async fn a_vm_that_dies_fails_a_running_process_at_once() {
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    let error = vm.output("die", 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MachineEnded, "{error:?}");
    assert!(error.report().contains("signal 9"), "{error:?}");
}

#[tokio::test]
async fn processes_outlive_a_lost_bridge_and_requests_do_not() {
    let bench = Bench::new();
    let (machine, vm) = vm(&bench).await;
    let mut process = vm.run_process(["cat"]).await.unwrap();
    assert_eq!(process.try_wait().unwrap(), None);
    machine.redial.send_modify(|count| *count += 1);
    // A request that went out on the old connection is lost; a later one waits for the new one.
    loop {
        match vm.output("exit 0", 0).await {
            Ok(output) => break assert!(output.status.success()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error:?}"),
        }
    }
    let mut input = process.stdin.take().unwrap();
    input.write_all(b"still here").await.unwrap();
    drop(input);
    let mut back = String::new();
    let mut output = process.stdout.take().unwrap();
    output.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "still here");
    assert!(process.wait().await.unwrap().success());
    assert_eq!(process.try_wait().unwrap().map(ExitStatus::code), Some(0));
}

#[tokio::test]
async fn an_agent_without_signals_is_told() {
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    let process = vm.run_process("hang").await.unwrap();
    let error = process.kill().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert_eq!(
        process.signal(0).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[tokio::test]
async fn a_foreign_agents_process_is_killed_from_inside() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Foreign);
    let vm = bench.start(&machine).await.unwrap();
    let mut process = vm.run_process("hang").await.unwrap();
    process.kill().await.unwrap();
    let status = process.wait().await.unwrap();
    assert_eq!((status.code(), status.signal()), (u32::MAX, None));
    assert_eq!(status.to_string(), "a signal that is not known");
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_process() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Foreign);
    let vm = bench.start(&machine).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(50), vm.run_process("slow"));
    assert!(given_up.await.is_err());
    let ended = async {
        loop {
            // The first that was started is the one; the other is the `kill`.
            let exit = {
                let processes = machine.processes.lock().unwrap();
                let first = processes.keys().min().copied();
                first.and_then(|first| *processes[&first].borrow())
            };
            if exit == Some(u32::MAX) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_process_is_killed_unless_it_is_to_be_kept() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Foreign);
    let vm = bench.start(&machine).await.unwrap();
    let kept = vm
        .run_process(ProcessSpec::line("hang").kill_on_drop(false))
        .await
        .unwrap();
    let closed = vm.run_process("hang").await.unwrap();
    let dropped = vm.run_process("hang").await.unwrap();
    let exit = |id: u32| machine.processes.lock().unwrap()[&id].subscribe();
    let (kept_exit, closed_exit) = (exit(kept.id()), exit(closed.id()));
    let mut dropped_exit = exit(dropped.id());
    drop(kept);
    closed.close();
    drop(dropped);
    let killed = dropped_exit.wait_for(Option::is_some);
    tokio::time::timeout(Duration::from_secs(20), killed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((*kept_exit.borrow(), *closed_exit.borrow()), (None, None));
}

#[tokio::test]
async fn an_agent_that_knows_no_users_runs_nothing_as_root_instead() {
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    // This guest, as the one in Go, reads the protocol's own parameters alone.
    for spec in [
        ProcessSpec::new(["exit", "0"]).user("nobody"),
        ProcessSpec::line("exit 0").no_new_privileges(true),
        ProcessSpec::line("exit 0").limit("nofile", 1, 1),
    ] {
        let error = vm.run_process(spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::GuestRefused, "{error:?}");
    }
    let sized = ProcessSpec::line("exit 0").terminal_size(3, 4);
    assert!(vm.output(sized, 0).await.unwrap().status.success());
    let error = vm.run_process(ProcessSpec::line("exit '").user("a")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn input_that_cannot_be_read_is_the_error() {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("the tape tore")))
        }
    }
    let bench = Bench::new();
    let (_machine, vm) = vm(&bench).await;
    let error = vm
        .run_process_with("cat", Broken, tokio::io::sink(), tokio::io::sink())
        .await
        .unwrap_err();
    assert!(error.report().contains("the tape tore"), "{error:?}");
}
