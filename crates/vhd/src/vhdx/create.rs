//! Creation of VHDX files: payload goes out as it comes, everything else is written once, at the end.

use super::bat::{Bat, Block, PAGE_SIZE};
use super::header::{self, HEADERS_AT, Header};
use super::metadata::Metadata;
use super::region::{Region, Regions, TABLES_AT};
use super::space::Space;
use super::view::View;
use super::write::Session;
use super::{LogState, Mode, Vhdx};
use crate::number::{MIB, wide};
use crate::{Error, Guid, Result, Storage};

const LOG: Region = Region {
    offset: MIB,
    length: 1 << 20,
};
const METADATA: Region = Region {
    offset: 2 * MIB,
    length: 1 << 20,
};
/// Where the block table begins, if its length is known at the start.
const BAT_AT: u64 = 3 * MIB;

/// How a VHDX is created.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The virtual size in bytes, a multiple of the logical sector size, at
    /// most 64 TiB. Without one the disk grows with what is written to it, and
    /// its block table comes to lie behind its blocks.
    pub size: Option<u64>,
    /// The bytes in a block: a power of two from 1 MiB (the default) to 256 MiB.
    pub block_size: u32,
    /// 512 (the default) or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096 (the default).
    pub physical_sector_size: u32,
    /// Whether all blocks are put in the file at once.
    pub fixed: bool,
    /// The identifier of the disk.
    pub disk_id: Guid,
    /// The identifier of the file's state.
    pub file_write_guid: Guid,
    /// The identifier of the disk's content.
    pub data_write_guid: Guid,
    /// The tool that makes the file.
    pub creator: String,
}

impl CreateOptions {
    /// Defaults for a dynamic disk of this size. The other identifiers are
    /// derived from `disk_id`, which should be random.
    #[must_use]
    pub fn new(size: Option<u64>, disk_id: Guid) -> Self {
        Self {
            size,
            block_size: 1 << 20,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            fixed: false,
            disk_id,
            file_write_guid: disk_id.derive(0x0066_696c_6500_0000),
            data_write_guid: disk_id.derive(0x0064_6174_6100_0000),
            creator: "opengcs".to_owned(),
        }
    }
}

/// Starts a VHDX in `storage`, whose old content goes.
///
/// ```
/// use opengcs_vhd::Guid;
/// use opengcs_vhd::testing::MemoryFile;
/// use opengcs_vhd::vhdx::{self, CreateOptions};
/// let options = CreateOptions {
///     block_size: 32 << 20,
///     creator: "an example".into(),
///     ..CreateOptions::new(Some(1 << 40), Guid::from_u128(1))
/// };
/// let disk = vhdx::create(MemoryFile::new(), &options)?;
/// assert_eq!((disk.size(), disk.block_size()), (1 << 40, 32 << 20));
/// # Ok::<(), opengcs_vhd::Error>(())
/// ```
///
/// Until [`Disk::flush`](crate::Disk::flush) or
/// [`Disk::finish`](crate::Disk::finish), only payload blocks are in the
/// storage and it is not a VHDX: give it its final name afterwards.
///
/// # Errors
///
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for options that the format
/// does not allow; those of the storage.
pub fn create<S: Storage>(storage: S, options: &CreateOptions) -> Result<Vhdx<S>> {
    let metadata = Metadata {
        block_size: options.block_size,
        leave_allocated: options.fixed,
        has_parent: false,
        virtual_size: options.size.unwrap_or(0),
        disk_id: options.disk_id,
        logical_sector: options.logical_sector_size,
        physical_sector: options.physical_sector_size,
        parent: None,
    };
    metadata.check().map_err(Error::invalid)?;
    if options.size == Some(0) {
        return Err(Error::invalid("a VHDX cannot be empty"));
    }
    crate::disk::empty(&storage)?;
    let header = Header {
        sequence_number: 1,
        file_write_guid: options.file_write_guid,
        data_write_guid: options.data_write_guid,
        log_guid: Guid::NIL,
        log_offset: LOG.offset,
        log_length: LOG.length,
    };
    let table = match options.size {
        Some(_) => bat_length(&metadata),
        None => 0,
    };
    let mut bat = Bat::new(BAT_AT, &metadata);
    bat.unwritten = true;
    let mut new = Vhdx {
        view: View::new(storage, BAT_AT.saturating_add(table)),
        header,
        slot: 0,
        metadata,
        regions: None,
        bat,
        space: Space::default(),
        blocks: 0,
        creator: options.creator.clone(),
        log_state: LogState::Clean,
        mode: Mode::Creating {
            growing: options.size.is_none(),
        },
    };
    new.fill_fixed()?;
    Ok(new)
}

/// The bytes the block table takes in the file.
fn bat_length(metadata: &Metadata) -> u64 {
    metadata
        .bat_entries()
        .saturating_mul(8)
        .max(1)
        .next_multiple_of(MIB)
}

impl<S: Storage> Vhdx<S> {
    /// Sets the size of a disk that is being created and grows.
    pub(crate) fn set_size(&mut self, size: u64) -> Result<()> {
        let Mode::Creating { growing: true } = self.mode else {
            return Err(Error::invalid("the size of this VHDX is settled"));
        };
        if size < self.metadata.virtual_size {
            return Err(Error::invalid(
                "a VHDX cannot shrink below what was written",
            ));
        }
        let mut metadata = self.metadata.clone();
        metadata.virtual_size = size.next_multiple_of(u64::from(metadata.logical_sector));
        metadata.check().map_err(Error::invalid)?;
        self.metadata = metadata;
        Ok(())
    }

    /// Puts all blocks of a fixed disk into the file.
    fn fill_fixed(&mut self) -> Result<()> {
        if !self.metadata.leave_allocated {
            return Ok(());
        }
        let block_size = self.metadata.block().get();
        for block in 0..self.metadata.virtual_size.div_ceil(block_size) {
            if self.bat.block(&self.view, block)? == Block::NotPresent {
                self.allocate(block)?;
            }
        }
        Ok(())
    }

    /// Takes room for a block: such as was left, then zeroed, else at the end
    /// of the file. The table says so in memory.
    pub(super) fn allocate(&mut self, block: u64) -> Result<u64> {
        let length = self.metadata.block().get();
        if let Some(offset) = self.space.take(length) {
            let done = self
                .view
                .clear(offset, length)
                .and_then(|()| self.bat.set(&self.view, block, Block::present(offset)));
            if let Err(error) = done {
                self.space.add(offset..offset.saturating_add(length));
                return Err(error);
            }
            self.blocks = self.blocks.saturating_add(1);
            return Ok(offset);
        }
        let full = || Error::invalid("the VHDX file would be too long");
        let offset = self
            .view
            .end
            .checked_next_multiple_of(MIB)
            .ok_or_else(full)?;
        let end = offset.checked_add(length).ok_or_else(full)?;
        self.bat.set(&self.view, block, Block::present(offset))?;
        self.view.end = end;
        self.blocks = self.blocks.saturating_add(1);
        Ok(offset)
    }

    /// Writes all that is not payload. Nothing if the disk is not being created.
    ///
    /// With `ordered`, the file becomes a VHDX only when all else is durable.
    pub(super) fn complete(&mut self, ordered: bool) -> Result<()> {
        let Mode::Creating { growing } = self.mode else {
            return Ok(());
        };
        if growing {
            self.set_size(self.metadata.virtual_size)?;
            if self.metadata.virtual_size == 0 {
                return Err(Error::invalid("a VHDX cannot be empty"));
            }
        }
        self.fill_fixed()?;
        self.view.end = self.space.cut(self.view.end);
        let length = bat_length(&self.metadata);
        let mut offset = BAT_AT;
        if growing {
            offset = self.view.end.next_multiple_of(MIB);
            self.view.end = offset.saturating_add(length);
        }
        self.bat.place(offset, self.metadata.bat_entries());
        let regions = Regions {
            bat: Region {
                offset,
                length: u32::try_from(length).map_err(|_| Error::invalid("VHDX table too long"))?,
            },
            metadata: METADATA,
            others: Vec::new(),
        };
        self.view
            .storage
            .resize(self.view.end)
            .map_err(|error| Error::io("cannot extend the file", self.view.end, error))?;
        self.write_pages()?;
        for (at, bytes) in self.metadata.encode() {
            self.view
                .write(METADATA.offset.saturating_add(at), &bytes)?;
        }
        let table = regions.encode();
        for at in TABLES_AT {
            self.view.write(at, &table)?;
        }
        for (slot, at) in HEADERS_AT.into_iter().enumerate() {
            self.header.sequence_number = wide(slot).saturating_add(1);
            self.view.write(at, &self.header.encode())?;
            self.slot = slot;
        }
        if ordered {
            self.view.sync()?;
        }
        self.view
            .write(0, &header::encode_identifier(&self.creator))?;
        self.bat.unwritten = false;
        self.bat.dirty.clear();
        self.mode = Mode::Writing(Session::new(self.header.file_write_guid));
        Ok(())
    }

    /// Writes the pages of the block table, neighbours together.
    fn write_pages(&self) -> Result<()> {
        const MOST: usize = 1 << 20;
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0_u64;
        for (number, page) in &self.bat.dirty {
            let at = self.bat.page_offset(*number);
            let follows = start.saturating_add(wide(run.len())) == at;
            if !run.is_empty() && (!follows || run.len() >= MOST) {
                self.view.write(start, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = at;
            }
            run.extend_from_slice(page.as_slice());
        }
        if !run.is_empty() {
            self.view.write(start, &run)?;
        }
        debug_assert_eq!(PAGE_SIZE, 4096);
        Ok(())
    }
}
