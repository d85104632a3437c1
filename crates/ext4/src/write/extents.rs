//! Which blocks hold a file's data, and the tree that tells so on disk.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::allocate::Span;
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::extent::{
    Extent, ExtentHeader, ExtentIdx, INIT_MAX_LEN, MAGIC, MAX_DEPTH, RECORD_SIZE,
};
use crate::num::{high32, low16, low32, put, wide};

/// A run of a file's blocks that lies in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    logical: u32,
    count: u32,
    physical: u64,
}

/// A file's runs, ascending. Most files have one, which needs no memory of its own.
#[derive(Clone, Debug, Default)]
pub(super) enum Extents {
    #[default]
    None,
    One(Run),
    Many(Vec<Run>),
}

impl Extents {
    /// Adds blocks behind all others, joined to the last run where they continue it.
    pub(super) fn push(&mut self, logical: u32, span: Span) {
        let mut count = low32(span.count);
        let run = Run {
            logical,
            count,
            physical: span.start,
        };
        let last = match self {
            Self::None => {
                *self = Self::One(run);
                return;
            }
            Self::One(last) => last,
            Self::Many(runs) => match runs.last_mut() {
                Some(last) => last,
                None => return,
            },
        };
        if last.logical.checked_add(last.count) == Some(logical)
            && last.physical.saturating_add(u64::from(last.count)) == span.start
            && let Some(total) = last.count.checked_add(count)
        {
            last.count = total;
            count = 0;
        }
        if count > 0 {
            match self {
                Self::One(first) => *self = Self::Many(vec![*first, run]),
                Self::Many(runs) => runs.push(run),
                Self::None => {}
            }
        }
    }

    fn runs(&self) -> &[Run] {
        match self {
            Self::None => &[],
            Self::One(run) => std::slice::from_ref(run),
            Self::Many(runs) => runs,
        }
    }

    /// Gives back memory that a finished file does not need.
    pub(super) fn shrink(&mut self) {
        if let Self::Many(runs) = self {
            runs.shrink_to_fit();
        }
    }

    /// The blocks, run by run.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        self.runs().iter().map(|run| Span {
            start: run.physical,
            count: u64::from(run.count),
        })
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.spans().map(|span| span.count).sum()
    }

    /// Entries that a leaf needs: runs are cut at the longest extent.
    fn leaves(&self) -> impl Iterator<Item = Extent> {
        let longest = u32::from(INIT_MAX_LEN);
        self.runs().iter().flat_map(move |run| {
            (0..run.count.div_ceil(longest)).map(move |piece| {
                let done = piece.saturating_mul(longest);
                let physical = run.physical.saturating_add(u64::from(done));
                Extent {
                    ee_block: U32::new(run.logical.saturating_add(done)),
                    ee_len: U16::new(low16(run.count.saturating_sub(done).min(longest))),
                    ee_start_hi: U16::new(low16(high32(physical))),
                    ee_start_lo: U32::new(low32(physical)),
                }
            })
        })
    }
}

impl Extents {
    /// Whether the whole tree lies in the inode.
    pub(super) fn fit_in_inode(&self) -> bool {
        self.leaves().nth(IN_INODE).is_none()
    }
}

/// `i_block` of a tree that [`Extents::fit_in_inode`].
pub(super) fn encode_in_inode(extents: &Extents) -> [u8; 60] {
    let mut i_block = [0; 60];
    let entries: Vec<[u8; RECORD_SIZE]> = extents
        .leaves()
        .take(IN_INODE)
        .map(|extent| zerocopy::transmute!(extent))
        .collect();
    node(&mut i_block, 0, IN_INODE, &entries);
    i_block
}

/// What of a tree lies in the inode, and what it took besides.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) i_block: [u8; 60],
    /// Blocks of the tree itself.
    pub(super) blocks: u64,
}

/// Entries that fit beside the header in an inode.
const IN_INODE: usize = 4;

fn node(buffer: &mut [u8], depth: u16, max: usize, entries: &[[u8; RECORD_SIZE]]) {
    let header = ExtentHeader {
        eh_magic: U16::new(MAGIC),
        eh_entries: U16::new(low16(low32(wide(entries.len())))),
        eh_max: U16::new(low16(low32(wide(max)))),
        eh_depth: U16::new(depth),
        eh_generation: U32::ZERO,
    };
    put(buffer, 0, header.as_bytes());
    put(buffer, RECORD_SIZE, entries.as_flattened());
}

/// Lays the tree out. `place` gets each block that does not fit in the inode and tells where it
/// put it; `seed` is the inode's checksum seed.
pub(super) fn encode(
    extents: &Extents,
    block_len: usize,
    seed: Checksum,
    mut place: impl FnMut(&[u8]) -> Result<u64>,
) -> Result<Root> {
    let mut i_block = [0; 60];
    let mut blocks = 0u64;
    let mut depth = 0u16;
    let mut entries: Vec<[u8; RECORD_SIZE]> = extents
        .leaves()
        .map(|extent| zerocopy::transmute!(extent))
        .collect();
    let max = block_len
        .saturating_sub(RECORD_SIZE)
        .checked_div(RECORD_SIZE)
        .unwrap_or(0);
    let mut buffer = vec![0; block_len];
    while entries.len() > IN_INODE {
        let mut upper = Vec::with_capacity(entries.len().div_ceil(max.max(1)));
        for chunk in entries.chunks(max.max(1)) {
            buffer.fill(0);
            node(&mut buffer, depth, max, chunk);
            let covered = RECORD_SIZE.saturating_mul(max.saturating_add(1));
            let sum = seed.add(buffer.get(..covered).unwrap_or_default());
            put(&mut buffer, covered, &sum.0.to_le_bytes());
            let block = place(&buffer)?;
            blocks = blocks.saturating_add(1);
            let Some(&[a, b, c, d, ..]) = chunk.first() else {
                continue;
            };
            let entry = ExtentIdx {
                ei_block: U32::from_bytes([a, b, c, d]),
                ei_leaf_lo: U32::new(low32(block)),
                ei_leaf_hi: U16::new(low16(high32(block))),
                ei_unused: U16::ZERO,
            };
            upper.push(zerocopy::transmute!(entry));
        }
        entries = upper;
        depth = depth.saturating_add(1);
    }
    if depth > MAX_DEPTH {
        return Err(Error::too_large(
            "a file in too many pieces for an extent tree",
        ));
    }
    node(&mut i_block, depth, IN_INODE, &entries);
    Ok(Root { i_block, blocks })
}

/// The longest file in bytes: block numbers inside it have 32 bits, of which the last is not used.
pub(super) fn max_file_size(block_size: u32) -> u64 {
    u64::from(u32::MAX).saturating_mul(u64::from(block_size))
}

/// The block of a file that a byte is in. The caller keeps within [`max_file_size`].
pub(super) fn logical_block(position: u64, block_size: u32) -> u32 {
    low32(position.checked_div(u64::from(block_size)).unwrap_or(0))
}
