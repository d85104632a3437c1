//! `struct ext4_dir_entry_2` and `ext4_dir_entry_tail`: the records of a linear directory block.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest name in bytes.
pub(crate) const NAME_MAX: usize = 255;
/// Bytes of an entry before its name. The whole is padded to a multiple of 4.
pub(crate) const HEADER_SIZE: usize = 8;
/// Bytes of the checksum tail that closes a block with `metadata_csum`.
pub(crate) const TAIL_SIZE: usize = 12;
/// `det_reserved_ft`, where an entry has its file type.
pub(crate) const TAIL_FILE_TYPE: u8 = 0xDE;

/// File type codes of entries (`INCOMPAT_FILETYPE`).
pub(crate) mod file_type {
    /// Not told.
    pub(crate) const UNKNOWN: u8 = 0;
    /// Regular file.
    pub(crate) const REG_FILE: u8 = 1;
    /// Directory.
    pub(crate) const DIR: u8 = 2;
    /// Character device.
    pub(crate) const CHRDEV: u8 = 3;
    /// Block device.
    pub(crate) const BLKDEV: u8 = 4;
    /// Fifo.
    pub(crate) const FIFO: u8 = 5;
    /// Socket.
    pub(crate) const SOCK: u8 = 6;
    /// Symbolic link.
    pub(crate) const SYMLINK: u8 = 7;
}

/// The head of an entry; `name_len` bytes of name follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DirEntryHeader {
    /// 0 for an entry that is not in use.
    pub(crate) inode: U32,
    /// Bytes to the next entry. 65535 and 0 mean 65536 with 64 KiB blocks.
    pub(crate) rec_len: U16,
    pub(crate) name_len: u8,
    /// High byte of `name_len` without `INCOMPAT_FILETYPE`.
    pub(crate) file_type: u8,
}

/// The last 12 bytes of a checksummed block, dressed as an unused entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct DirEntryTail {
    pub(crate) det_reserved_zero1: U32,
    pub(crate) det_rec_len: U16,
    pub(crate) det_reserved_zero2: u8,
    pub(crate) det_reserved_ft: u8,
    pub(crate) det_checksum: U32,
}

const _: () = assert!(size_of::<DirEntryHeader>() == HEADER_SIZE);
const _: () = assert!(size_of::<DirEntryTail>() == TAIL_SIZE);
