//! `struct ext4_inode`: 128 bytes, and up to 32 more when inodes are larger.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an inode without extra fields.
pub(crate) const BASE_SIZE: usize = 128;
/// Bytes of the extra fields that exist today (`i_extra_isize` as everyone writes it).
pub(crate) const EXTRA_SIZE: usize = 32;

/// The root directory.
pub(crate) const ROOT_INO: u32 = 2;
/// The journal.
pub(crate) const JOURNAL_INO: u32 = 8;
/// The first inode that files may have (`s_first_ino` of everything but ext2 revision 0).
pub(crate) const FIRST_INO: u32 = 11;

/// Mask of the file type in `i_mode`.
pub(crate) const S_IFMT: u16 = 0xF000;
/// Fifo.
pub(crate) const S_IFIFO: u16 = 0x1000;
/// Character device.
pub(crate) const S_IFCHR: u16 = 0x2000;
/// Directory.
pub(crate) const S_IFDIR: u16 = 0x4000;
/// Block device.
pub(crate) const S_IFBLK: u16 = 0x6000;
/// Regular file.
pub(crate) const S_IFREG: u16 = 0x8000;
/// Symbolic link.
pub(crate) const S_IFLNK: u16 = 0xA000;
/// Socket.
pub(crate) const S_IFSOCK: u16 = 0xC000;

/// `i_flags`: encrypted.
pub(crate) const FLAG_ENCRYPT: u32 = 0x0000_0800;
/// `i_flags`: the directory has a hash tree.
pub(crate) const FLAG_INDEX: u32 = 0x0000_1000;
/// `i_flags`: `i_blocks` counts file system blocks.
pub(crate) const FLAG_HUGE_FILE: u32 = 0x0004_0000;
/// `i_flags`: `i_block` holds an extent tree.
pub(crate) const FLAG_EXTENTS: u32 = 0x0008_0000;
/// `i_flags`: fs-verity.
pub(crate) const FLAG_VERITY: u32 = 0x0010_0000;
/// `i_flags`: the inode is an extended attribute's value.
pub(crate) const FLAG_EA_INODE: u32 = 0x0020_0000;
/// `i_flags`: data lies in the inode.
pub(crate) const FLAG_INLINE_DATA: u32 = 0x1000_0000;
/// `i_flags`: the directory's names are compared without case.
pub(crate) const FLAG_CASEFOLD: u32 = 0x4000_0000;

/// The first 128 bytes of an inode.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct Inode {
    pub(crate) i_mode: U16,
    pub(crate) i_uid: U16,
    pub(crate) i_size_lo: U32,
    pub(crate) i_atime: U32,
    pub(crate) i_ctime: U32,
    pub(crate) i_mtime: U32,
    pub(crate) i_dtime: U32,
    pub(crate) i_gid: U16,
    pub(crate) i_links_count: U16,
    /// 512-byte sectors, or blocks with [`FLAG_HUGE_FILE`].
    pub(crate) i_blocks_lo: U32,
    pub(crate) i_flags: U32,
    pub(crate) l_i_version: U32,
    /// Extent tree, block map, fast symlink, inline data or device numbers.
    pub(crate) i_block: [u8; 60],
    pub(crate) i_generation: U32,
    pub(crate) i_file_acl_lo: U32,
    pub(crate) i_size_high: U32,
    pub(crate) i_obso_faddr: U32,
    pub(crate) l_i_blocks_high: U16,
    pub(crate) l_i_file_acl_high: U16,
    pub(crate) l_i_uid_high: U16,
    pub(crate) l_i_gid_high: U16,
    pub(crate) l_i_checksum_lo: U16,
    pub(crate) l_i_reserved: U16,
}

/// What follows in inodes larger than 128 bytes; `i_extra_isize` says how much of it is there.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct InodeExtra {
    pub(crate) i_extra_isize: U16,
    pub(crate) i_checksum_hi: U16,
    pub(crate) i_ctime_extra: U32,
    pub(crate) i_mtime_extra: U32,
    pub(crate) i_atime_extra: U32,
    pub(crate) i_crtime: U32,
    pub(crate) i_crtime_extra: U32,
    pub(crate) i_version_hi: U32,
    pub(crate) i_projid: U32,
}

const _: () = assert!(size_of::<Inode>() == BASE_SIZE);
const _: () = assert!(std::mem::offset_of!(Inode, i_block) == 0x28);
const _: () = assert!(std::mem::offset_of!(Inode, l_i_checksum_lo) == 0x7C);
const _: () = assert!(size_of::<InodeExtra>() == EXTRA_SIZE);
