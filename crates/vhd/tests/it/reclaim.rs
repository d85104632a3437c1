//! Room that is given back, and blocks that move together: all that is kept stays what it was, also
//! when the machine stops at any moment.

use opengcs_vhd::testing::{Fault, MemoryFile};
use opengcs_vhd::{Access, Disk, DiskOptions, Format, Guid, Storage as _};
use positioned_io::WriteAt;

use crate::vhdx::{WRITE, read};

const MIB: u64 = 1 << 20;
const BLOCKS: u64 = 12;
/// What is kept; the rest is released.
const KEPT: [u64; 5] = [1, 5, 8, 10, 11];

fn written(format: Format) -> MemoryFile {
    let options = DiskOptions::new(format, Some(64 * MIB), Guid::from_u128(3));
    let mut disk = Disk::create(MemoryFile::new(), &options).unwrap();
    for block in 0..BLOCKS {
        let byte = u8::try_from(block + 1).unwrap();
        disk.write_all_at(block * MIB, &vec![byte; 1 << 20])
            .unwrap();
    }
    let file = disk.finish().unwrap();
    file.settle();
    file
}

fn session(file: &MemoryFile) -> opengcs_vhd::Result<()> {
    let mut disk = Disk::open(file.clone(), WRITE)?;
    for block in (0..BLOCKS).filter(|block| !KEPT.contains(block)) {
        disk.release(block * MIB..(block + 1) * MIB)?;
    }
    // The end of one that is kept is free too.
    disk.release(11 * MIB + 4096..12 * MIB)?;
    disk.compact(&mut |_| true)?;
    disk.finish()?;
    Ok(())
}

#[track_caller]
fn judge(file: &MemoryFile) {
    for access in [Access::ReadOnly, WRITE] {
        let disk = Disk::open(file.snapshot(), access).unwrap();
        for block in KEPT {
            let length = if block == 11 { 4096 } else { 1 << 20 };
            let found = read(&disk, block * MIB, length);
            let byte = u8::try_from(block + 1).unwrap();
            assert!(found.iter().all(|found| *found == byte), "block {block}");
        }
    }
}

#[test]
fn a_vhdx_ends_where_its_last_block_fits() {
    let file = written(Format::Vhdx);
    let before = file.length().unwrap();
    session(&file).unwrap();
    judge(&file);
    assert_eq!(file.length().unwrap(), before - 7 * MIB);
    let disk = Disk::open(file.snapshot(), Access::ReadOnly).unwrap();
    assert_eq!(disk.summary().unwrap().allocated, 5 * MIB);
    // A second time there is nothing to gain, and nothing is written.
    file.settle();
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    disk.compact(&mut |_| true).unwrap();
    disk.finish().unwrap();
    assert_eq!(file.length().unwrap(), before - 7 * MIB);
}

#[test]
fn flat_disks_get_holes() {
    for format in [Format::Raw, Format::FixedVhd] {
        let file = written(format);
        let (length, held) = (file.length().unwrap(), file.held());
        session(&file).unwrap();
        judge(&file);
        assert_eq!(file.length().unwrap(), length);
        assert_eq!(file.held(), held - 8 * MIB + 4096);
        let solid = written(format);
        solid.refuse_holes();
        let mut disk = Disk::open(solid.clone(), WRITE).unwrap();
        assert!(!disk.release(0..MIB).unwrap());
        assert_eq!(read(&disk, 0, 3), [1, 1, 1]);
    }
}

#[test]
fn where_files_have_no_holes_a_vhdx_still_gets_shorter() {
    let file = written(Format::Vhdx);
    let before = file.length().unwrap();
    file.refuse_holes();
    session(&file).unwrap();
    judge(&file);
    assert_eq!(file.length().unwrap(), before - 7 * MIB);
}

#[test]
fn a_stop_at_any_operation_loses_nothing() {
    for format in [Format::Vhdx, Format::Raw, Format::FixedVhd] {
        let file = written(format);
        session(&file).unwrap();
        for count in 0..=file.operations() {
            for left in file.crashes_after(count) {
                judge(&left);
            }
            for seed in 0..3 {
                judge(&file.crash_after(count, seed));
            }
        }
        for at in 0..file.operations() {
            for fault in [Fault::Stop, Fault::Tear(700), Fault::FailOnce, Fault::Full] {
                let file = written(format);
                file.inject(at, fault);
                let _ = session(&file);
                file.relieve();
                judge(&file);
            }
        }
    }
}

#[test]
fn moving_can_be_stopped() {
    let file = written(Format::Vhdx);
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    disk.release(0..MIB).unwrap();
    disk.release(2 * MIB..5 * MIB).unwrap();
    let mut asked = Vec::new();
    disk.compact(&mut |moved| {
        asked.push(moved);
        asked.len() < 3
    })
    .unwrap();
    disk.finish().unwrap();
    assert_eq!(asked, [0, MIB, 2 * MIB]);
    judge(&file);
}
