//! Makes empty ext4 disks, of any size in milliseconds, from a cache of such disks where one is given.
//!
//! A cached disk is found by everything that decides its bytes, is looked at
//! before it is used, and comes into the cache whole or not at all. So several
//! processes may share a cache, and a damaged one repairs itself.

use std::fs;
use std::path::{Path, PathBuf};

use opengcs_ext4::{Metadata, Timestamp, Writer};
use opengcs_vhd::{Disk, Format, Storage};
use sha2::{Digest, Sha256};

use crate::chain;
use crate::error::from_ext4;
use crate::filesystem::FilesystemOptions;
use crate::image::{Growing, from_vhd};
use crate::to_disk::publish;
use crate::{Error, Existing, NewFile, Result, copy_file};

/// The size of a scratch disk unless another is chosen, in bytes: 20 GiB.
pub const DEFAULT_SCRATCH_SIZE: u64 = 20 << 30;

/// Goes up when the same options give other bytes than before.
const CACHE_VERSION: u32 = 2;

/// How a scratch disk is made.
#[derive(Clone, Debug)]
pub struct ScratchOptions {
    /// The format; VHDX unless chosen.
    pub format: Format,
    /// The size of the disk in bytes.
    pub size: u64,
    /// The file system. Its own `size` is not looked at.
    pub filesystem: FilesystemOptions,
    /// Bytes in a block of a VHDX, 1 MiB to 256 MiB.
    pub vhdx_block_size: u32,
    /// Whether the folders `upper` and `work` are there from the start.
    pub overlay_folders: bool,
    /// A folder in which disks made before are kept; it is made if it is missing.
    pub cache: Option<PathBuf>,
    /// What happens to a file that is there already; it stays unless chosen otherwise.
    pub existing: Existing,
    /// Whether to wait until the file is safe from a power cut before it gets its name.
    pub sync: bool,
}

impl Default for ScratchOptions {
    fn default() -> Self {
        Self {
            format: Format::Vhdx,
            size: DEFAULT_SCRATCH_SIZE,
            filesystem: FilesystemOptions::default(),
            vhdx_block_size: 1 << 20,
            overlay_folders: false,
            cache: None,
            existing: Existing::Keep,
            sync: false,
        }
    }
}

/// A scratch disk that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scratch {
    /// Bytes of the disk file.
    pub size: u64,
    /// Bytes of the disk in it.
    pub virtual_size: u64,
    /// Whether it came out of the cache.
    pub from_cache: bool,
}

/// Makes an empty ext4 disk.
///
/// The file appears under its name when it is whole. A failing cache (a full
/// disk, no permission) fails the call, and leaves no disk.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) or
/// [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace) for a size that is too
/// small or that the format does not allow; those of the system.
#[doc(alias = "CreateExt4Vhdx")]
pub fn create_scratch(path: &Path, options: &ScratchOptions) -> Result<Scratch> {
    let from_cache = match &options.cache {
        None => {
            create(path, options, options.existing, options.sync)?;
            false
        }
        Some(cache) => from_cache(path, options, cache)?,
    };
    let metadata = fs::metadata(path).map_err(|error| Error::io_at("cannot read", path, error))?;
    Ok(Scratch {
        size: metadata.len(),
        virtual_size: options.size,
        from_cache,
    })
}

fn from_cache(path: &Path, options: &ScratchOptions, cache: &Path) -> Result<bool> {
    if options.existing == Existing::Keep && fs::symlink_metadata(path).is_ok() {
        return Err(
            Error::new(crate::ErrorKind::AlreadyExists, "it exists already").with_path(path),
        );
    }
    fs::create_dir_all(cache)
        .map_err(|error| Error::io_at("cannot make the cache", cache, error))?;
    let cached = cache.join(cache_name(options));
    let hit = is_usable(&cached, options);
    if !hit {
        create(&cached, options, Existing::Replace, false)?;
    }
    copy_file(&cached, path, options.existing == Existing::Replace)?;
    Ok(hit)
}

/// Whether a disk from the cache is what it should be, as far as a glance tells.
fn is_usable(cached: &Path, options: &ScratchOptions) -> bool {
    let Ok(chain::Chain { disk, parents }) = chain::open(cached, &[]) else {
        return false;
    };
    parents.is_empty()
        && disk.format() == options.format
        && disk.virtual_size() == options.size
        && opengcs_ext4::Reader::open(disk).is_ok()
}

/// A name that tells apart all that decides a disk's bytes.
fn cache_name(options: &ScratchOptions) -> String {
    let ScratchOptions {
        format,
        size,
        filesystem,
        vhdx_block_size,
        overlay_folders,
        cache: _,
        existing: _,
        sync: _,
    } = options;
    let FilesystemOptions {
        size: _,
        journal,
        block_size,
        label,
        uuid,
        lost_found,
        inline_data,
        created,
    } = filesystem;
    let key = format!(
        "{CACHE_VERSION} {format} {size} {vhdx_block_size} {overlay_folders} {journal:?} \
         {block_size} {label:?} {uuid:?} {lost_found} {inline_data} {created}"
    );
    let digest = Sha256::digest(key.as_bytes());
    let digest: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("scratch-{size}-{digest}.{format}")
}

fn create(path: &Path, options: &ScratchOptions, existing: Existing, sync: bool) -> Result<()> {
    let file = NewFile::create(path, existing)?;
    if options.format == Format::Raw {
        file.allow_holes();
    }
    write(file.file(), options).map_err(|error| error.with_path(path))?;
    publish(file, sync)
}

fn write(file: impl Storage, options: &ScratchOptions) -> Result<()> {
    let filesystem = FilesystemOptions {
        size: Some(options.size),
        ..options.filesystem.clone()
    };
    let mut disk_options = filesystem.disk(options.format);
    disk_options.block_size = options.vhdx_block_size;
    let disk = Disk::create(file, &disk_options).map_err(from_vhd)?;
    let mut writer = Writer::new(Growing(disk), &filesystem.writer()?).map_err(from_ext4)?;
    if options.overlay_folders {
        let created = Timestamp {
            seconds: filesystem.created,
            nanoseconds: 0,
        };
        for name in [b"upper", &b"work"[..]] {
            let metadata = Metadata {
                mode: 0o755,
                atime: created,
                mtime: created,
                ctime: created,
                crtime: created,
                ..Metadata::default()
            };
            let root = writer.root();
            writer
                .create_directory(root, name, metadata)
                .map_err(from_ext4)?;
        }
    }
    let (_, Growing(disk)) = writer.finish().map_err(from_ext4)?;
    disk.finish().map_err(from_vhd)?;
    Ok(())
}

#[cfg(test)]
mod tests;
