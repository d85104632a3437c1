//! Bitmaps and descriptors of the groups: which blocks and inodes are taken, and what was left
//! uninitialised.

use positioned_io::WriteAt;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::allocate::{Allocator, Span};
use super::geometry::Geometry;
use super::layout::Layout;
use super::stage::Stage;
use crate::error::Result;
use crate::format::checksum::Checksum;
use crate::format::group::{
    FLAG_BLOCK_UNINIT, FLAG_INODE_UNINIT, FLAG_INODE_ZEROED, GroupDesc, SIZE_64,
};
use crate::num::{high16, high32, index, low16, low32, put, wide};

/// What the groups hold, beside the layout.
pub(super) struct Usage<'a> {
    pub(super) geometry: Geometry,
    pub(super) layout: &'a Layout,
    pub(super) allocator: &'a Allocator,
    pub(super) seed: Checksum,
    /// The last inode in use; all before it are.
    pub(super) last_inode: u32,
    /// Directories by group.
    pub(super) directories: &'a [u32],
}

/// Free blocks and inodes, over all groups.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Free {
    pub(super) blocks: u64,
    pub(super) inodes: u64,
}

impl Usage<'_> {
    /// Writes bitmaps and descriptors.
    pub(super) fn write<W: WriteAt>(&self, stage: &mut Stage<W>) -> Result<Free> {
        let mut free = Free::default();
        let mut descs = Vec::with_capacity(self.layout.places.len());
        let mut bitmap = vec![0; self.geometry.block_len()];
        for (group, places) in (0..).zip(&self.layout.places) {
            let mut desc = GroupDesc {
                bg_block_bitmap_lo: U32::new(low32(places.block_bitmap)),
                bg_block_bitmap_hi: U32::new(high32(places.block_bitmap)),
                bg_inode_bitmap_lo: U32::new(low32(places.inode_bitmap)),
                bg_inode_bitmap_hi: U32::new(high32(places.inode_bitmap)),
                bg_inode_table_lo: U32::new(low32(places.inode_table)),
                bg_inode_table_hi: U32::new(high32(places.inode_table)),
                bg_flags: U16::new(FLAG_INODE_ZEROED),
                ..GroupDesc::default()
            };
            let blocks = self.blocks(group, &mut bitmap);
            free.blocks = free.blocks.saturating_add(blocks.free);
            let count = low32(blocks.free);
            desc.bg_free_blocks_count_lo = U16::new(low16(count));
            desc.bg_free_blocks_count_hi = U16::new(high16(count));
            if blocks.untouched {
                desc.bg_flags |= U16::new(FLAG_BLOCK_UNINIT);
            } else {
                let covered = index(self.geometry.blocks_per_group / 8);
                let sum = self.seed.add(bitmap.get(..covered).unwrap_or_default());
                desc.bg_block_bitmap_csum_lo = U16::new(sum.low());
                desc.bg_block_bitmap_csum_hi = U16::new(sum.high());
                stage.write(self.geometry.offset(places.block_bitmap), &bitmap)?;
            }
            descs.push(desc);
        }
        for (group, desc) in (0..).zip(&mut descs) {
            self.inodes(group, desc, &mut bitmap, &mut free, stage)?;
            desc.bg_checksum = U16::new(self.seed.group_desc(group, desc.as_bytes()));
        }
        self.descriptors(&descs, stage)?;
        Ok(free)
    }

    fn blocks(&self, group: u64, bitmap: &mut [u8]) -> Blocks {
        let start = self.geometry.group_start(group);
        let full = start.saturating_add(self.geometry.blocks_per_group);
        let end = full.min(self.layout.blocks);
        let reached = self.allocator.end().clamp(start, end);
        let mut free = end.saturating_sub(reached);
        // Where data has come past them, the allocator counts them as taken.
        let own = match reached == start {
            true => self
                .geometry
                .reserved_in(group)
                .min(end.saturating_sub(start)),
            false => 0,
        };
        let last = group.saturating_add(1) == self.layout.groups;
        if reached == start && own == 0 && !last {
            return Blocks {
                free,
                untouched: true,
            };
        }
        bitmap.fill(0);
        fill(bitmap, 0, reached.saturating_sub(start), true);
        fill(
            bitmap,
            end.saturating_sub(start),
            wide(bitmap.len()).saturating_mul(8),
            true,
        );
        free = free.saturating_sub(own);
        fill(bitmap, 0, own, true);
        for span in self.allocator.free_within(start, reached) {
            free = free.saturating_add(span.count);
            let from = span.start.saturating_sub(start);
            fill(bitmap, from, span.end().saturating_sub(start), false);
        }
        let full = reached.saturating_sub(start);
        let untouched = free == end.saturating_sub(start) && full > 0 && group > 0 && !last;
        Blocks { free, untouched }
    }

    fn inodes<W: WriteAt>(
        &self,
        group: u32,
        desc: &mut GroupDesc,
        bitmap: &mut [u8],
        free: &mut Free,
        stage: &mut Stage<W>,
    ) -> Result<()> {
        let each = self.layout.inodes_per_group;
        let before = group.saturating_mul(each);
        let used = self.last_inode.saturating_sub(before).min(each);
        let unused = each.saturating_sub(used);
        free.inodes = free.inodes.saturating_add(u64::from(unused));
        desc.bg_free_inodes_count_lo = U16::new(low16(unused));
        desc.bg_free_inodes_count_hi = U16::new(high16(unused));
        desc.bg_itable_unused_lo = U16::new(low16(unused));
        desc.bg_itable_unused_hi = U16::new(high16(unused));
        let directories = self.directories.get(index(group)).copied().unwrap_or(0);
        desc.bg_used_dirs_count_lo = U16::new(low16(directories));
        desc.bg_used_dirs_count_hi = U16::new(high16(directories));
        if used == 0 {
            desc.bg_flags |= U16::new(FLAG_INODE_UNINIT);
            return Ok(());
        }
        bitmap.fill(0);
        fill(bitmap, 0, u64::from(used), true);
        fill(
            bitmap,
            u64::from(each),
            wide(bitmap.len()).saturating_mul(8),
            true,
        );
        let covered = index(each / 8);
        let sum = self.seed.add(bitmap.get(..covered).unwrap_or_default());
        desc.bg_inode_bitmap_csum_lo = U16::new(sum.low());
        desc.bg_inode_bitmap_csum_hi = U16::new(sum.high());
        let place = u64::from(desc.bg_inode_bitmap_lo.get())
            | u64::from(desc.bg_inode_bitmap_hi.get()) << 32;
        stage.write(self.geometry.offset(place), bitmap)
    }

    fn descriptors<W: WriteAt>(&self, descs: &[GroupDesc], stage: &mut Stage<W>) -> Result<()> {
        let per_block = index(self.geometry.descriptors_per_block());
        let mut block = vec![0; self.geometry.block_len()];
        for (number, chunk) in (0..).zip(descs.chunks(per_block.max(1))) {
            block.fill(0);
            put(&mut block, 0, chunk.as_bytes());
            debug_assert!(chunk.as_bytes().len() <= SIZE_64.saturating_mul(per_block));
            for place in self.geometry.descriptor_places(number, self.layout.groups) {
                stage.write(self.geometry.offset(place), &block)?;
            }
        }
        Ok(())
    }
}

struct Blocks {
    free: u64,
    /// Nothing in the group is taken, so that its bitmap need not exist.
    untouched: bool,
}

/// Sets or clears the bits from `from` to before `to`.
fn fill(bitmap: &mut [u8], from: u64, to: u64, value: bool) {
    let span = Span {
        start: from,
        count: to.saturating_sub(from),
    };
    let (mut at, end) = (index(span.start), index(span.end()));
    while at < end {
        if at.is_multiple_of(8) && end.saturating_sub(at) >= 8 {
            let whole = bitmap.get_mut(at / 8..end / 8);
            whole.unwrap_or_default().fill(if value { 0xFF } else { 0 });
            at = end & !7;
            continue;
        }
        if let Some(byte) = bitmap.get_mut(at / 8) {
            let bit = 1u8 << (at % 8);
            *byte = if value { *byte | bit } else { *byte & !bit };
        }
        at = at.saturating_add(1);
    }
}
