//! Positioned file writes and allocated sizes, for each system.

use std::fs::File;
use std::io;

#[cfg(unix)]
pub(super) fn write_all_at(file: &File, position: u64, data: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, position)
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut position: u64, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, data, position)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        data = data.get(written..).unwrap_or_default();
        position = position.saturating_add(crate::number::wide(written));
    }
    Ok(())
}

#[cfg(unix)]
pub(super) fn allocated(file: &File) -> io::Result<Option<u64>> {
    use std::os::unix::fs::MetadataExt as _;
    let found = file.metadata()?;
    // A device has its bytes elsewhere.
    Ok(found.is_file().then(|| found.blocks().saturating_mul(512)))
}

#[cfg(not(unix))]
pub(super) fn allocated(_file: &File) -> io::Result<Option<u64>> {
    Ok(None)
}
