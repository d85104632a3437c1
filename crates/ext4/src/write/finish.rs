//! The end of a volume: everything but file data, in the order that lets each part know its blocks.

use std::collections::BTreeMap;

use positioned_io::WriteAt;

use super::allocate::Span;
use super::directory::{self, Shape};
use super::extents::{self, Extents, Root};
use super::group::Usage;
use super::inode::{self, Record};
use super::layout::Layout;
use super::superblock::{self, Facts};
use super::tree::{ByNode, Content, Node, NodeId, Tree, directory_links};
use super::{Finished, Writer, logical, size, xattr};
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::inode::{
    FIRST_INO, FLAG_EA_INODE, FLAG_EXTENTS, FLAG_INDEX, FLAG_INLINE_DATA, JOURNAL_INO, ROOT_INO,
};
use crate::format::superblock::OFFSET;
use crate::num::{index, low32, put, wide};
use crate::types::{FileType, InodeNo, Metadata, Timestamp};

/// Blocks that a node got at the end.
#[derive(Debug, Default)]
struct Body {
    extents: Extents,
    size: u64,
    indexed: bool,
}

/// A block of attributes, and who has the same.
#[derive(Debug)]
struct Shared {
    node: NodeId,
    references: u32,
    block: u64,
}

/// Most inodes that may share a block of attributes (`EXT4_XATTR_REFCOUNT_MAX`).
const REFERENCES_MAX: u32 = 1024;

/// An attribute's value in an inode of its own.
#[derive(Debug)]
struct Outside {
    size: u64,
    hash: u32,
    blocks: u64,
    i_block: [u8; 60],
}

/// A writer that only has metadata left to write.
#[derive(Debug)]
pub(super) struct Finish<W: WriteAt> {
    writer: Writer<W>,
    numbers: ByNode<u32>,
    /// The last inode of a node; inodes of values follow.
    last: u32,
    bodies: BTreeMap<NodeId, Body>,
    roots: BTreeMap<NodeId, Root>,
    acls: BTreeMap<NodeId, u64>,
    /// Blocks of values outside, which count as their owner's too.
    charged: BTreeMap<NodeId, u64>,
    shared: Vec<Shared>,
    shared_by_sum: BTreeMap<u32, usize>,
    outside: Vec<Outside>,
    large_dir: bool,
}

impl<W: WriteAt> Finish<W> {
    pub(super) fn new(writer: Writer<W>) -> Self {
        let mut numbers = ByNode::new(&writer.tree);
        let mut last = FIRST_INO.saturating_sub(1);
        for (id, _) in writer.tree.iter() {
            if id == Tree::ROOT {
                numbers.set(id, ROOT_INO);
            } else {
                last = last.saturating_add(1);
                numbers.set(id, last);
            }
        }
        Self {
            writer,
            numbers,
            last,
            bodies: BTreeMap::new(),
            roots: BTreeMap::new(),
            acls: BTreeMap::new(),
            charged: BTreeMap::new(),
            shared: Vec::new(),
            shared_by_sum: BTreeMap::new(),
            outside: Vec::new(),
            large_dir: false,
        }
    }

    pub(super) fn run(mut self) -> Result<(Finished, W)> {
        // The tree is only read from here on, while allocator and stage change.
        let tree = std::mem::replace(&mut self.writer.tree, Tree::new(Metadata::default()));
        for (id, node) in tree.iter() {
            let number = self.numbers.get(id);
            self.lay_out(&tree, id, node)
                .map_err(|error| error.at_inode(InodeNo(number)))?;
        }
        self.write_shared(&tree)?;
        let journal = self.lay_out_journal()?;

        let last = u32::try_from(self.outside.len())
            .ok()
            .and_then(|values| self.last.checked_add(values))
            .ok_or_else(|| Error::too_large("more inodes than ext4 can have"))?;
        let size = self.writer.options.size.map(|size| {
            size.checked_div(u64::from(self.writer.geometry.block_size))
                .unwrap_or(0)
        });
        let layout = Layout::new(
            self.writer.geometry,
            &mut self.writer.allocator,
            size,
            last,
            self.writer.options.inodes,
        )?;
        self.writer.geometry = layout.geometry;
        self.release_descriptors(&layout);

        let directories = self.write_inodes(&tree, &layout, journal.as_ref())?;
        let Writer {
            geometry,
            allocator,
            stage,
            seed,
            ..
        } = &mut self.writer;
        let free = Usage {
            geometry: *geometry,
            layout: &layout,
            allocator,
            seed: *seed,
            last_inode: last,
            directories: &directories,
        }
        .write(stage)?;

        let finished = Finished {
            size: geometry.offset(layout.blocks),
            block_size: geometry.block_size,
            blocks: layout.blocks,
            free_blocks: free.blocks,
            inodes: low32(
                layout
                    .groups
                    .saturating_mul(u64::from(layout.inodes_per_group)),
            ),
            free_inodes: low32(free.inodes),
            groups: low32(layout.groups),
        };
        if stage.end() < finished.size {
            let missing = finished.size.saturating_sub(stage.end());
            let tail = vec![0; index(missing).min(geometry.block_len())];
            stage.write(finished.size.saturating_sub(wide(tail.len())), &tail)?;
        }
        let facts = Facts {
            geometry: *geometry,
            finished,
            inodes_per_group: layout.inodes_per_group,
            large_dir: self.large_dir,
            ea_inode: !self.outside.is_empty(),
            journal: journal.as_ref().map(|(root, size)| (&root.i_block, *size)),
        };
        let bytes = superblock::encode(&self.writer.options, &facts);
        self.writer.stage.write(OFFSET, &bytes)?;
        Ok((finished, self.writer.stage.finish()?))
    }

    fn seed(&self, inode: u32) -> Checksum {
        self.writer.seed.of_inode(inode, 0)
    }

    /// Gives a node the blocks that it lacks: attributes, a directory's or symlink's content, its
    /// extent tree.
    fn lay_out(&mut self, tree: &Tree, id: NodeId, node: &Node) -> Result<()> {
        let number = self.numbers.get(id);
        match &node.content {
            Content::File { extents, .. } => self.lay_out_tree(id, number, extents)?,
            Content::Inline(bytes) => {
                let tail = bytes.get(60..).unwrap_or_default();
                let xattrs = &node.metadata.xattrs;
                let block_len = self.writer.geometry.block_len();
                let outside = self.writer.options.ea_inode;
                if xattr::place(xattrs, Some(tail), block_len, outside).is_err() {
                    self.spill(id, bytes)?;
                }
            }
            Content::Symlink(target) if target.len() >= 60 => self.spill(id, target)?,
            Content::Directory {
                parent, children, ..
            } => {
                let shape = Shape {
                    block_len: self.writer.geometry.block_len(),
                    seed: self.seed(number),
                    hash_seed: superblock::hash_seed(&self.writer.options.hash_seed)
                        .map(zerocopy::little_endian::U32::get),
                    inode: number,
                    parent: self.numbers.get(*parent),
                };
                let mut entries = Vec::with_capacity(children.len());
                for (name, &child) in children {
                    entries.push(directory::Entry {
                        name,
                        inode: self.numbers.get(child),
                        file_type: tree.get(child)?.file_type(),
                    });
                }
                self.lay_out_directory(id, &shape, entries)?;
            }
            Content::Symlink(_) | Content::Special(..) => {}
        }
        self.lay_out_xattrs(tree, id, node)
    }

    fn lay_out_directory(
        &mut self,
        id: NodeId,
        shape: &Shape,
        entries: Vec<directory::Entry<'_>>,
    ) -> Result<()> {
        let plan = directory::Plan::new(shape, entries.into_iter())?;
        self.large_dir |= plan.is_large(shape.block_len);
        let Writer {
            geometry,
            allocator,
            stage,
            ..
        } = &mut self.writer;
        let mut body = Body {
            extents: Extents::None,
            size: geometry.offset(plan.blocks()),
            indexed: plan.is_indexed(),
        };
        let mut done = 0u64;
        let mut span = Span { start: 0, count: 0 };
        plan.encode(shape, |block| {
            if span.count == 0 {
                span = allocator.take_any(plan.blocks().saturating_sub(done))?;
                body.extents.push(logical(done), span);
            }
            stage.write(geometry.offset(span.start), block)?;
            span = Span {
                start: span.start.saturating_add(1),
                count: span.count.saturating_sub(1),
            };
            done = done.saturating_add(1);
            Ok(())
        })?;
        self.lay_out_tree(id, shape.inode, &body.extents)?;
        self.bodies.insert(id, body);
        Ok(())
    }

    /// Puts content that was kept in memory into a block.
    fn spill(&mut self, id: NodeId, bytes: &[u8]) -> Result<()> {
        let extents = self.write_blocks(bytes)?;
        self.bodies.insert(
            id,
            Body {
                extents,
                size: size(bytes),
                indexed: false,
            },
        );
        Ok(())
    }

    /// Writes bytes into as many blocks as they take.
    fn write_blocks(&mut self, bytes: &[u8]) -> Result<Extents> {
        let Writer {
            geometry,
            allocator,
            stage,
            ..
        } = &mut self.writer;
        let mut extents = Extents::None;
        let mut done = 0u64;
        let mut block = vec![0; geometry.block_len()];
        for chunk in bytes.chunks(geometry.block_len()) {
            let span = allocator.take_any(1)?;
            block.fill(0);
            put(&mut block, 0, chunk);
            stage.write(geometry.offset(span.start), &block)?;
            extents.push(logical(done), span);
            done = done.saturating_add(1);
        }
        Ok(extents)
    }

    fn tree_root(&mut self, number: u32, extents: &Extents) -> Result<Root> {
        let seed = self.seed(number);
        let Writer {
            geometry,
            allocator,
            stage,
            ..
        } = &mut self.writer;
        extents::encode(extents, geometry.block_len(), seed, |block| {
            let span = allocator.take_any(1)?;
            stage.write(geometry.offset(span.start), block)?;
            Ok(span.start)
        })
    }

    /// Writes an extent tree's blocks. Trees that fit in the inode are made with it.
    fn lay_out_tree(&mut self, id: NodeId, number: u32, extents: &Extents) -> Result<()> {
        if !extents.fit_in_inode() {
            let root = self.tree_root(number, extents)?;
            self.roots.insert(id, root);
        }
        Ok(())
    }

    fn lay_out_xattrs(&mut self, tree: &Tree, id: NodeId, node: &Node) -> Result<()> {
        if node.metadata.xattrs.is_empty() {
            return Ok(());
        }
        let block_len = self.writer.geometry.block_len();
        let mut placement = self.placement(id, node)?;
        if placement.block.is_empty() {
            return Ok(());
        }
        if !placement.outside.is_empty() {
            let mut charged = 0u64;
            for &number in &placement.outside {
                if let Some(item) = placement.block.get_mut(number) {
                    let blocks = item.value.len().div_ceil(block_len.max(1));
                    charged = charged.saturating_add(wide(blocks));
                    let (inode, hash) = self.write_value(&item.value)?;
                    item.set_outside(inode, hash);
                }
            }
            self.charged.insert(id, charged);
            let span = self.writer.allocator.take_any(1)?;
            let mut bytes = xattr::encode_block(&placement.block, block_len);
            xattr::seal_block(&mut bytes, 1, span.start, self.writer.seed);
            self.writer
                .stage
                .write(self.writer.geometry.offset(span.start), &bytes)?;
            self.acls.insert(id, span.start);
            return Ok(());
        }
        let bytes = xattr::encode_block(&placement.block, block_len);
        let sum = Checksum::START.add(&bytes).0;
        if let Some(&number) = self.shared_by_sum.get(&sum)
            && let Some(shared) = self.shared.get(number)
            && shared.references < REFERENCES_MAX
            && self.shared_bytes(tree, shared.node)? == bytes
            && let Some(shared) = self.shared.get_mut(number)
        {
            shared.references = shared.references.saturating_add(1);
            self.acls.insert(id, shared.block);
            return Ok(());
        }
        let block = self.writer.allocator.take_any(1)?.start;
        // A sum that others have too is only tried with its latest block: enough, and bounded.
        self.shared_by_sum.insert(sum, self.shared.len());
        self.shared.push(Shared {
            node: id,
            references: 1,
            block,
        });
        self.acls.insert(id, block);
        Ok(())
    }

    /// Where a node's attributes go, as every pass decides it.
    fn placement<'a>(&self, id: NodeId, node: &'a Node) -> Result<xattr::Placement<'a>> {
        let inline = match &node.content {
            Content::Inline(bytes) if !self.bodies.contains_key(&id) => {
                Some(bytes.get(60..).unwrap_or_default())
            }
            _ => None,
        };
        let block_len = self.writer.geometry.block_len();
        let outside = self.writer.options.ea_inode;
        xattr::place(&node.metadata.xattrs, inline, block_len, outside)
    }

    fn shared_bytes(&self, tree: &Tree, id: NodeId) -> Result<Vec<u8>> {
        let placement = self.placement(id, tree.get(id)?)?;
        let block_len = self.writer.geometry.block_len();
        Ok(xattr::encode_block(&placement.block, block_len))
    }

    /// Writes the blocks of attributes, now that their references are counted.
    fn write_shared(&mut self, tree: &Tree) -> Result<()> {
        for shared in std::mem::take(&mut self.shared) {
            let mut bytes = self.shared_bytes(tree, shared.node)?;
            let seed = self.writer.seed;
            xattr::seal_block(&mut bytes, shared.references, shared.block, seed);
            let offset = self.writer.geometry.offset(shared.block);
            self.writer.stage.write(offset, &bytes)?;
        }
        Ok(())
    }

    /// Writes an attribute's value into an inode of its own, and tells its number and hash.
    fn write_value(&mut self, value: &[u8]) -> Result<(u32, u32)> {
        let extents = self.write_blocks(value)?;
        let hash = self.writer.seed.add(value).0;
        let number = u32::try_from(self.outside.len())
            .ok()
            .and_then(|values| self.last.checked_add(values)?.checked_add(1))
            .ok_or_else(|| Error::too_large("more inodes than ext4 can have"))?;
        let root = self.tree_root(number, &extents)?;
        self.outside.push(Outside {
            size: size(value),
            hash,
            blocks: extents.blocks().saturating_add(root.blocks),
            i_block: root.i_block,
        });
        Ok((number, hash))
    }

    fn lay_out_journal(&mut self) -> Result<Option<(Root, u64)>> {
        let Some((size, extents)) = self.writer.journal.take() else {
            return Ok(None);
        };
        let root = self.tree_root(JOURNAL_INO, &extents)?;
        Ok(Some((root, size)))
    }

    /// Frees the room for descriptors that the volume does not need.
    fn release_descriptors(&mut self, layout: &Layout) {
        let geometry = self.writer.geometry;
        let needed = layout
            .groups
            .div_ceil(geometry.descriptors_per_block().max(1));
        if let Some(count) = geometry.descriptor_blocks.checked_sub(needed) {
            let start = geometry.first_descriptor_block().saturating_add(needed);
            self.writer.allocator.release(Span { start, count });
        }
    }

    /// Writes the inode tables and counts the directories of each group.
    fn write_inodes(
        &mut self,
        tree: &Tree,
        layout: &Layout,
        journal: Option<&(Root, u64)>,
    ) -> Result<Vec<u32>> {
        let mut directories = vec![0u32; index(layout.groups)];
        let created = self.writer.options.created;
        for (id, node) in tree.iter() {
            let number = self.numbers.get(id);
            let record = self.record(id, node)?;
            if record.file_type == FileType::Directory {
                let group = number
                    .saturating_sub(1)
                    .checked_div(layout.inodes_per_group);
                if let Some(count) = group.and_then(|group| directories.get_mut(index(group))) {
                    *count = count.saturating_add(1);
                }
            }
            self.write_inode(layout, number, &record, &node.metadata)?;
            if id == Tree::ROOT {
                self.write_reserved(layout, journal, created)?;
            }
        }
        let values = std::mem::take(&mut self.outside);
        for (step, value) in (1u32..).zip(&values) {
            let number = self.last.saturating_add(step);
            let record = Record {
                size: value.size,
                sectors: value.blocks.saturating_mul(self.writer.geometry.sectors()),
                flags: FLAG_EXTENTS | FLAG_EA_INODE,
                i_block: value.i_block,
                version: 1,
                ..Record::new(FileType::File)
            };
            // The kernel keeps the value's hash and its references where times and version would be.
            let at = |seconds: u32| Timestamp {
                seconds: i64::from(seconds.cast_signed()),
                nanoseconds: 0,
            };
            let metadata = Metadata {
                mode: 0o600,
                atime: at(value.hash),
                mtime: created,
                crtime: created,
                ..Metadata::default()
            };
            self.write_inode(layout, number, &record, &metadata)?;
        }
        self.outside = values;
        Ok(directories)
    }

    /// Inodes 3 to 10: nothing, but for the journal.
    fn write_reserved(
        &mut self,
        layout: &Layout,
        journal: Option<&(Root, u64)>,
        created: Timestamp,
    ) -> Result<()> {
        let Some((root, size)) = journal else {
            return Ok(());
        };
        let blocks = size
            .checked_div(u64::from(self.writer.geometry.block_size))
            .unwrap_or(0);
        let record = Record {
            size: *size,
            sectors: blocks
                .saturating_add(root.blocks)
                .saturating_mul(self.writer.geometry.sectors()),
            flags: FLAG_EXTENTS,
            i_block: root.i_block,
            ..Record::new(FileType::File)
        };
        let metadata = Metadata {
            mode: 0o600,
            atime: created,
            mtime: created,
            ctime: created,
            crtime: created,
            ..Metadata::default()
        };
        self.write_inode(layout, JOURNAL_INO, &record, &metadata)
    }

    fn write_inode(
        &mut self,
        layout: &Layout,
        number: u32,
        record: &Record,
        metadata: &Metadata,
    ) -> Result<()> {
        let bytes = record.encode(metadata, self.seed(number));
        let before = number.saturating_sub(1);
        let group = before.checked_div(layout.inodes_per_group).unwrap_or(0);
        let place = before.checked_rem(layout.inodes_per_group).unwrap_or(0);
        let Some(places) = layout.places.get(index(group)) else {
            return Ok(());
        };
        let offset = self
            .writer
            .geometry
            .offset(places.inode_table)
            .saturating_add(u64::from(place).saturating_mul(wide(inode::SIZE)));
        self.writer.stage.write(offset, &bytes)
    }

    /// What a node's inode says.
    fn record(&self, id: NodeId, node: &Node) -> Result<Record> {
        let mut record = Record::new(node.file_type());
        record.links = node.links;
        let body = self.bodies.get(&id);
        let mut mapped = None;
        match (&node.content, body) {
            (Content::File { size, extents }, _) => {
                record.size = *size;
                mapped = Some(extents);
            }
            (_, Some(body)) => {
                record.size = body.size;
                mapped = Some(&body.extents);
                record.flags |= if body.indexed { FLAG_INDEX } else { 0 };
            }
            (Content::Inline(bytes), None) => {
                record.size = size(bytes);
                record.flags |= FLAG_INLINE_DATA;
                let (head, _) = bytes.split_at(bytes.len().min(60));
                put(&mut record.i_block, 0, head);
            }
            (Content::Symlink(target), None) => {
                record.size = size(target);
                put(&mut record.i_block, 0, target);
            }
            (Content::Special(FileType::CharDevice | FileType::BlockDevice, device), None) => {
                record.i_block = inode::device(*device);
            }
            (Content::Special(..) | Content::Directory { .. }, None) => {}
        }
        if let Content::Directory { subdirectories, .. } = node.content {
            record.links = directory_links(subdirectories);
        }
        let mut blocks = 0u64;
        if let Some(extents) = mapped {
            record.flags |= FLAG_EXTENTS;
            blocks = extents.blocks();
            match self.roots.get(&id) {
                Some(root) => {
                    record.i_block = root.i_block;
                    blocks = blocks.saturating_add(root.blocks);
                }
                None => record.i_block = extents::encode_in_inode(extents),
            }
        }
        let inline = matches!(node.content, Content::Inline(_)) && body.is_none();
        if inline || !node.metadata.xattrs.is_empty() {
            record.in_inode = xattr::encode_in_inode(&self.placement(id, node)?.inode);
        }
        if let Some(&block) = self.acls.get(&id) {
            record.file_acl = block;
            let charged = self.charged.get(&id).copied().unwrap_or(0);
            blocks = blocks.saturating_add(1).saturating_add(charged);
        }
        record.sectors = blocks.saturating_mul(self.writer.geometry.sectors());
        Ok(record)
    }
}
