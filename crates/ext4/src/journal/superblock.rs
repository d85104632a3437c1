//! Whether a journal's superblock can be believed, and how its log is laid out.

use std::ops::Range;

use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::journal::{
    CHECKSUM_CRC32C, COMPAT_CHECKSUM, DEFAULT_FAST_COMMIT_BLOCKS, INCOMPAT_64BIT,
    INCOMPAT_ASYNC_COMMIT, INCOMPAT_CSUM_V2, INCOMPAT_CSUM_V3, INCOMPAT_FAST_COMMIT,
    INCOMPAT_KNOWN, JournalSuperblock, MAGIC, MIN_BLOCKS, SUPERBLOCK_SIZE, SUPERBLOCK_V1,
    SUPERBLOCK_V2,
};

/// Which checksums a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksums {
    None,
    /// A crc32 of the transaction in its commit block.
    V1,
    /// crc32c of every block, 16 bits of it in tags.
    V2,
    /// crc32c of every block.
    V3,
}

/// A validated superblock.
#[derive(Clone, Debug)]
pub(crate) struct LogGeometry {
    /// Bytes of a block.
    pub(crate) block_size: usize,
    /// First block of the circle.
    pub(crate) first: u32,
    /// Behind the last block of the circle.
    pub(crate) last: u32,
    /// Where the first transaction begins, 0 for an empty log.
    pub(crate) start: u32,
    /// The first transaction's number.
    pub(crate) first_sequence: u32,
    pub(crate) has_64_bits: bool,
    pub(crate) has_async_commit: bool,
    pub(crate) checksums: Checksums,
    pub(crate) seed: Checksum,
    /// Blocks behind the circle that may hold fast commits.
    pub(crate) fast_commits: Option<Range<u32>>,
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt(format!("journal superblock: {}", what.into()))
}

impl LogGeometry {
    /// Parses the first block of a log that has `length` blocks of the volume's `block_size`.
    pub(crate) fn parse(bytes: &[u8], block_size: u32, length: u64) -> Result<Self> {
        let (raw, _) =
            JournalSuperblock::read_from_prefix(bytes).map_err(|_| corrupt("is cut off"))?;
        if raw.s_header.h_magic.get() != MAGIC {
            return Err(corrupt("bad magic number"));
        }
        let (compat, incompat, ro_compat) = match raw.s_header.h_blocktype.get() {
            SUPERBLOCK_V1 => (0, 0, 0),
            SUPERBLOCK_V2 => (
                raw.s_feature_compat.get(),
                raw.s_feature_incompat.get(),
                raw.s_feature_ro_compat.get(),
            ),
            other => return Err(corrupt(format!("block type {other}"))),
        };
        let unknown = incompat & !INCOMPAT_KNOWN;
        if unknown != 0 || ro_compat != 0 {
            return Err(Error::unsupported(format!(
                "journal features {unknown:#x} (incompat), {ro_compat:#x} (ro_compat)"
            )));
        }
        let flags = (
            compat & COMPAT_CHECKSUM != 0,
            incompat & INCOMPAT_CSUM_V2 != 0,
            incompat & INCOMPAT_CSUM_V3 != 0,
        );
        let checksums = match flags {
            (false, false, false) => Checksums::None,
            (true, false, false) => Checksums::V1,
            (false, true, false) => Checksums::V2,
            (false, false, true) => Checksums::V3,
            _ => return Err(corrupt("checksums of several versions")),
        };
        if matches!(checksums, Checksums::V2 | Checksums::V3) {
            if raw.s_checksum_type != CHECKSUM_CRC32C {
                return Err(Error::unsupported(format!(
                    "journal checksum type {}",
                    raw.s_checksum_type
                )));
            }
            let at = std::mem::offset_of!(JournalSuperblock, s_checksum);
            let covered = bytes.get(..SUPERBLOCK_SIZE).unwrap_or_default();
            let (before, rest) = covered.split_at(covered.len().min(at));
            let sum = Checksum::START
                .add(before)
                .add(&[0; 4])
                .add(rest.get(4..).unwrap_or_default());
            if sum.0 != raw.s_checksum.get() {
                return Err(corrupt("bad checksum"));
            }
        }
        if raw.s_blocksize.get() != block_size {
            return Err(corrupt(format!(
                "blocks of {} bytes in a file system of {block_size}",
                raw.s_blocksize
            )));
        }
        let end = raw.s_maxlen.get();
        if u64::from(end) > length {
            return Err(corrupt(format!("{end} blocks in a file of {length}")));
        }
        let has_fast_commits = incompat & INCOMPAT_FAST_COMMIT != 0;
        let last = if has_fast_commits {
            circle_end(end, raw.s_num_fc_blks.get())
        } else {
            end
        };
        let first = raw.s_first.get();
        if first == 0 || first >= last {
            return Err(corrupt(format!("a log from block {first} to {last}")));
        }
        let start = raw.s_start.get();
        if start != 0 && !(first..last).contains(&start) {
            return Err(corrupt(format!("a log that begins at block {start}")));
        }
        Ok(Self {
            block_size: usize::try_from(block_size).map_err(|_| corrupt("a huge block"))?,
            first,
            last,
            start,
            first_sequence: raw.s_sequence.get(),
            has_64_bits: incompat & INCOMPAT_64BIT != 0,
            has_async_commit: incompat & INCOMPAT_ASYNC_COMMIT != 0,
            checksums,
            seed: Checksum::of_uuid(&raw.s_uuid),
            // The block between circle and area is not used.
            fast_commits: has_fast_commits.then(|| last.saturating_add(1)..end),
        })
    }

    /// Whether each block has a checksum.
    pub(crate) fn has_block_checksums(&self) -> bool {
        matches!(self.checksums, Checksums::V2 | Checksums::V3)
    }

    /// The number of the `index`th transaction of the log.
    pub(crate) fn sequence(&self, index: u32) -> u32 {
        self.first_sequence.wrapping_add(index)
    }

    /// The block `count` blocks on, around the circle. `count` is less than a turn.
    pub(crate) fn next(&self, block: u32, count: u32) -> u32 {
        let next = block.saturating_add(count);
        if next >= self.last {
            next.saturating_sub(self.last.saturating_sub(self.first))
        } else {
            next
        }
    }
}

/// Where the circle ends and the fast-commit area begins: never so that too little is left.
fn circle_end(end: u32, wanted: u32) -> u32 {
    let wanted = if wanted == 0 {
        DEFAULT_FAST_COMMIT_BLOCKS
    } else {
        wanted
    };
    match end.checked_sub(wanted) {
        Some(last) if last >= MIN_BLOCKS => last,
        _ => end,
    }
}
