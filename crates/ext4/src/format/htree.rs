//! `struct dx_root`, `dx_node`, `dx_entry` and `dx_tail`: hash trees over directory blocks.
//!
//! Block 0 is the root: entries `.` (12 bytes) and `..` (the rest, 4 + 8 bytes of name), then
//! [`DxRootInfo`] and the entries. An inner node is an unused 8-byte entry that spans the block,
//! then entries. The first entry's hash field is [`DxCountLimit`].

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Offset of [`DxRootInfo`] in the root block.
pub(crate) const ROOT_INFO_OFFSET: usize = 24;
/// Offset of the entries in the root block.
pub(crate) const ROOT_ENTRIES_OFFSET: usize = 32;
/// Offset of the entries in an inner node.
pub(crate) const NODE_ENTRIES_OFFSET: usize = 8;
/// Bytes of an entry.
pub(crate) const ENTRY_SIZE: usize = 8;
/// Bytes of the checksum tail behind the last possible entry.
pub(crate) const TAIL_SIZE: usize = 8;
/// `info_length`.
pub(crate) const ROOT_INFO_LENGTH: u8 = 8;
/// Levels of index the kernel takes (`EXT4_HTREE_LEVEL_COMPAT`), root included.
pub(crate) const LEVELS: usize = 2;
/// The same with `INCOMPAT_LARGEDIR` (`EXT4_HTREE_LEVEL`).
pub(crate) const LEVELS_LARGE_DIR: usize = 3;

/// Says how the tree is hashed.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct DxRootInfo {
    pub(crate) reserved_zero: U32,
    pub(crate) hash_version: u8,
    pub(crate) info_length: u8,
    /// Levels below the root that are index, 0 to 2.
    pub(crate) indirect_levels: u8,
    pub(crate) unused_flags: u8,
}

/// An index entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DxEntry {
    /// Lowest hash of the block. Bit 0: names of this hash began in the block before.
    pub(crate) hash: U32,
    /// Logical block of the directory.
    pub(crate) block: U32,
}

/// Stands where the first entry's hash would.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DxCountLimit {
    pub(crate) limit: U16,
    pub(crate) count: U16,
}

/// The checksum of an index block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct DxTail {
    pub(crate) dt_reserved: U32,
    pub(crate) dt_checksum: U32,
}

const _: () = assert!(size_of::<DxRootInfo>() == 8);
const _: () = assert!(size_of::<DxEntry>() == ENTRY_SIZE);
const _: () = assert!(size_of::<DxCountLimit>() == 4);
const _: () = assert!(size_of::<DxTail>() == TAIL_SIZE);
