//! Which blocks nothing needs: what the bitmaps say, as far as everything else agrees.

use std::ops::Range;

use positioned_io::ReadAt;

use super::geometry::Geometry;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::format::feature::{Compat, RoCompat};
use crate::format::group::{FLAG_BLOCK_UNINIT, GroupDesc};
use crate::num::index as size;
use crate::types::BlockNo;

/// The features beside which a block that a bitmap calls free is free.
const KNOWN: RoCompat = RoCompat::SPARSE_SUPER
    .with(RoCompat::LARGE_FILE)
    .with(RoCompat::BTREE_DIR)
    .with(RoCompat::HUGE_FILE)
    .with(RoCompat::GDT_CSUM)
    .with(RoCompat::DIR_NLINK)
    .with(RoCompat::EXTRA_ISIZE)
    .with(RoCompat::QUOTA)
    .with(RoCompat::BIGALLOC)
    .with(RoCompat::METADATA_CSUM)
    .with(RoCompat::PROJECT)
    .with(RoCompat::VERITY)
    .with(RoCompat::ORPHAN_PRESENT);

/// How full a block group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GroupUse {
    /// Blocks of the group; the last one's may be fewer.
    pub blocks: u64,
    /// Blocks of them that are free.
    pub free: u64,
}

impl Geometry {
    /// The blocks of a group.
    fn group_blocks(&self, group: u32) -> Range<u64> {
        let per_group = u64::from(self.blocks_per_group);
        let start = u64::from(group)
            .saturating_mul(per_group)
            .saturating_add(u64::from(self.first_data_block));
        start..start.saturating_add(per_group).min(self.blocks)
    }

    fn has_group_checksums(&self) -> bool {
        self.has_checksums() || self.ro_compat.has(RoCompat::GDT_CSUM)
    }
}

/// The number of free clusters that a descriptor has.
fn free_clusters(desc: &GroupDesc) -> u64 {
    u64::from(desc.bg_free_blocks_count_lo.get())
        | (u64::from(desc.bg_free_blocks_count_hi.get()) << 16)
}

fn bad(group: u32, what: &str) -> Error {
    Error::corrupt(format!("blocks of group {group}: {what}"))
}

impl<R: ReadAt> Volume<R> {
    pub(super) fn group_use(&self, group: u32) -> Result<GroupUse> {
        let blocks = self.geometry.group_blocks(group);
        let blocks = blocks.end.saturating_sub(blocks.start);
        let free = free_clusters(&self.descriptor(group)?)
            .checked_shl(self.geometry.cluster_shift)
            .unwrap_or(u64::MAX);
        Ok(GroupUse {
            blocks,
            free: free.min(blocks),
        })
    }

    pub(super) fn free_blocks(&self, mut found: impl FnMut(Range<BlockNo>)) -> Result<()> {
        self.check_trust()?;
        let metadata = self.metadata_blocks()?;
        let mut joined: Option<Range<u64>> = None;
        for group in 0..self.geometry.groups {
            for free in self.free_in_group(group, &metadata)? {
                match &mut joined {
                    Some(last) if last.end == free.start => last.end = free.end,
                    last => {
                        if let Some(whole) = last.replace(free) {
                            found(BlockNo(whole.start)..BlockNo(whole.end));
                        }
                    }
                }
            }
        }
        if let Some(last) = joined {
            found(BlockNo(last.start)..BlockNo(last.end));
        }
        Ok(())
    }

    /// Whether the bitmaps are what whoever wrote last wanted them to be.
    fn check_trust(&self) -> Result<()> {
        let geometry = &self.geometry;
        let unknown = geometry.ro_compat.without(KNOWN);
        if !unknown.is_empty() {
            return Err(Error::unsupported(format!(
                "what is free beside the file system feature {unknown}"
            )));
        }
        if geometry.compat.has(Compat::EXCLUDE_BITMAP) {
            return Err(Error::unsupported(
                "what is free beside the file system feature exclude_bitmap",
            ));
        }
        if geometry.has_errors {
            return Err(Error::corrupt("the kernel has recorded errors in it"));
        }
        if !geometry.is_finished {
            return Err(Error::corrupt(
                "it was not unmounted, and has no journal that says what was done",
            ));
        }
        Ok(())
    }

    /// Everything that has its place by the volume's layout, in ranges in order.
    fn metadata_blocks(&self) -> Result<Vec<Range<u64>>> {
        let geometry = &self.geometry;
        let mut ranges = Vec::new();
        for group in 0..geometry.groups {
            let desc = self.descriptor(group)?;
            let (table, end) = self.inode_table(group)?;
            ranges.push(table.0..end);
            for bitmap in [block_bitmap(&desc), inode_bitmap(&desc)] {
                geometry.check_blocks(bitmap, 1, "a bitmap")?;
                ranges.push(bitmap..bitmap.saturating_add(1));
            }
            let start = geometry.group_blocks(group).start;
            let head = geometry.group_head(group);
            if head > 0 {
                ranges.push(start..start.saturating_add(head));
            }
        }
        // Boot code and the superblock, wherever group 0 begins.
        ranges.push(0..u64::from(geometry.first_data_block).saturating_add(1));
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        Ok(ranges)
    }

    /// The runs of free blocks of a group, in order.
    fn free_in_group(&self, group: u32, metadata: &[Range<u64>]) -> Result<Vec<Range<u64>>> {
        let geometry = &self.geometry;
        let desc = self.descriptor(group)?;
        let blocks = geometry.group_blocks(group);
        let is_bare =
            geometry.has_group_checksums() && desc.bg_flags.get() & FLAG_BLOCK_UNINIT != 0;
        let runs = if is_bare {
            vec![blocks.clone()]
        } else {
            self.runs_of_bitmap(group, &desc, blocks.clone())?
        };
        let mut free = Vec::new();
        for run in runs {
            without(run, metadata, |rest| free.push(rest));
        }
        // A group without a bitmap has nothing but what the layout puts there; one of which the
        // count says otherwise is left alone.
        if is_bare {
            let count = free.iter().fold(0u64, |sum, run| {
                sum.saturating_add(run.end.saturating_sub(run.start))
            });
            if count >> geometry.cluster_shift != free_clusters(&desc) {
                free.clear();
            }
        }
        Ok(free)
    }

    fn runs_of_bitmap(
        &self,
        group: u32,
        desc: &GroupDesc,
        blocks: Range<u64>,
    ) -> Result<Vec<Range<u64>>> {
        let geometry = &self.geometry;
        let at = BlockNo(block_bitmap(desc));
        let mut bitmap = vec![0; size(geometry.block_size)];
        self.read_blocks(at, &mut bitmap)?;
        let shift = geometry.cluster_shift;
        let clusters = u64::from(geometry.blocks_per_group) >> shift;
        if geometry.has_checksums() {
            let covered = bitmap
                .get(..size(clusters >> 3))
                .ok_or_else(|| bad(group, "the bitmap is cut off"))?;
            let sum = geometry.seed.add(covered);
            // Short descriptors have no room for the upper half.
            let has_high = usize::from(geometry.desc_size) >= crate::format::group::SIZE_64;
            let differs = desc.bg_block_bitmap_csum_lo.get() != sum.low()
                || (has_high && desc.bg_block_bitmap_csum_hi.get() != sum.high());
            if differs {
                return Err(bad(group, "the bitmap has a bad checksum").at_block(at));
            }
        }
        let length = blocks.end.saturating_sub(blocks.start);
        let last = length.div_ceil(1u64.checked_shl(shift).unwrap_or(u64::MAX));
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut count = 0u64;
        for cluster in 0..last {
            let byte = bitmap.get(size(cluster >> 3)).copied().unwrap_or(u8::MAX);
            let bit = 1u8.wrapping_shl(u32::try_from(cluster & 7).unwrap_or(0));
            if byte & bit != 0 {
                continue;
            }
            count = count.saturating_add(1);
            let place = |cluster: u64| {
                let within = cluster.checked_shl(shift).unwrap_or(u64::MAX);
                blocks.start.saturating_add(within).min(blocks.end)
            };
            let (start, end) = (place(cluster), place(cluster.saturating_add(1)));
            match runs.last_mut() {
                Some(run) if run.end == start => run.end = end,
                _ => runs.push(start..end),
            }
        }
        if count != free_clusters(desc) {
            let told = free_clusters(desc);
            return Err(bad(
                group,
                &format!("the bitmap has {count} free, the descriptor {told}"),
            )
            .at_block(at));
        }
        Ok(runs)
    }
}

fn block_bitmap(desc: &GroupDesc) -> u64 {
    u64::from(desc.bg_block_bitmap_lo.get()) | (u64::from(desc.bg_block_bitmap_hi.get()) << 32)
}

fn inode_bitmap(desc: &GroupDesc) -> u64 {
    u64::from(desc.bg_inode_bitmap_lo.get()) | (u64::from(desc.bg_inode_bitmap_hi.get()) << 32)
}

/// What is left of a range beside others, which are in order and do not overlap.
fn without(range: Range<u64>, taken: &[Range<u64>], mut rest: impl FnMut(Range<u64>)) {
    let mut start = range.start;
    let first = taken.partition_point(|taken| taken.end <= range.start);
    for taken in taken.iter().skip(first) {
        if taken.start >= range.end {
            break;
        }
        if taken.start > start {
            rest(start..taken.start);
        }
        start = start.max(taken.end);
    }
    if start < range.end {
        rest(start..range.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_left_out() {
        let taken = [0..2, 5..6, 8..10, 20..30];
        let left = |range| {
            let mut left = Vec::new();
            without(range, &taken, |rest| left.push(rest));
            left
        };
        assert_eq!(left(0..40), [2..5, 6..8, 10..20, 30..40]);
        assert_eq!(left(1..9), [2..5, 6..8]);
        assert_eq!(left(10..21), vec![10..20]);
        assert_eq!(left(21..30), []);
        assert_eq!(left(6..6), []);
    }
}
