//! Creation of disk files: which options each format takes, and what makes the file whole.

use super::{Disk, Format, Inner};
use crate::vhd::{self, Footer};
use crate::vhdx::{self, CreateOptions};
use crate::{Error, Guid, Result, Storage};

/// How a disk file is created.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The format: fixed VHD, VHDX or raw.
    pub format: Format,
    /// The virtual size in bytes; without one the disk grows with what is
    /// written to it, and is rounded up to whole sectors in the end.
    pub size: Option<u64>,
    /// The identifier of the disk; it should be random.
    pub id: Guid,
    /// When it is created, in seconds since 2000-01-01 00:00:00 UTC (VHD only).
    pub time_stamp: u32,
    /// The bytes in a block (VHDX only).
    pub block_size: u32,
    /// The bytes in a logical sector, 512 or 4096 (VHDX only).
    pub logical_sector_size: u32,
    /// The bytes in a physical sector, 512 or 4096 (VHDX only).
    pub physical_sector_size: u32,
    /// Whether a VHDX has all its blocks in the file at once.
    pub fixed: bool,
}

impl DiskOptions {
    /// The usual options: a VHDX is dynamic, with blocks of 1 MiB.
    #[must_use]
    pub fn new(format: Format, size: Option<u64>, id: Guid) -> Self {
        let vhdx = CreateOptions::new(size, id);
        Self {
            format,
            size,
            id,
            time_stamp: 0,
            block_size: vhdx.block_size,
            logical_sector_size: vhdx.logical_sector_size,
            physical_sector_size: vhdx.physical_sector_size,
            fixed: vhdx.fixed,
        }
    }
}

/// A flat disk that is being created.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flat {
    pub(super) growing: bool,
    /// The identifier and time of a VHD.
    pub(super) vhd: Option<(Guid, u32)>,
}

/// Takes all content out of a storage, so that no crash brings a part of it back.
pub(crate) fn empty(storage: &(impl Storage + ?Sized)) -> Result<()> {
    let cannot = |error| Error::io("cannot empty the file", 0, error);
    if storage.length().map_err(cannot)? == 0 {
        return Ok(());
    }
    storage.resize(0).map_err(cannot)?;
    storage.sync().map_err(cannot)
}

impl<S: Storage> Disk<S> {
    /// Starts a disk file in `storage`, whose old content goes.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Disk, DiskOptions, Format, Guid, Storage};
    /// let options = DiskOptions {
    ///     block_size: 2 << 20,
    ///     logical_sector_size: 4096,
    ///     ..DiskOptions::new(Format::Vhdx, Some(64 << 40), Guid::from_u128(1))
    /// };
    /// let file = Disk::create(MemoryFile::new(), &options)?.finish()?;
    /// assert_eq!(Disk::describe(&file)?.virtual_size, 64 << 40);
    /// # Ok::<(), opengcs_vhd::Error>(())
    /// ```
    ///
    /// It becomes a whole file of its format by [`Disk::flush`] or
    /// [`Disk::finish`]; before that, what is in the storage is of no use.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for options that the
    /// format does not allow; those of the storage.
    pub fn create(storage: S, options: &DiskOptions) -> Result<Self> {
        let inner = match options.format {
            Format::DynamicVhd => {
                return Err(Error::invalid("dynamic VHDs are read, not created"));
            }
            Format::Vhdx => {
                let create = CreateOptions {
                    block_size: options.block_size,
                    logical_sector_size: options.logical_sector_size,
                    physical_sector_size: options.physical_sector_size,
                    fixed: options.fixed,
                    ..CreateOptions::new(options.size, options.id)
                };
                Inner::Vhdx(Box::new(vhdx::create(storage, &create)?))
            }
            Format::FixedVhd | Format::Raw => {
                let is_vhd = options.format == Format::FixedVhd;
                if let (true, Some(size)) = (is_vhd, options.size) {
                    vhd::check_size(size)?;
                }
                empty(&storage)?;
                Inner::Flat {
                    storage,
                    size: options.size.unwrap_or(0),
                    footer: None,
                    creation: Some(Flat {
                        growing: options.size.is_none(),
                        vhd: is_vhd.then_some((options.id, options.time_stamp)),
                    }),
                }
            }
        };
        Ok(Self {
            inner,
            writable: true,
            parent: None,
        })
    }

    /// Sets the size of a disk that is being created without one, in bytes.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Disk, DiskOptions, Format, Guid, Storage};
    /// use positioned_io::WriteAt;
    /// let options = DiskOptions::new(Format::FixedVhd, None, Guid::from_u128(1));
    /// let mut disk = Disk::create(MemoryFile::new(), &options)?;
    /// disk.write_all_at(0, b"as long as it gets")?;
    /// disk.set_size(1 << 20)?;
    /// assert_eq!(disk.finish()?.length()?, (1 << 20) + 512);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the disk's size is
    /// settled, more has been written, or the format does not allow the size.
    pub fn set_size(&mut self, new: u64) -> Result<()> {
        match &mut self.inner {
            Inner::Vhdx(disk) => disk.set_size(new),
            Inner::Flat {
                size,
                creation: Some(Flat { growing: true, vhd }),
                ..
            } => {
                if new < *size {
                    return Err(Error::invalid(
                        "a disk cannot shrink below what was written",
                    ));
                }
                if vhd.is_some() {
                    vhd::check_size(new)?;
                }
                *size = new;
                Ok(())
            }
            Inner::Flat { .. } | Inner::Dynamic(_) => {
                Err(Error::invalid("the size of this disk is settled"))
            }
        }
    }

    /// Makes a flat disk that is being created whole; with `ordered`, it gets
    /// its footer only when all else is durable.
    pub(super) fn complete_flat(&mut self, ordered: bool) -> Result<()> {
        let Inner::Flat {
            storage,
            size,
            footer,
            creation,
        } = &mut self.inner
        else {
            return Ok(());
        };
        let Some(Flat { vhd, growing }) = *creation else {
            return Ok(());
        };
        if let Some((id, time_stamp)) = vhd {
            if growing {
                *size = size
                    .checked_next_multiple_of(vhd::SECTOR_SIZE)
                    .ok_or_else(|| Error::invalid("the disk is too large"))?;
            }
            let new = Footer::fixed(*size, id, time_stamp);
            vhd::check_size(*size)?;
            if ordered {
                storage
                    .sync()
                    .map_err(|error| Error::io("cannot flush", 0, error))?;
            }
            vhd::append_footer(storage, &new)?;
            *footer = Some(Box::new(new));
        } else {
            storage
                .resize(*size)
                .map_err(|error| Error::io("cannot set the length", *size, error))?;
        }
        *creation = None;
        Ok(())
    }
}
