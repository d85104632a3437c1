//! What differs between hosts' operating systems: permissions of files and folders, free space, and whether
//! the system has a hypervisor of its own.

use std::io;
use std::path::Path;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{free_space, is_at, is_own_folder, lock_folder, make_private_folder};

/// What is found of the system's own hypervisor; `None` where VMs are run by a program.
pub(crate) fn hyper_v() -> Option<opengcs_machine::Result<String>> {
    #[cfg(windows)]
    {
        Some(opengcs_machine::hcs::Host::new().examine())
    }
    #[cfg(not(windows))]
    {
        None
    }
}

/// Lets everybody read the file and its owner write it.
pub(crate) fn make_readable(path: &Path) -> io::Result<()> {
    set_mode(path, 0o644)
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Makes a folder that only its owner can enter.
#[cfg(unix)]
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Who locks a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Whoever has made it, and uses it.
    Owner,
    /// Whoever looks whether it has an owner, to remove it.
    Sweeper,
}

/// Locks a folder for this process, until the file is closed or the process has ended; `None` when
/// another holds it. An owner waits for a sweeper, where that can be.
#[cfg(unix)]
pub(crate) fn lock_folder(path: &Path, holder: Holder) -> io::Result<Option<std::fs::File>> {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let how = match holder {
        Holder::Owner => FlockOperation::LockExclusive,
        Holder::Sweeper => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        match rustix::fs::flock(&folder, how) {
            Ok(()) => return Ok(Some(folder.into())),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether an open folder is still the one at `path`.
#[cfg(unix)]
pub(crate) fn is_at(folder: &std::fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(open), Ok(named)) = (folder.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Whether `path` is a folder that this user made, and no link to one.
#[cfg(unix)]
pub(crate) fn is_own_folder(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

/// Removes all but the last `kept` files of a folder, in the order of their names, of those that end
/// with `ending`. What cannot be removed stays.
pub(crate) fn only_newest(folder: &Path, ending: &str, kept: usize) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name())
        .filter(|name| name.to_str().is_some_and(|name| name.ends_with(ending)))
        .collect();
    names.sort();
    let old = names.len().saturating_sub(kept);
    for name in names.into_iter().take(old) {
        let _ = std::fs::remove_file(folder.join(name));
    }
}

/// Bytes that a user may still write to the file system of `folder`.
#[cfg(unix)]
pub(crate) fn free_space(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of memory that programs can have without swapping, where the system says so.
#[cfg(target_os = "linux")]
pub(crate) fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn free_memory() -> Option<u64> {
    None
}
