//! dm-verity: a tree of hashes behind a file system, which the kernel checks each block against.
//!
//! ```text
//! | file system, up to a whole block | superblock | root's block | level below | … | leaves |
//! ```
//!
//! It is laid out as hcsshim does and `veritysetup` reads it: version 1 of the
//! format, SHA-256 with a salt of 32 zero bytes before the data, blocks of 4096
//! bytes. A block of the tree holds 128 hashes. Where each level lies follows
//! from the size, so the tree goes out as the file system is read, and a block
//! of each level is all that is held.

mod check;
mod superblock;
mod tree;
mod written;

use positioned_io::{ReadAt, WriteAt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use check::check;
pub(crate) use tree::Hashing;
pub(crate) use written::{Noting, Written};

use crate::{Error, Result};

/// Bytes in a block of data or hashes.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes in a hash.
const DIGEST: usize = 32;
/// Hashes in a block.
const FANOUT: u64 = 128;

/// A hash.
type Digest = [u8; DIGEST];

/// A dm-verity tree on a disk, and what a kernel must be told to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verity {
    /// The hash of the tree's first block, in hexadecimal. It stands for all data.
    pub root_hash: String,
    /// The byte of the disk that the superblock starts at; the tree follows one block later.
    pub hash_offset: u64,
    /// Blocks of data, from the disk's start.
    pub data_blocks: u64,
    /// Bytes in a block of data.
    pub data_block_size: u32,
    /// Bytes in a block of the tree.
    pub hash_block_size: u32,
    /// The hash's name, as the kernel knows it.
    pub algorithm: String,
    /// What is hashed before each block, in hexadecimal.
    pub salt: String,
    /// The UUID in the superblock.
    pub uuid: String,
}

/// Where things lie for data of a given size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    data_blocks: u64,
    /// The first block of each level on the disk, leaves first.
    levels: Vec<u64>,
    /// Bytes up to the end of the tree.
    pub(crate) end: u64,
}

impl Area {
    /// The area behind `size` bytes of data, whose last block may be filled up with zeros.
    pub(crate) fn behind(size: u64) -> Result<Self> {
        let too_large = || Error::unsupported("the disk is too large for a hash tree");
        let data_blocks = size.div_ceil(BLOCK).max(1);
        let mut widths = Vec::new();
        let mut width = data_blocks;
        while width > 1 {
            width = width.div_ceil(FANOUT);
            widths.push(width);
        }
        let mut next = data_blocks + 1;
        let mut levels = vec![0; widths.len()];
        for (level, width) in levels.iter_mut().zip(widths).rev() {
            *level = next;
            next += width;
        }
        Ok(Self {
            data_blocks,
            levels,
            end: next.checked_mul(BLOCK).ok_or_else(too_large)?,
        })
    }

    /// The byte that the superblock starts at.
    pub(crate) fn offset(&self) -> u64 {
        self.data_blocks * BLOCK
    }
}

/// Hashes the data before `area` and writes superblock and tree into it.
///
/// What is not in `written` was never written, and reads as zeros.
pub(crate) fn append<D: ReadAt + WriteAt>(
    disk: &mut D,
    area: &Area,
    uuid: Uuid,
    hashing: &Hashing<'_>,
) -> Result<Verity> {
    let superblock = superblock::encode(uuid, area.data_blocks);
    disk.write_all_at(area.offset(), &superblock)
        .map_err(|error| Error::io("cannot write the hash tree", error))?;
    let root = hashing.run(disk, area)?;
    let found = superblock::parse(&superblock)
        .ok_or_else(|| Error::corrupt("the hash tree's superblock is not what was written"))?;
    Ok(found.with_root(area.offset(), &root))
}

/// Takes as much room for superblock and tree as [`append`] does: each of its blocks has hashes in it,
/// which are no zeros.
pub(crate) fn take_room<D: WriteAt>(disk: &mut D, area: &Area) -> Result<()> {
    let blocks = [0xFF; 128 << 10];
    let mut at = area.offset();
    while at < area.end {
        let length =
            usize::try_from(area.end - at).map_or(blocks.len(), |left| left.min(blocks.len()));
        disk.write_all_at(at, &blocks[..length])
            .map_err(|error| Error::io("cannot write the hash tree", error))?;
        at += length as u64;
    }
    Ok(())
}

/// The tree behind a file system of `size` bytes, if there is one of a known kind.
pub(crate) fn find(disk: &impl ReadAt, size: u64) -> Option<Verity> {
    let offset = size.checked_next_multiple_of(BLOCK)?;
    let mut superblock = [0; superblock::SIZE];
    read_exact(disk, offset, &mut superblock)?;
    let found = superblock::parse(&superblock)?;
    let mut block = vec![0; usize::try_from(BLOCK).ok()?];
    // With a single block of data there is no tree: that block's hash is the root.
    let root = if found.data_blocks > 1 {
        offset.checked_add(BLOCK)?
    } else {
        0
    };
    read_exact(disk, root, &mut block)?;
    let root = tree::digest(&found.salt, &block);
    Some(found.with_root(offset, &root))
}

/// Whether a tree is behind a file system of `size` bytes, of a kind that is known or not.
pub(crate) fn is_behind(disk: &impl ReadAt, size: u64) -> bool {
    let mut magic = [0; superblock::MAGIC.len()];
    size.checked_next_multiple_of(BLOCK)
        .and_then(|offset| read_exact(disk, offset, &mut magic))
        .is_some_and(|()| magic == superblock::MAGIC)
}

fn read_exact(disk: &impl ReadAt, offset: u64, bytes: &mut [u8]) -> Option<()> {
    disk.read_exact_at(offset, bytes).ok()
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_lie_behind_each_other_root_first() {
        let area = Area::behind(2 * BLOCK).unwrap();
        assert_eq!((area.levels, area.end), (vec![3], 4 * BLOCK));
        let area = Area::behind(128 * BLOCK).unwrap();
        assert_eq!((area.levels, area.end), (vec![129], 130 * BLOCK));
        // 129 blocks need two leaves' blocks, and so one above them.
        let area = Area::behind(128 * BLOCK + 1).unwrap();
        assert_eq!((area.levels, area.end), (vec![131, 130], 133 * BLOCK));
        let area = Area::behind(1 << 40).unwrap();
        assert_eq!(area.levels.len(), 4);
        assert!(Area::behind(u64::MAX).is_err());
    }
}
