//! Decides which disk file a layer folder holds, and whether it is a layer or a sandbox.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// The disk file of a read-only layer.
pub const LAYER_FILE: &str = "layer.vhd";
/// The disk file of a writable sandbox.
pub const SANDBOX_FILE: &str = "sandbox.vhdx";

/// The disk file found in a layer folder.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LayerVhdDetails {
    /// Where the disk file is.
    pub path: PathBuf,
    /// How long the disk file is, in bytes.
    pub size: u64,
    /// Whether it is a sandbox (`sandbox.vhdx`) rather than a layer (`layer.vhd`).
    pub is_sandbox: bool,
}

/// Finds the disk file of a layer folder: `layer.vhd`, else `sandbox.vhdx`.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], naming the folder, when neither is there;
/// [`ErrorKind::InvalidInput`] when what is there is not a file; those of the system.
#[doc(alias = "LayerVhdDetails")]
pub fn layer_vhd_details(folder: &Path) -> Result<LayerVhdDetails> {
    for (name, is_sandbox) in [(LAYER_FILE, false), (SANDBOX_FILE, true)] {
        let path = folder.join(name);
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => {
                return Ok(LayerVhdDetails {
                    path,
                    size: found.len(),
                    is_sandbox,
                });
            }
            Ok(_) => return Err(Error::invalid("not a regular file").with_path(&path)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(Error::io_at("cannot look at", &path, error)),
        }
    }
    let message = match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {
            format!("the folder holds neither {LAYER_FILE} nor {SANDBOX_FILE}")
        }
        Ok(_) => "not a folder".to_owned(),
        Err(error) => return Err(Error::io_at("cannot look into the folder", folder, error)),
    };
    Err(Error::new(ErrorKind::NotFound, message).with_path(folder))
}
