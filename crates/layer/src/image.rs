//! Makes a disk file around a file system while somebody writes it: the format, the final size, and the
//! hash tree behind it.

use std::io;
use std::path::Path;

use opengcs_vhd::{self as vhd, Disk, Format, Storage};
use positioned_io::{ReadAt, WriteAt};

use crate::control::Control;
use crate::error::full_disk;
use crate::filesystem::FilesystemOptions;
use crate::verity::{self, Area, Hashing, Noting, Verity};
use crate::{Error, ErrorKind, Result};

/// A disk that is made whole after its size is known, not when the file system is flushed.
pub(crate) struct Growing<S>(pub(crate) Disk<S>);

impl<S: Storage> ReadAt for Growing<S> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(position, buffer)
    }
}

impl<S: Storage> WriteAt for Growing<S> {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(position, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the file system goes.
pub(crate) type Out<S> = Noting<Growing<S>>;

/// What is made.
pub(crate) struct Shape<'a> {
    pub(crate) filesystem: &'a FilesystemOptions,
    pub(crate) format: Format,
    pub(crate) tree: Tree,
    /// What the file will be called, for errors.
    pub(crate) path: Option<&'a Path>,
    pub(crate) control: &'a Control,
}

/// What becomes of the hash tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    None,
    Written,
    /// Its room is taken, for a storage that keeps nothing to be hashed.
    Room,
}

/// What was made.
pub(crate) struct Made<S, T> {
    pub(crate) storage: S,
    /// What `fill` gave.
    pub(crate) filled: T,
    pub(crate) virtual_size: u64,
    pub(crate) verity: Option<Verity>,
}

/// Makes a disk file in `storage`. `fill` writes the file system and tells its size in bytes.
pub(crate) fn make<S: Storage, T>(
    storage: S,
    shape: &Shape<'_>,
    fill: impl FnOnce(Out<S>) -> Result<(T, u64, Out<S>)>,
) -> Result<Made<S, T>> {
    let has_tree = shape.tree != Tree::None;
    let mut options = shape.filesystem.disk(shape.format);
    if has_tree {
        let area = shape.filesystem.written_size().map(Area::behind);
        options.size = area.transpose()?.map(|area| area.end);
    }
    let disk = Disk::create(storage, &options).map_err(from_vhd)?;
    let (filled, size, out) = fill(Noting::new(Growing(disk), has_tree))?;
    complete(out, size, shape)
        .map(|(storage, virtual_size, verity)| Made {
            storage,
            filled,
            virtual_size,
            verity,
        })
        .map_err(|error| match shape.path {
            Some(path) => error.with_path(path),
            None => error,
        })
}

/// Adds what follows a file system of `size` bytes.
fn complete<S: Storage>(
    out: Out<S>,
    size: u64,
    shape: &Shape<'_>,
) -> Result<(S, u64, Option<Verity>)> {
    let Noting {
        out: Growing(mut disk),
        written,
    } = out;
    let area = match shape.tree {
        Tree::None => None,
        Tree::Written | Tree::Room => Some(Area::behind(size)?),
    };
    if shape.filesystem.size.is_none() {
        let size = area.as_ref().map_or(size, |area| area.end);
        disk.set_size(size).map_err(from_vhd)?;
    }
    let mut verity = None;
    if let (Some(area), Some(written)) = (area, written) {
        if shape.tree == Tree::Room {
            verity::take_room(&mut disk, &area)?;
        } else {
            let hashing = Hashing {
                written: &written,
                control: shape.control,
            };
            let uuid = shape.filesystem.uuid();
            verity = Some(verity::append(&mut disk, &area, uuid, &hashing)?);
        }
    }
    let virtual_size = disk.virtual_size();
    Ok((disk.finish().map_err(from_vhd)?, virtual_size, verity))
}

/// An error of a disk file as one of ours.
pub(crate) fn from_vhd(error: vhd::Error) -> Error {
    if let Some(full) = full_disk(&error) {
        return full;
    }
    let kind = match error.kind() {
        vhd::ErrorKind::Corrupt => ErrorKind::Corrupt,
        vhd::ErrorKind::Unsupported => ErrorKind::Unsupported,
        vhd::ErrorKind::InvalidInput | vhd::ErrorKind::ReadOnly => ErrorKind::InvalidInput,
        vhd::ErrorKind::NoSpace => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    };
    match kind {
        ErrorKind::NoSpace => Error::new(kind, "the disk is full").with_source(error),
        ErrorKind::Io => Error::new(kind, "cannot read or write the disk file").with_source(error),
        _ => Error::new(kind, error.to_string()),
    }
}
