//! Writes may come to the disk in any order and in part, up to the next sync: what a crash leaves then.

use opengcs_vhd::testing::{Fault, MemoryFile};
use opengcs_vhd::{Access, Disk, DiskOptions, ErrorKind, Format, Storage, detect};
use positioned_io::WriteAt;

use crate::script::{MIB, Step, Timeline, fits, judge, look, nothing, script};
use crate::vhdx::{ID, WRITE, new, read};

const SIZE: u64 = 9 * MIB + 4096;

fn options(format: Format, size: Option<u64>) -> DiskOptions {
    DiskOptions::new(format, size, ID)
}

/// A VHDX with some blocks, some of which were discarded, and no history.
fn used(options: &DiskOptions) -> MemoryFile {
    let mut disk = Disk::create(MemoryFile::new(), options).unwrap();
    for at in [0, 2 * MIB, 5 * MIB, 6 * MIB] {
        disk.write_all_at(at, &vec![9; MIB as usize]).unwrap();
    }
    let mut disk = Disk::open(disk.finish().unwrap(), WRITE).unwrap();
    disk.discard(2 * MIB..3 * MIB).unwrap();
    let file = disk.finish().unwrap();
    file.settle();
    file
}

#[test]
fn vhdx_session_leaves_nothing_but_old_or_new_sectors() {
    for seed in 0..24 {
        let mut options = options(Format::Vhdx, Some(SIZE));
        options.block_size = if seed % 4 == 3 { 2 << 20 } else { 1 << 20 };
        options.fixed = seed % 6 == 5;
        let file = used(&options);
        if seed % 5 == 4 {
            file.refuse_holes();
        }
        let mut disk = Disk::open(file.clone(), WRITE).unwrap();
        let before = look(&disk);
        let steps = script(seed, SIZE, 30);
        let (times, now) = Timeline::record(&file, &mut disk, &before, &steps);
        let total = file.operations();
        for count in 0..=total {
            for crash in 0..3 {
                let left = file.crash_after(count, seed * 1000 + crash);
                let what = format!("seed {seed}, operation {count} of {total}, crash {crash}");
                judge(&left, &times.allowed(count), &what);
            }
        }
        // The end of the session: the log goes, and then the room at the end.
        let file = disk.finish().unwrap();
        for count in total..=file.operations() {
            let allowed = crate::script::either(&times.allowed(total), &now);
            judge(
                &file.crash_after(count, seed),
                &allowed,
                &format!("seed {seed}, end"),
            );
        }
        let all = file.crash_after(file.operations(), 0);
        assert_eq!(
            fits(&look(&Disk::open(all, Access::ReadOnly).unwrap()), &now),
            Ok(())
        );
    }
}

#[test]
fn crash_while_a_crash_is_repaired_loses_nothing() {
    for seed in 50..58 {
        let file = used(&options(Format::Vhdx, Some(SIZE)));
        let mut disk = Disk::open(file.clone(), WRITE).unwrap();
        let before = look(&disk);
        let (times, _) = Timeline::record(&file, &mut disk, &before, &script(seed, SIZE, 20));
        for count in 0..=file.operations() {
            let left = file.crash_after(count, seed);
            drop(Disk::open(left.clone(), WRITE).unwrap());
            for again in 0..=left.operations() {
                let twice = left.crash_after(again, seed + 1);
                judge(&twice, &times.allowed(count), &format!("seed {seed}"));
            }
        }
    }
}

/// A new file is no disk of its format, or it is whole; the disk that was there before may be there
/// still, as long as nothing of the new one is.
#[test]
fn creation_leaves_no_half_a_disk() {
    for (format, size, fixed) in [
        (Format::Vhdx, Some(SIZE), false),
        (Format::Vhdx, Some(SIZE), true),
        (Format::Vhdx, None, false),
        (Format::FixedVhd, Some(SIZE), false),
        (Format::FixedVhd, None, false),
    ] {
        for old in [Format::Vhdx, Format::FixedVhd, Format::Raw] {
            let mut there = Disk::create(MemoryFile::new(), &options(old, Some(SIZE))).unwrap();
            there.write_all_at(0, &[7; 4096]).unwrap();
            there.write_all_at(SIZE - 4096, &[7; 4096]).unwrap();
            let file = there.finish().unwrap();
            file.settle();
            let mut options = options(format, size);
            options.fixed = fixed;
            let mut disk = Disk::create(file.clone(), &options).unwrap();
            for at in [0, 4 * MIB, SIZE - 4096] {
                disk.write_all_at(at, &[8; 4096]).unwrap();
            }
            disk.flush().unwrap();
            let total = file.operations();
            for count in 0..=total {
                for seed in 0..20 {
                    let left = file.crash_after(count, seed);
                    let found = detect(&left).unwrap_or(Format::Raw);
                    if found == Format::Raw {
                        assert!(count < total);
                        continue;
                    }
                    let disk = Disk::open(left, Access::ReadOnly).unwrap();
                    assert_eq!(disk.virtual_size(), SIZE);
                    let all = [0, 4 * MIB, SIZE - 4096].map(|at| read(&disk, at, 4096)[0]);
                    if count == total || all[0] == 8 {
                        assert_eq!((found, all), (format, [8; 3]), "{count} of {total}");
                    } else {
                        assert_eq!((found, all), (old, [7, 0, 7]), "{count} of {total}");
                    }
                }
            }
        }
    }
}

/// What is written after a new disk was flushed is as safe as in a disk that was opened.
#[test]
fn new_disk_that_was_flushed_goes_on_safely() {
    for (seed, size) in [(70, Some(SIZE)), (71, None)] {
        let file = MemoryFile::new();
        let mut disk = Disk::create(file.clone(), &options(Format::Vhdx, size)).unwrap();
        if size.is_none() {
            disk.set_size(SIZE).unwrap();
        }
        disk.flush().unwrap();
        file.settle();
        let steps = script(seed, SIZE, 30);
        let (times, _) = Timeline::record(&file, &mut disk, &nothing(SIZE), &steps);
        for count in 0..=file.operations() {
            for crash in 0..4 {
                let left = file.crash_after(count, crash);
                judge(&left, &times.allowed(count), &format!("seed {seed}"));
            }
        }
    }
}

#[test]
fn fixed_vhd_stays_whole_whatever_is_written() {
    for seed in 80..84 {
        let options = options(Format::FixedVhd, Some(SIZE));
        let file = used(&options);
        let footer = file.bytes(SIZE, 512);
        let mut disk = Disk::open(file.clone(), WRITE).unwrap();
        let before = look(&disk);
        let (times, _) = Timeline::record(&file, &mut disk, &before, &script(seed, SIZE, 30));
        for count in 0..=file.operations() {
            let left = file.crash_after(count, seed);
            assert!(left.bytes(SIZE, 1000) == footer);
            judge(&left, &times.allowed(count), &format!("seed {seed}"));
        }
    }
}

/// The disk of the file is full, or fails, at any operation, and is well again afterwards: the
/// session goes on with the step that failed, and nothing is lost.
#[test]
fn session_goes_on_after_any_failure() {
    for (seed, fault) in [
        (90, Fault::Full),
        (91, Fault::FailOnce),
        (92, Fault::Full),
        (93, Fault::FailOnce),
    ] {
        let steps = script(seed, SIZE, 25);
        let base = used(&options(Format::Vhdx, Some(SIZE)));
        let total = {
            let file = base.snapshot();
            let mut disk = Disk::open(file.clone(), WRITE).unwrap();
            let before = look(&disk);
            Timeline::record(&file, &mut disk, &before, &steps);
            disk.finish().unwrap();
            file.operations()
        };
        for at in 0..total {
            let file = base.snapshot();
            let mut disk = Disk::open(file.clone(), WRITE).unwrap();
            file.inject(at, fault);
            let (mut now, mut allowed) = (look(&disk), look(&disk));
            for step in &steps {
                if let Err(error) = step.perform(&mut disk) {
                    if fault == Fault::Full {
                        assert_eq!(error.kind(), ErrorKind::NoSpace);
                    }
                    // What has been done of the step, and what a crash leaves now.
                    let mut perhaps = allowed.clone();
                    step.model(&mut now.clone(), &mut perhaps);
                    let allowed = crate::script::either(&allowed, &perhaps);
                    for crash in 0..3 {
                        let left = file.crash_after(file.operations(), crash);
                        judge(&left, &allowed, &format!("seed {seed}, failure at {at}"));
                    }
                    file.relieve();
                    step.perform(&mut disk).unwrap();
                }
                step.model(&mut now, &mut allowed);
                if matches!(step, Step::Flush) {
                    let left = file.crash_after(file.operations(), 0);
                    judge(&left, &allowed, &format!("seed {seed}, flush after {at}"));
                }
            }
            file.relieve();
            let file = disk.finish().unwrap();
            let disk = Disk::open(file.snapshot(), Access::ReadOnly).unwrap();
            assert_eq!(fits(&look(&disk), &now), Ok(()), "seed {seed}, {at}");
            judge(&file, &now, "at the end");
        }
    }
}

/// A creation that fails at any operation gives an error, and can be flushed again when there is room.
#[test]
fn creation_goes_on_after_any_failure() {
    for format in [Format::Vhdx, Format::FixedVhd, Format::Raw] {
        for size in [Some(SIZE), None] {
            let run = |file: &MemoryFile, again: bool| -> opengcs_vhd::Result<()> {
                let mut disk = Disk::create(file.clone(), &options(format, size))?;
                for at in [0, 3 * MIB, SIZE - 512] {
                    let step = Step::Write(at, 1, 5);
                    if let Err(error) = step.perform(&mut disk) {
                        if !again {
                            return Err(error);
                        }
                        file.relieve();
                        step.perform(&mut disk)?;
                    }
                }
                if let Err(error) = disk.flush() {
                    if !again {
                        return Err(error);
                    }
                    file.relieve();
                    disk.flush()?;
                }
                Ok(())
            };
            let file = MemoryFile::new();
            run(&file, false).unwrap();
            for at in 0..file.operations() {
                for fault in [Fault::Full, Fault::FailOnce] {
                    let file = MemoryFile::new();
                    file.inject(at, fault);
                    run(&file, true).unwrap();
                    let disk = Disk::open(file, Access::ReadOnly).unwrap();
                    assert_eq!((disk.format(), disk.virtual_size()), (format, SIZE));
                    for at in [0, 3 * MIB, SIZE - 512] {
                        assert_eq!(read(&disk, at, 512), [5; 512]);
                    }
                }
                for length in [0, 5, 512, 5000] {
                    let file = MemoryFile::new();
                    file.inject(at, Fault::Tear(length));
                    assert!(run(&file, false).is_err());
                }
            }
        }
    }
}

#[test]
fn log_is_named_only_when_an_entry_is_in_it() {
    let log_guid = |file: &MemoryFile| {
        let slot = |at: u64| {
            let sequence = u64::from_le_bytes(file.bytes(at + 8, 8).try_into().unwrap());
            (sequence, file.bytes(at + 48, 16))
        };
        slot(64 << 10).max(slot(128 << 10)).1
    };
    let file = new(Some(1 << 30)).finish().unwrap();
    file.settle();
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    disk.write_all_at(0, &[1; 512]).unwrap();
    assert_eq!(log_guid(&file), [0; 16]);
    disk.flush().unwrap();
    for count in 0..=file.operations() {
        for seed in 0..10 {
            let left = file.crash_after(count, seed);
            let named = log_guid(&left);
            let entry = [1 << 20, 3 << 19].map(|at| left.bytes(at + 32, 16));
            assert!(named == [0; 16] || entry.contains(&named), "{count}");
        }
    }
    assert_ne!(log_guid(&file), [0; 16]);
    assert!(file.length().unwrap() > 4 * MIB);
}

/// More pages of the table than one log entry holds: each block is there or not, and all that was
/// flushed is.
#[test]
fn commit_in_several_entries_is_safe_between_them() {
    let blocks = 230_u64;
    let at = |block: u64| block * (600 << 20);
    let file = new(Some(1 << 40)).finish().unwrap();
    file.settle();
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    for block in 0..blocks {
        disk.write_all_at(at(block), &[block as u8 + 1; 512])
            .unwrap();
    }
    disk.flush().unwrap();
    let first = file.operations();
    for block in 0..blocks {
        disk.discard(at(block)..at(block) + MIB).unwrap();
        disk.write_all_at(at(block) + 5 * MIB, &[block as u8 + 2; 512])
            .unwrap();
    }
    disk.flush().unwrap();
    let total = file.operations();
    let near = |count: usize| {
        // Every operation of the commits, and some of the many payload writes.
        count.is_multiple_of(23) || count + 12 > total || (count + 12 > first && count < first + 3)
    };
    for count in (0..=total).filter(|count| near(*count)) {
        for seed in 0..3 {
            let left = file.crash_after(count, seed);
            let disk = Disk::open(left, Access::ReadOnly).unwrap();
            for block in 0..blocks {
                let (old, new) = (block as u8 + 1, block as u8 + 2);
                let found = read(&disk, at(block), 512);
                assert!(found == [old; 512] || found == [0; 512]);
                assert!(count != first || found == [old; 512]);
                assert!(count < total || found == [0; 512]);
                let found = read(&disk, at(block) + 5 * MIB, 512);
                assert!(found == [new; 512] || found == [0; 512]);
                assert!(count < total || found == [new; 512]);
            }
        }
    }
}

/// QEMU repairs what a crash leaves of a session with discards, and reads what we read.
#[test]
fn qemu_repairs_what_a_crash_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (dirty, raw) = (dir.path().join("dirty.vhdx"), dir.path().join("raw"));
    let (path, plain) = (dirty.to_str().unwrap(), raw.to_str().unwrap());
    let mut replayed = 0;
    for seed in 100..102 {
        let file = used(&options(Format::Vhdx, Some(SIZE)));
        let mut disk = Disk::open(file.clone(), WRITE).unwrap();
        for step in script(seed, SIZE, 25) {
            step.perform(&mut disk).unwrap();
        }
        disk.flush().unwrap();
        let total = file.operations();
        for count in (0..=total).filter(|count| count % 3 == 0 || *count == total) {
            let left = file.crash_after(count, seed);
            let ours = Disk::open(left.snapshot(), Access::ReadOnly).unwrap();
            let log = ours.summary().unwrap().log;
            replayed += usize::from(log != Some(opengcs_vhd::vhdx::LogState::Clean));
            let length = usize::try_from(left.length().unwrap()).unwrap();
            std::fs::write(&dirty, left.bytes(0, length)).unwrap();
            std::fs::write(&raw, read(&ours, 0, SIZE as usize)).unwrap();
            crate::judge::qemu_img(&["check", "-f", "vhdx", "-r", "all", path]);
            let compare = ["compare", "-f", "vhdx", "-F", "raw", path, plain];
            let text = crate::judge::qemu_img(&compare);
            assert!(text.contains("identical"), "operation {count}: {text}");
        }
    }
    assert!(replayed > 10, "{replayed}");
}
