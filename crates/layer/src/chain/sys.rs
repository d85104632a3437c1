//! What opening disk files needs from each system: not to wait for, or wake, a device that another file
//! names, and reading ahead.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
#[cfg(windows)]
use std::{ffi::OsString, path::PathBuf};

use crate::hold::Use;

/// Opens a file for reading, at once also when a fifo or a device has taken its place.
pub(super) fn open(path: &Path, what_for: Use) -> io::Result<File> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "it is changed elsewhere"))]
    let mut options = what_for.options();
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options.open(path)
}

/// Opens a file for reading and writing; a device only if the system does not use it. On Windows nobody
/// else opens the file as long as it is open.
pub(super) fn open_to_change(path: &Path, is_device: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    if is_device {
        // Without a file to create, it means that on a block device.
        let flags = rustix::fs::OFlags::EXCL.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 0);
    let _ = is_device;
    options.open(path)
}

/// What a file is that can hold no disk; `None` for files and block devices.
pub(super) fn no_disk(kind: std::fs::FileType) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_char_device() {
            return Some("a character device");
        }
        if kind.is_fifo() {
            return Some("a pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    let _ = kind;
    None
}

/// A path in the form that real paths have. Those of Windows begin with `\\?\`, where others do not.
#[cfg(windows)]
pub(super) fn like_real(path: &Path) -> PathBuf {
    use std::path::{Component, Prefix};
    let mut parts = path.components();
    let Some(Component::Prefix(prefix)) = parts.next() else {
        return path.to_owned();
    };
    let mut real: OsString = match prefix.kind() {
        Prefix::Disk(letter) => format!(r"\\?\{}:", char::from(letter.to_ascii_uppercase())).into(),
        Prefix::UNC(server, share) => {
            let mut real = OsString::from(r"\\?\UNC\");
            real.push(server);
            real.push(r"\");
            real.push(share);
            real
        }
        _ => return path.to_owned(),
    };
    real.push(parts.as_path());
    real.into()
}

/// A path in the form that real paths have.
#[cfg(not(windows))]
pub(super) fn like_real(path: &Path) -> &Path {
    path
}

/// Lets the system read further ahead than it does by itself: most of the file will be read, and
/// most of it in order. It is a hint, and nothing hangs on it.
pub(super) fn read_ahead(file: &File) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = file;
}

#[cfg(all(test, windows))]
mod tests {
    use super::*;

    #[test]
    fn paths_get_the_form_of_real_ones() {
        for (path, real) in [
            (r"C:\disks\a.vhdx", r"\\?\C:\disks\a.vhdx"),
            (r"c:\disks", r"\\?\C:\disks"),
            (r"\\server\share\a b", r"\\?\UNC\server\share\a b"),
            (r"\\?\C:\disks", r"\\?\C:\disks"),
            (r"\\.\PhysicalDrive0", r"\\.\PhysicalDrive0"),
        ] {
            assert_eq!(like_real(Path::new(path)), PathBuf::from(real));
        }
    }
}
