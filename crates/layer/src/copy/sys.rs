//! What copying needs from each system: shared blocks, holes, copies inside the kernel.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// How much is read at once where the kernel does not copy.
const CHUNK: usize = 1 << 20;
/// How much the kernel copies before progress is told.
#[cfg(target_os = "linux")]
const KERNEL_CHUNK: usize = 16 << 20;
/// The unit in which zeros become holes where the source's holes are not known.
const ZERO_UNIT: usize = 64 << 10;

/// Is told how many bytes of the file are done, and may stop the copy.
type Done<'a> = &'a mut dyn FnMut(u64) -> io::Result<()>;

/// Permissions without those that let a program run as its owner.
#[cfg(unix)]
pub(super) fn plain(permissions: &Permissions) -> Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    Permissions::from_mode(permissions.mode() & 0o777)
}

/// Permissions without those that let a program run as its owner.
#[cfg(not(unix))]
pub(super) fn plain(permissions: &Permissions) -> Permissions {
    permissions.clone()
}

/// Whether both names lead to one file, where the system can tell.
#[cfg(unix)]
pub(super) fn is_same(a: &Path, b: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (a, b) = (std::fs::metadata(a).ok()?, std::fs::metadata(b).ok()?);
    Some((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Whether both names lead to one file, where the system can tell.
#[cfg(windows)]
pub(super) fn is_same(a: &Path, b: &Path) -> Option<bool> {
    Some(crate::sys::identity(a).ok()? == crate::sys::identity(b).ok()?)
}

/// Whether both names lead to one file, where the system can tell.
#[cfg(not(any(unix, windows)))]
pub(super) fn is_same(_a: &Path, _b: &Path) -> Option<bool> {
    None
}

/// Lets `to` share all blocks of `from`; false where that cannot be.
#[cfg(target_os = "linux")]
pub(super) fn share_blocks(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

/// Lets `to` share all blocks of `from`; false where that cannot be.
#[cfg(windows)]
pub(super) fn share_blocks(from: &File, to: &File) -> bool {
    crate::sys::share_clusters(from, to).is_ok()
}

/// Lets `to` share all blocks of `from`; false where that cannot be.
#[cfg(not(any(target_os = "linux", windows)))]
pub(super) fn share_blocks(_from: &File, _to: &File) -> bool {
    false
}

/// Copies the data of a file of `size` bytes, and no holes.
#[cfg(target_os = "linux")]
pub(super) fn copy_data(from: &File, to: &File, size: u64, done: Done<'_>) -> io::Result<()> {
    use rustix::fs::SeekFrom::{Data, Hole};
    use rustix::io::Errno;
    use std::os::unix::fs::MetadataExt as _;
    to.set_len(size)?;
    let blocks = from.metadata()?.blocks();
    let mut in_kernel = true;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(()),
            // The file system does not know its holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY) if at == 0 => {
                return copy_by_hand(from, to, 0, size, true, done);
            }
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, Hole(start))?.min(size);
        // All is data, and yet the file takes less room than that: the file
        // system does not tell its holes, or it compresses.
        if start == 0 && end == size && blocks.saturating_mul(512) < size {
            return copy_by_hand(from, to, 0, size, true, done);
        }
        copy_range(from, to, start, end, &mut in_kernel, done)?;
        at = end.max(start + 1);
    }
    Ok(())
}

/// Copies the data of a file of `size` bytes. The copy of a sparse file is sparse, and no other is:
/// Hyper-V attaches no sparse disk.
#[cfg(windows)]
pub(super) fn copy_data(from: &File, to: &File, size: u64, done: Done<'_>) -> io::Result<()> {
    let sparse = crate::sys::is_sparse(from)? && crate::sys::set_sparse(to).is_ok();
    to.set_len(size)?;
    let ranges = match crate::sys::ranges_with_data(from, size) {
        Ok(ranges) if sparse => ranges,
        _ => return copy_by_hand(from, to, 0, size, true, done),
    };
    for range in ranges {
        copy_by_hand(from, to, range.start, range.end, true, done)?;
    }
    Ok(())
}

/// Copies the data of a file of `size` bytes, and no long runs of zeros.
#[cfg(not(any(target_os = "linux", windows)))]
pub(super) fn copy_data(from: &File, to: &File, size: u64, done: Done<'_>) -> io::Result<()> {
    to.set_len(size)?;
    copy_by_hand(from, to, 0, size, true, done)
}

/// Copies one run of data, inside the kernel as long as that works.
#[cfg(target_os = "linux")]
fn copy_range(
    from: &File,
    to: &File,
    start: u64,
    end: u64,
    in_kernel: &mut bool,
    done: Done<'_>,
) -> io::Result<()> {
    use rustix::io::Errno;
    let (mut read_at, mut write_at) = (start, start);
    while *in_kernel && read_at < end {
        let left = usize::try_from(end - read_at)
            .unwrap_or(usize::MAX)
            .min(KERNEL_CHUNK);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), left) {
            // The end, if the source shrank; and what some file systems give
            // for files that they cannot copy.
            Ok(0) => *in_kernel = false,
            Ok(_) => done(read_at)?,
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC) => return Err(Errno::NOSPC.into()),
            Err(Errno::DQUOT) => return Err(Errno::DQUOT.into()),
            // Across file systems, on old kernels, on odd ones: by hand. A real
            // failure comes again there.
            Err(_) => *in_kernel = false,
        }
    }
    copy_by_hand(from, to, read_at, end, false, done)
}

fn copy_by_hand(
    mut from: &File,
    mut to: &File,
    start: u64,
    end: u64,
    skip_zeros: bool,
    done: Done<'_>,
) -> io::Result<()> {
    if start >= end {
        return Ok(());
    }
    from.seek(SeekFrom::Start(start))?;
    to.seek(SeekFrom::Start(start))?;
    let mut buffer = vec![0; CHUNK];
    let mut left = end - start;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let chunk = &mut buffer[..length];
        from.read_exact(chunk).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                shrank()
            } else {
                error
            }
        })?;
        for piece in chunk.chunks(ZERO_UNIT) {
            if skip_zeros && piece.iter().all(|byte| *byte == 0) {
                to.seek(SeekFrom::Current(i64::try_from(piece.len()).unwrap_or(0)))?;
            } else {
                to.write_all(piece)?;
            }
        }
        left -= u64::try_from(length).unwrap_or(left);
        done(end - left)?;
    }
    Ok(())
}

fn shrank() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the source shrank while it was copied",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_by_hand_skips_zeros_and_notices_a_short_source() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut data = vec![0; 3 << 20];
        data[(1 << 20) + 5] = 7;
        data.extend_from_slice(b"end");
        (&from).write_all(&data).unwrap();
        let size = u64::try_from(data.len()).unwrap();
        to.set_len(size).unwrap();
        let mut told = Vec::new();
        let mut done = |bytes| {
            told.push(bytes);
            Ok(())
        };
        copy_by_hand(&from, &to, 0, size, true, &mut done).unwrap();
        assert_eq!(told.last(), Some(&size));
        let mut copied = Vec::new();
        (&to).seek(SeekFrom::Start(0)).unwrap();
        (&to).read_to_end(&mut copied).unwrap();
        assert!(copied == data);
        assert!(copy_by_hand(&from, &to, 0, size + 1, false, &mut |_| Ok(())).is_err());
    }
}
