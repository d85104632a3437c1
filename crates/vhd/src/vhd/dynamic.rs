//! Reading of dynamic and differencing VHDs ("Dynamic Disk Header Format"): where a sector's bytes are.

use std::num::NonZeroU64;

use positioned_io::ReadAt;
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DiskType, FOOTER_SIZE, Footer, SECTOR_SIZE, checksum};
use crate::number::{clamp, end_of, narrow, wide};
use crate::{Error, Guid, Result, Storage};

const HEADER_SIZE: usize = 1024;
const CHECKSUM_AT: usize = 36;
const NOT_PRESENT: u32 = u32::MAX;
const SECTOR: NonZeroU64 = NonZeroU64::new(SECTOR_SIZE).expect("512 is not zero");

/// The header as it lies in the file; all numbers are big-endian.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    cookie: [u8; 8],
    data_offset: U64,
    table_offset: U64,
    header_version: U32,
    max_table_entries: U32,
    block_size: U32,
    checksum: U32,
    parent_unique_id: [u8; 16],
    parent_time_stamp: U32,
    reserved: U32,
    parent_unicode_name: [u8; 512],
    parent_locators: [RawLocator; 8],
    reserved2: [u8; 256],
}

const _: () = assert!(size_of::<Raw>() == HEADER_SIZE);

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLocator {
    platform_code: [u8; 4],
    platform_data_space: U32,
    platform_data_length: U32,
    reserved: U32,
    platform_data_offset: U64,
}

/// Where a differencing VHD says its parent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentName {
    /// The parent's identifier.
    pub unique_id: Guid,
    /// The parent's modification time, in seconds since 2000-01-01.
    pub time_stamp: u32,
    /// The parent's file name.
    pub name: String,
    /// Where to look for it, one for each platform.
    pub locators: Vec<ParentLocator>,
}

/// One place where the parent may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentLocator {
    /// Which form the path has: `W2ru` (relative) and `W2ku` (absolute) are
    /// UTF-16, `MacX` is a URL.
    pub platform: [u8; 4],
    /// The path.
    pub path: String,
}

/// A dynamic or differencing VHD, opened for reading.
#[derive(Debug)]
pub struct DynamicVhd<S> {
    storage: S,
    footer: Footer,
    table_offset: u64,
    block_size: NonZeroU64,
    bitmap_size: u64,
    parent: Option<ParentName>,
}

impl<S: Storage> DynamicVhd<S> {
    /// Reads the headers. `data_end` is where the footer begins.
    pub(crate) fn open(storage: S, footer: Footer, data_end: u64) -> Result<Self> {
        let at = footer
            .data_offset
            .ok_or_else(|| Error::corrupt("a dynamic VHD has no dynamic header"))?;
        let mut bytes = [0; HEADER_SIZE];
        if end_of(at, wide(HEADER_SIZE))? > data_end {
            return Err(Error::corrupt("the dynamic header lies past the end of the file").at(at));
        }
        storage
            .read_exact_at(at, &mut bytes)
            .map_err(|error| Error::io("cannot read the dynamic header", at, error))?;
        let raw: Raw = zerocopy::transmute!(bytes);
        if raw.cookie != *b"cxsparse" {
            return Err(Error::corrupt("the dynamic header has no cookie").at(at));
        }
        if raw.checksum.get() != checksum(&bytes, CHECKSUM_AT) {
            return Err(Error::corrupt("the dynamic header's checksum is wrong").at(at));
        }
        if raw.header_version.get() >> 16 != 1 {
            return Err(Error::unsupported("this dynamic VHD version is not supported").at(at));
        }
        let block_size = Some(raw.block_size.get())
            .filter(|size| size.is_power_of_two() && *size >= 512)
            .and_then(|size| NonZeroU64::new(u64::from(size)))
            .ok_or_else(|| Error::corrupt("the block size is not legal").at(at))?;
        let entries = u64::from(raw.max_table_entries.get());
        if footer.size.div_ceil(block_size.get()) > entries {
            return Err(Error::corrupt("the block table is too short for the size").at(at));
        }
        let table_offset = raw.table_offset.get();
        let used = footer.size.div_ceil(block_size.get()).saturating_mul(4);
        if end_of(table_offset, used)? > data_end {
            return Err(
                Error::corrupt("the block table lies past the end of the file").at(table_offset),
            );
        }
        let sectors = block_size.get() / SECTOR_SIZE;
        let bitmap_size = sectors.div_ceil(8).next_multiple_of(SECTOR_SIZE);
        let parent = match footer.disk_type {
            DiskType::Differencing => Some(read_parent(&storage, &raw, data_end)?),
            _ => None,
        };
        Ok(Self {
            storage,
            footer,
            table_offset,
            block_size,
            bitmap_size,
            parent,
        })
    }

    /// The footer.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The bytes in a block.
    pub fn block_size(&self) -> u64 {
        self.block_size.get()
    }

    /// What it says about its parent, if it is a differencing disk.
    pub fn parent(&self) -> Option<&ParentName> {
        self.parent.as_ref()
    }

    /// The storage beneath.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// How many bytes of blocks are in the file.
    pub(crate) fn allocated(&self) -> Result<u64> {
        let blocks = self.footer.size.div_ceil(self.block_size.get());
        let mut present = 0_u64;
        let mut buffer = vec![0; 64 << 10];
        let mut at = self.table_offset;
        let mut left = blocks.saturating_mul(4);
        while left > 0 {
            let length = clamp(buffer.len(), left);
            let Some(chunk) = buffer.get_mut(..length) else {
                break;
            };
            self.read(at, chunk)?;
            let (entries, _) = chunk.as_chunks::<4>();
            let found = entries
                .iter()
                .filter(|entry| u32::from_be_bytes(**entry) != NOT_PRESENT);
            present = present.saturating_add(wide(found.count()));
            at = at.saturating_add(wide(length));
            left = left.saturating_sub(wide(length));
        }
        Ok(present.saturating_mul(self.block_size.get()))
    }

    /// Reads all of `buf`, which lies within the disk; sectors that are not in
    /// the file come from `parent`, or are zero.
    pub(crate) fn read_exact(
        &self,
        parent: Option<&dyn ReadAt>,
        mut position: u64,
        mut buf: &mut [u8],
    ) -> Result<()> {
        while !buf.is_empty() {
            let within = position % self.block_size;
            let length = clamp(buf.len(), self.block_size.get().saturating_sub(within));
            let (piece, rest) = buf.split_at_mut(length);
            self.read_in_block(parent, position, piece)?;
            buf = rest;
            position = position.saturating_add(wide(length));
        }
        Ok(())
    }

    fn read_in_block(
        &self,
        parent: Option<&dyn ReadAt>,
        position: u64,
        piece: &mut [u8],
    ) -> Result<()> {
        let block = position / self.block_size;
        let within = position % self.block_size;
        let mut entry = [0; 4];
        self.read(
            self.table_offset.saturating_add(block.saturating_mul(4)),
            &mut entry,
        )?;
        let entry = u32::from_be_bytes(entry);
        if entry == NOT_PRESENT {
            return beneath(parent, position, piece);
        }
        let bitmap = u64::from(entry).saturating_mul(SECTOR_SIZE);
        let data = bitmap.saturating_add(self.bitmap_size);
        let Some(parent) = parent else {
            return self.read(data.saturating_add(within), piece);
        };
        // In a differencing disk, a set bit says the sector is here.
        let first = within / SECTOR;
        let last = end_of(within, wide(piece.len()))?.saturating_sub(1) / SECTOR;
        let from = first / 8;
        let mut bits = vec![0; narrow((last / 8).saturating_sub(from).saturating_add(1))?];
        self.read(bitmap.saturating_add(from), &mut bits)?;
        let here = |sector: u64| {
            let byte = usize::try_from((sector / 8).saturating_sub(from)).ok();
            let mask = 0x80_u8.rotate_right(u32::try_from(sector % 8).unwrap_or(0));
            byte.and_then(|byte| bits.get(byte))
                .is_some_and(|byte| byte & mask != 0)
        };
        let mut rest = piece;
        let mut at = within;
        while !rest.is_empty() {
            let first = at / SECTOR;
            let mut next = first.saturating_add(1);
            while next <= last && here(next) == here(first) {
                next = next.saturating_add(1);
            }
            let length = clamp(
                rest.len(),
                next.saturating_mul(SECTOR_SIZE).saturating_sub(at),
            );
            let (head, tail) = rest.split_at_mut(length);
            let here = here(first);
            if here {
                self.read(data.saturating_add(at), head)?;
            } else {
                let position = position.saturating_add(at.saturating_sub(within));
                beneath(Some(parent), position, head)?;
            }
            rest = tail;
            at = at.saturating_add(wide(length));
        }
        Ok(())
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.storage.read_exact_at(at, buf).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::corrupt("a block lies past the end of the file").at(at)
            } else {
                Error::io("cannot read", at, error)
            }
        })
    }
}

/// Reads from the parent; what lies past its end, and all without one, is zero.
pub(crate) fn beneath(parent: Option<&dyn ReadAt>, position: u64, buf: &mut [u8]) -> Result<()> {
    let mut done = 0_usize;
    if let Some(parent) = parent {
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match parent.read_at(position.saturating_add(wide(done)), rest) {
                Ok(0) => break,
                Ok(read) => done = done.saturating_add(read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("cannot read the parent", position, error)),
            }
        }
    }
    if let Some(rest) = buf.get_mut(done..) {
        rest.fill(0);
    }
    Ok(())
}

fn read_parent(storage: &impl Storage, raw: &Raw, data_end: u64) -> Result<ParentName> {
    let mut locators = Vec::new();
    for locator in &raw.parent_locators {
        if locator.platform_code == [0; 4] {
            continue;
        }
        let length = locator.platform_data_length.get();
        let at = locator.platform_data_offset.get();
        if length > 64 << 10 || end_of(at, u64::from(length))? > data_end {
            return Err(Error::corrupt("a parent locator is out of bounds").at(at));
        }
        let mut bytes = vec![0; narrow(u64::from(length))?];
        storage
            .read_exact_at(at, &mut bytes)
            .map_err(|error| Error::io("cannot read a parent locator", at, error))?;
        let (units, _) = bytes.as_chunks::<2>();
        let path = match &locator.platform_code {
            b"W2ru" | b"W2ku" => utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))),
            _ => String::from_utf8_lossy(&bytes).into_owned(),
        };
        locators.push(ParentLocator {
            platform: locator.platform_code,
            path,
        });
    }
    let (units, _) = raw.parent_unicode_name.as_chunks::<2>();
    Ok(ParentName {
        unique_id: Guid::from_bytes(raw.parent_unique_id),
        time_stamp: raw.parent_time_stamp.get(),
        name: utf16(units.iter().map(|unit| u16::from_be_bytes(*unit))),
        locators,
    })
}

/// Text up to the first zero, with odd units replaced.
pub(crate) fn utf16(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// The copy of the footer that starts a dynamic VHD, when it is whole.
pub(crate) fn leading_footer(storage: &(impl Storage + ?Sized)) -> Option<Footer> {
    let mut bytes = [0; FOOTER_SIZE];
    storage.read_exact_at(0, &mut bytes).ok()?;
    Footer::parse(&bytes)
        .ok()
        .filter(|footer| footer.disk_type != DiskType::Fixed)
}
