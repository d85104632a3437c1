//! The superblock of a finished volume.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::Finished;
use super::directory::HASH_VERSION;
use super::geometry::Geometry;
use super::options::WriterOptions;
use crate::format::checksum::Checksum;
use crate::format::feature::{Compat, Incompat, RoCompat};
use crate::format::group::SIZE_64;
use crate::format::inode::{EXTRA_SIZE, FIRST_INO, JOURNAL_INO};
use crate::format::superblock::{
    CHECKSUM_CRC32C, DEFM_ACL, DEFM_XATTR_USER, DYNAMIC_REV, ERRORS_CONTINUE, FLAG_SIGNED_HASH,
    JNL_BACKUP_BLOCKS, MAGIC, SIZE, STATE_VALID, Superblock,
};
use crate::num::{high32, low8, low16, low32, put, wide};

/// What the superblock says that options do not.
pub(super) struct Facts<'a> {
    pub(super) geometry: Geometry,
    pub(super) finished: Finished,
    pub(super) inodes_per_group: u32,
    pub(super) large_dir: bool,
    pub(super) ea_inode: bool,
    /// The journal's `i_block` and size.
    pub(super) journal: Option<(&'a [u8; 60], u64)>,
}

/// Groups whose inodes the kernel treats as one, as a power of two.
const LOG_GROUPS_PER_FLEX: u8 = 4;

/// The seed of directory hashes, as four words.
pub(super) fn hash_seed(bytes: &[u8; 16]) -> [U32; 4] {
    zerocopy::transmute!(*bytes)
}

/// What the superblock says, but for its checksum.
pub(super) fn encode(options: &WriterOptions, facts: &Facts<'_>) -> Superblock {
    let Facts {
        geometry, finished, ..
    } = facts;
    let mut sb = Superblock::new_zeroed();
    let created = low32(u64::try_from(options.created.seconds).unwrap_or(0));
    let created_hi = low8(crate::num::index(high32(
        u64::try_from(options.created.seconds).unwrap_or(0),
    )));
    let log_block_size = geometry.block_size.trailing_zeros().saturating_sub(10);
    let per_group = low32(geometry.blocks_per_group);

    sb.s_inodes_count = U32::new(finished.inodes);
    sb.s_free_inodes_count = U32::new(finished.free_inodes);
    sb.s_blocks_count_lo = U32::new(low32(finished.blocks));
    sb.s_blocks_count_hi = U32::new(high32(finished.blocks));
    sb.s_free_blocks_count_lo = U32::new(low32(finished.free_blocks));
    sb.s_free_blocks_count_hi = U32::new(high32(finished.free_blocks));
    sb.s_first_data_block = U32::new(low32(geometry.first_data_block));
    sb.s_log_block_size = U32::new(log_block_size);
    sb.s_log_cluster_size = U32::new(log_block_size);
    sb.s_blocks_per_group = U32::new(per_group);
    sb.s_clusters_per_group = U32::new(per_group);
    sb.s_inodes_per_group = U32::new(facts.inodes_per_group);
    sb.s_wtime = U32::new(created);
    sb.s_wtime_hi = created_hi;
    sb.s_mkfs_time = U32::new(created);
    sb.s_mkfs_time_hi = created_hi;
    sb.s_lastcheck = U32::new(created);
    sb.s_lastcheck_hi = created_hi;
    sb.s_max_mnt_count = U16::new(u16::MAX);
    sb.s_magic = U16::new(MAGIC);
    sb.s_state = U16::new(STATE_VALID);
    sb.s_errors = U16::new(ERRORS_CONTINUE);
    sb.s_rev_level = U32::new(DYNAMIC_REV);
    sb.s_first_ino = U32::new(FIRST_INO);
    sb.s_inode_size = U16::new(low16(low32(wide(super::inode::SIZE))));
    sb.s_uuid = options.uuid;
    put(&mut sb.s_volume_name, 0, &options.label);
    sb.s_hash_seed = hash_seed(&options.hash_seed);
    sb.s_def_hash_version = HASH_VERSION.0;
    sb.s_flags = U32::new(FLAG_SIGNED_HASH);
    sb.s_desc_size = U16::new(low16(low32(wide(SIZE_64))));
    sb.s_default_mount_opts = U32::new(DEFM_XATTR_USER | DEFM_ACL);
    sb.s_min_extra_isize = U16::new(low16(low32(wide(EXTRA_SIZE))));
    sb.s_want_extra_isize = sb.s_min_extra_isize;
    sb.s_log_groups_per_flex = LOG_GROUPS_PER_FLEX;
    sb.s_checksum_type = CHECKSUM_CRC32C;

    let mut compat = Compat::EXT_ATTR
        .with(Compat::DIR_INDEX)
        .with(Compat::SPARSE_SUPER2);
    let mut incompat = Incompat::FILETYPE
        .with(Incompat::EXTENTS)
        .with(Incompat::BIT64)
        .with(Incompat::FLEX_BG);
    let ro_compat = RoCompat::SPARSE_SUPER
        .with(RoCompat::LARGE_FILE)
        .with(RoCompat::HUGE_FILE)
        .with(RoCompat::DIR_NLINK)
        .with(RoCompat::EXTRA_ISIZE)
        .with(RoCompat::METADATA_CSUM);
    if geometry.needs_meta_groups(u64::from(finished.groups)) {
        incompat = incompat.with(Incompat::META_BG);
        sb.s_first_meta_bg = U32::new(low32(geometry.descriptor_blocks));
    }
    if options.inline_data {
        incompat = incompat.with(Incompat::INLINE_DATA);
    }
    if facts.large_dir {
        incompat = incompat.with(Incompat::LARGEDIR);
    }
    if facts.ea_inode {
        incompat = incompat.with(Incompat::EA_INODE);
    }
    if let Some((i_block, size)) = facts.journal {
        compat = compat.with(Compat::HAS_JOURNAL);
        sb.s_journal_inum = U32::new(JOURNAL_INO);
        sb.s_jnl_backup_type = JNL_BACKUP_BLOCKS;
        let mut backup = [0; 68];
        put(&mut backup, 0, i_block);
        put(&mut backup, 60, &high32(size).to_le_bytes());
        put(&mut backup, 64, &low32(size).to_le_bytes());
        sb.s_jnl_blocks = zerocopy::transmute!(backup);
    }
    sb.s_feature_compat = U32::new(compat.0);
    sb.s_feature_incompat = U32::new(incompat.0);
    sb.s_feature_ro_compat = U32::new(ro_compat.0);

    sb.s_backup_bgs = geometry.backups.map(|group| U32::new(low32(group)));
    sb
}

/// The bytes of the superblock as it stands in a group: the first group's counts, the others are
/// its backups.
pub(super) fn sealed(sb: &Superblock, group: u64) -> [u8; SIZE] {
    let mut sb = sb.clone();
    sb.s_block_group_nr = U16::new(low16(low32(group)));
    let mut bytes: [u8; SIZE] = zerocopy::transmute!(sb);
    let sum = Checksum::superblock(&bytes);
    put(&mut bytes, SIZE.saturating_sub(4), sum.as_bytes());
    bytes
}
