//! `struct ext4_xattr_header`, `ext4_xattr_ibody_header` and `ext4_xattr_entry`, the name
//! prefixes, and the hashes over entries and blocks.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `h_magic` of a block and of the area in an inode.
pub(crate) const MAGIC: u32 = 0xEA02_0000;
/// Bytes of [`XattrHeader`].
pub(crate) const BLOCK_HEADER_SIZE: usize = 32;
/// Bytes of the header in an inode (`h_magic` alone).
pub(crate) const IBODY_HEADER_SIZE: usize = 4;
/// Bytes of an entry before its name. The whole is padded to a multiple of 4.
pub(crate) const ENTRY_SIZE: usize = 16;

/// Heads a block of attributes; several inodes may share it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(dead_code, reason = "the layout is the specification's, whole")]
pub(crate) struct XattrHeader {
    pub(crate) h_magic: U32,
    pub(crate) h_refcount: U32,
    pub(crate) h_blocks: U32,
    pub(crate) h_hash: U32,
    pub(crate) h_checksum: U32,
    pub(crate) h_reserved: [U32; 3],
}

/// One attribute; `e_name_len` bytes of name follow.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct XattrEntry {
    pub(crate) e_name_len: u8,
    /// See [`split_name`].
    pub(crate) e_name_index: u8,
    /// From the block's start, or from the first entry in an inode.
    pub(crate) e_value_offs: U16,
    /// The inode that holds the value (`INCOMPAT_EA_INODE`), or 0.
    pub(crate) e_value_inum: U32,
    pub(crate) e_value_size: U32,
    pub(crate) e_hash: U32,
}

const _: () = assert!(size_of::<XattrHeader>() == BLOCK_HEADER_SIZE);
const _: () = assert!(size_of::<XattrEntry>() == ENTRY_SIZE);

/// `user.`
pub(crate) const INDEX_USER: u8 = 1;
/// `system.posix_acl_access`, whole.
pub(crate) const INDEX_POSIX_ACL_ACCESS: u8 = 2;
/// `system.posix_acl_default`, whole.
pub(crate) const INDEX_POSIX_ACL_DEFAULT: u8 = 3;
/// `trusted.`
pub(crate) const INDEX_TRUSTED: u8 = 4;
/// `security.`
pub(crate) const INDEX_SECURITY: u8 = 6;
/// `system.`
pub(crate) const INDEX_SYSTEM: u8 = 7;

/// The prefix that an `e_name_index` stands for, `None` for an index the kernel does not serve.
pub(crate) fn prefix(index: u8) -> Option<&'static [u8]> {
    Some(match index {
        0 => b"",
        INDEX_USER => b"user.",
        INDEX_POSIX_ACL_ACCESS => b"system.posix_acl_access",
        INDEX_POSIX_ACL_DEFAULT => b"system.posix_acl_default",
        INDEX_TRUSTED => b"trusted.",
        5 => b"lustre.",
        INDEX_SECURITY => b"security.",
        INDEX_SYSTEM => b"system.",
        8 => b"system.richacl",
        _ => return None,
    })
}

/// Splits a full name into its `e_name_index` and the rest; `None` for a name that no prefix fits.
pub(crate) fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((INDEX_POSIX_ACL_ACCESS, b"")),
        b"system.posix_acl_default" => return Some((INDEX_POSIX_ACL_DEFAULT, b"")),
        _ => {}
    }
    [INDEX_USER, INDEX_TRUSTED, INDEX_SECURITY, INDEX_SYSTEM]
        .into_iter()
        .find_map(|index| Some((index, name.strip_prefix(prefix(index)?)?)))
        .filter(|(_, rest)| !rest.is_empty())
}

/// `e_hash` of an entry whose value is beside it (`ext4_xattr_hash_entry`).
pub(crate) fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let mut hash = name
        .iter()
        .fold(0u32, |hash, &c| hash.rotate_left(5) ^ u32::from(c));
    for word in value.chunks(4) {
        let mut padded = [0u8; 4];
        for (to, from) in padded.iter_mut().zip(word) {
            *to = *from;
        }
        hash = hash.rotate_left(16) ^ u32::from_le_bytes(padded);
    }
    hash
}

/// `e_hash` of an entry whose value is in an inode: the value's crc32c stands for the value.
pub(crate) fn entry_hash_of_inode(name: &[u8], value_crc: u32) -> u32 {
    entry_hash(name, &value_crc.to_le_bytes())
}

/// `h_hash` over the `e_hash` of a block's entries (`ext4_xattr_rehash`).
pub(crate) fn block_hash(entries: impl IntoIterator<Item = u32>) -> u32 {
    let mut hash = 0u32;
    for entry in entries {
        if entry == 0 {
            return 0;
        }
        hash = hash.rotate_left(16) ^ entry;
    }
    hash
}
