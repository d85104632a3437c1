//! VHDX files ([MS-VHDX]): opening, reading, creating and crash-safe writing.
//!
//! ```text
//! 0       64K     128K    192K     256K     1M    2M        3M        …
//! │ ident │ head1 │ head2 │ table1 │ table2 │ log │ metadata │ blocks' │ payload blocks …
//! │       │       │       │        │        │     │          │ table   │
//! ```

mod bat;
mod create;
mod discard;
mod header;
mod log;
mod metadata;
mod region;
mod space;
mod view;
mod write;

pub use create::{CreateOptions, create};
pub(crate) use discard::Parts;
pub use metadata::Parent;
pub(crate) use view::clear;

use positioned_io::ReadAt;

use self::bat::{Bat, Block};
use self::header::{HEADER_SIZE, HEADERS_AT, Header, IDENTIFIER_SIZE};
use self::metadata::Metadata;
use self::region::{Region, Regions};
use self::space::Space;
use self::view::View;
use self::write::Session;
use crate::number::{clamp, narrow, wide};
use crate::vhd::dynamic::beneath;
use crate::{Access, Error, Guid, RegionSummary, Result, Storage};

/// The largest VHDX, in virtual bytes: 64 TiB.
pub const MAX_SIZE: u64 = metadata::MAX_SIZE;

/// The state of a VHDX's log when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// There was nothing to replay.
    Clean,
    /// This many entries were replayed: into the file when it was opened for
    /// writing, else in memory.
    Replayed(usize),
}

/// A VHDX file, opened or being created.
#[derive(Debug)]
pub struct Vhdx<S> {
    view: View<S>,
    header: Header,
    /// Which of the two headers counts.
    slot: usize,
    metadata: Metadata,
    /// As the file has them; none while it is being created.
    regions: Option<Regions>,
    bat: Bat,
    /// Where blocks can go without making the file longer.
    space: Space,
    /// Payload blocks in the file.
    blocks: u64,
    creator: String,
    log_state: LogState,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    ReadOnly,
    /// Nothing but payload is in the file yet. Whether the disk grows with
    /// what is written to it.
    Creating {
        growing: bool,
    },
    Writing(Session),
}

/// Whether a file starts like a VHDX.
pub(crate) fn is_vhdx(storage: &(impl Storage + ?Sized)) -> Result<bool> {
    let mut start = [0; 8];
    match storage.read_exact_at(0, &mut start) {
        Ok(()) => Ok(start == *header::FILE_SIGNATURE),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io("cannot read", 0, error)),
    }
}

impl<S: Storage> Vhdx<S> {
    /// Opens a VHDX. For writing, a log that is not empty is replayed into the
    /// file; for reading, it is replayed in memory and the file is not changed.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::vhdx::{LogState, Vhdx};
    /// use opengcs_vhd::{Access, Disk, DiskOptions, Format, Guid};
    /// use positioned_io::WriteAt;
    /// let id = Guid::from_u128(1);
    /// let options = DiskOptions::new(Format::Vhdx, Some(1 << 30), id);
    /// let file = Disk::create(MemoryFile::new(), &options)?.finish()?;
    /// let mut disk = Disk::open(file.clone(), Access::ReadWrite { session: id })?;
    /// disk.write_all_at(0, b"x")?;
    /// disk.flush()?;
    /// drop(disk); // without `finish`, as a crash would
    /// let disk = Vhdx::open(file, Access::ReadOnly)?;
    /// assert_eq!(disk.log_state(), LogState::Replayed(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when the file breaks the format's
    /// rules or is cut short; [`Unsupported`](crate::ErrorKind::Unsupported)
    /// for regions, metadata or versions that it requires and that are not
    /// known, and for writing to a differencing disk; those of the storage.
    pub fn open(storage: S, access: Access) -> Result<Self> {
        let length = storage
            .length()
            .map_err(|error| Error::io("cannot find the length", 0, error))?;
        let mut view = View::new(storage, length);
        let mut identifier = [0; IDENTIFIER_SIZE];
        view.read(0, &mut identifier)?;
        if !identifier.starts_with(header::FILE_SIGNATURE) {
            return Err(Error::corrupt("not a VHDX file"));
        }
        let mut copies = [[0; HEADER_SIZE]; 2];
        for (copy, at) in copies.iter_mut().zip(HEADERS_AT) {
            view.read(at, copy)?;
        }
        let (mut header, mut slot) = Header::choose(&copies)?;
        let log = Region {
            offset: header.log_offset,
            length: header.log_length,
        };
        let mut log_state = LogState::Clean;
        if let Some(replay) = find_replay(&view, &header, log)? {
            log_state = LogState::Replayed(replay.entries);
            match access {
                Access::ReadOnly => {
                    view.end = view.end.max(replay.last_file_offset);
                    for change in replay.changes {
                        view.lay(change);
                    }
                }
                Access::ReadWrite { session } => {
                    write::replay(&mut view, replay)?;
                    let mut clean = header.clone();
                    clean.log_guid = Guid::NIL;
                    clean.file_write_guid = write::fresh(session, &header, write::FILE);
                    write::replace_header(&view, &mut header, &mut slot, clean)?;
                }
            }
        }
        let regions = read_regions(&view)?;
        let reserved = regions.reserved(log)?;
        let metadata = Metadata::parse(regions.metadata.length, |at, buf| {
            view.read(regions.metadata.offset.saturating_add(at), buf)
        })?;
        if metadata.bat_entries().saturating_mul(8) > u64::from(regions.bat.length) {
            return Err(Error::corrupt("the VHDX block table is too short").at(regions.bat.offset));
        }
        let mode = match access {
            Access::ReadOnly => Mode::ReadOnly,
            Access::ReadWrite { .. } if metadata.has_parent => {
                return Err(Error::unsupported(
                    "a differencing VHDX can only be opened for reading",
                ));
            }
            Access::ReadWrite { session } => Mode::Writing(Session::new(session)),
        };
        let bat = Bat::new(regions.bat.offset, &metadata);
        let writing = matches!(mode, Mode::Writing(_));
        let usage = bat.survey(&view, &reserved, writing)?;
        let mut space = Space::default();
        usage.free.into_iter().for_each(|range| space.add(range));
        Ok(Self {
            view,
            header,
            slot,
            metadata,
            regions: Some(regions),
            bat,
            space,
            blocks: usage.blocks,
            creator: header::parse_creator(&identifier),
            log_state,
            mode,
        })
    }

    /// The virtual size in bytes.
    pub fn size(&self) -> u64 {
        self.metadata.virtual_size
    }

    /// The bytes in a block.
    pub fn block_size(&self) -> u32 {
        self.metadata.block_size
    }

    /// The bytes in a logical sector: 512 or 4096.
    pub fn logical_sector_size(&self) -> u32 {
        self.metadata.logical_sector
    }

    /// The bytes in a physical sector: 512 or 4096.
    pub fn physical_sector_size(&self) -> u32 {
        self.metadata.physical_sector
    }

    /// The identifier of the disk (SCSI VPD page 83).
    pub fn disk_id(&self) -> Guid {
        self.metadata.disk_id
    }

    /// The identifier of the disk's content, by which a child knows its parent.
    pub fn data_write_guid(&self) -> Guid {
        self.header.data_write_guid
    }

    /// The tool that made the file, in its own words.
    pub fn creator(&self) -> &str {
        &self.creator
    }

    /// Whether blocks stay in the file also when nothing is in them.
    pub fn is_fixed(&self) -> bool {
        self.metadata.leave_allocated
    }

    /// The state of the log when the file was opened.
    pub fn log_state(&self) -> LogState {
        self.log_state
    }

    /// Whether this is a differencing disk.
    pub fn has_parent(&self) -> bool {
        self.metadata.has_parent
    }

    /// Where the parent is, if this is a differencing disk.
    pub fn parent(&self) -> Option<&Parent> {
        self.metadata.parent.as_ref()
    }

    /// Where what is no block lies in the file.
    pub(crate) fn regions(&self) -> Vec<RegionSummary> {
        let Some(regions) = &self.regions else {
            return Vec::new();
        };
        let log = Region {
            offset: self.header.log_offset,
            length: self.header.log_length,
        };
        let named = [
            ("log", log),
            ("metadata", regions.metadata),
            ("block table", regions.bat),
        ];
        let others = regions.others.iter().map(|region| ("unknown", *region));
        let mut all: Vec<_> = named
            .into_iter()
            .chain(others)
            .map(|(name, region)| RegionSummary {
                name,
                offset: region.offset,
                length: u64::from(region.length),
            })
            .collect();
        all.sort_by_key(|region| region.offset);
        all
    }

    /// How many bytes of blocks are in the file.
    pub fn allocated(&self) -> u64 {
        self.blocks.saturating_mul(self.metadata.block().get())
    }

    /// The storage beneath.
    pub fn storage(&self) -> &S {
        &self.view.storage
    }

    /// Reads all of `buf`, which lies within the disk; what is not in the file
    /// comes from `parent`, or is zero.
    pub(crate) fn read_exact(
        &self,
        parent: Option<&dyn ReadAt>,
        mut position: u64,
        mut buf: &mut [u8],
    ) -> Result<()> {
        let block_size = self.metadata.block();
        while !buf.is_empty() {
            let (block, within) = (position / block_size, position % block_size);
            let length = clamp(buf.len(), block_size.get().saturating_sub(within));
            let (piece, rest) = buf.split_at_mut(length);
            match self.bat.block(&self.view, block)? {
                Block::Present(offset) => self.view.read(offset.saturating_add(within), piece)?,
                Block::NotPresent => beneath(parent, position, piece)?,
                Block::Zero => piece.fill(0),
                Block::Partial(offset) => {
                    self.read_partial(parent, offset, block, within, piece)?;
                }
            }
            buf = rest;
            position = position.saturating_add(wide(length));
        }
        Ok(())
    }

    /// Reads from a block of which some sectors are the parent's; the sector
    /// bitmap has a bit set for each that is here, lowest bit first.
    fn read_partial(
        &self,
        parent: Option<&dyn ReadAt>,
        offset: u64,
        block: u64,
        within: u64,
        mut piece: &mut [u8],
    ) -> Result<()> {
        let sector_size = std::num::NonZeroU64::new(u64::from(self.metadata.logical_sector))
            .unwrap_or(std::num::NonZeroU64::MIN);
        let start = block.saturating_mul(self.metadata.block().get());
        let bitmap = self.bat.bitmap(&self.view, block)?;
        let first = within / sector_size / 8;
        let last = within.saturating_add(wide(piece.len())).saturating_sub(1) / sector_size / 8;
        let mut bits = vec![0; narrow(last.saturating_sub(first).saturating_add(1))?];
        self.view.read(bitmap.saturating_add(first), &mut bits)?;
        let here = |sector: u64| {
            let byte = usize::try_from((sector / 8).saturating_sub(first)).ok();
            let bit = 1_u8.rotate_left(u32::try_from(sector % 8).unwrap_or(0));
            byte.and_then(|byte| bits.get(byte))
                .is_some_and(|byte| byte & bit != 0)
        };
        let mut at = within;
        while !piece.is_empty() {
            let sector = at / sector_size;
            let end = at.saturating_add(wide(piece.len()));
            let mut next = sector.saturating_add(1).saturating_mul(sector_size.get());
            while next < end && here(next / sector_size) == here(sector) {
                next = next.saturating_add(sector_size.get());
            }
            let length = clamp(piece.len(), next.saturating_sub(at));
            let (head, tail) = piece.split_at_mut(length);
            if here(sector) {
                self.view.read(offset.saturating_add(at), head)?;
            } else {
                beneath(parent, start.saturating_add(at), head)?;
            }
            piece = tail;
            at = at.saturating_add(wide(length));
        }
        Ok(())
    }
}

fn find_replay<S: Storage>(
    view: &View<S>,
    header: &Header,
    region: Region,
) -> Result<Option<log::Replay>> {
    if header.log_guid.is_nil() {
        return Ok(None);
    }
    if region.length > log::MAX_LENGTH {
        return Err(Error::unsupported(format!(
            "a VHDX log of {} bytes is not supported",
            region.length
        )));
    }
    let mut bytes = vec![0; narrow(u64::from(region.length))?];
    view.read(region.offset, &mut bytes)?;
    let Some(replay) = log::find_active(&bytes, header.log_guid)? else {
        return Ok(None);
    };
    if replay.flushed_file_offset > view.end {
        return Err(Error::corrupt(format!(
            "the file is cut short: its log says it had {} bytes",
            replay.flushed_file_offset
        ))
        .at(view.end));
    }
    for change in &replay.changes {
        change.check(&region.range(), replay.last_file_offset)?;
    }
    Ok(Some(replay))
}

fn read_regions<S: Storage>(view: &View<S>) -> Result<Regions> {
    let [mut first, mut second] = [const { Vec::new() }; 2];
    for (copy, at) in [&mut first, &mut second].into_iter().zip(region::TABLES_AT) {
        copy.resize(region::TABLE_SIZE, 0);
        view.read(at, copy)?;
    }
    Regions::parse(&first, &second)
}
