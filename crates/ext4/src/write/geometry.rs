//! Where a volume's fixed structures are: groups, and the descriptor blocks that data must not take.
//!
//! A volume of a size asked for, which a kernel may write to for long, has backups of superblock
//! and descriptors at the start of its second and last group (`sparse_super2`). One that is as
//! small as its content has none: where its last group begins is not known while data streams.
//!
//! The first `descriptor_blocks` blocks of descriptors follow the superblock. Should the volume
//! outgrow them, each further descriptor block lies with the groups it describes (`meta_bg`): at
//! the start of its first, second and last group. Those places are known without knowing the size,
//! so data may stream past them.

use super::allocate::Span;
use crate::error::{Error, Result};
use crate::format::group;
use crate::num::index;

/// The fixed numbers of a volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Bytes a block.
    pub(super) block_size: u32,
    /// The block that group 0 starts with: 1 with 1 KiB blocks.
    pub(super) first_data_block: u64,
    /// Blocks a group.
    pub(super) blocks_per_group: u64,
    /// Blocks for descriptors behind the superblock.
    pub(super) descriptor_blocks: u64,
    /// Groups that start with a backup of superblock and descriptors; 0 for none.
    pub(super) backups: [u64; 2],
}

/// Blocks for descriptors when the size is not known: 128 GiB with 4 KiB blocks.
const DESCRIPTOR_BLOCKS: u64 = 16;

impl Geometry {
    pub(super) fn new(block_size: u32, blocks: Option<u64>) -> Result<Self> {
        if !matches!(block_size, 1024 | 2048 | 4096) {
            return Err(Error::invalid(format!(
                "block size {block_size}: 1024, 2048 or 4096 is possible"
            )));
        }
        let mut geometry = Self {
            block_size,
            first_data_block: u64::from(block_size == 1024),
            blocks_per_group: u64::from(block_size).saturating_mul(8),
            descriptor_blocks: DESCRIPTOR_BLOCKS,
            backups: [0; 2],
        };
        if let Some(blocks) = blocks {
            let groups = geometry.groups(blocks);
            let needed = groups.div_ceil(geometry.descriptors_per_block());
            geometry.descriptor_blocks = needed.clamp(1, geometry.blocks_per_group / 4);
            geometry.backups = geometry.backups_of(blocks, groups);
        }
        Ok(geometry)
    }

    /// The second and the last group, where they have room for a backup.
    fn backups_of(&self, blocks: u64, groups: u64) -> [u64; 2] {
        let fits = |group: u64| {
            let end = self.group_start(group).saturating_add(self.backup_blocks());
            group > 0 && group < groups && end < blocks && !self.needs_meta_groups(groups)
        };
        let last = groups.saturating_sub(1);
        let [first, last] = [1, last].map(|group| if fits(group) { group } else { 0 });
        [first, if last == first { 0 } else { last }]
    }

    /// Blocks that a backup takes: superblock and descriptors.
    fn backup_blocks(&self) -> u64 {
        self.descriptor_blocks.saturating_add(1)
    }

    /// The first blocks of the groups with backups.
    pub(super) fn backup_starts(&self) -> impl Iterator<Item = (u64, u64)> {
        let geometry = *self;
        self.backups
            .into_iter()
            .filter(|&group| group > 0)
            .map(move |group| (group, geometry.group_start(group)))
    }

    /// Bytes a block, in memory.
    pub(super) fn block_len(&self) -> usize {
        index(self.block_size)
    }

    /// The byte that a block starts at.
    pub(super) fn offset(&self, block: u64) -> u64 {
        block.saturating_mul(u64::from(self.block_size))
    }

    /// 512-byte sectors a block.
    pub(super) fn sectors(&self) -> u64 {
        u64::from(self.block_size) / 512
    }

    /// Descriptors a block.
    pub(super) fn descriptors_per_block(&self) -> u64 {
        u64::from(self.block_size) / 64
    }

    /// The first block of descriptors.
    pub(super) fn first_descriptor_block(&self) -> u64 {
        self.first_data_block.saturating_add(1)
    }

    /// The first block that is not spoken for.
    pub(super) fn first_free(&self) -> u64 {
        self.first_descriptor_block()
            .saturating_add(self.descriptor_blocks)
    }

    /// Groups of a volume of so many blocks.
    pub(super) fn groups(&self, blocks: u64) -> u64 {
        blocks
            .saturating_sub(self.first_data_block)
            .div_ceil(self.blocks_per_group.max(1))
    }

    /// The first block of a group.
    pub(super) fn group_start(&self, group: u64) -> u64 {
        group
            .saturating_mul(self.blocks_per_group)
            .saturating_add(self.first_data_block)
    }

    /// The first group whose descriptor does not fit behind the superblock.
    fn first_meta_group(&self) -> u64 {
        self.descriptor_blocks
            .saturating_mul(self.descriptors_per_block())
    }

    /// Whether a group starts with a block of descriptors of its own.
    pub(super) fn is_meta_group(&self, group: u64) -> bool {
        let per_block = self.descriptors_per_block().max(1);
        let place = group.checked_rem(per_block).unwrap_or(0);
        group >= self.first_meta_group() && (place <= 1 || place == per_block.saturating_sub(1))
    }

    /// Whether a volume of so many groups needs `meta_bg`.
    pub(super) fn needs_meta_groups(&self, groups: u64) -> bool {
        groups > self.first_meta_group()
    }

    /// How many blocks at a group's start data must not take, of all groups but the first.
    pub(super) fn reserved_in(&self, group: u64) -> u64 {
        if group > 0 && self.backups.contains(&group) {
            self.backup_blocks()
        } else {
            u64::from(self.is_meta_group(group))
        }
    }

    /// The first run of blocks that is not before `block` and reserved for descriptors or backups.
    pub(super) fn next_reserved(&self, block: u64) -> Span {
        let past = block.saturating_sub(self.first_data_block);
        let next = past.div_ceil(self.blocks_per_group.max(1));
        let mut group = next.max(self.first_meta_group());
        // At most `descriptors_per_block` steps.
        while !self.is_meta_group(group) {
            group = group.saturating_add(1);
        }
        for backup in self.backups {
            if backup > 0 && backup >= next {
                group = group.min(backup);
            }
        }
        Span {
            start: self.group_start(group),
            count: self.reserved_in(group),
        }
    }

    /// Where descriptor block `number` is written, with its copies.
    pub(super) fn descriptor_places(&self, number: u64, groups: u64) -> Vec<u64> {
        if number < self.descriptor_blocks {
            let behind = |start: u64| start.saturating_add(1).saturating_add(number);
            let backups = self.backup_starts().map(|(_, start)| behind(start));
            return std::iter::once(behind(self.first_data_block))
                .chain(backups)
                .collect();
        }
        let per_block = self.descriptors_per_block();
        let first = number.saturating_mul(per_block);
        [0, 1, per_block.saturating_sub(1)]
            .into_iter()
            .map(|step| first.saturating_add(step))
            .filter(|&group| group < groups)
            .map(|group| self.group_start(group))
            .collect()
    }
}

const _: () = assert!(group::SIZE_64 == 64);
