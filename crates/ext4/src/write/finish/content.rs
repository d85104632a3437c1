//! The blocks that directories and what does not fit in inodes lie in.

use positioned_io::WriteAt;

use super::{Body, Finish};
use crate::error::Result;
use crate::types::FileType;
use crate::write::allocate::Span;
use crate::write::directory::{self, Shape};
use crate::write::extents::{self, Extents, Root};
use crate::write::tree::{Content, Node, NodeId, Tree};
use crate::write::{Writer, logical, size, superblock, xattr};

impl<W: WriteAt> Finish<W> {
    /// Gives a node the blocks that it lacks: attributes, a directory's or symlink's content, its
    /// extent tree.
    pub(super) fn lay_out(&mut self, tree: &Tree, id: NodeId, node: &Node) -> Result<()> {
        let number = self.numbers.get(id);
        match &node.content {
            Content::Inline(bytes) => {
                let tail = bytes.get(60..).unwrap_or_default();
                if self.placement_beside(node, Some(tail)).is_err() {
                    self.spill(id, bytes)?;
                }
            }
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
                let entries = children.iter().map(|(name, child)| directory::Entry {
                    name,
                    inode: self.numbers.get(child),
                    file_type: tree.get(child).map_or(FileType::File, Node::file_type),
                });
                let inline = if self.may_be_inline(tree, id, children.len()) {
                    let few: Vec<_> = entries.clone().collect();
                    directory::inline(shape.parent, &few, xattr::INLINE_ROOM)
                } else {
                    None
                };
                let tail = inline.as_deref().and_then(|bytes| bytes.get(60..));
                match inline.as_deref() {
                    Some(bytes) if self.placement_beside(node, tail).is_ok() => {
                        self.inline.insert(id, bytes.into());
                    }
                    _ => {
                        let plan = directory::Plan::new(&shape, entries)?;
                        self.lay_out_directory(id, &shape, &plan)?;
                    }
                }
            }
            Content::File { .. }
            | Content::Symlink(_)
            | Content::LongSymlink { .. }
            | Content::Special(..) => {}
        }
        self.lay_out_xattrs(tree, id, node)
    }

    /// Whether a directory may lie in its inode, if it has room. The root has a block, for Linux mounts
    /// nothing whose root has none; so has `lost+found`, where `e2fsck` puts things when nothing else
    /// can be relied on.
    fn may_be_inline(&self, tree: &Tree, id: NodeId, entries: usize) -> bool {
        let lost_found = tree
            .children(Tree::ROOT)
            .and_then(|children| children.get(b"lost+found"));
        self.writer.inline_data
            && entries <= directory::INLINE_MOST
            && id != Tree::ROOT
            && lost_found != Some(id)
    }

    pub(super) fn lay_out_directory(
        &mut self,
        id: NodeId,
        shape: &Shape,
        plan: &directory::Plan<'_>,
    ) -> Result<()> {
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
        self.bodies.push((id, body));
        Ok(())
    }

    /// Puts content that was kept in memory into a block.
    pub(super) fn spill(&mut self, id: NodeId, bytes: &[u8]) -> Result<()> {
        let body = Body {
            extents: self.writer.write_blocks(bytes)?,
            size: size(bytes),
            indexed: false,
        };
        self.bodies.push((id, body));
        Ok(())
    }

    pub(super) fn tree_root(&mut self, number: u32, extents: &Extents) -> Result<Root> {
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
    pub(super) fn lay_out_tree(
        &mut self,
        id: NodeId,
        number: u32,
        extents: &Extents,
    ) -> Result<()> {
        if !extents.fit_in_inode() {
            let root = self.tree_root(number, extents)?;
            self.roots.insert(id, root);
        }
        Ok(())
    }
}
