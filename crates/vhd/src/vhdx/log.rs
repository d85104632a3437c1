//! The log ([MS-VHDX] 2.3): which entries are active, what they change, and how one is written.

use std::borrow::Cow;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::checksum;
use crate::number::wide;
use crate::{Error, Guid, Result};

/// The unit of the log and of what it changes, in bytes.
pub(crate) const SECTOR: usize = 4096;
/// A longer log is refused; Windows and QEMU write 1 MiB.
pub(crate) const MAX_LENGTH: u32 = 64 << 20;
/// The longest run of zeros in one descriptor: no structure that is changed
/// through the log is longer than a region, and a region's length is 32 bits.
const MAX_ZEROS: u64 = 1 << 32;
/// No file that holds 64 TiB ends past this.
const MAX_FILE: u64 = 1 << 47;
/// How many times the log's own length may be spent on checksums of entries
/// that turn out not to be valid.
const PATIENCE: usize = 8;

const HEADER_SIZE: usize = 64;
const DESCRIPTOR_SIZE: usize = 32;
const CHECKSUM_AT: usize = 4;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 4],
    checksum: U32,
    entry_length: U32,
    tail: U32,
    sequence_number: U64,
    descriptor_count: U32,
    reserved: U32,
    log_guid: [u8; 16],
    flushed_file_offset: U64,
    last_file_offset: U64,
}

/// A zero descriptor, or a data descriptor (whose first two fields after the
/// signature hold the sector's last 4 and first 8 bytes).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    signature: [u8; 4],
    trailing_bytes: [u8; 4],
    leading_bytes: [u8; 8],
    file_offset: U64,
    sequence_number: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSector {
    signature: [u8; 4],
    sequence_high: U32,
    data: [u8; 4084],
    sequence_low: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_SIZE);
const _: () = assert!(size_of::<RawDescriptor>() == DESCRIPTOR_SIZE);
const _: () = assert!(size_of::<RawSector>() == SECTOR);

/// One change that the log makes to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These bytes are zero.
    Zeros { offset: u64, length: u64 },
    /// These 4096 bytes are at `offset`.
    Data { offset: u64, bytes: Box<[u8]> },
}

/// What an active log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replay {
    /// The changes in the order they are made.
    pub(crate) changes: Vec<Change>,
    /// The file has been at least this long.
    pub(crate) flushed_file_offset: u64,
    /// The file is at least this long afterwards.
    pub(crate) last_file_offset: u64,
    /// How many entries are active.
    pub(crate) entries: usize,
}

struct Entry {
    position: usize,
    length: usize,
    tail: usize,
    sequence_number: u64,
    flushed: u64,
    last: u64,
    changes: Vec<Change>,
}

/// Finds the active sequence in the bytes of a log; none when the log is empty. Entries that do not lead
/// back to where the newest says that they begin have lost what came before them.
pub(crate) fn find_active(log: &[u8], guid: Guid) -> Result<Option<Replay>> {
    let mut best: Option<Vec<Entry>> = None;
    let mut parted = false;
    let mut start = 0;
    let mut patience = log.len().saturating_mul(PATIENCE);
    while start < log.len() {
        let mut sequence: Vec<Entry> = Vec::new();
        let mut at = start;
        let mut used = 0_usize;
        while used < log.len() {
            let Some(entry) = parse_entry(log, at, guid, &mut patience)? else {
                break;
            };
            let follows = sequence.last().is_none_or(|before| {
                before.sequence_number.checked_add(1) == Some(entry.sequence_number)
            });
            used = used.saturating_add(entry.length);
            if !follows || used > log.len() {
                break;
            }
            at = wrap(at.saturating_add(entry.length), log.len());
            sequence.push(entry);
        }
        let length: usize = sequence.iter().map(|entry| entry.length).sum();
        start = start.saturating_add(length.max(SECTOR));
        // The newest entry says where the oldest that still counts begins.
        let Some(head) = sequence.last() else {
            continue;
        };
        let (tail, number) = (head.tail, head.sequence_number);
        let Some(oldest) = sequence.iter().position(|entry| entry.position == tail) else {
            parted = true;
            continue;
        };
        let newer = best
            .as_ref()
            .and_then(|best| best.last())
            .is_none_or(|best| number > best.sequence_number);
        if newer {
            sequence.drain(..oldest);
            best = Some(sequence);
        }
    }
    let Some(sequence) = best else {
        return match parted {
            true => Err(Error::corrupt(
                "the VHDX log is damaged: what its entries build on is missing",
            )),
            false => Ok(None),
        };
    };
    let mut replay = Replay {
        entries: sequence.len(),
        ..Replay::default()
    };
    for entry in sequence {
        replay.flushed_file_offset = entry.flushed;
        replay.last_file_offset = replay.last_file_offset.max(entry.last);
        replay.changes.extend(entry.changes);
    }
    if replay.last_file_offset > MAX_FILE || replay.flushed_file_offset > replay.last_file_offset {
        return Err(Error::corrupt("the VHDX log gives impossible file lengths"));
    }
    Ok(Some(replay))
}

fn wrap(position: usize, length: usize) -> usize {
    position.checked_sub(length).unwrap_or(position)
}

/// `length` bytes from `position`, around the end of the log.
fn circular(log: &[u8], position: usize, length: usize) -> Option<Cow<'_, [u8]>> {
    let end = position.checked_add(length)?;
    if let Some(bytes) = log.get(position..end) {
        return Some(Cow::Borrowed(bytes));
    }
    let first = log.get(position..)?;
    let second = log.get(..length.checked_sub(first.len())?)?;
    Some(Cow::Owned([first, second].concat()))
}

/// The entry at `position`; none when there is no valid one.
fn parse_entry(
    log: &[u8],
    position: usize,
    guid: Guid,
    patience: &mut usize,
) -> Result<Option<Entry>> {
    let header = log
        .get(position..)
        .and_then(|bytes| RawHeader::ref_from_prefix(bytes).ok());
    let Some((raw, _)) = header else {
        return Ok(None);
    };
    let length = usize::try_from(raw.entry_length.get()).unwrap_or(usize::MAX);
    let tail = usize::try_from(raw.tail.get()).unwrap_or(usize::MAX);
    if raw.signature != *b"loge"
        || Guid::from_windows(raw.log_guid) != guid
        || raw.sequence_number.get() == 0
        || length == 0
        || length > log.len()
        || !length.is_multiple_of(SECTOR)
        || tail >= log.len()
        || !tail.is_multiple_of(SECTOR)
    {
        return Ok(None);
    }
    *patience = patience
        .checked_sub(length)
        .ok_or_else(|| Error::corrupt("the VHDX log is full of broken entries"))?;
    let Some(bytes) = circular(log, position, length) else {
        return Ok(None);
    };
    if raw.checksum.get() != checksum(&bytes, CHECKSUM_AT) {
        return Ok(None);
    }
    *patience = patience.saturating_add(length);
    Ok(parse_changes(raw, &bytes).map(|changes| Entry {
        position,
        length,
        tail,
        sequence_number: raw.sequence_number.get(),
        flushed: raw.flushed_file_offset.get(),
        last: raw.last_file_offset.get(),
        changes,
    }))
}

/// The changes of an entry whose checksum is right; none when its parts do not
/// belong together.
fn parse_changes(raw: &RawHeader, bytes: &[u8]) -> Option<Vec<Change>> {
    let sequence_number = raw.sequence_number.get();
    let count = usize::try_from(raw.descriptor_count.get()).ok()?;
    let described = count
        .checked_mul(DESCRIPTOR_SIZE)?
        .checked_add(HEADER_SIZE)?;
    let descriptors = bytes.get(HEADER_SIZE..described)?;
    let descriptors = <[RawDescriptor]>::ref_from_bytes(descriptors).ok()?;
    let sectors = bytes.get(described.checked_next_multiple_of(SECTOR)?..)?;
    let mut sectors = <[RawSector]>::ref_from_bytes(sectors).ok()?.iter();
    let mut changes = Vec::with_capacity(count);
    for descriptor in descriptors {
        let offset = descriptor.file_offset.get();
        if descriptor.sequence_number.get() != sequence_number
            || !offset.is_multiple_of(wide(SECTOR))
        {
            return None;
        }
        match &descriptor.signature {
            b"zero" => changes.push(Change::Zeros {
                offset,
                length: u64::from_le_bytes(descriptor.leading_bytes),
            }),
            b"desc" => {
                let sector = sectors.next()?;
                let number = (u64::from(sector.sequence_high.get()) << 32)
                    | u64::from(sector.sequence_low.get());
                if sector.signature != *b"data" || number != sequence_number {
                    return None;
                }
                let parts: [&[u8]; 3] = [
                    &descriptor.leading_bytes,
                    &sector.data,
                    &descriptor.trailing_bytes,
                ];
                changes.push(Change::Data {
                    offset,
                    bytes: parts.concat().into(),
                });
            }
            _ => return None,
        }
    }
    sectors.next().is_none().then_some(changes)
}

impl Change {
    /// The bytes it changes, as start and length.
    pub(crate) fn place(&self) -> (u64, u64) {
        match self {
            Self::Zeros { offset, length } => (*offset, *length),
            Self::Data { offset, bytes } => (*offset, wide(bytes.len())),
        }
    }

    /// Refuses a change that no writer makes: to the identifier, the headers
    /// or the log itself, past the end of the file, or of odd length.
    pub(crate) fn check(&self, log: &std::ops::Range<u64>, last: u64) -> Result<()> {
        let (offset, length) = self.place();
        let end = offset.checked_add(length);
        let sound = end.is_some_and(|end| {
            end <= last
                && offset >= 192 << 10
                && (end <= log.start || offset >= log.end)
                && length.is_multiple_of(wide(SECTOR))
                && length <= MAX_ZEROS
        });
        if sound {
            Ok(())
        } else {
            Err(Error::corrupt("the VHDX log changes what it must not").at(offset))
        }
    }
}

/// What an entry to be written says beside its changes.
pub(crate) struct NewEntry {
    pub(crate) guid: Guid,
    pub(crate) sequence_number: u64,
    /// Where in the log it goes; it is its own tail.
    pub(crate) position: u32,
    /// How long the file is, all of it durable.
    pub(crate) file_length: u64,
}

/// The bytes of an entry that sets each page, 4096 bytes at a file offset.
pub(crate) fn encode_entry(entry: &NewEntry, pages: &[(u64, [u8; SECTOR])]) -> Vec<u8> {
    let described = HEADER_SIZE.saturating_add(pages.len().saturating_mul(DESCRIPTOR_SIZE));
    let described = described.next_multiple_of(SECTOR);
    let length = described.saturating_add(pages.len().saturating_mul(SECTOR));
    let count = |n: usize| U32::new(u32::try_from(n).unwrap_or(u32::MAX));
    let header = RawHeader {
        signature: *b"loge",
        checksum: 0.into(),
        entry_length: count(length),
        tail: entry.position.into(),
        sequence_number: entry.sequence_number.into(),
        descriptor_count: count(pages.len()),
        reserved: 0.into(),
        log_guid: entry.guid.to_windows(),
        flushed_file_offset: entry.file_length.into(),
        last_file_offset: entry.file_length.into(),
    };
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(header.as_bytes());
    let mut sectors = Vec::with_capacity(pages.len().saturating_mul(SECTOR));
    let [high, low] = [
        entry.sequence_number >> 32,
        entry.sequence_number & 0xffff_ffff,
    ]
    .map(|half| U32::new(u32::try_from(half).unwrap_or(0)));
    for (offset, page) in pages {
        let page: &[u8] = page;
        let (leading, rest) = page.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let (middle, trailing) = rest.split_last_chunk().unwrap_or((&[], &[0; 4]));
        let descriptor = RawDescriptor {
            signature: *b"desc",
            trailing_bytes: *trailing,
            leading_bytes: *leading,
            file_offset: (*offset).into(),
            sequence_number: entry.sequence_number.into(),
        };
        bytes.extend_from_slice(descriptor.as_bytes());
        sectors.extend_from_slice(b"data");
        sectors.extend_from_slice(high.as_bytes());
        sectors.extend_from_slice(middle);
        sectors.extend_from_slice(low.as_bytes());
    }
    bytes.resize(described, 0);
    bytes.extend_from_slice(&sectors);
    let sum = checksum(&bytes, CHECKSUM_AT).to_le_bytes();
    if let Some(place) = bytes.get_mut(CHECKSUM_AT..CHECKSUM_AT + 4) {
        place.copy_from_slice(&sum);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: Guid = Guid::from_u128(77);

    fn entry(sequence_number: u64, position: u32, fill: u8) -> Vec<u8> {
        encode_entry(
            &NewEntry {
                guid: GUID,
                sequence_number,
                position,
                file_length: 8 << 20,
            },
            &[
                (3 << 20, [fill; SECTOR]),
                ((3 << 20) + 4096, [!fill; SECTOR]),
            ],
        )
    }

    fn log(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut log = vec![0; 1 << 20];
        for (at, bytes) in parts {
            for (index, byte) in bytes.iter().enumerate() {
                log[(at + index) % (1 << 20)] = *byte;
            }
        }
        log
    }

    #[test]
    fn newest_whole_entry_is_active() {
        let (old, new) = (entry(5, 0, 1), entry(6, 1 << 19, 2));
        let both = log(&[(0, &old), (1 << 19, &new)]);
        let replay = find_active(&both, GUID).unwrap().unwrap();
        assert_eq!(replay.changes.len(), 2);
        assert!(
            matches!(&replay.changes[0], Change::Data { offset: 0x30_0000, bytes } if bytes[..] == [2; SECTOR])
        );
        for length in 0..new.len() {
            if length % 512 == 0 || length < 200 {
                let torn = log(&[(0, &old), (1 << 19, &new[..length])]);
                let replay = find_active(&torn, GUID).unwrap().unwrap();
                assert!(
                    matches!(&replay.changes[0], Change::Data { bytes, .. } if bytes[..] == [1; SECTOR])
                );
            }
        }
    }

    #[test]
    fn entries_whose_beginning_is_broken_are_no_empty_log() {
        let (first, second) = (entry(5, 0, 1), entry(6, 0, 2));
        let mut parts = log(&[(0, &first), (first.len(), &second)]);
        assert!(find_active(&parts, GUID).unwrap().is_some());
        parts[100] ^= 1;
        assert!(find_active(&parts, GUID).is_err());
        // An entry that is broken alone was never whole.
        let mut alone = log(&[(0, &first)]);
        alone[100] ^= 1;
        assert!(find_active(&alone, GUID).unwrap().is_none());
    }

    #[test]
    fn entry_around_the_end_is_read() {
        let position = (1 << 20) - 4096;
        let wrapped = log(&[(position, &entry(5, (1 << 20) - 4096, 3))]);
        assert!(find_active(&wrapped, GUID).unwrap().is_some());
    }

    #[test]
    fn other_guid_is_an_empty_log() {
        let one = log(&[(0, &entry(5, 0, 1))]);
        assert!(find_active(&one, Guid::from_u128(78)).unwrap().is_none());
    }

    #[test]
    fn log_of_broken_entries_is_refused_in_time() {
        let mut broken = vec![0; 1 << 20];
        let good = entry(5, 0, 1);
        for at in (0..1 << 20).step_by(SECTOR) {
            broken[at..at + 64].copy_from_slice(&good[..64]);
            broken[at + 8..at + 12].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        }
        assert!(find_active(&broken, GUID).is_err());
    }
}
