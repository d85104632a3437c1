//! A disk in a file of any format: one way to read and write it.

use std::io;

use positioned_io::{ReadAt, Size, WriteAt};

use crate::number::{clamp, wide};
use crate::vhd::{DiskType, DynamicVhd, Footer};
use crate::vhdx::{self, Vhdx};
use crate::{Error, ErrorKind, Guid, Result, Storage};

mod chain;
mod create;
mod format;
mod summary;

pub use create::DiskOptions;
pub(crate) use create::empty;
use format::find_footer;
pub use format::{Format, detect};
pub use summary::{ParentSummary, RegionSummary, Summary};

/// What a disk is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading; the storage is not changed.
    ReadOnly,
    /// Reading and writing.
    ReadWrite {
        /// A fresh random identifier, from which those that a VHDX must change
        /// are derived.
        session: Guid,
    },
}

/// A disk in a file of any format.
///
/// Reads past its end come back short; writes past its end are refused, except
/// to a disk that is being created without a size.
#[derive(Debug)]
pub struct Disk<S> {
    inner: Inner<S>,
    writable: bool,
    parent: Option<Box<Self>>,
}

#[derive(Debug)]
enum Inner<S> {
    /// The disk's bytes are the storage's: raw, or a fixed VHD with its footer.
    Flat {
        storage: S,
        size: u64,
        footer: Option<Box<Footer>>,
        creation: Option<create::Flat>,
    },
    Dynamic(Box<DynamicVhd<S>>),
    Vhdx(Box<Vhdx<S>>),
}

pub(crate) fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the disk is open for reading only")
}

pub(crate) fn past_end(end: u64) -> Error {
    Error::invalid(format!("a write up to byte {end} goes past the disk's end"))
}

impl<S: Storage> Disk<S> {
    /// Opens a disk file of any format, found by its content.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Access, Disk, ErrorKind, Format, Guid};
    /// use positioned_io::{ReadAt, WriteAt};
    /// let file = MemoryFile::from(&[7; 4096][..]);
    /// let mut disk = Disk::open(file, Access::ReadWrite { session: Guid::from_u128(9) })?;
    /// assert_eq!((disk.format(), disk.virtual_size()), (Format::Raw, 4096));
    /// disk.write_all_at(10, b"hello")?;
    /// let disk = Disk::open(disk.finish()?, Access::ReadOnly)?;
    /// let mut bytes = [0; 6];
    /// disk.read_exact_at(10, &mut bytes)?;
    /// assert_eq!(&bytes, b"hello\x07");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Corrupt`](ErrorKind::Corrupt) when the file breaks its format's rules
    /// or is cut short; [`Unsupported`](ErrorKind::Unsupported) for a
    /// differencing disk (use [`Disk::open_chain`]), for writing to a dynamic
    /// VHD, and for what the file requires and is not known; those of the storage.
    pub fn open(storage: S, access: Access) -> Result<Self> {
        let disk = Self::open_alone(storage, access)?;
        if let Some(parent) = disk.summary()?.parent {
            return Err(Error::unsupported(format!(
                "a differencing disk cannot be opened without its parent {parent}"
            )));
        }
        Ok(disk)
    }

    fn open_alone(storage: S, access: Access) -> Result<Self> {
        let writable = access != Access::ReadOnly;
        let inner = if vhdx::is_vhdx(&storage)? {
            Inner::Vhdx(Box::new(Vhdx::open(storage, access)?))
        } else {
            match find_footer(&storage)? {
                None => Inner::Flat {
                    size: storage
                        .length()
                        .map_err(|error| Error::io("cannot find the length", 0, error))?,
                    storage,
                    footer: None,
                    creation: None,
                },
                Some((footer, data_end)) if footer.disk_type == DiskType::Fixed => {
                    if footer.size > data_end {
                        return Err(Error::corrupt(format!(
                            "the file is cut short: a VHD of {} bytes has only {data_end}",
                            footer.size
                        )));
                    }
                    Inner::Flat {
                        storage,
                        size: footer.size,
                        footer: Some(Box::new(footer)),
                        creation: None,
                    }
                }
                Some(_) if writable => {
                    return Err(Error::unsupported(
                        "a dynamic VHD can only be opened for reading",
                    ));
                }
                Some((footer, data_end)) => {
                    Inner::Dynamic(Box::new(DynamicVhd::open(storage, footer, data_end)?))
                }
            }
        };
        Ok(Self {
            inner,
            writable,
            parent: None,
        })
    }

    /// What the disk file is.
    pub fn format(&self) -> Format {
        match &self.inner {
            Inner::Flat {
                footer: None,
                creation,
                ..
            } if !matches!(creation, Some(create::Flat { vhd: Some(_), .. })) => Format::Raw,
            Inner::Flat { .. } => Format::FixedVhd,
            Inner::Dynamic(_) => Format::DynamicVhd,
            Inner::Vhdx(_) => Format::Vhdx,
        }
    }

    /// The virtual size in bytes.
    pub fn virtual_size(&self) -> u64 {
        match &self.inner {
            Inner::Flat { size, .. } => *size,
            Inner::Dynamic(disk) => disk.footer().size,
            Inner::Vhdx(disk) => disk.size(),
        }
    }

    /// The storage beneath.
    pub fn storage(&self) -> &S {
        match &self.inner {
            Inner::Flat { storage, .. } => storage,
            Inner::Dynamic(disk) => disk.storage(),
            Inner::Vhdx(disk) => disk.storage(),
        }
    }

    fn read(&self, position: u64, buf: &mut [u8]) -> Result<usize> {
        let left = self.virtual_size().saturating_sub(position);
        let length = clamp(buf.len(), left);
        let Some(piece) = buf.get_mut(..length).filter(|piece| !piece.is_empty()) else {
            return Ok(0);
        };
        let parent = self.parent.as_deref().map(|parent| {
            let parent: &dyn ReadAt = parent;
            parent
        });
        match &self.inner {
            Inner::Flat {
                storage, creation, ..
            } => match storage.read_at(position, piece) {
                // Not written yet, so zero.
                Ok(0) if creation.is_some() => piece.fill(0),
                Ok(0) => return Err(Error::corrupt("the file is cut short").at(position)),
                Ok(read) => return Ok(read),
                Err(error) => return Err(Error::io("cannot read", position, error)),
            },
            Inner::Dynamic(disk) => disk.read_exact(parent, position, piece)?,
            Inner::Vhdx(disk) => disk.read_exact(parent, position, piece)?,
        }
        Ok(length)
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<()> {
        if !self.writable {
            return Err(read_only());
        }
        let end = position
            .checked_add(wide(data.len()))
            .ok_or_else(|| past_end(u64::MAX))?;
        match &mut self.inner {
            Inner::Flat {
                storage,
                size,
                creation,
                ..
            } => {
                if end > *size {
                    match creation {
                        Some(create::Flat { growing: true, .. }) => *size = end,
                        _ => return Err(past_end(end)),
                    }
                }
                storage
                    .store_at(position, data)
                    .map_err(|error| Error::io("cannot write", position, error))
            }
            Inner::Dynamic(_) => Err(read_only()),
            Inner::Vhdx(disk) => disk.write_exact(position, data),
        }
    }

    /// Makes a range of the disk zero and gives back the room that it takes.
    ///
    /// Whole blocks leave a dynamic VHDX: their room in the file is used for
    /// other blocks once the discard is durable, and at the end of the file it
    /// is cut off by [`Disk::finish`]. Elsewhere the range becomes a hole in
    /// the storage, or zeros where it [can have none](Storage::punch). After a
    /// crash, what was discarded and not flushed may be there again.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Access, Disk, DiskOptions, Format, Guid, Storage};
    /// use positioned_io::WriteAt;
    /// let id = Guid::from_u128(1);
    /// let options = DiskOptions::new(Format::Vhdx, Some(1 << 30), id);
    /// let mut disk = Disk::create(MemoryFile::new(), &options)?;
    /// disk.write_all_at(0, &[1; 5 << 20])?;
    /// let file = disk.finish()?;
    /// let length = file.length()?;
    ///
    /// let mut disk = Disk::open(file, Access::ReadWrite { session: id })?;
    /// disk.discard(0..5 << 20)?;
    /// let file = disk.finish()?;
    /// assert_eq!(file.length()?, length - (5 << 20));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a range past the disk's
    /// end; [`ReadOnly`](ErrorKind::ReadOnly) for a disk that is open for
    /// reading only, as dynamic VHDs are; those of the storage.
    pub fn discard(&mut self, range: std::ops::Range<u64>) -> Result<()> {
        if !self.writable {
            return Err(read_only());
        }
        if range.start >= range.end {
            return Ok(());
        }
        match &mut self.inner {
            Inner::Flat { storage, size, .. } => {
                if range.end > *size {
                    return Err(past_end(range.end));
                }
                // What was never written to a new disk is not in the file yet.
                let length = storage
                    .length()
                    .map_err(|error| Error::io("cannot find the length", 0, error))?;
                let end = range.end.min(length);
                vhdx::clear(storage, range.start, end.saturating_sub(range.start))
            }
            Inner::Dynamic(_) => Err(read_only()),
            Inner::Vhdx(disk) => disk.discard(range, vhdx::Parts::Clear),
        }
    }

    /// Gives back the room of a range whose content nobody needs any more:
    /// [`Disk::discard`] without ever writing zeros. What is in the range
    /// afterwards is not told. False when the storage [can have no
    /// holes](Storage::punch), and nothing was done.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Access, Disk, Guid};
    /// let file = MemoryFile::from(&[7; 1 << 20][..]);
    /// let session = Guid::from_u128(9);
    /// let mut disk = Disk::open(file.clone(), Access::ReadWrite { session })?;
    /// assert!(disk.release(4096..1 << 20)?);
    /// assert_eq!(file.held(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Disk::discard`].
    pub fn release(&mut self, range: std::ops::Range<u64>) -> Result<bool> {
        if !self.writable {
            return Err(read_only());
        }
        if range.end > self.virtual_size() {
            return Err(past_end(range.end));
        }
        if range.start >= range.end {
            return Ok(true);
        }
        match &mut self.inner {
            Inner::Flat { storage, .. } => storage
                .punch(range.start, range.end.saturating_sub(range.start))
                .map_err(|error| Error::io("cannot make a hole", range.start, error)),
            Inner::Dynamic(_) => Err(read_only()),
            Inner::Vhdx(disk) => {
                disk.discard(range, vhdx::Parts::Release)?;
                Ok(true)
            }
        }
    }

    /// Moves the blocks at the end of a VHDX into the room that others have
    /// left, so that [`Disk::finish`] can cut the file. Other formats have no
    /// such room. A crash leaves each block where it was or where it goes.
    /// `go_on` is told how many bytes have been moved, and ends it with false.
    ///
    /// # Errors
    ///
    /// [`ReadOnly`](ErrorKind::ReadOnly) for a disk that is open for reading
    /// only; those of the storage.
    pub fn compact(&mut self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        if !self.writable {
            return Err(read_only());
        }
        match &mut self.inner {
            Inner::Vhdx(disk) => disk.compact(go_on),
            Inner::Flat { .. } | Inner::Dynamic(_) => Ok(()),
        }
    }

    /// Makes everything written durable. A disk that is being created becomes
    /// whole by it, and keeps its size from then on.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Access, Disk, DiskOptions, Format, Guid};
    /// use positioned_io::{ReadAt, WriteAt};
    /// let file = MemoryFile::new();
    /// let options = DiskOptions::new(Format::Vhdx, Some(1 << 30), Guid::from_u128(1));
    /// let mut disk = Disk::create(file.clone(), &options)?;
    /// disk.write_all_at(0, b"kept")?;
    /// disk.flush()?;
    /// disk.write_all_at(0, b"lost")?;
    /// // What is left when the machine stops before the next flush.
    /// let left = file.crashes_after(file.operations()).remove(0);
    /// let mut bytes = [0; 4];
    /// Disk::open(left, Access::ReadOnly)?.read_exact_at(0, &mut bytes)?;
    /// assert_eq!(&bytes, b"kept");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the storage; [`InvalidInput`](ErrorKind::InvalidInput) when a
    /// disk that is being created cannot have the size it has grown to.
    pub fn flush(&mut self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        match &mut self.inner {
            Inner::Vhdx(disk) => disk.commit(),
            Inner::Dynamic(_) => Ok(()),
            Inner::Flat { .. } => {
                self.complete_flat(true)?;
                self.storage()
                    .sync()
                    .map_err(|error| Error::io("cannot flush", 0, error))
            }
        }
    }

    /// Ends the use of the disk and gives the storage back.
    ///
    /// A disk that is being created becomes whole, but is not waited for: sync
    /// the storage before giving it its final name. A disk that was opened is
    /// flushed, and a VHDX's log is emptied, so that tools that do not replay
    /// logs can read it. Dropping a disk instead loses only what was not flushed.
    ///
    /// # Errors
    ///
    /// As for [`Disk::flush`].
    pub fn finish(mut self) -> Result<S> {
        if matches!(
            &self.inner,
            Inner::Flat {
                creation: Some(_),
                ..
            }
        ) {
            self.complete_flat(false)?;
        } else if matches!(&self.inner, Inner::Flat { .. }) {
            self.flush()?;
        }
        match self.inner {
            Inner::Flat { storage, .. } => Ok(storage),
            Inner::Dynamic(disk) => Ok(disk.into_storage()),
            Inner::Vhdx(disk) => disk.close(),
        }
    }
}

impl<S: Storage> ReadAt for Disk<S> {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.read(pos, buf)?)
    }
}

impl<S: Storage> WriteAt for Disk<S> {
    fn write_at(&mut self, pos: u64, buf: &[u8]) -> io::Result<usize> {
        self.write(pos, buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(Disk::flush(self)?)
    }
}

impl<S: Storage> Size for Disk<S> {
    fn size(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.virtual_size()))
    }
}
