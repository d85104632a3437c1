//! What Windows has for files beyond the standard library: ranges without data, shared clusters, and a
//! rename that never replaces.
#![allow(unsafe_code, reason = "they are interfaces of C")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::fs::MetadataExt as _;
use std::os::windows::io::AsRawHandle as _;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Foundation::ERROR_MORE_DATA;
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_ATTRIBUTE_SPARSE_FILE, GetFileInformationByHandle,
    GetVolumeInformationByHandleW, MOVEFILE_WRITE_THROUGH, MoveFileExW,
};
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl::{
    DUPLICATE_EXTENTS_DATA, FILE_ALLOCATED_RANGE_BUFFER, FILE_ZERO_DATA_INFORMATION,
    FSCTL_DUPLICATE_EXTENTS_TO_FILE, FSCTL_GET_INTEGRITY_INFORMATION,
    FSCTL_GET_INTEGRITY_INFORMATION_BUFFER, FSCTL_QUERY_ALLOCATED_RANGES,
    FSCTL_SET_INTEGRITY_INFORMATION, FSCTL_SET_INTEGRITY_INFORMATION_BUFFER, FSCTL_SET_SPARSE,
    FSCTL_SET_ZERO_DATA,
};
use windows_sys::Win32::System::SystemServices::FILE_SUPPORTS_BLOCK_REFCOUNTING;

/// Asks a file's file system for something. Gives how many bytes were answered.
///
/// # Safety
/// `I` and `O` are what the request takes and gives, plain data of C.
unsafe fn control<I, O>(
    file: &File,
    request: u32,
    input: Option<&I>,
    output: &mut [O],
) -> io::Result<usize> {
    let mut answered = 0;
    let (given, length) = match input {
        Some(input) => (std::ptr::from_ref(input).cast::<c_void>(), size_of::<I>()),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: the handle is open, and both places have the lengths that are said.
    let done = unsafe {
        DeviceIoControl(
            file.as_raw_handle(),
            request,
            given,
            u32::try_from(length).unwrap_or(0),
            output.as_mut_ptr().cast(),
            u32::try_from(size_of_val(output)).unwrap_or(0),
            &raw mut answered,
            std::ptr::null_mut(),
        )
    };
    if done == 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(ERROR_MORE_DATA.cast_signed()) {
            return Err(error);
        }
    }
    Ok(usize::try_from(answered).unwrap_or(0))
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A file's identity on this host, whatever its path: its volume, and its number there.
pub(crate) fn identity(path: &Path) -> io::Result<(u32, u64)> {
    use std::os::windows::fs::OpenOptionsExt as _;
    // No access is asked for, so none can be refused for the sake of somebody's lock.
    let file = std::fs::OpenOptions::new().access_mode(0).open(path)?;
    let mut found = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, and there is a place for the answer.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut found) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let index = u64::from(found.nFileIndexHigh) << 32 | u64::from(found.nFileIndexLow);
    Ok((found.dwVolumeSerialNumber, index))
}

/// Whether ranges of the file take no room.
pub(crate) fn is_sparse(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.file_attributes() & FILE_ATTRIBUTE_SPARSE_FILE != 0)
}

/// Lets ranges of the file take no room from now on.
pub(crate) fn set_sparse(file: &File) -> io::Result<()> {
    // SAFETY: the request takes nothing and gives nothing.
    unsafe { control::<(), ()>(file, FSCTL_SET_SPARSE, None, &mut []) }.map(drop)
}

/// Makes a range zero; in a sparse file it takes no room then.
pub(crate) fn zero(file: &File, range: &Range<u64>) -> io::Result<()> {
    let input = FILE_ZERO_DATA_INFORMATION {
        FileOffset: signed(range.start)?,
        BeyondFinalZero: signed(range.end)?,
    };
    // SAFETY: the request takes this and gives nothing.
    unsafe { control::<_, ()>(file, FSCTL_SET_ZERO_DATA, Some(&input), &mut []) }.map(drop)
}

/// The ranges below `size` that have data; the others are zero.
pub(crate) fn ranges_with_data(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    const AT_ONCE: usize = 256;
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut from = 0;
    while from < size {
        let input = FILE_ALLOCATED_RANGE_BUFFER {
            FileOffset: signed(from)?,
            Length: signed(size - from)?,
        };
        let mut output = [FILE_ALLOCATED_RANGE_BUFFER::default(); AT_ONCE];
        // SAFETY: the request takes one of these and gives any number.
        let answered = unsafe {
            control(
                file,
                FSCTL_QUERY_ALLOCATED_RANGES,
                Some(&input),
                &mut output,
            )
        }?;
        let count = answered / size_of::<FILE_ALLOCATED_RANGE_BUFFER>();
        for range in output.iter().take(count) {
            let start = u64::try_from(range.FileOffset).map_err(io::Error::other)?;
            let length = u64::try_from(range.Length).map_err(io::Error::other)?;
            let end = start.saturating_add(length).min(size);
            if end <= from {
                return Err(io::ErrorKind::InvalidData.into());
            }
            found.push(start.max(from)..end);
            from = end;
        }
        if count < AT_ONCE {
            break;
        }
    }
    Ok(found)
}

/// Lets all of `to`, which is empty, be the clusters of `from`: on `ReFS`, a Dev Drive among them.
pub(crate) fn share_clusters(from: &File, to: &File) -> io::Result<()> {
    let mut flags = 0;
    // SAFETY: the handle is open; only the flags are asked for.
    let known = unsafe {
        GetVolumeInformationByHandleW(
            to.as_raw_handle(),
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut flags,
            std::ptr::null_mut(),
            0,
        )
    };
    if known == 0 || flags & FILE_SUPPORTS_BLOCK_REFCOUNTING == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let size = from.metadata()?.len();
    // Both must be sparse, and both must keep checksums of their data, or neither.
    if is_sparse(from)? {
        set_sparse(to)?;
    }
    let (theirs, ours) = (integrity(from)?, integrity(to)?);
    if (theirs.ChecksumAlgorithm, theirs.Flags) != (ours.ChecksumAlgorithm, ours.Flags) {
        let input = FSCTL_SET_INTEGRITY_INFORMATION_BUFFER {
            ChecksumAlgorithm: theirs.ChecksumAlgorithm,
            Reserved: theirs.Reserved,
            Flags: theirs.Flags,
        };
        // SAFETY: the request takes this and gives nothing.
        unsafe { control::<_, ()>(to, FSCTL_SET_INTEGRITY_INFORMATION, Some(&input), &mut []) }?;
    }
    to.set_len(size)?;
    let shared = shared_pieces(size, ours.ClusterSizeInBytes.into()).try_for_each(|piece| {
        let input = DUPLICATE_EXTENTS_DATA {
            FileHandle: from.as_raw_handle(),
            SourceFileOffset: signed(piece.start)?,
            TargetFileOffset: signed(piece.start)?,
            ByteCount: signed(piece.end - piece.start)?,
        };
        // SAFETY: the request takes this, whose handle is open, and gives nothing.
        unsafe { control::<_, ()>(to, FSCTL_DUPLICATE_EXTENTS_TO_FILE, Some(&input), &mut []) }
            .map(drop)
    });
    if shared.is_err() {
        // The copy that follows starts from an empty file.
        to.set_len(0)?;
    }
    shared
}

/// How `ReFS` guards a file's data, and how long its clusters are.
fn integrity(file: &File) -> io::Result<FSCTL_GET_INTEGRITY_INFORMATION_BUFFER> {
    let mut answer = [FSCTL_GET_INTEGRITY_INFORMATION_BUFFER::default()];
    // SAFETY: the request takes nothing and gives one of these.
    unsafe { control::<(), _>(file, FSCTL_GET_INTEGRITY_INFORMATION, None, &mut answer) }?;
    Ok(answer[0])
}

/// The ranges in which a file's clusters are shared: each whole clusters, the last up to the end of that
/// in which the file ends.
fn shared_pieces(size: u64, cluster: u64) -> impl Iterator<Item = Range<u64>> {
    /// One request takes less than 4 GiB. It is a multiple of every cluster there is (4 and 64 KiB).
    const AT_ONCE: u64 = 1 << 30;
    let end = size.next_multiple_of(cluster.clamp(1, AT_ONCE));
    (0..end.div_ceil(AT_ONCE)).map(move |piece| {
        let start = piece * AT_ONCE;
        start..end.min(start + AT_ONCE)
    })
}

/// Renames a file to a name that nobody has, and returns when that is on the disk.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (wide(from)?, wide(to)?);
    // SAFETY: both texts end with a zero.
    if unsafe { MoveFileExW(from.as_ptr(), to.as_ptr(), MOVEFILE_WRITE_THROUGH) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A path that may be longer than 260 characters, for functions that take no such path otherwise.
fn wide(path: &Path) -> io::Result<Vec<u16>> {
    let path = verbatim(&std::path::absolute(path)?);
    Ok(path.as_os_str().encode_wide().chain([0]).collect())
}

fn verbatim(absolute: &Path) -> PathBuf {
    let Some(text) = absolute.to_str() else {
        return absolute.to_owned();
    };
    if text.starts_with(r"\\?\") || text.starts_with(r"\\.\") {
        absolute.to_owned()
    } else if let Some(share) = text.strip_prefix(r"\\") {
        format!(r"\\?\UNC\{share}").into()
    } else {
        format!(r"\\?\{text}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn paths_become_verbatim_once() {
        for (path, expected) in [
            (r"C:\a\b", r"\\?\C:\a\b"),
            (r"\\server\share\b", r"\\?\UNC\server\share\b"),
            (r"\\?\C:\a", r"\\?\C:\a"),
            (r"\\.\pipe\x", r"\\.\pipe\x"),
        ] {
            assert_eq!(verbatim(Path::new(path)), Path::new(expected));
        }
    }

    #[test]
    fn shared_clusters_are_whole_and_none_lies_behind_the_files_last() {
        for cluster in [4096, 65_536_u64] {
            for size in [
                0,
                1,
                cluster,
                cluster + 1,
                (1 << 30) - 1,
                1 << 30,
                (1 << 30) + 1,
                20 << 30,
                (20 << 30) + 512,
            ] {
                let mut at = 0;
                for piece in shared_pieces(size, cluster) {
                    assert_eq!(piece.start, at, "of {size}");
                    let length = piece.end - piece.start;
                    assert!(length > 0 && length < 4 << 30 && length % cluster == 0);
                    at = piece.end;
                }
                assert!(at >= size && at - size < cluster, "{at} of {size}");
            }
        }
    }

    #[test]
    fn clusters_are_shared_only_where_the_volume_can() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        (&from).write_all(&[7; 100_000]).unwrap();
        match share_clusters(&from, &to) {
            Ok(()) => {
                let mut found = Vec::new();
                (&to).read_to_end(&mut found).unwrap();
                assert!(found == [7; 100_000]);
            }
            // Then there must be nothing that a copy would have to take away.
            Err(_) => assert_eq!(to.metadata().unwrap().len(), 0),
        }
    }

    #[test]
    fn a_rename_never_replaces_and_takes_long_paths() {
        let folder = tempfile::tempdir().unwrap();
        let mut long = folder.path().to_owned();
        while long.as_os_str().len() < 400 {
            long.push("a folder whose name is long enough");
        }
        std::fs::create_dir_all(&long).unwrap();
        let (from, to) = (long.join("from"), long.join("to"));
        std::fs::write(&from, "new").unwrap();
        rename_new(&from, &to).unwrap();
        std::fs::write(&from, "newer").unwrap();
        let error = rename_new(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
    }

    #[test]
    fn zeroed_ranges_are_zero_and_ranges_with_data_hold_all_of_it() {
        let mut file = tempfile::tempfile().unwrap();
        let data = vec![7; 1 << 20];
        file.write_all(&data).unwrap();
        // Where the file system has none of this (wine's has not), it says so.
        if zero(&file, &(1000..500_000)).is_ok() {
            let mut expected = data;
            expected[1000..500_000].fill(0);
            let mut found = Vec::new();
            io::Seek::rewind(&mut file).unwrap();
            file.read_to_end(&mut found).unwrap();
            assert!(found == expected);
        }
        if let Ok(ranges) = ranges_with_data(&file, 1 << 20) {
            assert!(ranges.iter().any(|range| range.contains(&999)));
            assert!(ranges.iter().any(|range| range.contains(&500_000)));
        }
    }
}
