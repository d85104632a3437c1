//! How many groups and inodes a volume gets, and where bitmaps and inode tables lie: together,
//! behind everything else (`flex_bg`).

use super::allocate::{Allocator, Span};
use super::geometry::Geometry;
use super::inode::SIZE as INODE_SIZE;
use crate::error::{Error, Result};
use crate::num::{low32, wide};

/// Bytes of a sized volume for which there is one inode.
const BYTES_PER_INODE: u64 = 16 << 10;

/// What the metadata of groups looks like.
#[derive(Debug)]
pub(super) struct Layout {
    /// The geometry that the volume ends with.
    pub(super) geometry: Geometry,
    pub(super) groups: u64,
    /// Blocks of the whole volume, counted from block 0.
    pub(super) blocks: u64,
    pub(super) inodes_per_group: u32,
    /// Blocks of each group's inode table.
    pub(super) table_blocks: u64,
    pub(super) places: Vec<Places>,
}

/// Where a group's own blocks are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
}

impl Layout {
    /// Decides for a volume that needs `inodes` inodes and has `size` blocks, or as few as it can.
    pub(super) fn new(
        geometry: Geometry,
        allocator: &mut Allocator,
        size: Option<u64>,
        inodes: u32,
        least: Option<u32>,
    ) -> Result<Self> {
        let wanted = u64::from(least.unwrap_or(0).max(inodes));
        let most = u64::from(geometry.block_size).saturating_mul(8);
        if let Some(blocks) = size {
            let groups = geometry.groups(blocks).max(1);
            let usual = geometry.offset(blocks) / BYTES_PER_INODE;
            let usual = if least.is_some() {
                0
            } else {
                usual.min(u64::from(u32::MAX))
            };
            let each = per_group(geometry, wanted.max(usual), groups).min(most);
            if each.saturating_mul(groups) < u64::from(inodes) {
                return Err(Error::no_space(
                    "more inodes than the size asked for can have",
                ));
            }
            let each = fit_total(geometry, each, groups);
            let mut layout = Self::of(geometry, groups, each, blocks);
            layout.place(allocator)?;
            return Ok(layout);
        }
        let geometry = dense(geometry, allocator.end(), wanted);
        let mut groups = geometry.groups(allocator.end()).max(1);
        loop {
            let each = per_group(geometry, wanted, groups);
            if each > most {
                groups = wanted.div_ceil(most).max(groups.saturating_add(1));
                continue;
            }
            let mut layout = Self::of(geometry, groups, each, 0);
            let mut trial = allocator.without_free();
            layout.place(&mut trial)?;
            let reached = geometry.groups(trial.end());
            if reached > groups {
                groups = reached;
                continue;
            }
            layout.place(allocator)?;
            if reached < groups {
                let last = geometry.group_start(groups.saturating_sub(1));
                allocator.grow_to(last.saturating_add(1));
            }
            layout.blocks = allocator.end();
            return Ok(layout);
        }
    }

    fn of(geometry: Geometry, groups: u64, inodes_per_group: u64, blocks: u64) -> Self {
        let bytes = inodes_per_group.saturating_mul(wide(INODE_SIZE));
        Self {
            geometry,
            groups,
            blocks,
            inodes_per_group: low32(inodes_per_group),
            table_blocks: bytes.div_ceil(u64::from(geometry.block_size)),
            places: Vec::new(),
        }
    }

    fn place(&mut self, allocator: &mut Allocator) -> Result<()> {
        self.places = vec![Places::default(); crate::num::index(self.groups)];
        let mut bitmaps = Singles {
            span: Span { start: 0, count: 0 },
            left: self.groups.saturating_mul(2),
        };
        for places in &mut self.places {
            places.block_bitmap = bitmaps.next(allocator)?;
        }
        for places in &mut self.places {
            places.inode_bitmap = bitmaps.next(allocator)?;
        }
        for places in &mut self.places {
            places.inode_table = allocator.take_fresh_row(self.table_blocks)?.start;
        }
        Ok(())
    }
}

/// Blocks taken one by one out of long rows.
struct Singles {
    span: Span,
    left: u64,
}

impl Singles {
    fn next(&mut self, allocator: &mut Allocator) -> Result<u64> {
        if self.span.count == 0 {
            self.span = allocator.fresh(self.left)?;
            self.left = self.left.saturating_sub(self.span.count);
        }
        let block = self.span.start;
        self.span.start = block.saturating_add(1);
        self.span.count = self.span.count.saturating_sub(1);
        Ok(block)
    }
}

/// Inodes that share a block of the table and a byte of the bitmap come together.
fn step(geometry: Geometry) -> u64 {
    let per_block = u64::from(geometry.block_size).checked_div(wide(INODE_SIZE));
    per_block.unwrap_or(0).max(8)
}

fn per_group(geometry: Geometry, inodes: u64, groups: u64) -> u64 {
    inodes
        .div_ceil(groups.max(1))
        .max(1)
        .next_multiple_of(step(geometry).max(1))
}

/// Takes inodes off each group until all can be counted in 32 bits.
fn fit_total(geometry: Geometry, each: u64, groups: u64) -> u64 {
    let step = step(geometry);
    let mut each = each;
    while each > step && each.saturating_mul(groups) > u64::from(u32::MAX) {
        each = each.saturating_sub(step);
    }
    each
}

/// Smaller groups, if groups of the usual size have too few inodes for content of so few blocks.
///
/// Nothing depends on the size of groups before the first block of descriptors that lies in one.
fn dense(geometry: Geometry, end: u64, inodes: u64) -> Geometry {
    let most = u64::from(geometry.block_size).saturating_mul(8);
    let groups = inodes.div_ceil(most.max(1)).max(1);
    let tables = geometry_blocks(geometry, inodes.saturating_mul(wide(INODE_SIZE)));
    let least = end
        .saturating_add(tables)
        .saturating_add(groups.saturating_mul(2));
    let per_group = least.checked_div(groups).unwrap_or(0) & !7;
    let smaller = Geometry {
        blocks_per_group: per_group,
        ..geometry
    };
    if groups <= geometry.groups(least)
        || per_group < geometry.first_free().max(256)
        || geometry.needs_meta_groups(geometry.groups(least))
        || smaller.needs_meta_groups(groups.saturating_mul(2))
    {
        return geometry;
    }
    smaller
}

fn geometry_blocks(geometry: Geometry, bytes: u64) -> u64 {
    bytes.div_ceil(u64::from(geometry.block_size).max(1))
}
