//! The end of a volume: everything but file data, in the order that lets each part know its blocks.

mod attributes;
mod content;
mod inodes;

use std::collections::BTreeMap;

use positioned_io::WriteAt;

use self::attributes::Shared;
use super::allocate::Span;
use super::attributes::Attributes;
use super::extents::{Extents, Root};
use super::group::Usage;
use super::layout::Layout;
use super::superblock::{self, Facts};
use super::tree::{ByNode, Node, NodeId, Tree};
use super::{Finished, Writer};
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::inode::{FIRST_INO, JOURNAL_INO, ROOT_INO};
use crate::format::superblock::OFFSET;
use crate::num::{index, low32, wide};
use crate::types::{InodeNo, Metadata};

/// Blocks that a node got at the end.
#[derive(Debug, Default)]
struct Body {
    extents: Extents,
    size: u64,
    indexed: bool,
}

/// A writer that only has metadata left to write.
#[derive(Debug)]
pub(super) struct Finish<W: WriteAt> {
    writer: Writer<W>,
    numbers: ByNode<u32>,
    /// The last inode of a node; inodes of values follow.
    last: u32,
    /// In the order of nodes.
    bodies: Vec<(NodeId, Body)>,
    /// Directories that lie in their inodes.
    inline: BTreeMap<NodeId, Box<[u8]>>,
    roots: BTreeMap<NodeId, Root>,
    acls: BTreeMap<NodeId, u64>,
    shared: Vec<Shared>,
    shared_by_sum: BTreeMap<u32, usize>,
    /// Inodes of values, and the roots of those whose blocks the inode has no room for.
    values: u32,
    value_roots: BTreeMap<u32, Root>,
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
            bodies: Vec::new(),
            inline: BTreeMap::new(),
            roots: BTreeMap::new(),
            acls: BTreeMap::new(),
            shared: Vec::new(),
            shared_by_sum: BTreeMap::new(),
            values: 0,
            value_roots: BTreeMap::new(),
            large_dir: false,
        }
    }

    pub(super) fn run(mut self) -> Result<(Finished, W)> {
        // The tree is only read from here on, while allocator and stage change.
        let tree = std::mem::replace(&mut self.writer.tree, Tree::new(&Metadata::default()));
        let directories = tree.iter().filter(|(_, node)| node.is_directory()).count();
        self.bodies.reserve_exact(directories);
        for (id, node) in tree.iter() {
            let number = self.numbers.get(id);
            self.lay_out(&tree, id, node)
                .map_err(|error| error.at_inode(InodeNo(number)))?;
        }
        let written = |node: &Node| matches!(node.attributes, Attributes::Written(_));
        let written = tree.iter().filter(|(_, node)| written(node)).count();
        let attribute_blocks = wide(self.shared.len()).saturating_add(wide(written));
        self.write_shared(&tree)?;
        let journal = self.lay_out_journal()?;

        self.number_values(&tree)?;
        let last = self
            .last
            .checked_add(self.values)
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
            attribute_blocks,
            attribute_inodes: self.values,
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
            ea_inode: self.values > 0,
            journal: journal.as_ref().map(|(root, size)| (&root.i_block, *size)),
        };
        let sb = superblock::encode(&self.writer.options, &facts);
        let geometry = self.writer.geometry;
        for (group, start) in geometry.backup_starts() {
            let bytes = superblock::sealed(&sb, group);
            self.writer.stage.write(geometry.offset(start), &bytes)?;
        }
        let bytes = superblock::sealed(&sb, 0);
        self.writer.stage.write(OFFSET, &bytes)?;
        Ok((finished, self.writer.stage.finish()?))
    }

    /// What a node got here, if it got something.
    fn body(&self, id: NodeId) -> Option<&Body> {
        let place = self.bodies.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.bodies.get(place).map(|(_, body)| body)
    }

    fn seed(&self, inode: u32) -> Checksum {
        self.writer.seed.of_inode(inode, 0)
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
}
