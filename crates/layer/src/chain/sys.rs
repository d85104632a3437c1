//! What opening disk files needs from each system: not to wait for, or wake, a device that another file
//! names, and reading ahead.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Opens a file for reading, at once also when a fifo or a device has taken its place.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options.open(path)
}

/// Opens a file for reading and writing; a device only if the system does not use it.
pub(super) fn open_to_change(path: &Path, is_device: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    if is_device {
        // Without a file to create, it means that on a block device.
        let flags = rustix::fs::OFlags::EXCL.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
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

/// Lets the system read further ahead than it does by itself: most of the file will be read, and
/// most of it in order. It is a hint, and nothing hangs on it.
pub(super) fn read_ahead(file: &File) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = file;
}
