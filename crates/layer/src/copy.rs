//! Decides how a file is copied: shared blocks where the file system has them, else its data without its holes.

use std::fs;
use std::path::Path;

use crate::control::Meter;
use crate::hold::Use;
use crate::{Control, Error, ErrorKind, Existing, NewFile, Progress, Result};

mod sys;

/// How a file is copied.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// What happens to a file that is there already; it stays unless chosen otherwise.
    pub existing: Existing,
    /// Progress, in bytes of the file that are done, and cancellation.
    pub control: Control,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            existing: Existing::Keep,
            control: Control::new(),
        }
    }
}

/// Copies a file and gives its size in bytes.
///
/// Blocks are shared where the file system can do that; otherwise the data is
/// copied by the kernel where possible, and holes stay holes. The copy has the
/// source's permissions, but is never setuid or setgid. It comes to its name whole or not at all.
///
/// # Errors
///
/// All name both paths. [`ErrorKind::AlreadyExists`] when `dst` is there and
/// `overwrite` is false; [`ErrorKind::InvalidInput`] when both are the same
/// file or either is not a regular file; [`ErrorKind::Locked`] when a machine is
/// writing to the source; those of the system.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let (src, dst) = (folder.path().join("a"), folder.path().join("b"));
/// std::fs::write(&src, "content")?;
/// assert_eq!(opengcs_layer::copy_file(&src, &dst, false)?, 7);
/// assert!(opengcs_layer::copy_file(&src, &dst, false).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "CopyFile")]
pub fn copy_file(src: &Path, dst: &Path, overwrite: bool) -> Result<u64> {
    let options = CopyOptions {
        existing: if overwrite {
            Existing::Replace
        } else {
            Existing::Keep
        },
        ..CopyOptions::default()
    };
    copy_file_with(src, dst, &options)
}

/// The same as [`copy_file`], watched and stopped by a [`Control`].
///
/// # Errors
///
/// As for [`copy_file`]; [`ErrorKind::Cancelled`] when it is asked to stop,
/// and what was at `dst` is as it was.
pub fn copy_file_with(src: &Path, dst: &Path, options: &CopyOptions) -> Result<u64> {
    copy(src, dst, options).map_err(|error| {
        let message = format!("cannot copy {} to {}", src.display(), dst.display());
        Error::new(error.kind(), message).with_source(error)
    })
}

fn copy(src: &Path, dst: &Path, options: &CopyOptions) -> Result<u64> {
    // Looked at before it is opened: opening a fifo would wait for a writer.
    let found = fs::metadata(src).map_err(|error| Error::io_at("cannot open", src, error))?;
    if !found.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file").with_path(src));
    }
    let from = Use::Still
        .options()
        .open(src)
        .map_err(|error| Error::io_at("cannot open", src, error))?;
    Use::Still.hold(&from, src)?;
    let found = from
        .metadata()
        .map_err(|error| Error::io_at("cannot look at", src, error))?;
    if is_same_file(src, dst) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "source and destination are the same file",
        ));
    }
    let mut new = NewFile::create(dst, options.existing)?;
    let mut meter = Meter::new(&options.control);
    meter.tell(Progress::default())?;
    if !sys::share_blocks(&from, new.file()) {
        let mut done = |bytes| Ok(meter.step(Progress { entries: 0, bytes })?);
        sys::copy_data(&from, new.file(), found.len(), &mut done)
            .map_err(|error| Error::io("cannot copy the data", error))?;
    }
    new.set_permissions(sys::plain(&found.permissions()))?;
    let size = new
        .file()
        .metadata()
        .map_err(|error| Error::io_at("cannot look at", dst, error))?
        .len();
    meter.tell(Progress {
        entries: 0,
        bytes: size,
    })?;
    new.publish()?;
    Ok(size)
}

/// Whether both names lead to one file, also through links.
fn is_same_file(src: &Path, dst: &Path) -> bool {
    if let Some(same) = sys::is_same(src, dst) {
        return same;
    }
    match (fs::canonicalize(src), fs::canonicalize(dst)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
