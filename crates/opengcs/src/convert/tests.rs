use super::*;

fn empty_tar() -> Vec<u8> {
    vec![0; 1024]
}

#[test]
fn a_tar_goes_to_a_vhd_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let vhd = folder.path().join("layer.vhd");
    let size = tar_to_vhd(&vhd, empty_tar().as_slice()).unwrap();
    let details = layer_vhd_details(folder.path()).unwrap();
    assert_eq!((details.size, details.is_sandbox), (size, false));
    let mut tar = Vec::new();
    vhd_to_tar(&vhd, false, Some(size))
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap();
    assert!(tar.len() >= 1024 && tar.len() % 512 == 0);
}

#[test]
fn a_failed_conversion_is_an_error_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let vhd = folder.path().join("layer.vhd");
    for bad in [
        &b"no tar at all, but long enough to be looked at"[..],
        &[0x1f, 0x8b, 8],
    ] {
        let mut input = bad.to_vec();
        input.resize(700, b'x');
        let error = tar_to_vhd(&vhd, input.as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conversion, "{error:?}");
        assert!(!error.report().contains('\n'));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_damaged_disk_fails_the_reader_and_never_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let vhd = folder.path().join("layer.vhd");
    let size = tar_to_vhd(&vhd, empty_tar().as_slice()).unwrap();
    std::fs::write(&vhd, vec![0xa5; 100_000]).unwrap();
    let mut reader = vhd_to_tar(&vhd, false, None).unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.get_ref().unwrap().downcast_ref::<Error>().is_some());
    // And after the error there is nothing more.
    assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);

    std::fs::write(&vhd, "short").unwrap();
    let error = vhd_to_tar(&vhd, false, Some(size)).unwrap_err();
    assert!(error.to_string().contains("has been cut"), "{error}");
}

#[test]
fn a_vhd_without_upper_is_no_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let vhd = folder.path().join("layer.vhd");
    tar_to_vhd(&vhd, empty_tar().as_slice()).unwrap();
    let mut reader = vhd_to_tar(&vhd, true, None).unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("tar"), "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    for error in [
        vhd_to_tar("/gone.vhd", false, None).unwrap_err(),
        layer_vhd_details("/gone.vhd").unwrap_err(),
        copy_file("/gone.vhd", "/tmp/never-made", false).unwrap_err(),
        tar_to_vhd("/gone.vhd/layer.vhd", empty_tar().as_slice()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(error.report().contains("/gone.vhd"), "{error:?}");
    }
}

#[test]
fn a_reader_that_is_dropped_stops_the_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.vhdx");
    create_ext4_vhdx(&disk, 20, None).unwrap();
    let reader = vhd_to_tar(&disk, false, None).unwrap();
    let flag = Arc::clone(&reader.cancelled);
    drop(reader);
    assert!(flag.load(Ordering::Relaxed));
}

#[test]
fn a_scratch_disk_has_at_least_20_gb_and_its_cache_is_per_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let cache = path("cache.vhdx");
    let virtual_size = |name: &str| {
        opengcs_layer::inspect(&path(name))
            .unwrap()
            .disk
            .virtual_size
    };

    create_ext4_vhdx(path("a.vhdx"), 1, Some(&cache)).unwrap();
    assert_eq!(virtual_size("a.vhdx"), 20 << 30);
    assert!(cache.exists());
    create_ext4_vhdx(path("b.vhdx"), 21, Some(&cache)).unwrap();
    assert_eq!(virtual_size("b.vhdx"), 21 << 30);
    assert!(path("cache-21G.vhdx").exists());

    // A damaged cache is made anew.
    std::fs::write(&cache, "nonsense").unwrap();
    create_ext4_vhdx(path("c.vhdx"), 20, Some(&cache)).unwrap();
    assert_eq!(
        std::fs::read(path("a.vhdx")).unwrap(),
        std::fs::read(path("c.vhdx")).unwrap()
    );

    let error = create_ext4_vhdx(path("c.vhdx"), 20, Some(&cache)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.report().contains("c.vhdx"));
}
