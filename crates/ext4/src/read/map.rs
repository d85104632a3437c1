//! Where a file's bytes lie: runs of blocks, from an extent tree or a block map.

use std::collections::HashSet;
use std::sync::Arc;

use positioned_io::ReadAt;
use zerocopy::FromBytes;

use super::inode::Inode;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::format::extent::{
    Extent, ExtentHeader, ExtentIdx, INIT_MAX_LEN, MAGIC, MAX_DEPTH, RECORD_SIZE,
};
use crate::num::index as size;
use crate::types::BlockNo;

/// Blocks that a block map names directly.
const DIRECT: u64 = 12;

/// Blocks with data that follow each other in the file and in the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the file.
    pub(super) logical: u64,
    /// First block in the volume.
    pub(super) physical: u64,
    pub(super) blocks: u64,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.logical.saturating_add(self.blocks)
    }
}

/// Gathers runs in order, up to the file's end.
struct Gather<'a, R> {
    volume: &'a Volume<R>,
    inode: &'a Inode,
    /// Blocks of the file up to its size; what is mapped behind it is not part of it.
    limit: u64,
    runs: Vec<Run>,
    /// Blocks of the map itself: one that occurs twice would let a small image hold a huge map.
    seen: HashSet<u64>,
}

impl<R: ReadAt> Gather<'_, R> {
    fn push(&mut self, logical: u64, physical: u64, blocks: u64) {
        let blocks = blocks.min(self.limit.saturating_sub(logical));
        if blocks == 0 {
            return;
        }
        if let Some(last) = self.runs.last_mut()
            && last.end() == logical
            && last.physical.saturating_add(last.blocks) == physical
        {
            last.blocks = last.blocks.saturating_add(blocks);
            return;
        }
        self.runs.push(Run {
            logical,
            physical,
            blocks,
        });
    }

    /// A block of the map.
    fn node(&mut self, block: u64, what: &'static str) -> Result<Arc<[u8]>> {
        let number = self.inode.number();
        self.volume
            .geometry
            .check_blocks(block, 1, what)
            .map_err(|error| error.at_inode(number))?;
        if !self.seen.insert(block) {
            return Err(self
                .inode
                .corrupt(format!("{what} occurs twice"))
                .at_block(BlockNo(block)));
        }
        self.volume
            .block(BlockNo(block))
            .map_err(|error| error.at_inode(number))
    }

    /// A node of an extent tree that must cover file blocks from `start` to before `end`.
    fn extents(
        &mut self,
        bytes: &[u8],
        block: Option<BlockNo>,
        depth: Option<u16>,
        start: u64,
        end: u64,
    ) -> Result<()> {
        let inode = self.inode;
        let bad = |what: &str| {
            let error = inode.corrupt(format!("extent tree: {what}"));
            match block {
                Some(block) => error.at_block(block),
                None => error,
            }
        };
        let (header, records) =
            ExtentHeader::read_from_prefix(bytes).map_err(|_| bad("a node is cut off"))?;
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
        if block.is_some() && self.volume.geometry.has_checksums() {
            let tail = most.saturating_add(1).saturating_mul(RECORD_SIZE);
            let (covered, rest) = bytes.split_at_checked(tail).unwrap_or((bytes, &[]));
            let stored = rest
                .first_chunk::<4>()
                .map(|stored| u32::from_le_bytes(*stored));
            let seed = self.volume.seed(inode);
            if stored != Some(seed.add(covered).0) {
                return Err(bad("bad checksum"));
            }
        }
        let records = records.chunks_exact(RECORD_SIZE).take(entries);
        if level == 0 {
            let mut next = start;
            for record in records {
                let extent =
                    Extent::read_from_bytes(record).map_err(|_| bad("an extent is cut off"))?;
                next = self.extent(&extent, next, end).map_err(|what| bad(&what))?;
            }
            return Ok(());
        }
        if entries == 0 {
            return Err(bad("an index without entries"));
        }
        let below = level.saturating_sub(1);
        let mut children = Vec::with_capacity(entries);
        for record in records {
            let index =
                ExtentIdx::read_from_bytes(record).map_err(|_| bad("an index entry is cut off"))?;
            let leaf =
                u64::from(index.ei_leaf_lo.get()) | (u64::from(index.ei_leaf_hi.get()) << 32);
            children.push((u64::from(index.ei_block.get()), leaf));
        }
        let mut ends = children.iter().skip(1).map(|&(first, _)| first);
        let mut least = start;
        for &(first, child) in &children {
            let last = ends.next().unwrap_or(end);
            if first < least || last <= first || last > end {
                return Err(bad("index entries are out of order"));
            }
            least = last;
            let bytes = self.node(child, "an extent block")?;
            self.extents(&bytes, Some(BlockNo(child)), Some(below), first, last)?;
        }
        Ok(())
    }

    /// Takes one extent; gives back where the next may begin.
    fn extent(&mut self, extent: &Extent, least: u64, end: u64) -> Result<u64, String> {
        let logical = u64::from(extent.ee_block.get());
        let length = extent.ee_len.get();
        let (blocks, written) = match length.checked_sub(INIT_MAX_LEN) {
            Some(unwritten) if unwritten > 0 => (unwritten, false),
            _ => (length, true),
        };
        let next = logical.saturating_add(u64::from(blocks));
        if blocks == 0 || logical < least || next > end {
            return Err(format!("the extent of block {logical} is out of order"));
        }
        let physical =
            u64::from(extent.ee_start_lo.get()) | (u64::from(extent.ee_start_hi.get()) << 32);
        self.volume
            .geometry
            .check_blocks(physical, u64::from(blocks), "an extent")
            .map_err(|_| format!("the extent of block {logical} lies outside the volume"))?;
        if written {
            self.push(logical, physical, u64::from(blocks));
        }
        Ok(next)
    }

    /// The pointers of an ext2 or ext3 inode: 12 to data, then one each through 1 to 3 levels.
    fn block_map(&mut self) -> Result<()> {
        let per_block = u64::from(self.volume.geometry.block_size >> 2);
        let mut logical = 0;
        let i_block = self.inode.i_block;
        for (index, pointer) in pointers(&i_block).enumerate() {
            let level = u32::try_from(index).unwrap_or(0).saturating_sub(11);
            let covered = per_block.saturating_pow(level);
            if logical >= self.limit {
                break;
            }
            self.pointer(pointer, level, logical, covered)?;
            logical = logical.saturating_add(covered);
        }
        debug_assert!(pointers(&i_block).count() == size(DIRECT).saturating_add(3));
        Ok(())
    }

    /// A pointer through `level` levels to `covered` blocks of the file from `logical`.
    fn pointer(&mut self, block: u32, level: u32, mut logical: u64, covered: u64) -> Result<()> {
        if block == 0 {
            return Ok(());
        }
        let Some(below) = level.checked_sub(1) else {
            let number = self.inode.number();
            self.volume
                .geometry
                .check_blocks(u64::from(block), 1, "a data block")
                .map_err(|error| error.at_inode(number))?;
            self.push(logical, u64::from(block), 1);
            return Ok(());
        };
        let bytes = self.node(u64::from(block), "an indirect block")?;
        let per_block = u64::from(self.volume.geometry.block_size >> 2);
        let covered = covered.checked_div(per_block).unwrap_or(1);
        for pointer in pointers(&bytes) {
            if logical >= self.limit {
                break;
            }
            self.pointer(pointer, below, logical, covered)?;
            logical = logical.saturating_add(covered);
        }
        Ok(())
    }
}

fn pointers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|pointer| u32::from_le_bytes(*pointer))
}

impl<R: ReadAt> Volume<R> {
    /// The seed of checksums of what belongs to an inode.
    pub(super) fn seed(&self, inode: &Inode) -> crate::format::checksum::Checksum {
        self.geometry
            .seed
            .of_inode(inode.number().0, inode.generation)
    }

    /// The runs of data up to the file's size, in order. Not for inline data.
    pub(super) fn runs(&self, inode: &Inode) -> Result<Arc<[Run]>> {
        if let Some(runs) = inode.runs.get() {
            return Ok(Arc::clone(runs));
        }
        inode.check_readable()?;
        let mut gather = Gather {
            volume: self,
            inode,
            limit: inode.size().div_ceil(u64::from(self.geometry.block_size)),
            runs: Vec::new(),
            seen: HashSet::new(),
        };
        if inode.has_extents() {
            gather.extents(&inode.i_block, None, None, 0, 1 << 32)?;
        } else {
            gather.block_map()?;
        }
        let mut runs = gather.runs;
        if let Some(change) = self.changes.inode(inode.number())
            && !change.ranges.is_empty()
        {
            runs = change.ranges.over(&runs, gather.limit);
        }
        let runs: Arc<[Run]> = runs.into();
        Ok(Arc::clone(inode.runs.get_or_init(|| runs)))
    }

    /// The runs of a file that must not share blocks with itself: one whose content is kept in
    /// memory, so that a small image cannot make a huge one.
    pub(super) fn distinct_runs(&self, inode: &Inode) -> Result<Arc<[Run]>> {
        let runs = self.runs(inode)?;
        let mut places: Vec<(u64, u64)> =
            runs.iter().map(|run| (run.physical, run.blocks)).collect();
        places.sort_unstable();
        let mut free = 0;
        for (start, blocks) in places {
            if start < free {
                return Err(Error::corrupt("a block occurs twice in one file")
                    .at_inode(inode.number())
                    .at_block(BlockNo(start)));
            }
            free = start.saturating_add(blocks);
        }
        Ok(runs)
    }
}
