//! Flipped bits and cut files never panic, and never give more than the disk's size.

use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::vhd::{Footer, append_footer};
use opengcs_vhd::{Access, Disk, DiskOptions, ErrorKind, Format, Storage, detect};
use positioned_io::{ReadAt, WriteAt};
use proptest::prelude::*;

use crate::vhdx::{ID, WRITE, new, read};

fn try_all(file: &MemoryFile) {
    let _ = detect(file);
    for access in [Access::ReadOnly, WRITE] {
        if let Ok(mut disk) = Disk::open(file.snapshot(), access) {
            let _ = disk.summary();
            for at in [
                0,
                1 << 20,
                700 << 20,
                disk.virtual_size().saturating_sub(4096),
            ] {
                let _ = disk.read_at(at, &mut [0; 8192]);
                let _ = disk.write_at(at, &[1; 8192]);
            }
            let size = disk.virtual_size();
            let _ = disk.discard(0..size.min(3 << 20));
            let _ = disk.write_at(700 << 20, &[1; 8192]);
            let _ = disk.flush();
            let _ = disk.finish();
        }
    }
    let _ = Disk::open_chain(file.snapshot(), |_| Ok(file.snapshot()));
}

/// A VHDX with blocks and a log that is not empty.
fn dirty() -> MemoryFile {
    let file = new(Some(20 << 30)).finish().unwrap();
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    for block in 0..4 {
        disk.write_all_at(block * (700 << 20), &[3; 9000]).unwrap();
        disk.flush().unwrap();
    }
    file
}

#[test]
fn every_flipped_byte_of_a_vhdx_structure_is_survived() {
    let file = dirty();
    let places = (0..700_u64)
        .chain((64 << 10)..(64 << 10) + 90)
        .chain((128 << 10)..(128 << 10) + 90)
        .chain((192 << 10)..(192 << 10) + 90)
        .chain((256 << 10)..(256 << 10) + 90)
        .chain((1 << 20)..(1 << 20) + 200)
        .chain((3 << 19)..(3 << 19) + 200)
        .chain((2 << 20)..(2 << 20) + 250)
        .chain((2 << 20) + (64 << 10)..(2 << 20) + (64 << 10) + 60)
        .chain((3 << 20)..(3 << 20) + 64);
    for at in places {
        let old = file.bytes(at, 1)[0];
        for new in [old ^ 1, old ^ 0x80, 0, 0xff] {
            let changed = file.snapshot();
            changed.store_at(at, &[new]).unwrap();
            try_all(&changed);
        }
    }
}

#[test]
fn cut_vhdx_is_refused() {
    let mut disk = new(Some(1 << 30));
    disk.write_all_at(0, &[1; 3 << 20]).unwrap();
    let file = disk.finish().unwrap();
    let length = file.length().unwrap();
    for cut in (0..length).step_by(99_991) {
        let short = file.snapshot();
        short.resize(cut).unwrap();
        match Disk::open(short, Access::ReadOnly) {
            Ok(disk) => assert_eq!(disk.format(), Format::Raw),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error}"),
        }
    }
}

/// One copy of the header and of the region table is enough; a damaged one is made anew or left.
#[test]
fn either_copy_of_header_and_region_table_is_enough() {
    let mut disk = new(Some(1 << 30));
    disk.write_all_at(5 << 20, b"content").unwrap();
    let file = disk.finish().unwrap();
    for header in [64_u64 << 10, 128 << 10] {
        for table in [192_u64 << 10, 256 << 10] {
            for at in [0, 5, 20, 3000] {
                let damaged = file.snapshot();
                damaged.store_at(header + at, &[0xee; 8]).unwrap();
                damaged.store_at(table + at, &[0xee; 8]).unwrap();
                let disk = Disk::open(damaged.snapshot(), Access::ReadOnly).unwrap();
                assert_eq!(read(&disk, 5 << 20, 7), b"content");
                let mut disk = Disk::open(damaged, WRITE).unwrap();
                disk.write_all_at(9 << 20, b"more").unwrap();
                let disk = Disk::open(disk.finish().unwrap(), Access::ReadOnly).unwrap();
                assert_eq!(read(&disk, 9 << 20, 4), b"more");
            }
        }
    }
    for both in [[64_u64 << 10, 128 << 10], [192 << 10, 256 << 10]] {
        let damaged = file.snapshot();
        for at in both {
            damaged.store_at(at + 4, &[0xee; 8]).unwrap();
        }
        let error = Disk::open(damaged, Access::ReadOnly).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn unknown_required_region_and_metadata_are_named() {
    let file = new(Some(1 << 30)).finish().unwrap();
    // The metadata table has no checksum: make the fifth item an unknown one.
    let at = (2 << 20) + 32 + 4 * 32;
    file.store_at(at, &[0xab; 16]).unwrap();
    let error = Disk::open(file, Access::ReadOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error
            .to_string()
            .contains("abababab-abab-abab-abab-abababababab")
    );
}

#[test]
fn footers_are_found_and_odd_ones_read() {
    let footer = Footer::fixed(1 << 20, ID, 5);
    let file = MemoryFile::new();
    file.store_at(77, b"data").unwrap();
    append_footer(&file, &footer).unwrap();
    assert_eq!(detect(&file).unwrap(), Format::FixedVhd);
    let disk = Disk::open(file.snapshot(), Access::ReadOnly).unwrap();
    assert_eq!(disk.virtual_size(), 1 << 20);
    assert_eq!(read(&disk, 77, 4), b"data");
    // Tools before 2004 left the last byte out.
    let short = file.snapshot();
    short.resize((1 << 20) + 511).unwrap();
    let disk = Disk::open(short, Access::ReadOnly).unwrap();
    assert_eq!(disk.format(), Format::FixedVhd);
    // No geometry, another creator.
    let odd = Footer {
        geometry: opengcs_vhd::vhd::Geometry::default(),
        creator_application: [0xff; 4],
        saved_state: true,
        ..footer.clone()
    };
    append_footer(&file, &odd).unwrap();
    let disk = Disk::open(file.snapshot(), Access::ReadOnly).unwrap();
    assert_eq!(disk.virtual_size(), 1 << 20);
    // A size the file does not have.
    let large = Footer {
        size: 2 << 20,
        ..footer
    };
    file.store_at(1 << 20, &large.encode()).unwrap();
    let error = Disk::open(file.clone(), Access::ReadOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // A broken footer is not data.
    file.store_at((1 << 20) + 100, &[1]).unwrap();
    let error = Disk::open(file, Access::ReadOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn small_files_are_raw() {
    for length in [0, 1, 511, 512, 513, 1024] {
        let file = MemoryFile::new();
        file.resize(length).unwrap();
        let disk = Disk::open(file, Access::ReadOnly).unwrap();
        assert_eq!((disk.format(), disk.virtual_size()), (Format::Raw, length));
    }
}

#[test]
fn reading_only_refuses_writes() {
    for format in [Format::Raw, Format::FixedVhd, Format::Vhdx] {
        let options = DiskOptions::new(format, Some(1 << 20), ID);
        let file = Disk::create(MemoryFile::new(), &options)
            .unwrap()
            .finish()
            .unwrap();
        let mut disk = Disk::open(file, Access::ReadOnly).unwrap();
        let error = disk.write_all_at(0, b"x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn random_damage_is_survived(
        damage in prop::collection::vec((0..(6_u64 << 20), any::<[u8; 9]>()), 1..6),
    ) {
        let file = dirty();
        for (at, bytes) in damage {
            file.store_at(at, &bytes).unwrap();
        }
        try_all(&file);
    }
}
