//! What opening a file that another file names needs from each system: not to wait for, or wake, a device.

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
