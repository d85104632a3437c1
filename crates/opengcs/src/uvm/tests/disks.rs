use super::*;

#[tokio::test]
async fn a_disk_comes_and_goes_in_the_right_order() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    let added = vm.hot_add_vhd(&disk, "/mnt/a/", true, true).await.unwrap();
    assert_eq!(added.place.path(), "/mnt/a");
    assert_eq!((added.controller, added.lun), (0, 0));
    assert_eq!(added.size, Some(4096));
    assert_eq!(vm.disks(), [added]);
    vm.hot_remove_vhd(&disk).await.unwrap();
    assert!(machine.disks.lock().unwrap().is_empty());
    let changes = machine.changes.lock().unwrap().clone();
    assert_eq!(
        changes,
        [
            r#"Add MappedVirtualDisk {"MountPath":"/mnt/a","ReadOnly":true,"SizeInBytes":4096}"#,
            r#"Remove MappedVirtualDisk {"MountPath":"/mnt/a","ReadOnly":true}"#,
            "Remove SCSIDevice {}",
        ]
    );
    vm.hot_add_vhd(&disk, "/mnt/a", true, true).await.unwrap();
}

#[tokio::test]
async fn without_mount_there_is_a_link_to_the_device() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let added = vm
        .hot_add_vhd(bench.disk("a.img"), "", false, false)
        .await
        .unwrap();
    assert!(matches!(&added.place, GuestPlace::Device(path) if path.starts_with("/run/opengcs/")));
    assert!(machine.changes.lock().unwrap()[0].contains(r#""BlockDev":true"#));
}

#[tokio::test]
async fn what_cannot_be_added_is_said_and_leaves_nothing() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    vm.hot_add_vhd(&disk, "/mnt/a", false, true).await.unwrap();
    let link = bench.folder.path().join("link.img");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&disk, &link).unwrap();
    // Where only administrators may make links, another name of the same path.
    #[cfg(not(unix))]
    let link = link.with_file_name("x").join("..").join("a.img");
    let kind = |path: PathBuf, place: &'static str| {
        let vm = &vm;
        async move {
            let error = vm.hot_add_vhd(path, place, false, true).await.unwrap_err();
            assert!(!error.report().contains('\n'));
            error.kind()
        }
    };
    assert_eq!(kind(link, "/mnt/b").await, ErrorKind::AlreadyAttached);
    let other = bench.disk("b.img");
    assert_eq!(
        kind(other.clone(), "/mnt/a").await,
        ErrorKind::AlreadyAttached
    );
    assert_eq!(kind(other.clone(), "mnt").await, ErrorKind::InvalidInput);
    assert_eq!(kind(other, "").await, ErrorKind::InvalidInput);
    assert_eq!(
        kind("/gone.vhd".into(), "/mnt/b").await,
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(bench.disk("locked.img"), "/mnt/b").await,
        ErrorKind::Locked
    );
    assert_eq!(vm.disks().len(), 1);
    assert_eq!(machine.disks.lock().unwrap().len(), 1);
    let folder = bench.folder.path().to_owned();
    assert_eq!(kind(folder, "/mnt/b").await, ErrorKind::Unsupported);
    assert_eq!(vm.disks().len(), 1);
    let error = vm.hot_remove_vhd("/never.vhd").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAttached);
    assert!(error.to_string().contains("/never.vhd"));
}

#[tokio::test]
async fn a_refused_disk_is_detached_again() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::RefusesDisks);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    for _again in 0..2 {
        let error = vm
            .hot_add_vhd(&disk, "/mnt/a", false, true)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::GuestRefused);
        assert!(error.report().contains("bad superblock"));
        assert!(machine.disks.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_the_guest_does_not_let_go_of_stays_known() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::KeepsDevices);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    let add = || vm.hot_add_vhd(&disk, "/mnt/a", false, true);
    let error = add().await.unwrap_err();
    assert!(error.report().contains("bad superblock"), "{error:?}");
    assert!(error.report().contains("still attached"), "{error:?}");
    assert_eq!(vm.disks().len(), 1);
    let error = add().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyAttached);
    assert!(error.report().contains("remove it first"), "{error:?}");
    vm.hot_remove_vhd(&disk).await.unwrap();
    assert!(vm.disks().is_empty() && machine.disks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_removal_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    vm.hot_add_vhd(&disk, "/mnt/a", false, true).await.unwrap();
    *machine.stuck.lock().unwrap() = 2;
    for _again in 0..2 {
        let error = vm.hot_remove_vhd(&disk).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(vm.disks().len(), 1);
    }
    vm.hot_remove_vhd(&disk).await.unwrap();
    assert!(vm.disks().is_empty() && machine.disks.lock().unwrap().is_empty());
    let changes = machine.changes.lock().unwrap().clone();
    let unmounts = changes
        .iter()
        .filter(|change| change.starts_with("Remove Mapped"));
    assert_eq!(unmounts.count(), 1, "{changes:?}");
}

#[tokio::test]
async fn what_is_said_of_a_disk_reaches_the_guest() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let disk = HotAdd::new(bench.disk("a.img"))
        .mount("/mnt/a")
        .partition(2)
        .filesystem("xfs")
        .option("noatime");
    let added = vm.hot_add(disk).await.unwrap();
    assert_eq!(added.partition, 2);
    let changes = machine.changes.lock().unwrap().clone();
    for part in [
        r#""Partition":2"#,
        r#""Options":["noatime"]"#,
        r#""Filesystem":"xfs""#,
    ] {
        assert!(changes[0].contains(part), "{part}: {}", changes[0]);
    }
    // Nothing in this file is a hash tree.
    let disk = HotAdd::new(bench.disk("b.img")).verity_root("00".repeat(32));
    let error = vm.hot_add(disk).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.report().contains("hash tree"), "{error:?}");
    assert_eq!(vm.disks().len(), 1);
}

#[tokio::test]
async fn a_hash_tree_is_told_as_the_protocol_says() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let path = bench.folder.path().join("layer.vhd");
    let options = opengcs_layer::TarToDiskOptions {
        verity: true,
        format: opengcs_layer::Format::Raw,
        ..opengcs_layer::TarToDiskOptions::default()
    };
    let made = opengcs_layer::tar_to_disk(&[0; 1024][..], &path, &options).unwrap();
    let root = made.verity.unwrap().root_hash;
    let disk = HotAdd::new(&path).mount("/mnt/a").verity_root(&root);
    let added = vm.hot_add(disk).await.unwrap();
    assert!(added.read_only);
    assert_eq!(added.verity_root, Some(root.clone()));
    let change = machine.changes.lock().unwrap()[0].clone();
    for part in [
        r#""ReadOnly":true"#,
        r#""VerityInfo":{"Algorithm":"sha256","BlockSize":4096,"Ext4SizeInBytes":"#,
        &format!(r#""RootDigest":"{root}""#),
        r#""SuperBlock":true,"Version":1"#,
    ] {
        assert!(change.contains(part), "{part}: {change}");
    }
}

#[tokio::test]
async fn a_disk_in_use_stays_and_can_be_tried_again() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::HoldsDisks);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    vm.hot_add_vhd(&disk, "/mnt/a", false, true).await.unwrap();
    for _again in 0..2 {
        let error = vm.hot_remove_vhd(&disk).await.unwrap_err();
        assert!(error.report().contains("process 7 (sh)"), "{error:?}");
        assert_eq!(vm.disks().len(), 1);
    }
}

#[tokio::test]
async fn a_dropped_change_still_runs_to_its_end() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    let add = vm.hot_add_vhd(&disk, "/mnt/a", false, true);
    tokio::select! {
        biased;
        _ = add => panic!("it cannot be that fast"),
        () = tokio::task::yield_now() => {}
    }
    while vm.disks().is_empty() {
        tokio::task::yield_now().await;
    }
    vm.hot_remove_vhd(&disk).await.unwrap();
}

#[tokio::test]
async fn a_live_sandbox_is_read_by_the_guest() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("sandbox.img");
    vm.hot_add_vhd(&disk, "/mnt/s", false, true).await.unwrap();
    let mut tar = Vec::new();
    let mut stream = vm.vhd_to_tar(&disk, None, true, None).await.unwrap();
    stream.read_to_end(&mut tar).await.unwrap();
    assert!(tar == [b't'; 100_000]);

    let mut stream = vm
        .vhd_to_tar(&disk, Some("/mnt/bad"), true, None)
        .await
        .unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    let ours = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert!(ours.report().contains("upper: no such folder"), "{ours:?}");
    assert!(ours.report().contains("exit code 1"), "{ours:?}");

    let error = vm.vhd_to_tar(&disk, None, false, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
}

#[tokio::test]
async fn layers_are_stacked_as_the_protocol_says() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let overlay = OverlaySpec::new("/root")
        .layer("/a")
        .layer("/b")
        .scratch("/s");
    vm.combine_layers(&overlay).await.unwrap();
    vm.uncombine_layers("/root").await.unwrap();
    let changes = machine.changes.lock().unwrap().clone();
    assert!(changes[0].starts_with("Add CombinedLayers"));
    assert!(changes[0].contains(r#"[{"Id":"0","Path":"/a"},{"Id":"1","Path":"/b"}]"#));
    assert!(changes[1].starts_with("Remove CombinedLayers"));
    let error = vm
        .combine_layers(&OverlaySpec::new("/root"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
