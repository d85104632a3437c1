//! Turns an ext4 file system in a disk file, or a live folder, into a tar stream.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use opengcs_ext4::{Reader, Summary};
use opengcs_vhd::Disk;
use positioned_io::ReadAt;

use crate::chain;
use crate::content;
use crate::control::Control;
use crate::decompress::Compression;
use crate::error::from_ext4;
use crate::export::{DiskWhiteouts, ExportOptions, Written, export};
use crate::ext4_source::Ext4Source;
use crate::{Error, Result, Warnings, pipeline};

/// The folder in a sandbox that holds what overlayfs has changed.
pub(crate) const SANDBOX_ROOT: &[u8] = b"upper";

/// How a file system becomes a tar.
#[derive(Clone, Debug, Default)]
pub struct DiskToTarOptions {
    /// Whether only what lies in `/upper` is written, with it as the root.
    pub sandbox: bool,
    /// In which form whiteouts are written.
    pub whiteouts: DiskWhiteouts,
    /// Whether holes are left out, as PAX sparse files (GNU's version 1.0).
    pub sparse: bool,
    /// How the tar is compressed: not at all, with gzip, or with zstd.
    pub compression: Compression,
    /// Folders in which the parents of a differencing disk may lie, besides the
    /// disk's own. A disk file names its parent's path; it is not followed elsewhere.
    pub parents: Vec<PathBuf>,
    /// Progress and cancellation.
    pub control: Control,
}

impl DiskToTarOptions {
    fn export(&self) -> ExportOptions {
        ExportOptions {
            whiteouts: self.whiteouts,
            sparse: self.sparse,
        }
    }
}

/// What a file system has become.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exported {
    /// Entries in the tar.
    pub entries: u64,
    /// Bytes of the tar, uncompressed.
    pub tar_bytes: u64,
    /// What was left out or interpreted.
    pub warnings: Warnings,
}

/// Writes the ext4 file system in a disk file (VHD, VHDX or raw, found by its content) as a tar.
///
/// The file is only read, and no machine can get it to write to meanwhile. A differencing disk is read with its parents. Dropped
/// is what the options say, and besides it sockets, and an empty `lost+found`
/// at the root.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) name the file and where there is one
/// the node; [`ErrorKind::Locked`](crate::ErrorKind::Locked) when a machine is writing to it (known of
/// QEMU, by its locks); those of input and output.
pub fn disk_to_tar(
    input: &Path,
    output: impl Write,
    options: &DiskToTarOptions,
) -> Result<Exported> {
    let reader = open_ext4(input, &options.parents)?;
    options.control.expect(expected_tar(&reader.summary()));
    to_tar(output, options, |outgoing| {
        let source = Ext4Source::new(reader);
        let root = if options.sandbox {
            source.folder_in_root(SANDBOX_ROOT)?
        } else {
            source.root()
        };
        export(&source, &root, outgoing, options.export(), &options.control)
    })
    .map_err(|error| {
        if error.is_output() {
            error
        } else {
            error.with_path(input)
        }
    })
}

/// Writes an ext4 file system as a tar.
///
/// # Errors
///
/// As for [`disk_to_tar`].
pub fn ext4_to_tar(
    input: impl ReadAt + Send,
    output: impl Write,
    options: &DiskToTarOptions,
) -> Result<Exported> {
    let reader = Reader::open(input).map_err(from_ext4)?;
    options.control.expect(expected_tar(&reader.summary()));
    to_tar(output, options, |outgoing| {
        let source = Ext4Source::new(reader);
        let root = if options.sandbox {
            source.folder_in_root(SANDBOX_ROOT)?
        } else {
            source.root()
        };
        export(&source, &root, outgoing, options.export(), &options.control)
    })
}

/// About how many bytes the tar of a file system has: a header for each node, and the blocks in use
/// that hold no inodes.
fn expected_tar(summary: &Summary) -> u64 {
    const HEADER: u64 = 512;
    let nodes = summary.inodes.saturating_sub(summary.free_inodes);
    let used = summary.blocks.saturating_sub(summary.free_blocks);
    let tables = u64::from(summary.inodes).saturating_mul(u64::from(summary.inode_size));
    used.saturating_mul(u64::from(summary.block_size))
        .saturating_sub(tables)
        .saturating_add(u64::from(nodes).saturating_mul(HEADER))
}

/// Writes a folder of this machine as a tar: also of a live overlay's upper folder, whose
/// whiteouts then become OCI's.
///
/// With `options.sandbox` it is the folder's `upper` that is written.
///
/// # Errors
///
/// Those of the folder and the output.
#[cfg(unix)]
pub fn folder_to_tar(
    folder: &Path,
    output: impl Write,
    options: &DiskToTarOptions,
) -> Result<Exported> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use crate::folder::FolderSource;
    let folder = if options.sandbox {
        folder.join(OsStr::from_bytes(SANDBOX_ROOT))
    } else {
        folder.to_path_buf()
    };
    to_tar(output, options, |outgoing| {
        let root = FolderSource::open(&folder)?;
        export(
            &FolderSource,
            &root,
            outgoing,
            options.export(),
            &options.control,
        )
    })
    .map_err(|error| {
        if error.is_output() {
            error
        } else {
            error.with_path(&folder)
        }
    })
}

/// Opens the file system in a disk file of any format.
pub(crate) fn open_ext4(path: &Path, parents: &[PathBuf]) -> Result<Reader<Disk<File>>> {
    let disk = chain::open_still(path, parents)?.disk;
    let content = content::recognise(&disk);
    Reader::open(disk).map_err(|error| content::without_ext4(content, error).with_path(path))
}

/// Runs an export in a thread of its own, and compresses and writes in the caller's.
fn to_tar<W: Write>(
    output: W,
    options: &DiskToTarOptions,
    produce: impl FnOnce(pipeline::Outgoing) -> Result<(pipeline::Outgoing, Written)> + Send,
) -> Result<Exported> {
    let produce = |outgoing| {
        produce(outgoing).and_then(|(outgoing, written)| {
            outgoing.finish()?;
            Ok(written)
        })
    };
    let cannot = |error| Error::output("cannot write the tar", error);
    let written = match options.compression {
        Compression::None => {
            let (mut output, written) = pipeline::run_output(output, produce)?;
            output.flush().map_err(cannot)?;
            written
        }
        Compression::Gzip => {
            let level = flate2::Compression::default();
            let encoder = flate2::write::GzEncoder::new(output, level);
            let (encoder, written) = pipeline::run_output(encoder, produce)?;
            encoder
                .finish()
                .and_then(|mut output| output.flush())
                .map_err(cannot)?;
            written
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(output, 3).map_err(cannot)?;
            encoder.include_checksum(true).map_err(cannot)?;
            let (encoder, written) = pipeline::run_output(encoder, produce)?;
            encoder
                .finish()
                .and_then(|mut output| output.flush())
                .map_err(cannot)?;
            written
        }
        other => {
            return Err(Error::unsupported(format!(
                "cannot write a tar with {other} compression"
            )));
        }
    };
    Ok(Exported {
        entries: written.entries,
        tar_bytes: written.tar_bytes,
        warnings: written.warnings,
    })
}
