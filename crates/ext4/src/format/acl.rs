//! POSIX ACLs: the kernel's xattr form (version 2, 8 bytes an entry) and ext4's own (version 1,
//! ids only where they mean something).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const XATTR_VERSION: u32 = 2;
const DISK_VERSION: u32 = 1;
const TAG_USER: u16 = 0x02;
const TAG_GROUP: u16 = 0x08;
const UNDEFINED_ID: u32 = u32::MAX;

/// `struct ext4_acl_entry_short`; a [`U32`] id follows for named users and groups.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Short {
    e_tag: U16,
    e_perm: U16,
}

fn known(tag: u16) -> bool {
    matches!(tag, 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20)
}

fn named(tag: u16) -> bool {
    matches!(tag, TAG_USER | TAG_GROUP)
}

/// From the form that `getxattr` gives to the form on disk; `None` if it is not an ACL.
pub(crate) fn to_disk(xattr: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = U32::read_from_prefix(xattr).ok()?;
    if version != XATTR_VERSION {
        return None;
    }
    let mut disk = DISK_VERSION.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (short, tail) = Short::read_from_prefix(rest).ok()?;
        let (id, tail) = U32::read_from_prefix(tail).ok()?;
        if !known(short.e_tag.get()) {
            return None;
        }
        disk.extend_from_slice(short.as_bytes());
        if named(short.e_tag.get()) {
            disk.extend_from_slice(id.as_bytes());
        }
        rest = tail;
    }
    Some(disk)
}

/// From the form on disk to the form that `getxattr` gives; `None` if it is not an ACL.
pub(crate) fn from_disk(disk: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = U32::read_from_prefix(disk).ok()?;
    if version != DISK_VERSION {
        return None;
    }
    let mut xattr = XATTR_VERSION.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (short, mut tail) = Short::read_from_prefix(rest).ok()?;
        let mut id = U32::new(UNDEFINED_ID);
        if !known(short.e_tag.get()) {
            return None;
        }
        if named(short.e_tag.get()) {
            (id, tail) = U32::read_from_prefix(tail).ok()?;
        }
        xattr.extend_from_slice(short.as_bytes());
        xattr.extend_from_slice(id.as_bytes());
        rest = tail;
    }
    Some(xattr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acl_goes_to_disk_and_back() {
        let mut xattr = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in [
            (1u16, 7u16, u32::MAX),
            (2, 6, 1000),
            (4, 5, u32::MAX),
            (0x10, 7, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            xattr.extend_from_slice(&tag.to_le_bytes());
            xattr.extend_from_slice(&perm.to_le_bytes());
            xattr.extend_from_slice(&id.to_le_bytes());
        }
        let disk = to_disk(&xattr).unwrap();
        assert_eq!(disk.len(), 4 + 4 * 4 + 8);
        assert_eq!(from_disk(&disk).unwrap(), xattr);
    }

    #[test]
    fn truncated_or_unknown_entries_are_no_acl() {
        assert_eq!(to_disk(&[2, 0, 0]), None);
        assert_eq!(to_disk(&[2, 0, 0, 0, 1, 0, 7, 0]), None);
        assert_eq!(from_disk(&[1, 0, 0, 0, 2, 0, 7, 0]), None);
        assert_eq!(from_disk(&[1, 0, 0, 0, 3, 0, 7, 0]), None);
        assert_eq!(from_disk(&[2, 0, 0, 0]), None);
    }
}
