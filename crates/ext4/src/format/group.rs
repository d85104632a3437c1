//! `struct ext4_group_desc`: 64 bytes, of which the first 32 stand alone without `INCOMPAT_64BIT`.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a descriptor without `INCOMPAT_64BIT`.
pub(crate) const SIZE_32: usize = 32;
/// Bytes of a descriptor with `INCOMPAT_64BIT` as everyone writes it.
pub(crate) const SIZE_64: usize = 64;

/// `bg_flags`: inode table and inode bitmap are not initialised.
pub(crate) const FLAG_INODE_UNINIT: u16 = 0x0001;
/// `bg_flags`: the block bitmap is not initialised.
pub(crate) const FLAG_BLOCK_UNINIT: u16 = 0x0002;
/// `bg_flags`: the inode table is zeroed on disk.
pub(crate) const FLAG_INODE_ZEROED: u16 = 0x0004;

/// A block group's descriptor. Block numbers and counts; `_hi` parts only with 64 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct GroupDesc {
    pub(crate) bg_block_bitmap_lo: U32,
    pub(crate) bg_inode_bitmap_lo: U32,
    pub(crate) bg_inode_table_lo: U32,
    pub(crate) bg_free_blocks_count_lo: U16,
    pub(crate) bg_free_inodes_count_lo: U16,
    pub(crate) bg_used_dirs_count_lo: U16,
    pub(crate) bg_flags: U16,
    pub(crate) bg_exclude_bitmap_lo: U32,
    pub(crate) bg_block_bitmap_csum_lo: U16,
    pub(crate) bg_inode_bitmap_csum_lo: U16,
    /// Inodes at the end of the table that were never used.
    pub(crate) bg_itable_unused_lo: U16,
    pub(crate) bg_checksum: U16,
    pub(crate) bg_block_bitmap_hi: U32,
    pub(crate) bg_inode_bitmap_hi: U32,
    pub(crate) bg_inode_table_hi: U32,
    pub(crate) bg_free_blocks_count_hi: U16,
    pub(crate) bg_free_inodes_count_hi: U16,
    pub(crate) bg_used_dirs_count_hi: U16,
    pub(crate) bg_itable_unused_hi: U16,
    pub(crate) bg_exclude_bitmap_hi: U32,
    pub(crate) bg_block_bitmap_csum_hi: U16,
    pub(crate) bg_inode_bitmap_csum_hi: U16,
    pub(crate) bg_reserved: U32,
}

const _: () = assert!(size_of::<GroupDesc>() == SIZE_64);
const _: () = assert!(std::mem::offset_of!(GroupDesc, bg_checksum) == 0x1E);
const _: () = assert!(std::mem::offset_of!(GroupDesc, bg_block_bitmap_hi) == SIZE_32);
