//! Extended attributes: in the inode, in its block, in inodes of their own.

use positioned_io::ReadAt;
use zerocopy::FromBytes;

use super::inode::Inode;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::format::acl;
use crate::format::feature::Incompat;
use crate::format::inode::BASE_SIZE;
use crate::format::xattr::{
    BLOCK_HEADER_SIZE, ENTRY_SIZE, IBODY_HEADER_SIZE, INDEX_POSIX_ACL_ACCESS,
    INDEX_POSIX_ACL_DEFAULT, INDEX_SYSTEM, MAGIC, XattrEntry, XattrHeader, prefix,
};
use crate::num::{index as size, wide};
use crate::types::{BlockNo, InodeNo, Xattr};

/// Name of inline data behind the first 60 bytes, with [`INDEX_SYSTEM`].
const INLINE_DATA_NAME: &[u8] = b"data";
/// Longest value in an inode of its own that the kernel takes (`EXT4_XATTR_SIZE_MAX`).
const VALUE_MAX: u32 = 1 << 24;
/// Most bytes of values of one inode that are kept in memory.
const TOTAL_MAX: u64 = 64 << 20;

/// An entry, its value not yet fetched.
struct Entry<'a> {
    index: u8,
    name: &'a [u8],
    value: Place<'a>,
}

enum Place<'a> {
    Here(&'a [u8]),
    Inode { number: InodeNo, size: u32 },
}

/// Parses entries from the start of `area`. Values lie in `area` too, `base` bytes before it
/// counted in.
fn entries<'a>(whole: &'a [u8], first: usize, base: usize) -> Result<Vec<Entry<'a>>, &'static str> {
    let mut found = Vec::new();
    let mut at = first;
    let values = whole.get(base..).unwrap_or_default();
    loop {
        let rest = whole.get(at..).unwrap_or_default();
        match rest.first_chunk::<4>() {
            Some([0, 0, 0, 0]) => return Ok(found),
            Some(_) => {}
            None => return Err("entries are not terminated"),
        }
        let (entry, rest) =
            XattrEntry::read_from_prefix(rest).map_err(|_| "an entry is cut off")?;
        let name_size = usize::from(entry.e_name_len);
        let name = rest.get(..name_size).ok_or("a name is cut off")?;
        let value_size = entry.e_value_size.get();
        let value = match entry.e_value_inum.get() {
            // An empty value needs no place.
            0 if value_size == 0 => Place::Here(&[]),
            0 => {
                let start = usize::from(entry.e_value_offs.get());
                let end = start.saturating_add(size(value_size));
                Place::Here(values.get(start..end).ok_or("a value lies outside")?)
            }
            number => Place::Inode {
                number: InodeNo(number),
                size: value_size,
            },
        };
        found.push(Entry {
            index: entry.e_name_index,
            name,
            value,
        });
        at = at
            .saturating_add(ENTRY_SIZE)
            .saturating_add(name_size.next_multiple_of(4));
    }
}

fn inode_entries(inode: &Inode) -> Result<Vec<Entry<'_>>> {
    let start = BASE_SIZE.saturating_add(usize::from(inode.extra_size));
    let area = inode.record.get(start..).unwrap_or_default();
    // An inode without extra fields has no room for attributes.
    if inode.extra_size == 0 || area.first_chunk() != Some(&MAGIC.to_le_bytes()) {
        return Ok(Vec::new());
    }
    entries(area, IBODY_HEADER_SIZE, IBODY_HEADER_SIZE)
        .map_err(|what| inode.corrupt(format!("attributes in the inode: {what}")))
}

/// Inline data behind the first 60 bytes; empty where there is none.
pub(super) fn inline_rest(inode: &Inode) -> Result<&[u8]> {
    let entry = inode_entries(inode)?
        .into_iter()
        .find(|entry| entry.index == INDEX_SYSTEM && entry.name == INLINE_DATA_NAME);
    match entry.map(|entry| entry.value) {
        None => Ok(&[]),
        Some(Place::Here(value)) => Ok(value),
        Some(Place::Inode { .. }) => Err(inode.corrupt("inline data outside the inode")),
    }
}

impl<R: ReadAt> Volume<R> {
    /// All attributes that the kernel would list, by name, ACLs in the kernel's form.
    pub(super) fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        let mut found: Vec<Xattr> = Vec::new();
        let mut total = 0u64;
        for entry in inode_entries(inode)? {
            found.extend(self.attribute(inode, &entry, &mut total)?);
        }
        if inode.xattr_block != 0 {
            let number = BlockNo(inode.xattr_block);
            let bad = |what: &str| {
                inode
                    .corrupt(format!("attribute block: {what}"))
                    .at_block(number)
            };
            self.geometry
                .check_blocks(number.0, 1, "an attribute block")
                .map_err(|error| error.at_inode(inode.number()))?;
            let block = self
                .block(number)
                .map_err(|error| error.at_inode(inode.number()))?;
            let (header, _) =
                XattrHeader::read_from_prefix(&block).map_err(|_| bad("is cut off"))?;
            if header.h_magic.get() != MAGIC || header.h_blocks.get() != 1 {
                return Err(bad("bad magic number"));
            }
            if self.geometry.has_checksums()
                && header.h_checksum.get() != self.geometry.seed.xattr_block(number.0, &block)
            {
                return Err(bad("bad checksum"));
            }
            for entry in entries(&block, BLOCK_HEADER_SIZE, 0).map_err(bad)? {
                let attribute = self.attribute(inode, &entry, &mut total)?;
                found.extend(attribute);
            }
        }
        // Stable: of two with one name, that in the inode is the one the kernel finds.
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        Ok(found)
    }

    /// An attribute as the kernel shows it; `None` for those it hides.
    fn attribute(
        &self,
        inode: &Inode,
        entry: &Entry<'_>,
        total: &mut u64,
    ) -> Result<Option<Xattr>> {
        let prefix = match (entry.index, prefix(entry.index)) {
            (0, _) | (_, None) => return Ok(None),
            (INDEX_SYSTEM, _) if entry.name == INLINE_DATA_NAME => return Ok(None),
            (_, Some(prefix)) => prefix,
        };
        let mut name = prefix.to_vec();
        name.extend_from_slice(entry.name);
        let bad = |what: &str| {
            let name = String::from_utf8_lossy(&name);
            inode.corrupt(format!("attribute {name}: {what}"))
        };
        if name.contains(&0) {
            return Err(bad("a name with a zero byte"));
        }
        let value = match entry.value {
            Place::Here(value) => {
                *total = total.saturating_add(wide(value.len()));
                value.to_vec()
            }
            Place::Inode { number, size } => {
                *total = total.saturating_add(u64::from(size));
                if size > VALUE_MAX || *total > TOTAL_MAX {
                    return Err(bad(&format!("a value of {size} bytes")));
                }
                self.value_inode(inode, number, size)
                    .map_err(|error| error.at_inode(inode.number()))?
            }
        };
        let value = match entry.index {
            INDEX_POSIX_ACL_ACCESS | INDEX_POSIX_ACL_DEFAULT => {
                acl::from_disk(&value).ok_or_else(|| bad("no ACL"))?
            }
            _ => value,
        };
        Ok(Some(Xattr { name, value }))
    }

    fn value_inode(&self, owner: &Inode, number: InodeNo, length: u32) -> Result<Vec<u8>> {
        let bad =
            |what: &str| Error::corrupt(format!("attribute's value in inode {number}: {what}"));
        if !self.geometry.incompat.has(Incompat::EA_INODE) {
            return Err(bad("without the feature ea_inode"));
        }
        let inode = self.inode(number)?;
        if !inode.is_ea_inode() || inode.file_type() != crate::FileType::File {
            return Err(bad("the inode is no attribute's"));
        }
        if inode.size() != u64::from(length) {
            return Err(bad("differs in size"));
        }
        let mut value = vec![0; size(length)];
        self.read_file(&inode, 0, &mut value)?;
        let (hash, lustre_owner) = inode.raw_times;
        // Lustre wrote no hash, but the owner where files have times.
        let is_lustre = lustre_owner == owner.number().0 && inode.generation == owner.generation;
        if self.geometry.seed.add(&value).0 != hash && !is_lustre {
            return Err(bad("bad checksum"));
        }
        Ok(value)
    }
}
