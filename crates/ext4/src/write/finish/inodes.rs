//! The inode tables: what each inode says, and where it is.

use positioned_io::WriteAt;

use super::Finish;
use crate::error::Result;
use crate::format::inode::{
    FLAG_EA_INODE, FLAG_EXTENTS, FLAG_INDEX, FLAG_INLINE_DATA, JOURNAL_INO,
};
use crate::num::{index, put, wide};
use crate::types::{FileType, Metadata, Timestamp};
use crate::write::allocate::Span;
use crate::write::attributes::Attributes;
use crate::write::extents::{self, Extents, Root};
use crate::write::inode::{self, Record};
use crate::write::layout::Layout;
use crate::write::tree::{Content, Node, NodeId, Tree, directory_links};
use crate::write::{size, xattr};

impl<W: WriteAt> Finish<W> {
    /// Writes the inode tables and counts the directories of each group.
    pub(super) fn write_inodes(
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
            self.write_inode(layout, number, &record, &node.stamp.metadata())?;
            if id == Tree::ROOT {
                self.write_reserved(layout, journal, created)?;
            }
        }
        let values = tree.iter().flat_map(|(_, node)| node.attributes.values());
        for (step, value) in (1u32..).zip(values) {
            let number = self.last.saturating_add(step);
            let root = self.value_roots.get(&number);
            let blocks = value
                .extents
                .blocks()
                .saturating_add(root.map_or(0, |root| root.blocks));
            let i_block = root.map_or_else(
                || extents::encode_in_inode(&value.extents),
                |root| root.i_block,
            );
            let record = Record {
                size: u64::from(value.size),
                sectors: blocks.saturating_mul(self.writer.geometry.sectors()),
                flags: FLAG_EXTENTS | FLAG_EA_INODE,
                i_block,
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
        Ok(directories)
    }

    /// Inodes 3 to 10: nothing, but for the journal.
    pub(super) fn write_reserved(
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

    pub(super) fn write_inode(
        &mut self,
        layout: &Layout,
        number: u32,
        record: &Record,
        metadata: &Metadata,
    ) -> Result<()> {
        let seed = self.writer.seed.of_inode(number, record.generation);
        let bytes = record.encode(metadata, seed);
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
    pub(super) fn record(&self, id: NodeId, node: &Node) -> Result<Record> {
        let mut record = Record::new(node.file_type());
        record.links = node.links;
        let body = self.body(id);
        let mut target = Extents::None;
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
            (Content::Inline(bytes), None) => in_inode(&mut record, bytes),
            (Content::Symlink(target), None) => {
                record.size = size(target);
                put(&mut record.i_block, 0, target);
            }
            (Content::LongSymlink { size, block }, _) => {
                record.size = u64::from(*size);
                let span = Span {
                    start: *block,
                    count: 1,
                };
                target.push(0, span);
                mapped = Some(&target);
            }
            (Content::Special(FileType::CharDevice | FileType::BlockDevice, device), None) => {
                record.i_block = inode::device(*device);
            }
            (Content::Directory { .. }, None) => {
                if let Some(bytes) = self.inline.get(&id) {
                    in_inode(&mut record, bytes);
                }
            }
            (Content::Special(..), None) => {}
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
            if let Extents::Tree(tree) = extents {
                let number = self.numbers.get(id);
                record.generation = self.writer.seed.generation(number, tree.seed);
            }
        }
        let inline = record.flags & FLAG_INLINE_DATA != 0;
        if inline || matches!(node.attributes, Attributes::Held(_)) {
            record.in_inode = xattr::encode_in_inode(&self.placement(id, node)?.inode);
        }
        if let Some(&block) = self.acls.get(&id) {
            record.file_acl = block;
            blocks = blocks.saturating_add(1);
        }
        if let Attributes::Written(written) = &node.attributes {
            record.file_acl = written.block;
            // Values outside count as their owner's too.
            let charged = written.values.iter().map(|value| value.extents.blocks());
            blocks = blocks.saturating_add(1).saturating_add(charged.sum());
        }
        record.sectors = blocks.saturating_mul(self.writer.geometry.sectors());
        Ok(record)
    }
}

/// Puts a node's content into its inode, as far as it is not among the attributes.
fn in_inode(record: &mut Record, bytes: &[u8]) {
    record.size = size(bytes);
    record.flags |= FLAG_INLINE_DATA;
    let (head, _) = bytes.split_at(bytes.len().min(60));
    put(&mut record.i_block, 0, head);
}
