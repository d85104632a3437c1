//! The on-disk structures, in the kernel's names and the disk's byte order.
//!
//! Everything here is raw: `zerocopy` structs that match the bytes, flag newtypes that keep
//! unknown bits, checksums and hashes. Validation belongs to who reads, layout to who writes.

pub(crate) mod acl;
pub(crate) mod checksum;
pub(crate) mod directory;
pub(crate) mod extent;
pub(crate) mod fast_commit;
pub(crate) mod feature;
pub(crate) mod group;
pub(crate) mod hash;
pub(crate) mod htree;
pub(crate) mod inode;
pub(crate) mod journal;
pub(crate) mod superblock;
pub(crate) mod xattr;
