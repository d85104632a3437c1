//! Fast commits (`fs/ext4/fast_commit.h`): tagged little-endian records in the blocks behind a log.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::extent::Extent;

/// A stretch of a file has these blocks ([`AddRange`]).
pub(crate) const ADD_RANGE: u16 = 1;
/// A stretch of a file has no blocks ([`RemoveRange`]).
pub(crate) const REMOVE_RANGE: u16 = 2;
/// A new inode has a name ([`Dentry`]).
pub(crate) const CREATE: u16 = 3;
/// An inode has one name more ([`Dentry`]).
pub(crate) const LINK: u16 = 4;
/// A name is gone ([`Dentry`]).
pub(crate) const UNLINK: u16 = 5;
/// An inode's number and its fields.
pub(crate) const INODE: u16 = 6;
/// Nothing, up to the end of a block.
pub(crate) const PAD: u16 = 7;
/// Closes a commit, and its block ([`Tail`]).
pub(crate) const TAIL: u16 = 8;
/// Heads the first commit behind a transaction ([`Head`]).
pub(crate) const HEAD: u16 = 9;

/// `struct ext4_fc_tl`: heads each record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RecordHeader {
    pub(crate) fc_tag: U16,
    /// Bytes behind this header.
    pub(crate) fc_len: U16,
}

/// `struct ext4_fc_head`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Head {
    /// None is known.
    pub(crate) fc_features: U32,
    /// The transaction that was running.
    pub(crate) fc_tid: U32,
}

/// `struct ext4_fc_tail`; what follows up to the record's end means nothing.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Tail {
    pub(crate) fc_tid: U32,
    /// crc32c, from 0, of the commit's records up to this field.
    pub(crate) fc_crc: U32,
}

/// `struct ext4_fc_add_range`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct AddRange {
    pub(crate) fc_ino: U32,
    pub(crate) fc_ex: Extent,
}

/// `struct ext4_fc_del_range`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RemoveRange {
    pub(crate) fc_ino: U32,
    pub(crate) fc_lblk: U32,
    pub(crate) fc_len: U32,
}

/// `struct ext4_fc_dentry_info`; the name follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Dentry {
    pub(crate) fc_parent_ino: U32,
    pub(crate) fc_ino: U32,
}

const _: () = assert!(size_of::<RecordHeader>() == 4);
const _: () = assert!(size_of::<Head>() == 8);
const _: () = assert!(size_of::<Tail>() == 8);
const _: () = assert!(size_of::<AddRange>() == 16);
const _: () = assert!(size_of::<RemoveRange>() == 12);
const _: () = assert!(size_of::<Dentry>() == 8);
