//! Whether an inode can be believed, and what it says.

use std::sync::{Arc, OnceLock};

use positioned_io::ReadAt;
use zerocopy::FromBytes;

use super::map::{LastWindow, Run};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::format::feature::{Incompat, RoCompat};
use crate::format::inode::{
    self as format, BASE_SIZE, FLAG_CASEFOLD, FLAG_EA_INODE, FLAG_ENCRYPT, FLAG_EXTENTS,
    FLAG_HUGE_FILE, FLAG_INLINE_DATA, FLAG_VERITY, InodeExtra, S_IFMT,
};
use crate::num::index as size;
use crate::types::{BlockNo, Device, FileType, InodeNo, Metadata, Timestamp};

/// Offset of `i_extra_isize`, where the extra fields begin.
const EXTRA_OFFSET: usize = BASE_SIZE;

/// A file's inode, read and checked.
///
/// It remembers where some of the file's data lies once that has been asked for, so keep it while
/// reading and drop it afterwards.
#[derive(Clone, Debug)]
pub struct Inode {
    number: InodeNo,
    file_type: FileType,
    metadata: Metadata,
    size: u64,
    links: u32,
    device: Option<Device>,
    pub(super) flags: u32,
    pub(super) generation: u32,
    pub(super) i_block: [u8; 60],
    /// 512-byte sectors.
    pub(super) sectors: u64,
    pub(super) xattr_block: u64,
    /// The whole record, as on disk.
    pub(super) record: Arc<[u8]>,
    /// Bytes of the extra fields that are in use.
    pub(super) extra_size: u16,
    /// `i_atime` and `i_mtime` as on disk: an attribute's inode keeps other things there.
    pub(super) raw_times: (u32, u32),
    pub(super) runs: OnceLock<Arc<[Run]>>,
    pub(super) window: LastWindow,
}

impl Inode {
    /// Its number.
    pub fn number(&self) -> InodeNo {
        self.number
    }

    /// What it is.
    pub fn file_type(&self) -> FileType {
        self.file_type
    }

    /// Mode, owner and times. Extended attributes are read apart, so `xattrs` is empty.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes of content: of a file, a directory's entries, or a link's target.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many names it has. A directory with very many subdirectories says 1.
    pub fn links(&self) -> u32 {
        self.links
    }

    /// A device's numbers.
    pub fn device(&self) -> Option<Device> {
        self.device
    }

    /// Whether content and names are encrypted, and so refused.
    pub fn is_encrypted(&self) -> bool {
        self.has(FLAG_ENCRYPT)
    }

    /// Whether fs-verity guards the content. It reads as any other file does.
    pub fn is_verity(&self) -> bool {
        self.has(FLAG_VERITY)
    }

    /// Whether the kernel compares a directory's names without case.
    pub fn is_casefolded(&self) -> bool {
        self.has(FLAG_CASEFOLD)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn is_inline(&self) -> bool {
        self.has(FLAG_INLINE_DATA)
    }

    pub(super) fn has_extents(&self) -> bool {
        self.has(FLAG_EXTENTS)
    }

    pub(super) fn is_ea_inode(&self) -> bool {
        self.has(FLAG_EA_INODE)
    }

    pub(super) fn corrupt(&self, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::corrupt(what).at_inode(self.number)
    }

    /// Refuses what cannot be read although it is well-formed.
    pub(super) fn check_readable(&self) -> Result<()> {
        if self.is_encrypted() {
            return Err(Error::unsupported("the inode is encrypted").at_inode(self.number));
        }
        Ok(())
    }
}

/// The extra fields that `i_extra_isize` says are there; the others are 0.
fn extra_fields(record: &[u8], extra_size: u16) -> InodeExtra {
    let mut present = [0; format::EXTRA_SIZE];
    let bytes = record.get(EXTRA_OFFSET..).unwrap_or_default();
    // A field that is only partly inside does not count; the fields have 4 bytes behind the first two.
    let used = size(extra_size & !3);
    for (to, from) in present.iter_mut().zip(bytes).take(used) {
        *to = *from;
    }
    InodeExtra::read_from_bytes(&present).unwrap_or_default()
}

fn device(i_block: &[u8; 60]) -> Device {
    let [a, b, c, d, e, f, g, h, ..] = *i_block;
    let old = u32::from_le_bytes([a, b, c, d]);
    let new = u32::from_le_bytes([e, f, g, h]);
    if old != 0 {
        return Device {
            major: (old >> 8) & 0xFF,
            minor: old & 0xFF,
        };
    }
    Device {
        major: (new & 0xF_FF00) >> 8,
        minor: (new & 0xFF) | ((new >> 12) & 0xF_FF00),
    }
}

impl<R: ReadAt> Volume<R> {
    /// An inode's bytes on disk, and the block they lie in.
    pub(super) fn record(&self, number: InodeNo) -> Result<(BlockNo, Arc<[u8]>)> {
        let geometry = &self.geometry;
        let out = || {
            Error::corrupt(format!("the volume has {} inodes", geometry.inodes)).at_inode(number)
        };
        if number.0 > geometry.inodes {
            return Err(out());
        }
        let index = number.0.checked_sub(1).ok_or_else(out)?;
        let group = index
            .checked_div(geometry.inodes_per_group)
            .ok_or_else(out)?;
        let within = index
            .checked_rem(geometry.inodes_per_group)
            .ok_or_else(out)?;
        let (table, end) = self
            .inode_table(group)
            .map_err(|error| error.at_inode(number))?;
        let offset = u64::from(within).saturating_mul(u64::from(geometry.inode_size));
        let block = BlockNo(table.0.saturating_add(offset >> geometry.block_shift));
        let bytes = self
            .table_block(block, end)
            .map_err(|error| error.at_inode(number))?;
        let mask = u64::from(geometry.block_size).saturating_sub(1);
        let start = size(offset & mask);
        let record = bytes
            .get(start..start.saturating_add(size(geometry.inode_size)))
            .ok_or_else(out)?;
        Ok((block, Arc::from(record)))
    }

    /// Reads any inode, reserved ones too.
    pub(super) fn inode(&self, number: InodeNo) -> Result<Inode> {
        let (block, on_disk) = self.record(number)?;
        let change = self.changes.inode(number);
        let logged = change.and_then(|change| change.record(&on_disk));
        // What a fast commit tells of an inode was checked with the commit.
        let is_sealed = self.geometry.has_checksums() && logged.is_none();
        let record = logged.unwrap_or(on_disk);
        let bad = |what: String| Error::corrupt(what).at_inode(number).at_block(block);
        let (raw, _) = format::Inode::read_from_prefix(&record)
            .map_err(|_| bad("the inode is cut off".into()))?;
        let geometry = &self.geometry;

        let room = usize::from(geometry.inode_size).saturating_sub(EXTRA_OFFSET);
        let extra_size = match record.get(EXTRA_OFFSET..) {
            Some(&[low, high, ..]) => u16::from_le_bytes([low, high]),
            _ => 0,
        };
        if is_sealed {
            let has_high = room > 0 && extra_size >= 4;
            let sum = geometry
                .seed
                .of_inode(number.0, raw.i_generation.get())
                .inode(&record, has_high);
            let extra = extra_fields(&record, if has_high { 4 } else { 0 });
            let mut stored = u32::from(raw.l_i_checksum_lo.get());
            let mut expected = sum & 0xFFFF;
            if has_high {
                stored |= u32::from(extra.i_checksum_hi.get()) << 16;
                expected = sum;
            }
            if stored != expected {
                return Err(bad("bad inode checksum".into()));
            }
        }
        if usize::from(extra_size) > room || extra_size & 3 != 0 {
            return Err(bad(format!("{extra_size} bytes of extra fields")));
        }
        let extra = extra_fields(&record, extra_size);

        let mode = raw.i_mode.get();
        let links = u32::from(raw.i_links_count.get());
        let links = change.map_or(links, |change| change.links(links));
        if links == 0 {
            return Err(bad("the inode is not in use".into()));
        }
        let file_type = FileType::from_mode(mode)
            .ok_or_else(|| bad(format!("unknown file type {:#o}", mode & S_IFMT)))?;
        let flags = raw.i_flags.get();
        if flags & FLAG_INLINE_DATA != 0 && !geometry.incompat.has(Incompat::INLINE_DATA) {
            return Err(bad("inline data without the feature inline_data".into()));
        }
        let long = file_type == FileType::File
            || (file_type == FileType::Directory && geometry.incompat.has(Incompat::LARGEDIR));
        let mut bytes = u64::from(raw.i_size_lo.get());
        if long {
            bytes |= u64::from(raw.i_size_high.get()) << 32;
        }
        let high_word = |low: u16, high: u16| u32::from(low) | (u32::from(high) << 16);
        let mut sectors =
            u64::from(raw.i_blocks_lo.get()) | (u64::from(raw.l_i_blocks_high.get()) << 32);
        if flags & FLAG_HUGE_FILE != 0 && geometry.ro_compat.has(RoCompat::HUGE_FILE) {
            sectors = sectors.saturating_mul(u64::from(geometry.block_size >> 9));
        }
        let mut xattr_block = u64::from(raw.i_file_acl_lo.get());
        if !geometry.hurd {
            xattr_block |= u64::from(raw.l_i_file_acl_high.get()) << 32;
        }
        let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
        let inode = Inode {
            number,
            file_type,
            metadata: Metadata {
                mode: mode & !S_IFMT,
                uid: high_word(raw.i_uid.get(), raw.l_i_uid_high.get()),
                gid: high_word(raw.i_gid.get(), raw.l_i_gid_high.get()),
                atime: Timestamp::decode(raw.i_atime.get(), extra.i_atime_extra.get()),
                mtime: Timestamp::decode(raw.i_mtime.get(), extra.i_mtime_extra.get()),
                ctime: Timestamp::decode(raw.i_ctime.get(), extra.i_ctime_extra.get()),
                crtime: Timestamp::decode(extra.i_crtime.get(), extra.i_crtime_extra.get()),
                xattrs: Vec::new(),
            },
            size: bytes,
            links,
            device: is_device.then(|| device(&raw.i_block)),
            flags,
            generation: raw.i_generation.get(),
            i_block: raw.i_block,
            sectors,
            xattr_block,
            record,
            extra_size,
            raw_times: (raw.i_atime.get(), raw.i_mtime.get()),
            runs: OnceLock::new(),
            window: LastWindow::default(),
        };
        if matches!(
            file_type,
            FileType::File | FileType::Directory | FileType::Symlink
        ) && inode.size > self.largest(&inode)
        {
            return Err(bad(format!("a size of {} bytes", inode.size)));
        }
        Ok(inode)
    }

    /// The most bytes that the inode's kind of map can hold.
    fn largest(&self, inode: &Inode) -> u64 {
        let block_size = u64::from(self.geometry.block_size);
        // A file's zeros behind what the inode holds may have no place at all: mke2fs makes such.
        if inode.is_inline() && inode.file_type() != FileType::File {
            return block_size;
        }
        // Block maps reach 12 blocks directly and through one to three levels of pointers, and
        // stop at 2^32 blocks too.
        let mut blocks = 1u64 << 32;
        if !inode.has_extents() && !inode.is_inline() {
            let pointers = block_size >> 2;
            let double = pointers.saturating_mul(pointers);
            blocks = double
                .saturating_mul(pointers)
                .saturating_add(double)
                .saturating_add(pointers)
                .saturating_add(12)
                .min(blocks);
        }
        blocks.saturating_mul(block_size)
    }
}
