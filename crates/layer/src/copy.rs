//! Decides how a file is copied: shared blocks where the file system has them, else its data without its holes.

use std::fs::{self, File};
use std::path::Path;

use crate::{Error, ErrorKind, Existing, NewFile, Result};

mod sys;

/// Copies a file and gives its size in bytes.
///
/// Blocks are shared where the file system can do that; otherwise the data is
/// copied by the kernel where possible, and holes stay holes. The copy has the
/// source's permissions. It comes to its name whole or not at all.
///
/// # Errors
///
/// All name both paths. [`ErrorKind::AlreadyExists`] when `dst` is there and
/// `overwrite` is false; [`ErrorKind::InvalidInput`] when both are the same
/// file or either is not a regular file; those of the system.
#[doc(alias = "CopyFile")]
pub fn copy_file(src: &Path, dst: &Path, overwrite: bool) -> Result<u64> {
    copy(src, dst, overwrite).map_err(|error| {
        let message = format!("cannot copy {} to {}", src.display(), dst.display());
        Error::new(error.kind(), message).with_source(error)
    })
}

fn copy(src: &Path, dst: &Path, overwrite: bool) -> Result<u64> {
    // Looked at before it is opened: opening a fifo would wait for a writer.
    let found = fs::metadata(src).map_err(|error| Error::io_at("cannot open", src, error))?;
    if !found.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file").with_path(src));
    }
    let from = File::open(src).map_err(|error| Error::io_at("cannot open", src, error))?;
    let found = from
        .metadata()
        .map_err(|error| Error::io_at("cannot look at", src, error))?;
    if is_same_file(src, dst) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "source and destination are the same file",
        ));
    }
    let existing = if overwrite {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let mut new = NewFile::create(dst, existing)?;
    if !sys::share_blocks(&from, new.file()) {
        sys::copy_data(&from, new.file(), found.len())
            .map_err(|error| Error::io("cannot copy the data", error))?;
    }
    new.set_permissions(found.permissions())?;
    let size = new
        .file()
        .metadata()
        .map_err(|error| Error::io_at("cannot look at", dst, error))?
        .len();
    new.publish()?;
    Ok(size)
}

/// Whether both names lead to one file, also through links.
fn is_same_file(src: &Path, dst: &Path) -> bool {
    if let (Ok(a), Ok(b)) = (fs::metadata(src), fs::metadata(dst))
        && let Some(same) = sys::is_same(&a, &b)
    {
        return same;
    }
    match (fs::canonicalize(src), fs::canonicalize(dst)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
