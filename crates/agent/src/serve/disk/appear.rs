//! When a disk is there: at its place, ready, and the one that the host means.

use std::{
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use opengcs_bridge::message::MappedVirtualDisk;
use rustix::io::Errno;

use super::{exclusively, find::Sysfs, is_busy};
use crate::serve::{Outcome, failed};

/// How long a disk may take to appear.
const APPEARS: Duration = Duration::from_secs(15);

/// How often the bus is searched again, in case the kernel has missed the disk.
const RESCAN: Duration = Duration::from_secs(1);

/// Waits for a disk's device file.
///
/// A host that says how large the disk is gets that disk, and not one that stood at the place before:
/// what is left of such a one is taken out of the kernel, and the place is looked at again.
pub(super) fn appear(disk: &MappedVirtualDisk) -> Outcome<PathBuf> {
    let sysfs = Sysfs::new();
    let host = sysfs.host(disk.controller)?;
    let begin = Instant::now();
    let mut rescan = RESCAN;
    // What was seen last: between its being forgotten and found again there is nothing, which says less.
    let mut other = None;
    loop {
        let found = look(&sysfs, host, disk);
        match found {
            Found::Ready(device) => return Ok(device),
            Found::Other(size) => other = Some(size),
            Found::Nothing => {}
        }
        let waited = begin.elapsed();
        if waited > APPEARS {
            return Err(failed(missing(disk, other)));
        }
        if waited > rescan {
            rescan = waited + RESCAN;
            if let Found::Other(_) = found {
                forget(&sysfs, host, disk.lun);
            }
            sysfs.rescan(host, disk.lun);
        }
        std::thread::sleep(if waited < RESCAN {
            Duration::from_millis(2)
        } else {
            Duration::from_millis(20)
        });
    }
}

/// What is at a disk's place.
enum Found {
    Nothing,
    /// A disk of another size, in bytes.
    Other(u64),
    Ready(PathBuf),
}

fn look(sysfs: &Sysfs, host: u32, disk: &MappedVirtualDisk) -> Found {
    let Some(name) = sysfs.block(host, disk.lun, disk.partition) else {
        return Found::Nothing;
    };
    let device = Path::new("/dev").join(name);
    let there = fs::metadata(&device);
    if !there.is_ok_and(|metadata| metadata.file_type().is_block_device()) || !is_live(&device) {
        return Found::Nothing;
    }
    match sysfs.size(host, disk.lun) {
        Some(size) if disk.size_in_bytes != 0 && size != disk.size_in_bytes => Found::Other(size),
        _ => Found::Ready(device),
    }
}

/// Whether a disk can be opened: its file is there a moment before the kernel has the disk ready.
fn is_live(device: &Path) -> bool {
    match fs::File::open(device) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() != Some(Errno::NXIO.raw_os_error()),
    }
}

/// Takes out of the kernel what is left of a disk, unless something uses it.
fn forget(sysfs: &Sysfs, host: u32, lun: u8) {
    let in_use = sysfs.block(host, lun, 0).is_some_and(|name| {
        exclusively(&Path::new("/dev").join(name)).is_err_and(|error| is_busy(&error))
    });
    if !in_use {
        // What cannot be forgotten is found out when the time is over.
        let _ = sysfs.delete(host, lun);
    }
}

fn missing(disk: &MappedVirtualDisk, other: Option<u64>) -> String {
    let part = match disk.partition {
        0 => String::new(),
        number => format!(", partition {number},"),
    };
    let place = format!("controller {}, LUN {}{part}", disk.controller, disk.lun);
    match other {
        Some(size) => format!(
            "the disk at {place} has {size} bytes, and the one that was to come has {}",
            disk.size_in_bytes
        ),
        None => format!(
            "the disk at {place} did not appear within {} s",
            APPEARS.as_secs()
        ),
    }
}
