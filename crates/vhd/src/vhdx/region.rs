//! The region table ([MS-VHDX] 2.2.3): where the block table and the metadata lie, and what no region may overlap.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::checksum;
use crate::number::{MIB, end_of};
use crate::{Error, Guid, Result};

/// Where the two copies of the table lie.
pub(crate) const TABLES_AT: [u64; 2] = [192 << 10, 256 << 10];
pub(crate) const TABLE_SIZE: usize = 64 << 10;
const CHECKSUM_AT: usize = 4;
const MAX_ENTRIES: u32 = 2047;

const BAT: Guid = Guid::from_u128(0x2dc27766_f623_4200_9d64_115e9bfd4a08);
const METADATA: Guid = Guid::from_u128(0x8b7ca206_4790_4b9a_b8fe_575f050f886e);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 4],
    checksum: U32,
    entry_count: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    guid: [u8; 16],
    file_offset: U64,
    length: U32,
    required: U32,
}

const _: () = assert!(size_of::<RawHeader>() == 16 && size_of::<RawEntry>() == 32);

/// A part of the file, in bytes; both are multiples of 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Region {
    pub(crate) fn range(self) -> Range<u64> {
        self.offset..self.offset.saturating_add(u64::from(self.length))
    }
}

/// The regions of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Regions {
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
    /// Regions that nothing is known of and that are not required.
    pub(crate) others: Vec<Region>,
}

impl Regions {
    /// The first valid copy of the table.
    pub(crate) fn parse(first: &[u8], second: &[u8]) -> Result<Self> {
        let valid = |bytes: &&[u8]| {
            RawHeader::ref_from_prefix(bytes).is_ok_and(|(raw, _)| {
                raw.signature == *b"regi" && raw.checksum.get() == checksum(bytes, CHECKSUM_AT)
            })
        };
        let bytes = [first, second]
            .into_iter()
            .find(valid)
            .ok_or_else(|| Error::corrupt("neither VHDX region table is valid"))?;
        let corrupt = |message| Error::corrupt(message).at(192 << 10);
        let (raw, rest) = RawHeader::ref_from_prefix(bytes)
            .map_err(|_| corrupt("the VHDX region table is cut short"))?;
        let count = raw.entry_count.get();
        if count > MAX_ENTRIES {
            return Err(corrupt("the VHDX region table has too many entries"));
        }
        let (mut bat, mut metadata, mut others) = (None, None, Vec::new());
        let (entries, _) =
            <[RawEntry]>::ref_from_bytes(rest.get(..rest.len() & !31).unwrap_or_default())
                .map_err(|_| corrupt("the VHDX region table is cut short"))?
                .split_at(usize::try_from(count).unwrap_or(0));
        for entry in entries {
            let guid = Guid::from_windows(entry.guid);
            let region = Region {
                offset: entry.file_offset.get(),
                length: entry.length.get(),
            };
            if region.offset < MIB
                || !region.offset.is_multiple_of(MIB)
                || region.length == 0
                || !u64::from(region.length).is_multiple_of(MIB)
            {
                return Err(corrupt("a VHDX region is misplaced"));
            }
            end_of(region.offset, u64::from(region.length))?;
            let place = match guid {
                BAT => &mut bat,
                METADATA => &mut metadata,
                _ if entry.required.get() & 1 != 0 => {
                    return Err(Error::unsupported(format!(
                        "the VHDX needs region {guid}, which is not supported"
                    )));
                }
                _ => {
                    others.push(region);
                    continue;
                }
            };
            if place.replace(region).is_some() {
                return Err(corrupt("a VHDX region is listed twice"));
            }
        }
        Ok(Self {
            bat: bat.ok_or_else(|| corrupt("the VHDX has no block table"))?,
            metadata: metadata.ok_or_else(|| corrupt("the VHDX has no metadata"))?,
            others,
        })
    }

    /// Both copies' bytes, cut behind the last entry; the rest is zero.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; TABLE_SIZE];
        let header = RawHeader {
            signature: *b"regi",
            checksum: 0.into(),
            entry_count: 2.into(),
            reserved: 0.into(),
        };
        let entries = [(BAT, self.bat), (METADATA, self.metadata)].map(|(guid, region)| RawEntry {
            guid: guid.to_windows(),
            file_offset: region.offset.into(),
            length: region.length.into(),
            required: 1.into(),
        });
        let all = header.as_bytes().iter().chain(entries.as_bytes());
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = *from;
        }
        let sum = checksum(&bytes, CHECKSUM_AT).to_le_bytes();
        if let Some(place) = bytes.get_mut(CHECKSUM_AT..CHECKSUM_AT + 4) {
            place.copy_from_slice(&sum);
        }
        bytes.truncate(4096);
        bytes
    }

    /// All parts of the file that hold no blocks, none overlapping another.
    pub(crate) fn reserved(&self, log: Region) -> Result<Vec<Range<u64>>> {
        let mut all = vec![0..MIB, log.range(), self.bat.range(), self.metadata.range()];
        all.extend(self.others.iter().map(|region| region.range()));
        all.sort_by_key(|range| range.start);
        for pair in all.windows(2) {
            if let [a, b] = pair
                && a.end > b.start
            {
                return Err(Error::corrupt("parts of the VHDX overlap").at(b.start));
            }
        }
        Ok(all)
    }
}
