//! A file that fails, tears or stops at any write: a scratch disk is whole, or its making is an error.

use opengcs_vhd::testing::{Fault, MemoryFile};
use opengcs_vhd::{Access, Storage};

use super::*;

fn options(format: Format) -> ScratchOptions {
    ScratchOptions {
        format,
        size: 64 << 20,
        filesystem: FilesystemOptions {
            journal: Some(4 << 20),
            ..FilesystemOptions::default()
        },
        overlay_folders: true,
        ..ScratchOptions::default()
    }
}

/// Whether the file holds the whole disk with its file system.
fn is_whole(file: &MemoryFile, format: Format) -> bool {
    let Ok(disk) = Disk::open(file.snapshot(), Access::ReadOnly) else {
        return false;
    };
    if disk.format() != format || disk.virtual_size() != 64 << 20 {
        return false;
    }
    let Ok(reader) = opengcs_ext4::Reader::open(disk) else {
        return false;
    };
    let root = reader.inode(reader.root()).unwrap();
    reader
        .read_dir(&root)
        .is_ok_and(|entries| entries.iter().any(|entry| entry.name == b"upper"))
}

#[test]
fn failure_at_any_write_is_an_error() {
    for format in [Format::Vhdx, Format::FixedVhd, Format::Raw] {
        let whole = MemoryFile::new();
        write(&whole, &options(format)).unwrap();
        assert!(is_whole(&whole, format));
        let total = whole.operations();
        let end = whole.length().unwrap();
        for at in 0..total {
            for fault in [
                Fault::Stop,
                Fault::FailOnce,
                Fault::Tear(0),
                Fault::Tear(1),
                Fault::Tear(600),
                Fault::Tear(5000),
            ] {
                let file = MemoryFile::new();
                file.inject(at, fault);
                assert!(
                    write(&file, &options(format)).is_err(),
                    "{format}: {fault:?} at {at} of {total} goes unnoticed"
                );
            }
            let file = MemoryFile::new();
            file.inject(at, Fault::Full);
            match write(&file, &options(format)) {
                // What failed was no write.
                Ok(()) => assert!(is_whole(&file, format)),
                Err(error) => assert_eq!(error.kind(), crate::ErrorKind::NoSpace, "{error}"),
            }
        }
        for limit in (0..end).step_by(701_003) {
            let file = MemoryFile::new();
            file.limit(limit);
            let error = write(&file, &options(format)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::NoSpace, "{error}");
        }
    }
}

/// Nothing is synced while it is made; one sync, before it gets its name, makes all of it safe.
#[test]
fn synced_scratch_survives_any_crash() {
    for format in [Format::Vhdx, Format::FixedVhd, Format::Raw] {
        let file = MemoryFile::new();
        write(&file, &options(format)).unwrap();
        file.sync().unwrap();
        for seed in 0..20 {
            let left = file.crash_after(file.operations(), seed);
            assert!(is_whole(&left, format));
        }
    }
}
