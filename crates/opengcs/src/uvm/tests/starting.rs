use super::*;

#[tokio::test]
async fn a_vm_comes_up_with_its_seed_and_log() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    assert_eq!(vm.boot_mode(), BootMode::KernelInitrd);
    assert_eq!(bench.runtime_files(), 1);
    assert_eq!(machine.seed.lock().unwrap().len(), 512);
    vm.output("exit 0", 10).await.unwrap();
    let shown = vm.debug_gcs().await.to_string();
    assert!(shown.contains("agent is up") && shown.contains("it is a test"));
    assert_eq!(vm.stop().await.unwrap(), Stopped::Gracefully);
    assert_eq!(vm.stop().await.unwrap(), Stopped::Already);
    let error = vm.run_process("exit 0").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MachineEnded);
    drop(vm);
    drop(machine);
    // What still held the VM lets go as soon as it is scheduled.
    while bench.runtime_files() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_dials_fails_within_the_timeout() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Silent);
    let error = failure(bench.start(&machine).await);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let line = error.report();
    assert!(
        line.contains("never dialled") && line.contains("20 s"),
        "{line}"
    );
    assert!(error.detail().unwrap().contains("hypervisor's last words"));
    assert!(machine.state().is_end());
}

#[tokio::test]
async fn a_guest_that_dies_first_fails_the_start_at_once_with_the_reason() {
    let bench = Bench::new();
    let error = failure(bench.start(&Fake::new(Guest::Panics)).await);
    assert_eq!(error.kind(), ErrorKind::MachineEnded);
    let line = error.report();
    assert!(line.contains("panicked: no init"), "{line}");
    assert!(line.contains("cannot find the agent"), "{line}");
    assert!(!line.contains('\n'));
}

#[tokio::test]
async fn an_error_points_to_a_bundle_and_few_bundles_are_kept() {
    let bench = Bench::new();
    let folder = bench.folder.path().join("bundles");
    for _ in 0..12 {
        let mut config = bench.config(&["lcow.timeout=20"]);
        config.bundle_dir = Some(folder.clone());
        let error = failure(bench.start_with(&Fake::new(Guest::Panics), config).await);
        let bundle = error.bundle().unwrap().to_owned();
        assert!(error.report().contains(bundle.to_str().unwrap()));
        let text = std::fs::read_to_string(&bundle).unwrap();
        assert!(text.contains("cannot find the agent"), "{text}");
        assert!(text.contains("hypervisor's last words"), "{text}");
        assert!(text.contains("asked"), "{text}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_another_version_is_told() {
    let bench = Bench::new();
    let error = failure(bench.start(&Fake::new(Guest::WrongVersion)).await);
    assert!(error.report().contains("refused the bridge"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_breaks_the_protocol_is_told() {
    let bench = Bench::new();
    let error = failure(bench.start(&Fake::new(Guest::Babbles)).await);
    assert!(error.report().contains("broke the protocol"), "{error:?}");
}

#[tokio::test]
async fn a_hypervisor_that_is_not_there_says_what_to_install() {
    let bench = Bench::new();
    let outcome = UtilityVm::start_on(bench.config(&[]), |_| {
        Err(opengcs_machine::Error::new(
            opengcs_machine::ErrorKind::NotInstalled,
            "qemu-system-x86_64 is not on this host",
        ))
    })
    .await;
    let error = failure(outcome);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("qemu-system-x86"), "{error:?}");
    assert_eq!(bench.runtime_files(), 0);
}

#[tokio::test]
async fn configured_disks_are_there_at_the_start_or_the_start_fails() {
    let bench = Bench::new();
    let mut config = bench.config(&[]);
    config
        .mapped_virtual_disks
        .push(crate::MappedVirtualDisk::new(bench.disk("a.img"), "/mnt/a").read_only(true));
    let vm = bench
        .start_with(&Fake::new(Guest::Good), config.clone())
        .await
        .unwrap();
    assert_eq!(vm.disks()[0].place, GuestPlace::Mounted("/mnt/a".into()));
    let error = failure(
        bench
            .start_with(&Fake::new(Guest::RefusesDisks), config)
            .await,
    );
    assert!(error.report().contains("bad superblock"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_power_off_is_killed() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Stubborn);
    let vm = bench.start(&machine).await.unwrap();
    let before = tokio::time::Instant::now();
    assert_eq!(vm.stop().await.unwrap(), Stopped::Killed);
    // The clock is the test's own: it moves only when everything waits.
    assert!(before.elapsed() <= Duration::from_secs(10));
    assert_eq!(*machine.power_offs.lock().unwrap(), 1);
}

#[tokio::test]
async fn dropping_the_vm_ends_the_machine() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    drop(bench.start(&machine).await.unwrap());
    assert_eq!(machine.wait().await.reason, ExitReason::Terminated);
}
