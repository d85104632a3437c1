//! A writer that dies at any operation leaves the old or the new state, and what was flushed stays.

use opengcs_vhd::testing::{Fault, MemoryFile};
use opengcs_vhd::{Access, Disk};
use positioned_io::WriteAt;

use crate::judge::{qemu_img, qemu_img_code};
use crate::vhdx::{WRITE, new, read};

const MIB: u64 = 1 << 20;

/// A session of three flushed steps on a disk that holds one block.
fn session(file: &MemoryFile) -> opengcs_vhd::Result<()> {
    let io = |error: std::io::Error| {
        error
            .downcast::<opengcs_vhd::Error>()
            .expect("an error of the crate")
    };
    let mut disk = Disk::open(file.clone(), WRITE)?;
    for step in 1..=3_u8 {
        for block in 0..3 {
            let at = (u64::from(step) * 3 + block) * 700 * MIB;
            disk.write_all_at(at, &[step; 5000]).map_err(io)?;
        }
        disk.flush()?;
    }
    disk.finish()?;
    Ok(())
}

fn fresh() -> MemoryFile {
    let mut disk = new(Some(20 << 30));
    disk.write_all_at(0, &[9; 5000]).unwrap();
    let file = disk.finish().unwrap();
    file.settle();
    file
}

/// Each block is whole, or not there; blocks of flushed steps are there.
fn judge(file: &MemoryFile, flushed: u8, access: Access) {
    let mut disk = Disk::open(file.snapshot(), access).unwrap();
    assert_eq!(read(&disk, 0, 5000), [9; 5000]);
    for step in 1..=3_u8 {
        for block in 0..3 {
            let at = (u64::from(step) * 3 + block) * 700 * MIB;
            let found = read(&disk, at, 5001);
            let is_new = found[..5000] == [step; 5000] && found[5000] == 0;
            let is_old = found == [0; 5001];
            assert!(
                is_new || (is_old && step > flushed),
                "step {step} block {block}"
            );
        }
    }
    if access != Access::ReadOnly {
        disk.write_all_at(19 << 30, b"still writable").unwrap();
        let disk = Disk::open(disk.finish().unwrap(), Access::ReadOnly).unwrap();
        assert_eq!(read(&disk, 19 << 30, 14), b"still writable");
    }
}

/// The steps that a file has seen flushed after each of its operations.
fn flushed_after(total: usize) -> Vec<u8> {
    (0..=total)
        .map(|count| {
            let file = fresh();
            file.inject(count, Fault::Stop);
            let mut done = 0;
            if let Ok(mut disk) = Disk::open(file.clone(), WRITE) {
                'steps: for step in 1..=3_u8 {
                    for block in 0..3 {
                        let at = (u64::from(step) * 3 + block) * 700 * MIB;
                        if disk.write_all_at(at, &[step; 5000]).is_err() {
                            break 'steps;
                        }
                    }
                    if disk.flush().is_err() {
                        break;
                    }
                    done = step;
                }
            }
            done
        })
        .collect()
}

#[test]
fn crash_at_any_operation_leaves_old_or_new() {
    let file = fresh();
    session(&file).unwrap();
    let total = file.operations();
    let flushed = flushed_after(total);
    assert_eq!(flushed[total], 3);
    for (count, flushed) in flushed.iter().enumerate() {
        for left in file.crashes_after(count) {
            judge(&left, *flushed, Access::ReadOnly);
            judge(&left, *flushed, WRITE);
        }
    }
}

#[test]
fn crash_during_replay_leaves_a_log_to_replay() {
    let file = fresh();
    session(&file).unwrap();
    let total = file.operations();
    for count in 0..total {
        for left in file.crashes_after(count).into_iter().take(2) {
            drop(Disk::open(left.clone(), WRITE).unwrap());
            for again in 0..=left.operations() {
                for twice in left.crashes_after(again) {
                    judge(&twice, 0, Access::ReadOnly);
                }
            }
        }
    }
}

#[test]
fn tear_gives_an_error_and_a_sound_file() {
    let total = {
        let file = fresh();
        session(&file).unwrap();
        file.operations()
    };
    for at in 0..total {
        for length in [0, 3, 600, 4097] {
            let file = fresh();
            file.inject(at, Fault::Tear(length));
            assert!(session(&file).is_err());
            judge(&file, 0, Access::ReadOnly);
        }
    }
}

#[test]
fn full_disk_is_an_error_and_the_file_stays_sound() {
    let file = fresh();
    file.limit(6 * MIB);
    let error = session(&file).unwrap_err();
    assert_eq!(error.kind(), opengcs_vhd::ErrorKind::NoSpace);
    judge(&file, 0, Access::ReadOnly);
}

/// QEMU replays our log and finds what we find.
#[test]
fn qemu_agrees_on_dirty_logs() {
    let file = fresh();
    session(&file).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (dirty, raw) = (dir.path().join("dirty.vhdx"), dir.path().join("raw"));
    let mut replayed = 0;
    for count in 0..=file.operations() {
        for left in file.crashes_after(count).into_iter().take(3) {
            let ours = Disk::open(left.snapshot(), Access::ReadOnly).unwrap();
            let has_log = matches!(
                ours.summary().unwrap().log,
                Some(opengcs_vhd::vhdx::LogState::Replayed(_))
            );
            replayed += usize::from(has_log);
            let length = usize::try_from(ours.summary().unwrap().file_size).unwrap();
            std::fs::write(&dirty, left.bytes(0, length)).unwrap();
            let path = dirty.to_str().unwrap();
            let (code, text) = qemu_img_code(&["check", "-f", "vhdx", "-r", "all", path]);
            assert!(code == 0, "operation {count}: {text}");
            qemu_img(&["check", "-f", "vhdx", path]);
            let healed = Disk::open(std::fs::File::open(&dirty).unwrap(), Access::ReadOnly);
            let healed = healed.unwrap();
            for step in 0..=3_u64 {
                for block in 0..3 {
                    let at = (step * 3 + block) * 700 * MIB;
                    assert_eq!(read(&ours, at, 5001), read(&healed, at, 5001));
                }
            }
            let _ = std::fs::remove_file(&raw);
        }
    }
    assert!(replayed > 10);
}
