//! Where attributes lie that do not fit in their inodes: in blocks, shared where they are the same.

use positioned_io::WriteAt;

use super::Finish;
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::num::{put, wide};
use crate::write::attributes::Attributes;
use crate::write::tree::{Content, Node, NodeId, Tree};
use crate::write::xattr;

/// A block of attributes, and who has the same.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) references: u32,
    pub(super) block: u64,
}

/// Most inodes that may share a block of attributes (`EXT4_XATTR_REFCOUNT_MAX`).
const REFERENCES_MAX: u32 = 1024;

impl<W: WriteAt> Finish<W> {
    pub(super) fn lay_out_xattrs(&mut self, tree: &Tree, id: NodeId, node: &Node) -> Result<()> {
        let Attributes::Held(_) = node.attributes else {
            return Ok(());
        };
        let block_len = self.writer.geometry.block_len();
        let placement = self.placement(id, node)?;
        if placement.block.is_empty() {
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

    /// The part of a node's content that lies among the attributes in its inode.
    fn inline_tail<'a>(&'a self, id: NodeId, node: &'a Node) -> Option<&'a [u8]> {
        let bytes = match &node.content {
            Content::Inline(bytes) if self.body(id).is_none() => bytes,
            Content::Directory { .. } => self.inline.get(&id)?,
            _ => return None,
        };
        Some(bytes.get(60..).unwrap_or_default())
    }

    /// Where a node's attributes go, as every pass decides it.
    pub(super) fn placement<'a>(
        &'a self,
        id: NodeId,
        node: &'a Node,
    ) -> Result<xattr::Placement<'a>> {
        self.placement_beside(node, self.inline_tail(id, node))
    }

    /// Where a node's attributes go, if this part of its content lies among them. None of them may
    /// have to move outside for that.
    pub(super) fn placement_beside<'a>(
        &'a self,
        node: &'a Node,
        inline: Option<&'a [u8]>,
    ) -> Result<xattr::Placement<'a>> {
        let block_len = self.writer.geometry.block_len();
        let set = match node.attributes {
            Attributes::Held(set) => Some(set),
            Attributes::None | Attributes::Written(_) => None,
        };
        let held = set.into_iter().flat_map(|set| self.writer.sets.pairs(set));
        xattr::place(held, inline, block_len, false)
    }

    pub(super) fn shared_bytes(&self, tree: &Tree, id: NodeId) -> Result<Vec<u8>> {
        let placement = self.placement(id, tree.get(id)?)?;
        let block_len = self.writer.geometry.block_len();
        Ok(xattr::encode_block(&placement.block, block_len))
    }

    /// Writes the blocks of attributes, now that their references are counted.
    pub(super) fn write_shared(&mut self, tree: &Tree) -> Result<()> {
        for shared in std::mem::take(&mut self.shared) {
            let mut bytes = self.shared_bytes(tree, shared.node)?;
            let seed = self.writer.seed;
            xattr::seal_block(&mut bytes, shared.references, shared.block, seed);
            let offset = self.writer.geometry.offset(shared.block);
            self.writer.stage.write(offset, &bytes)?;
        }
        Ok(())
    }

    /// Gives values outside their inodes' numbers, and puts these into the blocks of attributes.
    ///
    /// A checksum is linear: what a number adds to a block adds its own checksum, from zero, to the
    /// block's. So the block need not be known any more.
    pub(super) fn number_values(&mut self, tree: &Tree) -> Result<()> {
        let block_len = self.writer.geometry.block_len();
        for (_, node) in tree.iter() {
            let Attributes::Written(written) = &node.attributes else {
                continue;
            };
            if written.values.is_empty() {
                continue;
            }
            let mut added = vec![0; block_len];
            let start = self.writer.geometry.offset(written.block);
            for value in &written.values {
                self.values = self.values.saturating_add(1);
                let number = self.last.checked_add(self.values);
                let number =
                    number.ok_or_else(|| Error::too_large("more inodes than ext4 can have"))?;
                let field = usize::from(value.field);
                put(&mut added, field, &number.to_le_bytes());
                let offset = start.saturating_add(wide(field));
                self.writer.stage.write(offset, &number.to_le_bytes())?;
                if !value.extents.fit_in_inode() {
                    let root = self.tree_root(number, &value.extents)?;
                    self.value_roots.insert(number, root);
                }
            }
            let sum = written.sum ^ Checksum(0).add(&added).0;
            let offset = start.saturating_add(wide(xattr::CHECKSUM_FIELD));
            self.writer.stage.write(offset, &sum.to_le_bytes())?;
        }
        Ok(())
    }
}
