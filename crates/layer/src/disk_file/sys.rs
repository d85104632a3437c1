//! How a file gets a hole on each system.

use std::fs::File;
use std::io;

/// Makes bytes of a file zero and gives their room back; false where that cannot be.
#[cfg(target_os = "linux")]
pub(super) fn punch(file: &File, position: u64, length: u64) -> io::Result<bool> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, flags, position, length) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            // File systems, devices and kernels that have no holes.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes bytes of a file zero and gives their room back; false where that cannot be.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(super) fn punch(_file: &File, _position: u64, _length: u64) -> io::Result<bool> {
    Ok(false)
}
