//! What is kept of attributes until the end: sets in memory, one for all nodes that have the same,
//! and beyond a fixed number of bytes only where they were written.

use std::collections::BTreeMap;

use positioned_io::{ReadAt, WriteAt};
use zerocopy::FromBytes;

use super::allocate::Allocator;
use super::extents::Extents;
use super::tree::NodeId;
use super::xattr::{self, Pair};
use super::{Writer, size};
use crate::error::{Error, Result};
use crate::format::acl;
use crate::format::checksum::Checksum;
use crate::format::xattr::{
    BLOCK_HEADER_SIZE, ENTRY_SIZE, INDEX_POSIX_ACL_ACCESS, INDEX_POSIX_ACL_DEFAULT, XattrEntry,
    prefix,
};
use crate::num::{index, low16, low32, pad4, wide};
use crate::types::Xattr;

/// Bytes of sets in memory, with [`EACH`] for what a set takes besides. Part of the format: it
/// decides where attributes lie.
const BUDGET: usize = 16 << 20;
const EACH: usize = 64;
/// Values in inodes of their own that a volume may have, and more of them for each node: something
/// of every one is kept until the end.
const VALUES_BASE: u64 = 64 << 10;
const VALUES_EACH: u64 = 2;

/// The attributes of a node.
#[derive(Debug, Default)]
pub(super) enum Attributes {
    #[default]
    None,
    Held(SetId),
    Written(Box<Written>),
}

impl Attributes {
    /// The values that lie in inodes of their own.
    pub(super) fn values(&self) -> &[Value] {
        match self {
            Self::Written(written) => &written.values,
            Self::None | Self::Held(_) => &[],
        }
    }
}

/// Names a set that is in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetId(usize);

/// A set that lies in a block already.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) block: u64,
    /// The checksum that the block has as long as it names no inodes.
    pub(super) sum: u32,
    /// Its values that lie in inodes of their own.
    pub(super) values: Box<[Value]>,
}

/// A value in an inode of its own.
#[derive(Debug)]
pub(super) struct Value {
    /// Where in the block of attributes the inode's number goes.
    pub(super) field: u16,
    pub(super) size: u32,
    pub(super) hash: u32,
    pub(super) extents: Extents,
}

/// Sets in memory.
#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: Vec<Set>,
    vacant: Vec<usize>,
    by_sum: BTreeMap<u32, usize>,
    bytes: usize,
    /// Values in inodes of their own, of all nodes.
    values: u64,
}

#[derive(Debug)]
struct Set {
    /// One attribute behind the other, by name: see [`encode`].
    bytes: Box<[u8]>,
    references: u32,
}

impl Sets {
    /// The attributes of a set in memory.
    pub(super) fn pairs(&self, id: SetId) -> impl Iterator<Item = Pair<'_>> {
        let bytes = self.sets.get(id.0).map(|set| &*set.bytes);
        decode(bytes.unwrap_or_default())
    }

    /// One more node with a set that is in memory.
    fn find(&mut self, bytes: &[u8]) -> Option<SetId> {
        let place = *self.by_sum.get(&Checksum::START.add(bytes).0)?;
        let set = self.sets.get_mut(place)?;
        if *set.bytes != *bytes {
            return None;
        }
        set.references = set.references.checked_add(1)?;
        Some(SetId(place))
    }

    fn has_room(&self, bytes: &[u8]) -> bool {
        self.bytes.saturating_add(bytes.len()).saturating_add(EACH) <= BUDGET
    }

    fn hold(&mut self, bytes: Vec<u8>) -> SetId {
        let sum = Checksum::START.add(&bytes).0;
        self.bytes = self.bytes.saturating_add(bytes.len()).saturating_add(EACH);
        let set = Set {
            bytes: bytes.into(),
            references: 1,
        };
        let place = match self.vacant.pop() {
            Some(place) => {
                if let Some(slot) = self.sets.get_mut(place) {
                    *slot = set;
                }
                place
            }
            None => {
                self.sets.push(set);
                self.sets.len().saturating_sub(1)
            }
        };
        // Of two sets with one sum the later is found: enough, and bounded.
        self.by_sum.insert(sum, place);
        SetId(place)
    }

    /// Gives back what was kept for a node.
    pub(super) fn detach(&mut self, allocator: &mut Allocator, attributes: &Attributes) {
        match attributes {
            Attributes::None => {}
            Attributes::Held(id) => self.release(*id),
            Attributes::Written(written) => {
                self.values = self.values.saturating_sub(wide(written.values.len()));
                allocator.release_block(written.block);
                for span in written
                    .values
                    .iter()
                    .flat_map(|value| value.extents.spans())
                {
                    allocator.release(span);
                }
            }
        }
    }

    fn release(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(id.0) else {
            return;
        };
        set.references = set.references.saturating_sub(1);
        if set.references == 0 {
            let bytes = std::mem::take(&mut set.bytes);
            self.bytes = self.bytes.saturating_sub(bytes.len().saturating_add(EACH));
            let sum = Checksum::START.add(&bytes).0;
            if self.by_sum.get(&sum) == Some(&id.0) {
                self.by_sum.remove(&sum);
            }
            self.vacant.push(id.0);
        }
    }
}

/// A set as it is kept: the same for the same attributes, in whichever order they came.
fn encode(xattrs: &[Xattr]) -> Vec<u8> {
    let mut sorted: Vec<&Xattr> = xattrs.iter().collect();
    sorted.sort();
    let mut bytes = Vec::new();
    for Xattr { name, value } in sorted {
        for part in [name, value] {
            bytes.extend(low32(wide(part.len())).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let mut rest = bytes;
    let mut part = move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (part, behind) = behind.split_at_checked(index(u32::from_le_bytes(*length)))?;
        rest = behind;
        Some(part)
    };
    std::iter::from_fn(move || Some((part()?, part()?)))
}

pub(super) fn pairs(xattrs: &[Xattr]) -> impl Iterator<Item = Pair<'_>> {
    xattrs.iter().map(|xattr| (&*xattr.name, &*xattr.value))
}

impl<W: WriteAt> Writer<W> {
    /// Says whether a node may have these attributes.
    pub(super) fn check_xattrs(&self, xattrs: &[Xattr]) -> Result<()> {
        if !xattrs.is_empty() {
            let block_len = self.geometry.block_len();
            xattr::place(pairs(xattrs), None, block_len, self.options.ea_inode)?;
        }
        Ok(())
    }

    /// Keeps attributes for a node.
    pub(super) fn attach(&mut self, xattrs: &[Xattr]) -> Result<Attributes> {
        if xattrs.is_empty() {
            return Ok(Attributes::None);
        }
        let bytes = encode(xattrs);
        if let Some(id) = self.sets.find(&bytes) {
            return Ok(Attributes::Held(id));
        }
        let block_len = self.geometry.block_len();
        let outside = self.options.ea_inode;
        let inside = xattr::place(pairs(xattrs), None, block_len, outside)?;
        if inside.outside.is_empty() && self.sets.has_room(&bytes) {
            return Ok(Attributes::Held(self.sets.hold(bytes)));
        }
        match xattr::place_in_block(pairs(xattrs), block_len, outside) {
            Ok(placement) => Ok(Attributes::Written(Box::new(self.write_out(placement)?))),
            // Inode and block together have a little more room than the block.
            Err(_) => Ok(Attributes::Held(self.sets.hold(bytes))),
        }
    }

    fn write_out(&mut self, mut placement: xattr::Placement<'_>) -> Result<Written> {
        let most = values_max(self.tree.ids());
        let more = wide(placement.outside.len());
        if self.sets.values.saturating_add(more) > most {
            return Err(Error::too_large(format!(
                "more than {most} attribute values that do not fit beside others"
            )));
        }
        self.stage.will_read(true)?;
        let mut values = Vec::with_capacity(placement.outside.len());
        for &number in &placement.outside {
            let field = xattr::inode_field(&placement.block, number);
            let Some(item) = placement.block.get_mut(number) else {
                continue;
            };
            let hash = self.seed.add(&item.value).0;
            item.set_outside(hash);
            let size = low32(size(&item.value));
            let value = item.value.to_vec();
            values.push(Value {
                field: low16(low32(wide(field))),
                size,
                hash,
                extents: self.write_blocks(&value)?,
            });
        }
        let block = self.allocator.take_any(1)?.start;
        let mut bytes = xattr::encode_block(&placement.block, self.geometry.block_len());
        let sum = xattr::seal_block(&mut bytes, 1, block, self.seed);
        self.stage.write(self.geometry.offset(block), &bytes)?;
        self.stage.will_read(false)?;
        self.sets.values = self.sets.values.saturating_add(more);
        Ok(Written {
            block,
            sum,
            values: values.into(),
        })
    }
}

fn values_max(nodes: usize) -> u64 {
    VALUES_BASE.saturating_add(VALUES_EACH.saturating_mul(wide(nodes)))
}

impl<W: WriteAt + ReadAt> Writer<W> {
    /// A node's extended attributes, by name. Of volumes with many, some are read back from the
    /// output.
    ///
    /// # Errors
    /// `NotFound` for a node that was removed, and `Io` from the output.
    pub fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let mut found = match &self.tree.get(node)?.attributes {
            Attributes::None => Vec::new(),
            Attributes::Held(id) => {
                let pairs = self.sets.pairs(*id);
                pairs
                    .map(|(name, value)| Xattr {
                        name: name.to_vec(),
                        value: value.to_vec(),
                    })
                    .collect()
            }
            Attributes::Written(written) => self.read_attributes(written)?,
        };
        found.sort();
        Ok(found)
    }

    /// Sets one extended attribute.
    ///
    /// # Errors
    /// As [`Writer::create_directory`], but for names, and as [`Writer::xattrs`].
    pub fn set_xattr(&mut self, node: NodeId, name: &[u8], value: &[u8]) -> Result<()> {
        let mut xattrs = self.xattrs(node)?;
        match xattrs.iter_mut().find(|xattr| xattr.name == name) {
            Some(xattr) => xattr.value = value.to_vec(),
            None => xattrs.push(Xattr {
                name: name.to_vec(),
                value: value.to_vec(),
            }),
        }
        let attributes = self.attach(&xattrs)?;
        let before = std::mem::replace(&mut self.tree.get_mut(node)?.attributes, attributes);
        self.sets.detach(&mut self.allocator, &before);
        Ok(())
    }

    /// Reads back what was written.
    pub(super) fn read_attributes(&self, written: &Written) -> Result<Vec<Xattr>> {
        let broken = || Error::corrupt("the attributes that were written do not read back");
        let mut block = vec![0; self.geometry.block_len()];
        let offset = self.geometry.offset(written.block);
        self.stage.read(offset, &mut block)?;
        let mut found = Vec::new();
        let mut at = BLOCK_HEADER_SIZE;
        loop {
            let rest = block.get(at..).ok_or_else(broken)?;
            if rest.starts_with(&[0; 4]) {
                return Ok(found);
            }
            let (entry, rest) = XattrEntry::read_from_prefix(rest).map_err(|_| broken())?;
            let name = rest.get(..usize::from(entry.e_name_len));
            let name = name.ok_or_else(broken)?;
            let field = at.saturating_add(4);
            let outside = written
                .values
                .iter()
                .find(|value| usize::from(value.field) == field);
            let value = match outside {
                Some(value) => self.read_value(value)?,
                None => {
                    let start = usize::from(entry.e_value_offs.get());
                    let end = start.saturating_add(index(entry.e_value_size.get()));
                    block.get(start..end).ok_or_else(broken)?.to_vec()
                }
            };
            let is_acl = [INDEX_POSIX_ACL_ACCESS, INDEX_POSIX_ACL_DEFAULT];
            found.push(Xattr {
                name: [prefix(entry.e_name_index).ok_or_else(broken)?, name].concat(),
                value: if is_acl.contains(&entry.e_name_index) {
                    acl::from_disk(&value).ok_or_else(broken)?
                } else {
                    value
                },
            });
            at = at.saturating_add(pad4(ENTRY_SIZE.saturating_add(name.len())));
        }
    }

    fn read_value(&self, value: &Value) -> Result<Vec<u8>> {
        let mut bytes = vec![0; index(self.geometry.offset(value.extents.blocks()))];
        let mut rest = bytes.as_mut_slice();
        for span in value.extents.spans() {
            let length = rest.len().min(index(self.geometry.offset(span.count)));
            let (now, later) = rest.split_at_mut(length);
            self.stage.read(self.geometry.offset(span.start), now)?;
            rest = later;
        }
        bytes.truncate(index(value.size));
        Ok(bytes)
    }
}
