//! The metadata region ([MS-VHDX] 2.6): block size, virtual size, sector sizes, identifier and parent.

use std::num::NonZeroU64;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::number::{MIB, end_of, narrow, wide};
use crate::{Error, Guid, Result};

pub(crate) const TABLE_SIZE: usize = 64 << 10;
const MAX_ENTRIES: u16 = 2047;
/// The most virtual bytes a VHDX may have: 64 TiB.
pub(crate) const MAX_SIZE: u64 = 64 << 40;
/// No item may be longer.
const MAX_ITEM: u32 = 1 << 20;

const FILE_PARAMETERS: Guid = Guid::from_u128(0xcaa16737_fa36_4d43_b3b6_33f0aa44e76b);
const VIRTUAL_DISK_SIZE: Guid = Guid::from_u128(0x2fa54224_cd1b_4876_b211_5dbed83bf4b8);
const VIRTUAL_DISK_ID: Guid = Guid::from_u128(0xbeca12ab_b2e6_4523_93ef_c309e000c746);
const LOGICAL_SECTOR: Guid = Guid::from_u128(0x8141bf1d_a96f_4709_ba47_f233a8faab5f);
const PHYSICAL_SECTOR: Guid = Guid::from_u128(0xcda348c7_445d_4471_9cc9_e9885251c556);
const PARENT_LOCATOR: Guid = Guid::from_u128(0xa8d35f2d_b30b_454d_abf7_d3d84834ab0c);
const VHDX_LOCATOR: Guid = Guid::from_u128(0xb04aefb7_d19e_4a81_b789_25b8e9445913);

const IS_USER: u32 = 1;
const IS_VIRTUAL_DISK: u32 = 2;
const IS_REQUIRED: u32 = 4;
const LEAVE_ALLOCATED: u32 = 1;
const HAS_PARENT: u32 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    reserved: U16,
    entry_count: U16,
    reserved2: [u8; 20],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    item_id: [u8; 16],
    offset: U32,
    length: U32,
    flags: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLocatorHeader {
    locator_type: [u8; 16],
    reserved: U16,
    key_value_count: U16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLocatorEntry {
    key_offset: U32,
    value_offset: U32,
    key_length: U16,
    value_length: U16,
}

const _: () = assert!(size_of::<RawHeader>() == 32 && size_of::<RawEntry>() == 32);
const _: () = assert!(size_of::<RawLocatorHeader>() == 20 && size_of::<RawLocatorEntry>() == 12);

/// Where a differencing VHDX says its parent is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// Keys and values in the order of the file; the usual keys are
    /// `parent_linkage`, `relative_path`, `volume_path`, `absolute_win32_path`.
    pub entries: Vec<(String, String)>,
}

impl Parent {
    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut entries = self.entries.iter();
        entries
            .find(|(name, _)| name == key)
            .map(|(_, v)| v.as_str())
    }

    /// The data-write GUIDs that the parent may have.
    #[must_use]
    pub fn linkages(&self) -> Vec<Guid> {
        ["parent_linkage", "parent_linkage2"]
            .into_iter()
            .filter_map(|key| self.value(key)?.parse().ok())
            .collect()
    }
}

/// What the metadata says of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) block_size: u32,
    /// Whether blocks stay in the file also when zeroed: a fixed disk.
    pub(crate) leave_allocated: bool,
    pub(crate) has_parent: bool,
    pub(crate) virtual_size: u64,
    pub(crate) disk_id: Guid,
    pub(crate) logical_sector: u32,
    pub(crate) physical_sector: u32,
    pub(crate) parent: Option<Parent>,
}

impl Metadata {
    /// The block size, for divisions.
    pub(crate) fn block(&self) -> NonZeroU64 {
        NonZeroU64::new(u64::from(self.block_size)).unwrap_or(NonZeroU64::MIN)
    }

    /// How many payload blocks one sector bitmap block stands for.
    pub(crate) fn chunk_ratio(&self) -> NonZeroU64 {
        let chunk = u64::from(self.logical_sector).saturating_mul(1 << 23);
        NonZeroU64::new(chunk / self.block()).unwrap_or(NonZeroU64::MIN)
    }

    /// How many entries the block table has.
    pub(crate) fn bat_entries(&self) -> u64 {
        let blocks = self.virtual_size.div_ceil(self.block().get());
        let ratio = self.chunk_ratio();
        if self.has_parent {
            let chunks = blocks.div_ceil(ratio.get());
            chunks.saturating_mul(ratio.get().saturating_add(1))
        } else {
            blocks.saturating_add(blocks.saturating_sub(1) / ratio)
        }
    }

    /// Refuses what the specification does not allow.
    pub(crate) fn check(&self) -> Result<(), String> {
        let block = u64::from(self.block_size);
        if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) {
            return Err(format!("a VHDX block of {block} bytes is not legal"));
        }
        for sector in [self.logical_sector, self.physical_sector] {
            if sector != 512 && sector != 4096 {
                return Err(format!("a VHDX sector of {sector} bytes is not legal"));
            }
        }
        if self.virtual_size > MAX_SIZE {
            return Err(format!(
                "a VHDX of {} bytes exceeds the limit of 64 TiB",
                self.virtual_size
            ));
        }
        if !self
            .virtual_size
            .is_multiple_of(u64::from(self.logical_sector))
        {
            return Err(format!(
                "a VHDX of {} bytes is no whole number of {}-byte sectors",
                self.virtual_size, self.logical_sector
            ));
        }
        Ok(())
    }

    /// Reads the table and the items; `read` gives bytes of the region, which
    /// is `region_length` bytes long.
    pub(crate) fn parse(
        region_length: u32,
        read: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let mut table = vec![0; TABLE_SIZE];
        read(0, &mut table)?;
        let corrupt = || Error::corrupt("the VHDX metadata table is not valid");
        let (raw, rest) = RawHeader::ref_from_prefix(&table).map_err(|_| corrupt())?;
        if raw.signature != *b"metadata" || raw.entry_count.get() > MAX_ENTRIES {
            return Err(corrupt());
        }
        let entries = <[RawEntry]>::ref_from_bytes(rest).map_err(|_| corrupt())?;
        let mut found = [const { None::<Vec<u8>> }; 6];
        let [parameters, size, id, logical, physical, locator] = &mut found;
        for entry in entries.iter().take(usize::from(raw.entry_count.get())) {
            let guid = Guid::from_windows(entry.item_id);
            // A user's item is another one, also under the same identifier.
            let system = entry.flags.get() & IS_USER == 0;
            let (place, exact) = match guid {
                _ if !system && entry.flags.get() & IS_REQUIRED == 0 => continue,
                _ if !system => {
                    return Err(Error::unsupported(format!(
                        "the VHDX needs the user's metadata {guid}, which is not supported"
                    )));
                }
                FILE_PARAMETERS => (&mut *parameters, Some(8)),
                VIRTUAL_DISK_SIZE => (&mut *size, Some(8)),
                VIRTUAL_DISK_ID => (&mut *id, Some(16)),
                LOGICAL_SECTOR => (&mut *logical, Some(4)),
                PHYSICAL_SECTOR => (&mut *physical, Some(4)),
                PARENT_LOCATOR => (&mut *locator, None),
                _ if entry.flags.get() & IS_REQUIRED != 0 => {
                    return Err(Error::unsupported(format!(
                        "the VHDX needs metadata {guid}, which is not supported"
                    )));
                }
                _ => continue,
            };
            let offset = u64::from(entry.offset.get());
            let length = entry.length.get();
            let end = end_of(offset, u64::from(length))?;
            if offset < wide(TABLE_SIZE)
                || end > u64::from(region_length)
                || length > MAX_ITEM
                || exact.is_some_and(|exact| length != exact)
            {
                return Err(Error::corrupt(format!("VHDX metadata {guid} is misplaced")));
            }
            let mut bytes = vec![0; narrow(u64::from(length))?];
            read(offset, &mut bytes)?;
            if place.replace(bytes).is_some() {
                return Err(Error::corrupt(format!(
                    "VHDX metadata {guid} is listed twice"
                )));
            }
        }
        let missing = |what: &str| Error::corrupt(format!("the VHDX metadata has no {what}"));
        let word = |item: &Option<Vec<u8>>, what| match item.as_deref() {
            Some(bytes) => bytes
                .first_chunk()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .ok_or_else(|| missing(what)),
            None => Err(missing(what)),
        };
        let block_size = word(parameters, "file parameters")?;
        let flags = parameters
            .as_deref()
            .and_then(|bytes| bytes.last_chunk())
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let has_parent = flags & HAS_PARENT != 0;
        let metadata = Self {
            block_size,
            leave_allocated: flags & LEAVE_ALLOCATED != 0,
            has_parent,
            virtual_size: size
                .as_deref()
                .and_then(|bytes| bytes.first_chunk())
                .map(|bytes| u64::from_le_bytes(*bytes))
                .ok_or_else(|| missing("disk size"))?,
            disk_id: id
                .as_deref()
                .and_then(|bytes| bytes.first_chunk())
                .map(|bytes| Guid::from_windows(*bytes))
                .ok_or_else(|| missing("disk identifier"))?,
            logical_sector: word(logical, "logical sector size")?,
            physical_sector: word(physical, "physical sector size")?,
            parent: match (has_parent, locator.as_deref()) {
                (true, Some(bytes)) => Some(parse_locator(bytes)?),
                (true, None) => return Err(missing("parent locator")),
                (false, _) => None,
            },
        };
        metadata.check().map_err(Error::corrupt)?;
        Ok(metadata)
    }

    /// The bytes of the table and of the items, each at its place in the region.
    pub(crate) fn encode(&self) -> [(u64, Vec<u8>); 2] {
        let flags = if self.leave_allocated {
            LEAVE_ALLOCATED
        } else {
            0
        };
        let items: [(Guid, u32, Vec<u8>); 5] = [
            (
                FILE_PARAMETERS,
                IS_REQUIRED,
                [self.block_size.to_le_bytes(), flags.to_le_bytes()].concat(),
            ),
            (
                VIRTUAL_DISK_SIZE,
                IS_REQUIRED | IS_VIRTUAL_DISK,
                self.virtual_size.to_le_bytes().to_vec(),
            ),
            (
                VIRTUAL_DISK_ID,
                IS_REQUIRED | IS_VIRTUAL_DISK,
                self.disk_id.to_windows().to_vec(),
            ),
            (
                LOGICAL_SECTOR,
                IS_REQUIRED | IS_VIRTUAL_DISK,
                self.logical_sector.to_le_bytes().to_vec(),
            ),
            (
                PHYSICAL_SECTOR,
                IS_REQUIRED | IS_VIRTUAL_DISK,
                self.physical_sector.to_le_bytes().to_vec(),
            ),
        ];
        let header = RawHeader {
            signature: *b"metadata",
            reserved: 0.into(),
            entry_count: 5.into(),
            reserved2: [0; 20],
        };
        let mut table = header.as_bytes().to_vec();
        let mut data = Vec::new();
        for (guid, flags, bytes) in items {
            let offset = wide(TABLE_SIZE).saturating_add(wide(data.len()));
            let entry = RawEntry {
                item_id: guid.to_windows(),
                offset: u32::try_from(offset).unwrap_or(u32::MAX).into(),
                length: u32::try_from(bytes.len()).unwrap_or(u32::MAX).into(),
                flags: flags.into(),
                reserved: 0.into(),
            };
            table.extend_from_slice(entry.as_bytes());
            data.extend_from_slice(&bytes);
        }
        [(0, table), (wide(TABLE_SIZE), data)]
    }
}

fn parse_locator(bytes: &[u8]) -> Result<Parent> {
    let corrupt = || Error::corrupt("the VHDX parent locator is not valid");
    let (raw, rest) = RawLocatorHeader::ref_from_prefix(bytes).map_err(|_| corrupt())?;
    let kind = Guid::from_windows(raw.locator_type);
    if kind != VHDX_LOCATOR {
        return Err(Error::unsupported(format!(
            "VHDX parent locators of type {kind} are not supported"
        )));
    }
    let text = |offset: U32, length: U16| {
        let start = usize::try_from(offset.get()).ok()?;
        let end = start.checked_add(usize::from(length.get()))?;
        let (units, _) = bytes.get(start..end)?.as_chunks::<2>();
        let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
        Some(crate::vhd::dynamic::utf16(units))
    };
    let mut parent = Parent::default();
    let mut rest = rest;
    let mut total = 0_usize;
    for _ in 0..raw.key_value_count.get() {
        let (entry, tail) = RawLocatorEntry::ref_from_prefix(rest).map_err(|_| corrupt())?;
        let key = text(entry.key_offset, entry.key_length).ok_or_else(corrupt)?;
        let value = text(entry.value_offset, entry.value_length).ok_or_else(corrupt)?;
        // Honest entries do not share bytes, so all text fits in the item.
        total = total
            .saturating_add(usize::from(entry.key_length.get()))
            .saturating_add(usize::from(entry.value_length.get()));
        if total > bytes.len() {
            return Err(corrupt());
        }
        parent.entries.push((key, value));
        rest = tail;
    }
    Ok(parent)
}
