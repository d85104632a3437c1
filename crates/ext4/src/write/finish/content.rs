//! The blocks that directories, long symlinks and extent trees lie in.

use positioned_io::WriteAt;

use super::{Body, Finish};
use crate::error::Result;
use crate::num::put;
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
                if !self.lay_out_inline(tree, id, node, &shape, &entries) {
                    self.lay_out_directory(id, &shape, entries)?;
                }
            }
            Content::Symlink(_) | Content::Special(..) => {}
        }
        self.lay_out_xattrs(tree, id, node)
    }

    /// Keeps a directory in its inode, if that is wanted and it has room. The root has a block, for
    /// Linux mounts nothing whose root has none; so has `lost+found`, where `e2fsck` puts things when
    /// nothing else can be relied on.
    fn lay_out_inline(
        &mut self,
        tree: &Tree,
        id: NodeId,
        node: &Node,
        shape: &Shape,
        entries: &[directory::Entry<'_>],
    ) -> bool {
        let lost_found = tree
            .children(Tree::ROOT)
            .and_then(|children| children.get(&b"lost+found"[..]));
        if !self.writer.inline_data || id == Tree::ROOT || lost_found == Some(&id) {
            return false;
        }
        let Some(bytes) = directory::inline(shape.parent, entries, xattr::INLINE_ROOM) else {
            return false;
        };
        let tail = Some(bytes.get(60..).unwrap_or_default());
        let outside = self.writer.options.ea_inode;
        let fits = xattr::place(&node.metadata.xattrs, tail, shape.block_len, outside).is_ok();
        if fits {
            self.inline.insert(id, bytes.into());
        }
        fits
    }

    pub(super) fn lay_out_directory(
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
    pub(super) fn spill(&mut self, id: NodeId, bytes: &[u8]) -> Result<()> {
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
    pub(super) fn write_blocks(&mut self, bytes: &[u8]) -> Result<Extents> {
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
