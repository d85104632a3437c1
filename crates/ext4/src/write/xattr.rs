//! Where a node's attributes go: its inode first, then one block, then inodes of their own.

use std::borrow::Cow;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::tree::short;
use crate::error::{Error, Result};
use crate::format::acl;
use crate::format::checksum::Checksum;
use crate::format::xattr::{
    self, BLOCK_HEADER_SIZE, ENTRY_SIZE, IBODY_HEADER_SIZE, INDEX_POSIX_ACL_ACCESS,
    INDEX_POSIX_ACL_DEFAULT, INDEX_SYSTEM, MAGIC, XattrEntry, XattrHeader,
};
use crate::num::{low8, low16, low32, pad4, put, wide};

/// Bytes for attributes in an inode of 256 bytes, behind the extra fields.
pub(super) const IN_INODE: usize = 256 - 128 - 32;
/// Bytes of a file's data that fit there beside their entry (`system.data`).
pub(super) const INLINE_ROOM: usize = IN_INODE - IBODY_HEADER_SIZE - END - ENTRY_SIZE - 4;
/// The longest value that Linux takes (`XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 65_536;
/// The longest name that Linux takes (`XATTR_NAME_MAX`), its namespace included.
const NAME_MAX: usize = 255;
/// Bytes of the zero entry that ends a list.
const END: usize = 4;

/// An attribute's name and value, as `getxattr` has them.
pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// An attribute as it is on disk.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    index: u8,
    name: &'a [u8],
    pub(super) value: Cow<'a, [u8]>,
    /// The value's hash, when it lies outside.
    outside: Option<u32>,
}

impl Item<'_> {
    fn entry_len(&self) -> usize {
        pad4(ENTRY_SIZE.saturating_add(self.name.len()))
    }

    fn value_len(&self, outside: bool) -> usize {
        if outside { 0 } else { pad4(self.value.len()) }
    }

    fn len(&self, outside: bool) -> usize {
        self.entry_len().saturating_add(self.value_len(outside))
    }

    /// Says that the value went elsewhere. The inode's number is put into the block later.
    pub(super) fn set_outside(&mut self, hash: u32) {
        self.outside = Some(hash);
    }
}

/// A node's attributes by place.
#[derive(Debug, Default)]
pub(super) struct Placement<'a> {
    pub(super) inode: Vec<Item<'a>>,
    pub(super) block: Vec<Item<'a>>,
    /// Which of `block` have their values outside.
    pub(super) outside: Vec<usize>,
}

fn items<'a>(xattrs: impl Iterator<Item = Pair<'a>>) -> Result<Vec<Item<'a>>> {
    let mut items = Vec::new();
    for (name, value) in xattrs {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let (index, rest) = xattr::split_name(name).ok_or_else(|| {
            Error::unsupported(format!(
                "extended attribute {:?}: ext4 has no such namespace",
                shown()
            ))
        })?;
        // The kernel's bound is for the whole name; ext4 itself has room for as much without the prefix.
        if name.len() > NAME_MAX || rest.contains(&0) || (index == INDEX_SYSTEM && rest == b"data")
        {
            return Err(Error::invalid(format!(
                "extended attribute {:?}: not a name",
                shown()
            )));
        }
        if value.len() > VALUE_MAX {
            return Err(Error::too_large(format!(
                "extended attribute {:?}: {} bytes, 65536 are possible",
                shown(),
                value.len()
            )));
        }
        let value = match index {
            INDEX_POSIX_ACL_ACCESS | INDEX_POSIX_ACL_DEFAULT => {
                Cow::Owned(acl::to_disk(value).ok_or_else(|| {
                    Error::invalid(format!("extended attribute {:?}: not an ACL", shown()))
                })?)
            }
            _ => Cow::Borrowed(value),
        };
        items.push(Item {
            index,
            name: rest,
            value,
            outside: None,
        });
    }
    items.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut neighbours = items.iter().zip(items.iter().skip(1));
    if let Some((twice, _)) = neighbours.find(|(a, b)| order(a) == order(b)) {
        let name = String::from_utf8_lossy(twice.name);
        return Err(Error::invalid(format!(
            "extended attribute {name:?}: given twice"
        )));
    }
    Ok(items)
}

/// The order that the kernel searches blocks by.
fn order<'a>(item: &Item<'a>) -> (u8, usize, &'a [u8]) {
    (item.index, item.name.len(), item.name)
}

/// Finds a place for each attribute. `inline` is the part of a file's data that lies among them.
/// With `outside`, values move to inodes of their own when the block is too small.
pub(super) fn place<'a>(
    xattrs: impl Iterator<Item = Pair<'a>>,
    inline: Option<&'a [u8]>,
    block_len: usize,
    outside: bool,
) -> Result<Placement<'a>> {
    let mut placement = Placement::default();
    let items = items(xattrs)?;
    if items.is_empty() && inline.is_none() {
        return Ok(placement);
    }
    let mut room = IN_INODE
        .saturating_sub(IBODY_HEADER_SIZE)
        .saturating_sub(END);
    if let Some(value) = inline {
        let value = Cow::Borrowed(value);
        let item = Item {
            index: INDEX_SYSTEM,
            name: b"data",
            value,
            outside: None,
        };
        room = room
            .checked_sub(item.len(false))
            .ok_or_else(|| Error::too_large("file data that does not fit in its inode"))?;
        placement.inode.push(item);
    }
    for item in items {
        match room.checked_sub(item.len(false)) {
            Some(left) => {
                room = left;
                placement.inode.push(item);
            }
            None => placement.block.push(item),
        }
    }
    placement.inode.sort_by(|a, b| order(a).cmp(&order(b)));
    placement.outside = outside_of(&placement.block, block_len, outside)?;
    Ok(placement)
}

/// Finds a place for each attribute in a block, and nothing in the inode.
pub(super) fn place_in_block<'a>(
    xattrs: impl Iterator<Item = Pair<'a>>,
    block_len: usize,
    outside: bool,
) -> Result<Placement<'a>> {
    let block = items(xattrs)?;
    let outside = outside_of(&block, block_len, outside)?;
    Ok(Placement {
        inode: Vec::new(),
        block,
        outside,
    })
}

/// Which values must move to inodes of their own for the rest to fit in a block.
fn outside_of(items: &[Item<'_>], block_len: usize, allowed: bool) -> Result<Vec<usize>> {
    let room = block_len
        .saturating_sub(BLOCK_HEADER_SIZE)
        .saturating_sub(END);
    let mut total: usize = items.iter().map(|item| item.len(false)).sum();
    let mut outside = Vec::new();
    if total <= room {
        return Ok(outside);
    }
    // The largest first; of two as large, the last, as it was always.
    let mut by_length: Vec<(usize, usize)> = (0..)
        .zip(items)
        .map(|(number, item)| (item.value_len(false), number))
        .filter(|&(length, _)| allowed && length > 0)
        .collect();
    by_length.sort_unstable();
    while total > room {
        let Some((length, number)) = by_length.pop() else {
            return Err(Error::too_large(format!(
                "extended attributes of {total} bytes, {room} fit in a block"
            )));
        };
        total = total.saturating_sub(length);
        outside.push(number);
    }
    outside.sort_unstable();
    Ok(outside)
}

/// Writes entries from `first` on and values from the end down; offsets count from `base`.
fn fill(bytes: &mut [u8], first: usize, base: usize, items: &[Item<'_>], hashed: bool) -> Vec<u32> {
    let mut hashes = Vec::with_capacity(items.len());
    let mut at = first;
    let mut values = bytes.len();
    for item in items {
        let mut entry = XattrEntry {
            e_name_len: low8(item.name.len()),
            e_name_index: item.index,
            e_value_size: U32::new(short(item.value.len())),
            ..XattrEntry::default()
        };
        let hash = match item.outside {
            Some(hash) => xattr::entry_hash_of_inode(item.name, hash),
            None => {
                if !item.value.is_empty() {
                    values = values.saturating_sub(item.value_len(false));
                    put(bytes, values, &item.value);
                    let offset = values.saturating_sub(base);
                    entry.e_value_offs = U16::new(low16(low32(wide(offset))));
                }
                if hashed {
                    xattr::entry_hash(item.name, &item.value)
                } else {
                    0
                }
            }
        };
        entry.e_hash = U32::new(hash);
        hashes.push(hash);
        put(bytes, at, entry.as_bytes());
        put(bytes, at.saturating_add(ENTRY_SIZE), item.name);
        at = at.saturating_add(item.entry_len());
    }
    hashes
}

/// The bytes behind an inode's extra fields.
pub(super) fn encode_in_inode(items: &[Item<'_>]) -> [u8; IN_INODE] {
    let mut bytes = [0; IN_INODE];
    if !items.is_empty() {
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        fill(
            &mut bytes,
            IBODY_HEADER_SIZE,
            IBODY_HEADER_SIZE,
            items,
            false,
        );
    }
    bytes
}

/// A block of attributes, but for its references and checksum.
pub(super) fn encode_block(items: &[Item<'_>], block_len: usize) -> Vec<u8> {
    let mut bytes = vec![0; block_len];
    let hashes = fill(&mut bytes, BLOCK_HEADER_SIZE, 0, items, true);
    let header = XattrHeader {
        h_magic: U32::new(MAGIC),
        h_blocks: U32::new(1),
        h_hash: U32::new(xattr::block_hash(hashes)),
        ..XattrHeader::default()
    };
    put(&mut bytes, 0, header.as_bytes());
    bytes
}

/// Where in a block the number of the inode that holds an item's value goes.
pub(super) fn inode_field(items: &[Item<'_>], number: usize) -> usize {
    let before = items.iter().take(number).map(Item::entry_len);
    before.fold(BLOCK_HEADER_SIZE.saturating_add(4), usize::saturating_add)
}

/// Where a block's checksum (`h_checksum`) is.
pub(super) const CHECKSUM_FIELD: usize = 16;

/// Completes a block once it is known where it lies and how many inodes share it.
/// Gives back its checksum.
pub(super) fn seal_block(bytes: &mut [u8], references: u32, block: u64, seed: Checksum) -> u32 {
    put(bytes, 4, &references.to_le_bytes());
    let sum = seed.xattr_block(block, bytes);
    put(bytes, CHECKSUM_FIELD, &sum.to_le_bytes());
    sum
}
