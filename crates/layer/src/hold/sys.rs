//! Locks on single bytes of an open file. Where a system or a file system has none, everything is free.
#![allow(
    unsafe_code,
    reason = "fcntl with a lock structure has no safe form for single bytes"
)]

use std::fs::{File, OpenOptions};
use std::path::Path;

/// Has the system let others read the file, rename it and remove it, and not write to it.
#[cfg(windows)]
pub(super) fn let_nobody_write(options: &mut OpenOptions) {
    use windows_sys::Win32::Storage::FileSystem::{FILE_SHARE_DELETE, FILE_SHARE_READ};
    std::os::windows::fs::OpenOptionsExt::share_mode(options, FILE_SHARE_READ | FILE_SHARE_DELETE);
}

/// Nothing: others are kept off by locks that are taken later, or not at all.
#[cfg(not(windows))]
pub(super) fn let_nobody_write(_options: &mut OpenOptions) {}

/// The device through which the system uses a file, where it does: a loop device.
#[cfg(target_os = "linux")]
pub(super) fn mounted_through(path: &Path) -> Option<String> {
    let wanted = path.canonicalize().ok()?;
    for device in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let Ok(file) = std::fs::read(device.path().join("loop/backing_file")) else {
            continue;
        };
        let file = file.strip_suffix(b"\n").unwrap_or(&file);
        if file == wanted.as_os_str().as_encoded_bytes() {
            return Some(format!("/dev/{}", device.file_name().display()));
        }
    }
    None
}

/// The device through which the system uses a file, where it does.
#[cfg(not(target_os = "linux"))]
pub(super) fn mounted_through(_path: &Path) -> Option<String> {
    None
}

/// Takes a byte for ourselves and all others who only share it.
#[cfg(target_os = "linux")]
pub(super) fn share(file: &File, byte: u64) {
    lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte, 1);
}

/// Whether another open file has the byte.
#[cfg(target_os = "linux")]
pub(super) fn is_taken(file: &File, byte: u64) -> bool {
    lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte, 1)
        .is_some_and(|found| i32::from(found.l_type) != libc::F_UNLCK)
}

/// Gives back what was taken of the bytes from `first` to before `end`.
#[cfg(target_os = "linux")]
pub(super) fn give_back(file: &File, first: u64, end: u64) {
    let count = end.saturating_sub(first);
    lock(file, libc::F_OFD_SETLK, libc::F_UNLCK, first, count);
}

/// What the system says to it; nothing where it has no such locks.
#[cfg(target_os = "linux")]
fn lock(
    file: &File,
    command: libc::c_int,
    kind: libc::c_int,
    first: u64,
    count: u64,
) -> Option<libc::flock> {
    use std::os::fd::AsRawFd as _;
    let mut lock = libc::flock {
        l_type: libc::c_short::try_from(kind).ok()?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET).ok()?,
        l_start: libc::off_t::try_from(first).ok()?,
        l_len: libc::off_t::try_from(count).ok()?,
        // The kernel asks for zero.
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed; these three commands take a
    // pointer to a `flock`, which outlives the call, and keep no pointer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    (result == 0).then_some(lock)
}

/// Takes a byte for ourselves and all others who only share it.
#[cfg(not(target_os = "linux"))]
pub(super) fn share(_file: &File, _byte: u64) {}

/// Whether another open file has the byte.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_taken(_file: &File, _byte: u64) -> bool {
    false
}

/// Gives back what was taken of the bytes from `first` to before `end`.
#[cfg(not(target_os = "linux"))]
pub(super) fn give_back(_file: &File, _first: u64, _end: u64) {}
