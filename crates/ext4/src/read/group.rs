//! Where a group's descriptor lies, whether it can be believed, and where its inodes are.

use positioned_io::ReadAt;
use zerocopy::FromBytes;

use super::geometry::Geometry;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::format::feature::{Compat, Incompat, RoCompat};
use crate::format::group::{GroupDesc, SIZE_64};
use crate::num::index as size;
use crate::types::BlockNo;

/// Offset of `bg_checksum`.
const CHECKSUM_OFFSET: usize = 0x1E;

impl Geometry {
    /// The block that holds the `index`th block of descriptors (`descriptor_loc`).
    fn descriptor_block(&self, index: u32, per_block: u32) -> u64 {
        let superblock = if self.block_size == 1024 { 1 } else { 0 };
        if !self.incompat.has(Incompat::META_BG) || index < self.first_meta_bg {
            return u64::from(index)
                .saturating_add(superblock)
                .saturating_add(1);
        }
        let group = index.saturating_mul(per_block);
        let mut skip = u64::from(self.has_superblock(group));
        // With 1 KiB blocks the superblock is block 1, wherever group 0 begins.
        if self.block_size == 1024 && index == 0 && self.first_data_block == 0 {
            skip = skip.saturating_add(1);
        }
        u64::from(group)
            .saturating_mul(u64::from(self.blocks_per_group))
            .saturating_add(u64::from(self.first_data_block))
            .saturating_add(skip)
    }

    /// Blocks at a group's start that hold the superblock, descriptors or room for more of them, or
    /// may do so: there is no group with more.
    pub(super) fn group_head(&self, group: u32) -> u64 {
        let per_block = self
            .block_size
            .checked_div(u32::from(self.desc_size))
            .unwrap_or(1)
            .max(1);
        let superblock = u64::from(self.has_superblock(group));
        let index = group.checked_div(per_block).unwrap_or(0);
        if self.incompat.has(Incompat::META_BG) && index >= self.first_meta_bg {
            // One block of descriptors, in the first, second and last group that it is of.
            let within = group.checked_rem(per_block).unwrap_or(0);
            let has_one = within <= 1 || within == per_block.saturating_sub(1);
            return superblock.saturating_add(u64::from(has_one));
        }
        if superblock == 0 {
            return 0;
        }
        let mut blocks = self.groups.div_ceil(per_block);
        if self.incompat.has(Incompat::META_BG) {
            blocks = blocks.min(self.first_meta_bg);
        }
        superblock
            .saturating_add(u64::from(blocks))
            .saturating_add(u64::from(self.reserved_descriptors))
    }

    /// Whether a group begins with a copy of the superblock.
    fn has_superblock(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat.has(Compat::SPARSE_SUPER2) {
            return self.backup_groups.contains(&group);
        }
        if group == 1 || !self.ro_compat.has(RoCompat::SPARSE_SUPER) {
            return true;
        }
        [3, 5, 7].into_iter().any(|root| is_power(group, root))
    }

    /// Blocks of a group's inode table.
    fn table_blocks(&self) -> u64 {
        u64::from(self.inodes_per_group)
            .saturating_mul(u64::from(self.inode_size))
            .div_ceil(u64::from(self.block_size))
    }
}

fn is_power(mut number: u32, root: u32) -> bool {
    while number > 1 && number.checked_rem(root) == Some(0) {
        number = number.checked_div(root).unwrap_or(0);
    }
    number == 1
}

impl<R: ReadAt> Volume<R> {
    /// Where the inode table of a group begins and ends.
    pub(super) fn inode_table(&self, group: u32) -> Result<(BlockNo, u64)> {
        let desc = self.descriptor(group)?;
        let table = u64::from(desc.bg_inode_table_lo.get())
            | (u64::from(desc.bg_inode_table_hi.get()) << 32);
        let blocks = self.geometry.table_blocks();
        self.geometry
            .check_blocks(table, blocks, "an inode table")?;
        Ok((BlockNo(table), table.saturating_add(blocks)))
    }

    /// A group's descriptor, whose checksum is right.
    pub(super) fn descriptor(&self, group: u32) -> Result<GroupDesc> {
        let geometry = &self.geometry;
        let desc_size = u32::from(geometry.desc_size);
        let per_block = geometry.block_size.checked_div(desc_size).unwrap_or(1);
        let index = group.checked_div(per_block).unwrap_or(0);
        let within = group.checked_rem(per_block).unwrap_or(0);
        let at = geometry.descriptor_block(index, per_block);
        let bad = |what: &str| {
            Error::corrupt(format!("descriptor of group {group}: {what}")).at_block(BlockNo(at))
        };
        if at >= geometry.blocks {
            return Err(bad("lies outside the volume"));
        }
        let block = self.block(BlockNo(at))?;
        let start = size(within.saturating_mul(desc_size));
        let bytes = block
            .get(start..start.saturating_add(size(desc_size)))
            .ok_or_else(|| bad("is cut off"))?;
        let mut padded = [0; SIZE_64];
        for (to, from) in padded.iter_mut().zip(bytes) {
            *to = *from;
        }
        let desc = GroupDesc::read_from_bytes(&padded).map_err(|_| bad("is cut off"))?;
        if let Some(expected) = self.descriptor_checksum(group, bytes)
            && expected != desc.bg_checksum.get()
        {
            return Err(bad("bad checksum"));
        }
        Ok(desc)
    }

    fn descriptor_checksum(&self, group: u32, bytes: &[u8]) -> Option<u16> {
        let geometry = &self.geometry;
        if geometry.has_checksums() {
            return Some(geometry.seed.group_desc(group, bytes));
        }
        if !geometry.ro_compat.has(RoCompat::GDT_CSUM) {
            return None;
        }
        let (before, rest) = bytes.split_at(bytes.len().min(CHECKSUM_OFFSET));
        let mut sum = crc16(u16::MAX, &geometry.uuid);
        sum = crc16(sum, &group.to_le_bytes());
        sum = crc16(sum, before);
        Some(crc16(sum, rest.get(2..).unwrap_or_default()))
    }
}

/// CRC-16 (polynomial 0x8005, reflected), the checksum of `uninit_bg`.
fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |sum, &byte| {
        (0..8).fold(sum ^ u16::from(byte), |sum, _| {
            let shifted = sum >> 1;
            if sum & 1 == 0 {
                shifted
            } else {
                shifted ^ 0xA001
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_matches_the_standard_check_values() {
        assert_eq!(crc16(0, b"123456789"), 0xBB3D);
        assert_eq!(crc16(u16::MAX, b"123456789"), 0x4B37);
    }

    #[test]
    fn backups_lie_in_powers() {
        let powers: Vec<u32> = (1..130)
            .filter(|&group| [3, 5, 7].into_iter().any(|root| is_power(group, root)))
            .collect();
        assert_eq!(powers, [1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        assert!(!is_power(0, 3));
    }
}
