//! Where the record of a VM that failed is kept, and for how long: the newest few, in one folder.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Diagnostics;
use crate::error::{Error, Result};
use crate::sys;

/// How many bundles are kept in a folder.
const KEPT: usize = 10;

/// What the files' names end with.
const ENDING: &str = ".opengcs.txt";

/// Writes a record of a VM into one new file in `folder`, which only its owner can read, and gives its
/// path. The folder is made if need be; of the records in it the ten newest are kept.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn write_bundle(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // The time first: names in order are bundles in order. A VM's name has no slashes.
    let prefix = format!("{:014}-{name}-", since.as_millis());
    let file = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(ENDING)
        .tempfile_in(folder)
        .map_err(|error| Error::io("create a file in", folder, error))?;
    std::fs::write(file.path(), text).map_err(|error| Error::io("write", file.path(), error))?;
    let (_, path) = file
        .keep()
        .map_err(|error| Error::io("keep a file in", folder, error.error))?;
    sys::only_newest(folder, ENDING, KEPT);
    Ok(path)
}

impl Diagnostics {
    /// [`write_bundle`] with everything in it.
    ///
    /// # Errors
    /// As there.
    pub fn write_bundle(&self, folder: &Path) -> Result<PathBuf> {
        write_bundle(folder, &self.name, &self.to_string())
    }

    /// The error, with a pointer to a bundle of all this; it stays as it is where none can be written.
    pub(super) fn point_to_bundle(&self, error: Error, folder: &Path) -> Error {
        match self.write_bundle(folder) {
            Ok(path) => error.recorded_in(path),
            Err(trouble) => {
                tracing::warn!(%trouble, "no bundle is written");
                error
            }
        }
    }
}
