//! An inode's 256 bytes.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::xattr::IN_INODE;
use crate::format::checksum::Checksum;
use crate::format::inode::{BASE_SIZE, EXTRA_SIZE, Inode, InodeExtra};
use crate::num::{high16, high32, low16, low32, put};
use crate::types::{Device, FileType, Metadata};

/// Bytes an inode takes.
pub(super) const SIZE: usize = 256;
const _: () = assert!(BASE_SIZE + EXTRA_SIZE + IN_INODE == SIZE);

/// What an inode says besides its metadata.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) file_type: FileType,
    pub(super) size: u64,
    pub(super) links: u32,
    /// 512-byte sectors of everything the inode owns.
    pub(super) sectors: u64,
    pub(super) flags: u32,
    pub(super) version: u32,
    pub(super) generation: u32,
    pub(super) i_block: [u8; 60],
    /// The block of attributes, or 0.
    pub(super) file_acl: u64,
    pub(super) in_inode: [u8; IN_INODE],
}

impl Record {
    pub(super) fn new(file_type: FileType) -> Self {
        Self {
            file_type,
            size: 0,
            links: 1,
            sectors: 0,
            flags: 0,
            version: 0,
            generation: 0,
            i_block: [0; 60],
            file_acl: 0,
            in_inode: [0; IN_INODE],
        }
    }

    /// Encodes to disk. `seed` is the inode's own.
    pub(super) fn encode(&self, metadata: &Metadata, seed: Checksum) -> [u8; SIZE] {
        let (atime, atime_extra) = metadata.atime.encode();
        let (mtime, mtime_extra) = metadata.mtime.encode();
        let (ctime, ctime_extra) = metadata.ctime.encode();
        let (crtime, crtime_extra) = metadata.crtime.encode();
        let mut inode = Inode::new_zeroed();
        inode.i_mode = U16::new(self.file_type.mode_bits() | metadata.mode & 0o7777);
        inode.i_uid = U16::new(low16(metadata.uid));
        inode.l_i_uid_high = U16::new(high16(metadata.uid));
        inode.i_gid = U16::new(low16(metadata.gid));
        inode.l_i_gid_high = U16::new(high16(metadata.gid));
        inode.i_size_lo = U32::new(low32(self.size));
        inode.i_size_high = U32::new(high32(self.size));
        inode.i_atime = U32::new(atime);
        inode.i_mtime = U32::new(mtime);
        inode.i_ctime = U32::new(ctime);
        inode.i_links_count = U16::new(low16(self.links));
        inode.i_blocks_lo = U32::new(low32(self.sectors));
        inode.l_i_blocks_high = U16::new(low16(high32(self.sectors)));
        inode.i_flags = U32::new(self.flags);
        inode.l_i_version = U32::new(self.version);
        inode.i_generation = U32::new(self.generation);
        inode.i_block = self.i_block;
        inode.i_file_acl_lo = U32::new(low32(self.file_acl));
        inode.l_i_file_acl_high = U16::new(low16(high32(self.file_acl)));
        let extra = InodeExtra {
            i_extra_isize: U16::new(low16(low32(crate::num::wide(EXTRA_SIZE)))),
            i_atime_extra: U32::new(atime_extra),
            i_mtime_extra: U32::new(mtime_extra),
            i_ctime_extra: U32::new(ctime_extra),
            i_crtime: U32::new(crtime),
            i_crtime_extra: U32::new(crtime_extra),
            ..InodeExtra::default()
        };
        let mut bytes = [0; SIZE];
        put(&mut bytes, 0, inode.as_bytes());
        put(&mut bytes, BASE_SIZE, extra.as_bytes());
        put(
            &mut bytes,
            BASE_SIZE.saturating_add(EXTRA_SIZE),
            &self.in_inode,
        );
        let sum = Checksum(seed.inode(&bytes, true));
        put(&mut bytes, 0x7C, &sum.low().to_le_bytes());
        put(&mut bytes, 0x82, &sum.high().to_le_bytes());
        bytes
    }
}

/// `i_block` of a device: the old 16-bit form where the numbers fit, else the new one beside it.
pub(super) fn device(device: Device) -> [u8; 60] {
    let Device { major, minor } = device;
    let mut i_block = [0; 60];
    if major < 256 && minor < 256 {
        let old = major.wrapping_shl(8) | minor;
        put(&mut i_block, 0, &old.to_le_bytes());
    } else {
        let new = minor & 0xFF | major.wrapping_shl(8) | (minor & !0xFF).wrapping_shl(12);
        put(&mut i_block, 4, &new.to_le_bytes());
    }
    i_block
}
