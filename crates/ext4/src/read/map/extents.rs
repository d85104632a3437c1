//! A node of an extent tree: what it must say to be believed, and what its entries lead to.

use std::ops::Range;
use std::sync::Arc;

use positioned_io::ReadAt;
use zerocopy::FromBytes;

use super::Run;
use super::walk::Step;
use crate::error::{Error, Result};
use crate::format::extent::{
    Extent, ExtentHeader, ExtentIdx, INIT_MAX_LEN, MAGIC, MAX_DEPTH, RECORD_SIZE,
};
use crate::num::index as size;
use crate::read::inode::Inode;
use crate::read::volume::Volume;
use crate::types::BlockNo;

/// A node that is being walked: its next entry must not begin before `start`, and none end behind
/// `end`.
#[derive(Debug)]
pub(super) struct Extents {
    node: Arc<[u8]>,
    block: Option<BlockNo>,
    level: u16,
    entries: usize,
    next: usize,
    start: u64,
    end: u64,
}

impl Extents {
    /// The node in the inode.
    pub(super) fn root<R: ReadAt>(
        volume: &Volume<R>,
        inode: &Inode,
        node: Arc<[u8]>,
    ) -> Result<Self> {
        Self::parse(volume, inode, node, None, None, 0..1 << 32)
    }

    /// The node that the entry which was taken last names.
    pub(super) fn below<R: ReadAt>(
        &self,
        volume: &Volume<R>,
        inode: &Inode,
        node: Arc<[u8]>,
        block: BlockNo,
    ) -> Result<Self> {
        let first = index_first(&self.node, self.next.saturating_sub(1)).unwrap_or(self.start);
        let last = if self.next < self.entries {
            self.start
        } else {
            self.end
        };
        let level = self.level.checked_sub(1);
        Self::parse(volume, inode, node, Some(block), level, first..last)
    }

    /// A node that must cover these blocks of the file.
    fn parse<R: ReadAt>(
        volume: &Volume<R>,
        inode: &Inode,
        node: Arc<[u8]>,
        block: Option<BlockNo>,
        depth: Option<u16>,
        covered: Range<u64>,
    ) -> Result<Self> {
        let bad = |what: &str| bad_tree(inode, block, what);
        let (header, records) =
            ExtentHeader::read_from_prefix(&node).map_err(|_| bad("a node is cut off"))?;
        if header.eh_magic.get() != MAGIC {
            return Err(bad("bad magic number"));
        }
        let level = header.eh_depth.get();
        if depth.is_some_and(|depth| depth != level) || level > MAX_DEPTH {
            return Err(bad("bad depth"));
        }
        let most = size(header.eh_max.get());
        let entries = size(header.eh_entries.get());
        let room = records.len().checked_div(RECORD_SIZE).unwrap_or(0);
        if entries > most || most > room || most == 0 {
            return Err(bad("bad number of entries"));
        }
        if block.is_some() && volume.geometry.has_checksums() {
            let tail = most.saturating_add(1).saturating_mul(RECORD_SIZE);
            let (summed, rest) = node.split_at_checked(tail).unwrap_or((&node, &[]));
            let stored = rest
                .first_chunk::<4>()
                .map(|stored| u32::from_le_bytes(*stored));
            let seed = volume.seed(inode);
            if stored != Some(seed.add(summed).0) {
                return Err(bad("bad checksum"));
            }
        }
        if level > 0 && entries == 0 {
            return Err(bad("an index without entries"));
        }
        Ok(Self {
            node,
            block,
            level,
            entries,
            next: 0,
            start: covered.start,
            end: covered.end,
        })
    }

    /// Takes the next entry.
    pub(super) fn next<R: ReadAt>(
        &mut self,
        volume: &Volume<R>,
        inode: &Inode,
        from: u64,
    ) -> Result<Step> {
        if self.next >= self.entries {
            return Ok(Step::Up);
        }
        match self.level {
            0 => self.extent(volume, inode),
            _ => self.index(inode, from),
        }
    }

    /// Takes the next extent of a leaf.
    fn extent<R: ReadAt>(&mut self, volume: &Volume<R>, inode: &Inode) -> Result<Step> {
        let bad = |what: &str| bad_tree(inode, self.block, what);
        let extent = record(&self.node, self.next)
            .and_then(|record| Extent::read_from_bytes(record).ok())
            .ok_or_else(|| bad("an extent is cut off"))?;
        let logical = u64::from(extent.ee_block.get());
        let length = extent.ee_len.get();
        let (blocks, written) = match length.checked_sub(INIT_MAX_LEN) {
            Some(unwritten) if unwritten > 0 => (unwritten, false),
            _ => (length, true),
        };
        let behind = logical.saturating_add(u64::from(blocks));
        if blocks == 0 || logical < self.start || behind > self.end {
            return Err(bad(&format!(
                "the extent of block {logical} is out of order"
            )));
        }
        let physical =
            u64::from(extent.ee_start_lo.get()) | (u64::from(extent.ee_start_hi.get()) << 32);
        volume
            .geometry
            .check_blocks(physical, u64::from(blocks), "an extent")
            .map_err(|_| {
                bad(&format!(
                    "the extent of block {logical} lies outside the volume"
                ))
            })?;
        self.start = behind;
        self.next = self.next.saturating_add(1);
        Ok(match written {
            true => Step::Found(Run {
                logical,
                physical,
                blocks: u64::from(blocks),
            }),
            false => Step::Skip,
        })
    }

    /// Takes the next entry of an index. `start` is behind what it covers then.
    fn index(&mut self, inode: &Inode, from: u64) -> Result<Step> {
        let bad = |what: &str| bad_tree(inode, self.block, what);
        let index = record(&self.node, self.next)
            .and_then(|record| ExtentIdx::read_from_bytes(record).ok())
            .ok_or_else(|| bad("an index entry is cut off"))?;
        let first = u64::from(index.ei_block.get());
        let behind = self.next.saturating_add(1);
        let last = match behind < self.entries {
            true => {
                index_first(&self.node, behind).ok_or_else(|| bad("an index entry is cut off"))?
            }
            false => self.end,
        };
        if first < self.start || last <= first || last > self.end {
            return Err(bad("index entries are out of order"));
        }
        self.next = behind;
        self.start = last;
        let child = u64::from(index.ei_leaf_lo.get()) | (u64::from(index.ei_leaf_hi.get()) << 32);
        Ok(if last <= from {
            Step::Skip
        } else {
            Step::Down(child)
        })
    }
}

fn bad_tree(inode: &Inode, block: Option<BlockNo>, what: &str) -> Error {
    let error = inode.corrupt(format!("extent tree: {what}"));
    match block {
        Some(block) => error.at_block(block),
        None => error,
    }
}

/// An entry of a node, whatever it is.
fn record(node: &[u8], number: usize) -> Option<&[u8]> {
    let at = number.saturating_add(1).saturating_mul(RECORD_SIZE);
    node.get(at..at.saturating_add(RECORD_SIZE))
}

/// The first block of the file that an index's entry covers.
fn index_first(node: &[u8], number: usize) -> Option<u64> {
    let index = ExtentIdx::read_from_bytes(record(node, number)?).ok()?;
    Some(u64::from(index.ei_block.get()))
}
