//! The tags of a descriptor block: which blocks of the volume the copies behind it are of.

use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

use super::superblock::{Checksums, LogGeometry};
use crate::format::journal::{
    HEADER_SIZE, TAG_ESCAPE, TAG_LAST, TAG_SAME_UUID, TAG_UUID_SIZE, TAIL_SIZE, Tag as RawTag, Tag3,
};

/// One copy's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Block of the volume.
    pub(crate) block: u64,
    pub(crate) escaped: bool,
    /// As stored: 32 bits with checksums v3, 16 with v2.
    pub(crate) checksum: u32,
}

/// Bytes of a tag (`journal_tag_bytes`).
fn tag_size(geometry: &LogGeometry) -> usize {
    if geometry.checksums == Checksums::V3 {
        return size_of::<Tag3>();
    }
    let mut size = size_of::<RawTag>();
    if geometry.has_64_bits {
        size = size.saturating_add(4);
    }
    if geometry.checksums == Checksums::V2 {
        size = size.saturating_add(2);
    }
    size
}

/// The tags of a descriptor block, in the order of the copies.
pub(crate) fn tags<'a>(bytes: &'a [u8], geometry: &LogGeometry) -> impl Iterator<Item = Tag> + 'a {
    let size = tag_size(geometry);
    let (has_64_bits, v3) = (geometry.has_64_bits, geometry.checksums == Checksums::V3);
    let tail = if geometry.has_block_checksums() {
        TAIL_SIZE
    } else {
        0
    };
    let end = bytes.len().saturating_sub(tail);
    let mut rest = bytes.get(HEADER_SIZE..end).unwrap_or_default();
    std::iter::from_fn(move || {
        let (raw, behind) = rest.split_at_checked(size)?;
        let (tag, flags) = parse(raw, has_64_bits, v3)?;
        let skip = if flags & TAG_SAME_UUID == 0 {
            TAG_UUID_SIZE
        } else {
            0
        };
        rest = if flags & TAG_LAST == 0 {
            behind.get(skip..).unwrap_or_default()
        } else {
            &[]
        };
        Some(tag)
    })
}

fn parse(raw: &[u8], has_64_bits: bool, v3: bool) -> Option<(Tag, u16)> {
    let (low, rest) = RawTag::read_from_prefix(raw).ok()?;
    let (high, checksum) = if v3 {
        let (tag, _) = Tag3::read_from_prefix(raw).ok()?;
        (tag.t_blocknr_high.get(), tag.t_checksum.get())
    } else if has_64_bits {
        let (high, _) = U32::read_from_prefix(rest).ok()?;
        (high.get(), u32::from(low.t_checksum.get()))
    } else {
        (0, u32::from(low.t_checksum.get()))
    };
    let high = if has_64_bits { high } else { 0 };
    // In both forms the low half of the flags is at the same place.
    let flags = low.t_flags.get();
    let tag = Tag {
        block: u64::from(low.t_blocknr.get()) | (u64::from(high) << 32),
        escaped: flags & TAG_ESCAPE != 0,
        checksum,
    };
    Some((tag, flags))
}
