//! Where attributes lie that do not fit in their inodes: in blocks, shared where they are the same,
//! and in inodes of their own.

use positioned_io::WriteAt;

use super::Finish;
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::num::wide;
use crate::write::tree::{Content, Node, NodeId, Tree};
use crate::write::{size, xattr};

/// A block of attributes, and who has the same.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) references: u32,
    pub(super) block: u64,
}

/// Most inodes that may share a block of attributes (`EXT4_XATTR_REFCOUNT_MAX`).
const REFERENCES_MAX: u32 = 1024;

/// An attribute's value in an inode of its own.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) size: u64,
    pub(super) hash: u32,
    pub(super) blocks: u64,
    pub(super) i_block: [u8; 60],
}

impl<W: WriteAt> Finish<W> {
    pub(super) fn lay_out_xattrs(&mut self, tree: &Tree, id: NodeId, node: &Node) -> Result<()> {
        if node.metadata.xattrs.is_empty() {
            return Ok(());
        }
        let block_len = self.writer.geometry.block_len();
        // Not borrowed, as values may be written while it is in use.
        let inline = self.inline_tail(id, node).map(<[u8]>::to_vec);
        let outside = self.writer.options.ea_inode;
        let xattrs = &node.metadata.xattrs;
        let mut placement = xattr::place(xattrs, inline.as_deref(), block_len, outside)?;
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

    /// The part of a node's content that lies among the attributes in its inode.
    fn inline_tail<'a>(&'a self, id: NodeId, node: &'a Node) -> Option<&'a [u8]> {
        let bytes = match &node.content {
            Content::Inline(bytes) if !self.bodies.contains_key(&id) => bytes,
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
        let inline = self.inline_tail(id, node);
        let block_len = self.writer.geometry.block_len();
        let outside = self.writer.options.ea_inode;
        xattr::place(&node.metadata.xattrs, inline, block_len, outside)
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

    /// Writes an attribute's value into an inode of its own, and tells its number and hash.
    pub(super) fn write_value(&mut self, value: &[u8]) -> Result<(u32, u32)> {
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
}
