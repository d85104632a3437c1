//! Decides whether two paths lead to one file, also where another process lets nobody read it.

use std::fs::OpenOptions;
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::AsRawHandle as _;
use std::path::Path;

use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_ATTRIBUTE_DIRECTORY, GetFileInformationByHandle,
};

/// A file's identity on this host, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    volume: u32,
    index: u64,
}

/// The identity of the file at `path`; `None` when it is a folder.
pub(crate) fn identity(path: &Path) -> io::Result<Option<FileId>> {
    // No access is asked for, so none can be refused for the sake of somebody's lock.
    let file = OpenOptions::new().access_mode(0).open(path)?;
    let mut found = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, and there is a place for the answer.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut found) } == 0 {
        return Err(io::Error::last_os_error());
    }
    if found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY != 0 {
        return Ok(None);
    }
    Ok(Some(FileId {
        volume: found.dwVolumeSerialNumber,
        index: u64::from(found.nFileIndexHigh) << 32 | u64::from(found.nFileIndexLow),
    }))
}
