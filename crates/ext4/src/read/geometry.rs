//! Whether a superblock can be believed, and what it says about where things lie.

use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::feature::{Compat, Incompat, RoCompat};
use crate::format::group;
use crate::format::inode::{BASE_SIZE, FIRST_INO};
use crate::format::superblock::{
    CHECKSUM_CRC32C, DYNAMIC_REV, MAGIC, SIZE, STATE_ERROR, STATE_VALID, Superblock,
};
use crate::types::BlockNo;

/// What a reader can serve: all that the kernel knows but compression and foreign journals.
const KNOWN: Incompat = Incompat::FILETYPE
    .with(Incompat::RECOVER)
    .with(Incompat::META_BG)
    .with(Incompat::EXTENTS)
    .with(Incompat::BIT64)
    .with(Incompat::MMP)
    .with(Incompat::FLEX_BG)
    .with(Incompat::EA_INODE)
    .with(Incompat::CSUM_SEED)
    .with(Incompat::LARGEDIR)
    .with(Incompat::INLINE_DATA)
    .with(Incompat::ENCRYPT)
    .with(Incompat::CASEFOLD);

/// Largest `s_log_block_size`: 64 KiB.
const MAX_LOG_BLOCK_SIZE: u32 = 6;
/// Largest `s_log_cluster_size`: 512 MiB.
const MAX_LOG_CLUSTER_SIZE: u32 = 19;
/// `s_creator_os`: the Hurd, which uses some inode fields otherwise.
const OS_HURD: u32 = 1;

/// A validated superblock.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Bytes, a power of two from 1024 to 65536.
    pub(super) block_size: u32,
    pub(super) block_shift: u32,
    pub(super) blocks: u64,
    pub(super) free_blocks: u64,
    pub(super) first_data_block: u32,
    pub(super) blocks_per_group: u32,
    pub(super) cluster_shift: u32,
    pub(super) groups: u32,
    pub(super) inodes: u32,
    pub(super) free_inodes: u32,
    pub(super) inodes_per_group: u32,
    /// Bytes, a power of two from 128 to the block size.
    pub(super) inode_size: u16,
    pub(super) first_inode: u32,
    /// Bytes, a power of two from 32 to 1024.
    pub(super) desc_size: u16,
    pub(super) first_meta_bg: u32,
    /// Blocks kept free behind the descriptors, for more of them.
    pub(super) reserved_descriptors: u16,
    pub(super) backup_groups: [u32; 2],
    pub(super) compat: Compat,
    pub(super) incompat: Incompat,
    pub(super) ro_compat: RoCompat,
    pub(super) seed: Checksum,
    pub(super) uuid: [u8; 16],
    pub(super) label: Vec<u8>,
    /// `None` without a journal.
    pub(super) journal: Option<u32>,
    pub(super) hurd: bool,
    pub(super) ever_mounted: bool,
    pub(super) has_errors: bool,
    /// Whether whoever wrote last finished; with a journal, whether that lets it be finished.
    pub(super) is_finished: bool,
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt(format!("superblock: {}", what.into()))
}

impl Geometry {
    pub(super) fn parse(bytes: &[u8; SIZE]) -> Result<Self> {
        let raw = Superblock::read_from_bytes(bytes)
            .map_err(|_| corrupt("has another size than expected"))?;
        if raw.s_magic.get() != MAGIC {
            return Err(Error::corrupt("no ext2, ext3 or ext4 superblock is here"));
        }
        let (compat, incompat, ro_compat) = features(&raw)?;
        if ro_compat.has(RoCompat::METADATA_CSUM) {
            if raw.s_checksum_type != CHECKSUM_CRC32C {
                return Err(Error::unsupported(format!(
                    "superblock: checksum type {}",
                    raw.s_checksum_type
                )));
            }
            if raw.s_checksum.get() != Checksum::superblock(bytes) {
                return Err(corrupt("bad checksum"));
            }
        }
        let block_shift = match raw.s_log_block_size.get() {
            log @ 0..=MAX_LOG_BLOCK_SIZE => log.saturating_add(10),
            log => return Err(corrupt(format!("block size of 2^{log} KiB"))),
        };
        let block_size = 1u32.wrapping_shl(block_shift);
        let bits = block_size.saturating_mul(8);
        let cluster_shift = cluster_shift(&raw, ro_compat)?;
        let group_limit = u64::from(bits)
            .checked_shl(cluster_shift)
            .unwrap_or(u64::MAX);

        let high = |low: u32, high: u32| {
            if incompat.has(Incompat::BIT64) {
                u64::from(low) | (u64::from(high) << 32)
            } else {
                u64::from(low)
            }
        };
        let blocks = high(raw.s_blocks_count_lo.get(), raw.s_blocks_count_hi.get());
        let free_blocks = high(
            raw.s_free_blocks_count_lo.get(),
            raw.s_free_blocks_count_hi.get(),
        );
        let first_data_block = raw.s_first_data_block.get();
        if first_data_block > 1 || (first_data_block == 1 && block_size != 1024) {
            return Err(corrupt(format!("first data block {first_data_block}")));
        }
        if blocks > (1 << 48) || blocks <= u64::from(first_data_block).saturating_add(3) {
            return Err(corrupt(format!("{blocks} blocks")));
        }
        let blocks_per_group = raw.s_blocks_per_group.get();
        if blocks_per_group < 8 || u64::from(blocks_per_group) > group_limit {
            return Err(corrupt(format!("{blocks_per_group} blocks a group")));
        }
        let groups = blocks
            .saturating_sub(u64::from(first_data_block))
            .div_ceil(u64::from(blocks_per_group));
        let groups = u32::try_from(groups).map_err(|_| corrupt(format!("{groups} groups")))?;
        let dynamic = raw.s_rev_level.get() >= DYNAMIC_REV;
        let (inode_size, first_inode) = if dynamic {
            (raw.s_inode_size.get(), raw.s_first_ino.get())
        } else {
            (128, FIRST_INO)
        };
        if usize::from(inode_size) < BASE_SIZE
            || !inode_size.is_power_of_two()
            || u32::from(inode_size) > block_size
        {
            return Err(corrupt(format!("inode size {inode_size}")));
        }
        let inodes_per_group = raw.s_inodes_per_group.get();
        if inodes_per_group == 0 || inodes_per_group > bits {
            return Err(corrupt(format!("{inodes_per_group} inodes a group")));
        }
        let inodes = raw.s_inodes_count.get();
        if u64::from(inodes) != u64::from(groups).saturating_mul(u64::from(inodes_per_group)) {
            return Err(corrupt(format!(
                "{inodes} inodes in {groups} groups of {inodes_per_group}"
            )));
        }
        if first_inode < FIRST_INO || first_inode > inodes {
            return Err(corrupt(format!("first inode {first_inode}")));
        }
        let desc_size = match raw.s_desc_size.get() {
            _ if !incompat.has(Incompat::BIT64) => 32,
            size if (64..=1024).contains(&size) && size.is_power_of_two() => size,
            size => return Err(corrupt(format!("descriptor size {size}"))),
        };
        debug_assert!(usize::from(desc_size) >= group::SIZE_32);
        let seed = if incompat.has(Incompat::CSUM_SEED) {
            Checksum(raw.s_checksum_seed.get())
        } else {
            Checksum::of_uuid(&raw.s_uuid)
        };
        let label = raw.s_volume_name.split(|&c| c == 0).next();
        let [backup0, backup1] = raw.s_backup_bgs;
        Ok(Self {
            block_size,
            block_shift,
            blocks,
            free_blocks,
            first_data_block,
            blocks_per_group,
            cluster_shift,
            groups,
            inodes,
            free_inodes: raw.s_free_inodes_count.get(),
            inodes_per_group,
            inode_size,
            first_inode,
            desc_size,
            first_meta_bg: raw.s_first_meta_bg.get(),
            reserved_descriptors: raw.s_reserved_gdt_blocks.get(),
            backup_groups: [backup0.get(), backup1.get()],
            compat,
            incompat,
            ro_compat,
            seed,
            uuid: raw.s_uuid,
            label: label.unwrap_or_default().to_vec(),
            journal: compat
                .has(Compat::HAS_JOURNAL)
                .then(|| raw.s_journal_inum.get()),
            hurd: raw.s_creator_os.get() == OS_HURD,
            ever_mounted: raw.s_mtime.get() != 0 || raw.s_mtime_hi != 0,
            has_errors: raw.s_state.get() & STATE_ERROR != 0,
            is_finished: raw.s_state.get() & STATE_VALID != 0,
        })
    }

    pub(super) fn has_checksums(&self) -> bool {
        self.ro_compat.has(RoCompat::METADATA_CSUM)
    }

    /// Bytes of the unit of allocation.
    pub(super) fn cluster_size(&self) -> u32 {
        self.block_size.checked_shl(self.cluster_shift).unwrap_or(0)
    }

    /// Byte offset of a block. Volumes have at most 2^48 blocks of 2^16 bytes; a block beyond is
    /// refused before it comes here, and would saturate.
    pub(super) fn offset(&self, block: BlockNo) -> u64 {
        block.0.saturating_mul(u64::from(self.block_size))
    }

    /// Checks that `count` blocks from `start` lie in the volume, behind the superblock.
    pub(super) fn check_blocks(&self, start: u64, count: u64, what: &'static str) -> Result<()> {
        let end = start.checked_add(count);
        if start <= u64::from(self.first_data_block) || end.is_none_or(|end| end > self.blocks) {
            return Err(
                Error::corrupt(format!("{what} lies outside the volume")).at_block(BlockNo(start))
            );
        }
        Ok(())
    }
}

fn features(raw: &Superblock) -> Result<(Compat, Incompat, RoCompat)> {
    if raw.s_rev_level.get() < DYNAMIC_REV {
        return Ok((Compat(0), Incompat(0), RoCompat(0)));
    }
    let incompat = Incompat(raw.s_feature_incompat.get());
    if incompat.has(Incompat::JOURNAL_DEV) {
        return Err(Error::unsupported(
            "this is an external journal (journal_dev), not a file system",
        ));
    }
    let unknown = incompat.without(KNOWN);
    if !unknown.is_empty() {
        return Err(Error::unsupported(format!("file system feature {unknown}")));
    }
    Ok((
        Compat(raw.s_feature_compat.get()),
        incompat,
        RoCompat(raw.s_feature_ro_compat.get()),
    ))
}

/// By how many bits clusters are larger than blocks.
fn cluster_shift(raw: &Superblock, ro_compat: RoCompat) -> Result<u32> {
    if !ro_compat.has(RoCompat::BIGALLOC) {
        return Ok(0);
    }
    let log = raw.s_log_cluster_size.get();
    match log.checked_sub(raw.s_log_block_size.get()) {
        Some(shift) if log <= MAX_LOG_CLUSTER_SIZE => Ok(shift),
        _ => Err(corrupt(format!("cluster size of 2^{log} KiB"))),
    }
}
