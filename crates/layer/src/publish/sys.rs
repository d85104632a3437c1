//! What publishing needs from each system: nameless files, links, folder flushes.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// A file without a name in `folder`, or none where that cannot be had.
#[cfg(target_os = "linux")]
pub(super) fn open_nameless(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    // The name is given through /proc later; without it there is no way back.
    if !Path::new("/proc/self/fd").is_dir() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666))
        .ok()
        .map(File::from)
}

/// A file without a name in `folder`, or none where that cannot be had.
#[cfg(not(target_os = "linux"))]
pub(super) fn open_nameless(_folder: &Path) -> Option<File> {
    None
}

/// Gives a nameless file the name `path`; fails when that is in use.
#[cfg(target_os = "linux")]
pub(super) fn link_nameless(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    use std::os::fd::AsRawFd as _;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(
        CWD,
        from,
        CWD,
        path,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

/// Gives a nameless file the name `path`; fails when that is in use.
#[cfg(not(target_os = "linux"))]
pub(super) fn link_nameless(_file: &File, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Creates `path`, which must not exist, for this user alone; on Windows with the rights that its folder
/// gives, and so that nobody else writes to it as long as it is open.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    #[cfg(windows)]
    {
        use windows_sys::Win32::Storage::FileSystem::{FILE_SHARE_DELETE, FILE_SHARE_READ};
        let shared = FILE_SHARE_READ | FILE_SHARE_DELETE;
        std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, shared);
    }
    options.open(path)
}

/// Lets ranges of the file take no room.
#[cfg(windows)]
pub(super) fn allow_holes(file: &File) {
    let _ = crate::sys::set_sparse(file);
}

/// Lets ranges of the file take no room: they do without being told.
#[cfg(not(windows))]
pub(super) fn allow_holes(_file: &File) {}

/// Whether somebody has the file open and keeps others from replacing it.
#[cfg(windows)]
pub(super) fn is_open_elsewhere(path: &Path) -> bool {
    use std::os::windows::fs::OpenOptionsExt as _;
    use windows_sys::Win32::Foundation::ERROR_SHARING_VIOLATION;
    use windows_sys::Win32::Storage::FileSystem::DELETE;
    let opened = OpenOptions::new().access_mode(DELETE).open(path);
    opened.is_err_and(|error| error.raw_os_error() == Some(ERROR_SHARING_VIOLATION.cast_signed()))
}

/// Whether somebody has the file open and keeps others from replacing it: nobody can.
#[cfg(not(windows))]
pub(super) fn is_open_elsewhere(_path: &Path) -> bool {
    false
}

/// Lets a file be removed that nobody may write to, as the copy of such a file is.
#[cfg(windows)]
pub(super) fn make_removable(file: &File) {
    let Ok(found) = file.metadata() else { return };
    let mut permissions = found.permissions();
    #[allow(
        clippy::permissions_set_readonly_false,
        reason = "here it is an attribute of the file, and gives nobody a right"
    )]
    permissions.set_readonly(false);
    let _ = file.set_permissions(permissions);
}

/// Lets a file be removed that nobody may write to: that is its folder's to say.
#[cfg(not(windows))]
pub(super) fn make_removable(_file: &File) {}

/// Gives a private file the mode that a new file usually has.
#[cfg(unix)]
pub(super) fn set_usual_mode(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // umask(2) can only be read by setting it, for all threads; /proc can be read.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))
        .and_then(|value| u32::from_str_radix(value.trim(), 8).ok())
        .unwrap_or(0o022);
    file.set_permissions(std::fs::Permissions::from_mode(0o666 & !umask))
}

/// Gives a private file the mode that a new file usually has.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(super) fn set_usual_mode(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Renames without replacing, or none where the system cannot.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(super) fn rename_no_replace(from: &Path, to: &Path) -> Option<io::Result<()>> {
    use rustix::fs::{CWD, RenameFlags};
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Some(Ok(())),
        Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// Renames without replacing, or none where the system cannot.
#[cfg(windows)]
pub(super) fn rename_no_replace(from: &Path, to: &Path) -> Option<io::Result<()>> {
    Some(crate::sys::rename_new(from, to))
}

/// Renames without replacing, or none where the system cannot.
#[cfg(not(any(target_os = "linux", target_vendor = "apple", windows)))]
pub(super) fn rename_no_replace(_from: &Path, _to: &Path) -> Option<io::Result<()>> {
    None
}

/// Makes the names in `folder` durable.
#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems have no way to flush a folder.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// Makes the names in `folder` durable: there is no such call, and the journal of NTFS keeps names in order.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(super) fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
