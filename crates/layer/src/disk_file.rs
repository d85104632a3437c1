//! A file that holds a disk and can give room back to its file system.

use std::fs::File;
use std::io;

use opengcs_vhd::Storage;
use positioned_io::{ReadAt, Size};

mod sys;

pub(crate) use sys::{allow_holes, has_holes};

/// A [`File`] as the storage of a [`Disk`](opengcs_vhd::Disk): what is discarded becomes a hole in
/// the file where the file system has holes. On a bare [`File`], zeros are written instead.
///
/// ```
/// use opengcs_layer::DiskFile;
/// use opengcs_vhd::{Disk, DiskOptions, Format, Guid};
/// use positioned_io::WriteAt;
/// let file = DiskFile::new(tempfile::tempfile()?);
/// let options = DiskOptions::new(Format::Raw, Some(8 << 20), Guid::NIL);
/// let mut disk = Disk::create(file, &options)?;
/// disk.write_all_at(0, &vec![1; 8 << 20])?;
/// disk.discard(0..4 << 20)?;
/// let file = disk.finish()?.into_inner();
/// assert_eq!(file.metadata()?.len(), 8 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DiskFile(File);

impl DiskFile {
    /// Takes a file that is open for writing.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// Gives the file back.
    #[must_use]
    pub fn into_inner(self) -> File {
        self.0
    }
}

impl ReadAt for DiskFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(position, buffer)
    }
}

impl Size for DiskFile {
    fn size(&self) -> io::Result<Option<u64>> {
        self.0.size()
    }
}

impl Storage for DiskFile {
    fn store_at(&self, position: u64, data: &[u8]) -> io::Result<()> {
        self.0.store_at(position, data)
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        Storage::resize(&self.0, length)
    }

    fn sync(&self) -> io::Result<()> {
        Storage::sync(&self.0)
    }

    fn punch(&self, position: u64, length: u64) -> io::Result<bool> {
        sys::punch(&self.0, position, length)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn allocated(&self) -> io::Result<Option<u64>> {
        self.0.allocated()
    }
}
