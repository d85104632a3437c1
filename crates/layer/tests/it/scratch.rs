//! Scratch disks and what is told about disks.

use std::fs;

use opengcs_layer::{
    ErrorKind, FilesystemOptions, Format, ScratchOptions, create_scratch, inspect,
};

use crate::judge;

#[test]
fn twenty_gigabytes_take_little_and_are_clean() {
    let folder = tempfile::tempdir().unwrap();
    for (format, qemu) in [
        (Format::Vhdx, "vhdx"),
        (Format::FixedVhd, "vpc"),
        (Format::Raw, "raw"),
    ] {
        let path = folder.path().join(qemu);
        let options = ScratchOptions {
            format,
            ..ScratchOptions::default()
        };
        let scratch = create_scratch(&path, &options).unwrap();
        assert_eq!(scratch.virtual_size, 20 << 30);
        #[cfg(unix)]
        {
            let taken = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap()) * 512;
            assert!(taken <= 8 << 20, "{qemu}: {taken}");
        }
        let raw = folder.path().join("plain");
        judge::succeed(
            "qemu-img",
            &[
                "convert",
                "-f",
                qemu,
                "-O",
                "raw",
                path.to_str().unwrap(),
                raw.to_str().unwrap(),
            ],
        );
        assert_eq!(fs::metadata(&raw).unwrap().len(), 20 << 30);
        judge::fsck(&raw);
        let error = create_scratch(&path, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
}

#[test]
fn cache_is_used_told_apart_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let make = |name: &str, options: &ScratchOptions| {
        let path = folder.path().join(name);
        let scratch = create_scratch(&path, options).unwrap();
        (scratch.from_cache, fs::read(path).unwrap())
    };
    let cached = ScratchOptions {
        size: 1 << 30,
        cache: Some(cache.clone()),
        ..ScratchOptions::default()
    };
    let (hit, first) = make("1", &cached);
    assert!(!hit);
    let (hit, second) = make("2", &cached);
    assert!(hit && first == second);
    let plain = ScratchOptions {
        cache: None,
        ..cached.clone()
    };
    assert!(make("3", &plain).1 == first);
    let labelled = ScratchOptions {
        filesystem: FilesystemOptions {
            label: "other".into(),
            ..FilesystemOptions::default()
        },
        ..cached.clone()
    };
    let (hit, other) = make("4", &labelled);
    assert!(!hit && other != first);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 2);
    for entry in fs::read_dir(&cache).unwrap() {
        let file = fs::File::options()
            .write(true)
            .open(entry.unwrap().path())
            .unwrap();
        file.set_len(100_000).unwrap();
    }
    let (hit, again) = make("5", &cached);
    assert!(!hit && again == first);
    assert!(make("6", &cached).0);
}

#[test]
fn folders_for_an_overlay_are_made_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sandbox.vhdx");
    for overlay_folders in [false, true] {
        let options = ScratchOptions {
            size: 256 << 20,
            overlay_folders,
            filesystem: FilesystemOptions {
                journal: Some(8 << 20),
                label: "scratch".into(),
                ..FilesystemOptions::default()
            },
            existing: opengcs_layer::Existing::Replace,
            ..ScratchOptions::default()
        };
        create_scratch(&path, &options).unwrap();
        let found = inspect(folder.path()).unwrap();
        assert!(found.folder.as_ref().unwrap().is_sandbox);
        assert_eq!(found.path, path);
        assert_eq!(found.disk.format, "vhdx");
        assert_eq!(found.disk.virtual_size, 256 << 20);
        let json = serde_json::to_value(&found).unwrap();
        let filesystem = found.filesystem.unwrap();
        assert_eq!(filesystem.is_sandbox, overlay_folders);
        assert_eq!(filesystem.label, "scratch");
        assert_eq!(filesystem.journal, "clean");
        assert_eq!(json["filesystem"]["block_size"], 4096);
    }
}

#[test]
fn impossible_scratch_disks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (format, size) in [
        (Format::Vhdx, 1 << 12),
        (Format::FixedVhd, 4 << 40),
        (Format::Raw, 0),
    ] {
        let path = folder.path().join("x");
        let options = ScratchOptions {
            format,
            size,
            ..ScratchOptions::default()
        };
        let error = create_scratch(&path, &options).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NoSpace),
            "{error:?}"
        );
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_is_no_file_system_is_a_problem_not_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let found = inspect(&path).unwrap();
    assert_eq!(found.disk.format, "raw");
    assert!(found.filesystem.is_none());
    assert!(found.problem.is_some());
    let error = inspect(&folder.path().join("missing")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = inspect(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
