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
///
/// In a file that is not sparse the system writes the zeros itself, or only notes them.
#[cfg(windows)]
pub(super) fn punch(file: &File, position: u64, length: u64) -> io::Result<bool> {
    let range = position..position.saturating_add(length);
    match crate::sys::zero(file, &range) {
        Ok(()) => Ok(true),
        // File systems that do not know the request.
        Err(error) if is_unknown(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(windows)]
fn is_unknown(error: &io::Error) -> bool {
    const INVALID_FUNCTION: i32 = 1;
    const NOT_SUPPORTED: i32 = 50;
    matches!(error.raw_os_error(), Some(INVALID_FUNCTION | NOT_SUPPORTED))
        || error.kind() == io::ErrorKind::Unsupported
}

/// Makes bytes of a file zero and gives their room back; false where that cannot be.
#[cfg(not(any(target_os = "linux", windows)))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(super) fn punch(_file: &File, _position: u64, _length: u64) -> io::Result<bool> {
    Ok(false)
}

/// Lets a file have holes. Whether it may have them now.
#[cfg(windows)]
pub(crate) fn allow_holes(file: &File) -> bool {
    crate::sys::set_sparse(file).is_ok() && has_holes(file)
}

/// Whether a file may have holes.
#[cfg(windows)]
pub(crate) fn has_holes(file: &File) -> bool {
    crate::sys::is_sparse(file).unwrap_or(false)
}

/// Every file may have holes, if its file system has any: the first hole shows it.
#[cfg(not(windows))]
pub(crate) fn allow_holes(_file: &File) -> bool {
    true
}

/// Every file may have holes, if its file system has any: the first hole shows it.
#[cfg(not(windows))]
pub(crate) fn has_holes(_file: &File) -> bool {
    true
}
