//! JBD2, the journal (`include/linux/jbd2.h`): big-endian blocks that say what the log holds.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `h_magic` of every block that is not a copy.
pub(crate) const MAGIC: u32 = 0xC03B_3998;
/// Bytes of [`JournalSuperblock`].
pub(crate) const SUPERBLOCK_SIZE: usize = 1024;
/// Bytes of [`Header`].
pub(crate) const HEADER_SIZE: usize = 12;
/// Bytes of [`RevokeHeader`].
pub(crate) const REVOKE_HEADER_SIZE: usize = 16;
/// Bytes of the checksum that closes descriptor and revoke blocks with checksums v2 and v3.
pub(crate) const TAIL_SIZE: usize = 4;
/// Bytes of the UUID behind a tag that lacks [`TAG_SAME_UUID`].
pub(crate) const TAG_UUID_SIZE: usize = 16;
/// Offset of `h_chksum` in a commit block.
pub(crate) const COMMIT_CHECKSUM_OFFSET: usize = 16;
/// Blocks of the fast-commit area when `s_num_fc_blks` is 0.
pub(crate) const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
/// Fewest blocks a log may have (`JBD2_MIN_JOURNAL_BLOCKS`).
pub(crate) const MIN_BLOCKS: u32 = 1024;
/// `s_checksum_type`, `h_chksum_type`: crc32c.
pub(crate) const CHECKSUM_CRC32C: u8 = 4;
/// `h_chksum_type`: crc32, of `COMPAT_CHECKSUM`.
pub(crate) const CHECKSUM_CRC32: u8 = 1;

/// `h_blocktype`: lists the copies that follow.
pub(crate) const DESCRIPTOR: u32 = 1;
/// `h_blocktype`: ends a transaction.
pub(crate) const COMMIT: u32 = 2;
/// `h_blocktype`: superblock without features.
pub(crate) const SUPERBLOCK_V1: u32 = 3;
/// `h_blocktype`: superblock with features.
pub(crate) const SUPERBLOCK_V2: u32 = 4;
/// `h_blocktype`: lists blocks whose earlier copies are void.
pub(crate) const REVOKE: u32 = 5;

/// `t_flags`: the copy began with the magic number, which was zeroed.
pub(crate) const TAG_ESCAPE: u16 = 1;
/// `t_flags`: no UUID follows the tag.
pub(crate) const TAG_SAME_UUID: u16 = 2;
/// `t_flags`: the last tag of the block.
pub(crate) const TAG_LAST: u16 = 8;

/// `s_feature_compat`: commit blocks hold a crc32 of the transaction (checksums v1).
pub(crate) const COMPAT_CHECKSUM: u32 = 0x1;
/// `s_feature_incompat`: revoke blocks occur.
pub(crate) const INCOMPAT_REVOKE: u32 = 0x1;
/// `s_feature_incompat`: block numbers have 64 bits.
pub(crate) const INCOMPAT_64BIT: u32 = 0x2;
/// `s_feature_incompat`: commit blocks may be there before the blocks they commit.
pub(crate) const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
/// `s_feature_incompat`: checksums v2.
pub(crate) const INCOMPAT_CSUM_V2: u32 = 0x8;
/// `s_feature_incompat`: checksums v3.
pub(crate) const INCOMPAT_CSUM_V3: u32 = 0x10;
/// `s_feature_incompat`: the log's end is a fast-commit area.
pub(crate) const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// The features of `s_feature_incompat` that are known.
pub(crate) const INCOMPAT_KNOWN: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

/// `journal_header_t`: heads every block of the log that is not a copy.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) h_magic: U32,
    pub(crate) h_blocktype: U32,
    /// The transaction the block belongs to.
    pub(crate) h_sequence: U32,
}

/// `journal_superblock_t`: the first block of the log.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct JournalSuperblock {
    pub(crate) s_header: Header,
    /// Bytes of a block, the file system's.
    pub(crate) s_blocksize: U32,
    /// Blocks of the log, this one and the fast-commit area included.
    pub(crate) s_maxlen: U32,
    /// First block behind the superblock.
    pub(crate) s_first: U32,
    /// The first transaction that the log may hold.
    pub(crate) s_sequence: U32,
    /// Where that transaction begins, 0 for an empty log.
    pub(crate) s_start: U32,
    pub(crate) s_errno: U32,
    pub(crate) s_feature_compat: U32,
    pub(crate) s_feature_incompat: U32,
    pub(crate) s_feature_ro_compat: U32,
    pub(crate) s_uuid: [u8; 16],
    pub(crate) s_nr_users: U32,
    pub(crate) s_dynsuper: U32,
    pub(crate) s_max_transaction: U32,
    pub(crate) s_max_trans_data: U32,
    pub(crate) s_checksum_type: u8,
    pub(crate) s_padding2: [u8; 3],
    /// Blocks of the fast-commit area, 0 for [`DEFAULT_FAST_COMMIT_BLOCKS`].
    pub(crate) s_num_fc_blks: U32,
    pub(crate) s_head: U32,
    pub(crate) s_padding: [U32; 40],
    /// crc32c of these 1024 bytes, this field zeroed.
    pub(crate) s_checksum: U32,
    pub(crate) s_users: [[u8; 16]; 48],
}

/// `journal_block_tag3_t`: a tag with checksums v3.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Tag3 {
    pub(crate) t_blocknr: U32,
    pub(crate) t_flags: U32,
    pub(crate) t_blocknr_high: U32,
    pub(crate) t_checksum: U32,
}

/// The 8 bytes that every other tag begins with (`journal_block_tag_t`): `t_blocknr_high` follows
/// with 64 bits, and two bytes more (unused) with checksums v2.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Tag {
    pub(crate) t_blocknr: U32,
    pub(crate) t_checksum: U16,
    pub(crate) t_flags: U16,
}

/// `jbd2_journal_revoke_header_t`: block numbers of 4 or 8 bytes follow.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RevokeHeader {
    pub(crate) r_header: Header,
    /// Bytes in use, this header included.
    pub(crate) r_count: U32,
}

/// `struct commit_header`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct CommitHeader {
    pub(crate) h_header: Header,
    pub(crate) h_chksum_type: u8,
    pub(crate) h_chksum_size: u8,
    pub(crate) h_padding: [u8; 2],
    pub(crate) h_chksum: [U32; 8],
    pub(crate) h_commit_sec: U64,
    pub(crate) h_commit_nsec: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_SIZE);
const _: () = assert!(size_of::<JournalSuperblock>() == SUPERBLOCK_SIZE);
const _: () = assert!(std::mem::offset_of!(JournalSuperblock, s_checksum_type) == 0x50);
const _: () = assert!(std::mem::offset_of!(JournalSuperblock, s_checksum) == 0xFC);
const _: () = assert!(size_of::<Tag3>() == 16);
const _: () = assert!(size_of::<Tag>() == 8);
const _: () = assert!(size_of::<RevokeHeader>() == REVOKE_HEADER_SIZE);
const _: () = assert!(size_of::<CommitHeader>() == 60);
const _: () = assert!(std::mem::offset_of!(CommitHeader, h_chksum) == COMMIT_CHECKSUM_OFFSET);
