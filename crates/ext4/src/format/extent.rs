//! `struct ext4_extent_header`, `ext4_extent_idx`, `ext4_extent` and `ext4_extent_tail`: 12-byte
//! records in `i_block` or filling a block, the 4-byte checksum behind them.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `eh_magic`.
pub(crate) const MAGIC: u16 = 0xF30A;
/// Bytes of a header, an index entry and an extent alike.
pub(crate) const RECORD_SIZE: usize = 12;
/// Deepest tree the kernel takes (`EXT4_MAX_EXTENT_DEPTH`).
pub(crate) const MAX_DEPTH: u16 = 5;
/// Longest initialised extent in blocks; `ee_len` above it means unwritten and longer by this.
pub(crate) const INIT_MAX_LEN: u16 = 32768;

/// Heads each node of the tree.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ExtentHeader {
    pub(crate) eh_magic: U16,
    pub(crate) eh_entries: U16,
    pub(crate) eh_max: U16,
    /// 0 in leaves.
    pub(crate) eh_depth: U16,
    pub(crate) eh_generation: U32,
}

/// An inner node's entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ExtentIdx {
    /// First logical block the subtree covers.
    pub(crate) ei_block: U32,
    pub(crate) ei_leaf_lo: U32,
    pub(crate) ei_leaf_hi: U16,
    pub(crate) ei_unused: U16,
}

/// A leaf's entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Extent {
    /// First logical block.
    pub(crate) ee_block: U32,
    pub(crate) ee_len: U16,
    pub(crate) ee_start_hi: U16,
    pub(crate) ee_start_lo: U32,
}

const _: () = assert!(size_of::<ExtentHeader>() == RECORD_SIZE);
const _: () = assert!(size_of::<ExtentIdx>() == RECORD_SIZE);
const _: () = assert!(size_of::<Extent>() == RECORD_SIZE);
