//! The writer: one pass over the content, whatever its size; data goes out as it comes, metadata
//! at the end.
//!
//! ```text
//! | superblock | descriptors | journal | data, forward as it comes … | attributes, extent blocks,
//!   directories | block bitmaps | inode bitmaps | inode tables |
//! ```

mod allocate;
mod attributes;
mod children;
mod directory;
mod extents;
mod file;
mod finish;
mod geometry;
mod group;
mod inode;
mod journal;
mod layout;
mod nodes;
mod options;
mod stage;
mod superblock;
mod tree;
mod xattr;

use positioned_io::WriteAt;

pub use self::file::FileWriter;
pub use self::options::WriterOptions;
pub use self::tree::NodeId;

use self::allocate::Allocator;
use self::attributes::Sets;
use self::children::Children;
use self::extents::{Extents, logical_block};
use self::finish::Finish;
use self::geometry::Geometry;
use self::stage::Stage;
use self::tree::{Content, Node, Stamp, Tree};
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::num::{index, low32, wide};
use crate::types::{FileType, Metadata};

/// Most blocks a volume can have: block numbers have 48 bits in extents.
const BLOCKS_MAX: u64 = 1 << 48;

/// What came of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// Bytes of the whole volume. The output may be shorter where it ends in zeros only if it was
    /// given a size of its own; otherwise its last block is written.
    pub size: u64,
    /// Bytes a block.
    pub block_size: u32,
    /// Blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub free_blocks: u64,
    /// Inodes.
    pub inodes: u32,
    /// Inodes that are free.
    pub free_inodes: u32,
    /// Block groups.
    pub groups: u32,
    /// Blocks of attributes that did not fit into their inodes.
    pub attribute_blocks: u64,
    /// Inodes of attributes' values that did not fit into such a block.
    pub attribute_inodes: u32,
}

/// Writes one ext4 volume.
///
/// The output must read as zeros wherever it was not written.
#[derive(Debug)]
pub struct Writer<W: WriteAt> {
    geometry: Geometry,
    allocator: Allocator,
    stage: Stage<W>,
    tree: Tree,
    sets: Sets,
    options: WriterOptions,
    seed: Checksum,
    journal: Option<(u64, Extents)>,
    inline_data: bool,
    /// The last block of the file being written, as far as it came.
    partial: Vec<u8>,
}

impl<W: WriteAt> Writer<W> {
    /// Begins a volume that holds a root directory (mode 0755, root's) and, if wanted, `lost+found`.
    ///
    /// # Errors
    /// `InvalidInput` for options that make no sense, `NoSpace` for a size too small, and `Io` from
    /// the output.
    pub fn new(out: W, options: &WriterOptions) -> Result<Self> {
        if options.label.len() > 16 || options.label.contains(&0) {
            return Err(Error::invalid(
                "a label has at most 16 bytes, none of them zero",
            ));
        }
        let blocks = options
            .size
            .map(|size| size.checked_div(u64::from(options.block_size)).unwrap_or(0));
        if blocks.is_some_and(|blocks| blocks > BLOCKS_MAX) {
            return Err(Error::too_large("a volume of more than 2^48 blocks"));
        }
        let geometry = Geometry::new(options.block_size, blocks)?;
        let created = Metadata {
            mode: 0o755,
            atime: options.created,
            mtime: options.created,
            ctime: options.created,
            crtime: options.created,
            ..Metadata::default()
        };
        let mut writer = Self {
            geometry,
            allocator: Allocator::new(geometry, blocks.unwrap_or(BLOCKS_MAX))?,
            stage: Stage::new(out, options.read_again.clone()),
            tree: Tree::new(&created),
            sets: Sets::default(),
            options: options.clone(),
            seed: Checksum::of_uuid(&options.uuid),
            journal: None,
            inline_data: options.inline_data,
            partial: Vec::new(),
        };
        if options.lost_found {
            let metadata = Metadata {
                mode: 0o700,
                ..created
            };
            writer.create_directory(Tree::ROOT, b"lost+found", metadata)?;
        }
        if let Some(size) = options.journal {
            writer.place_journal(size)?;
        }
        Ok(writer)
    }

    fn place_journal(&mut self, size: u64) -> Result<()> {
        let blocks = size
            .checked_div(u64::from(self.geometry.block_size))
            .unwrap_or(0);
        let count = u32::try_from(blocks)
            .ok()
            .filter(|&count| u64::from(count) >= journal::MIN_BLOCKS)
            .ok_or_else(|| {
                let least = self.geometry.offset(journal::MIN_BLOCKS);
                Error::invalid(format!(
                    "a journal of {size} bytes: {} MiB ({} blocks of {} bytes) are the least, \
                     2^32 - 1 blocks the most",
                    least >> 20,
                    journal::MIN_BLOCKS,
                    self.geometry.block_size
                ))
            })?;
        let mut extents = Extents::None;
        let mut done = 0;
        while done < blocks {
            let span = self.allocator.fresh(blocks.saturating_sub(done))?;
            if done == 0 {
                let head =
                    journal::superblock(self.geometry.block_len(), count, &self.options.uuid);
                self.stage.write(self.geometry.offset(span.start), &head)?;
            }
            extents.push(low32(done), span);
            done = done.saturating_add(span.count);
        }
        self.journal = Some((self.geometry.offset(blocks), extents));
        Ok(())
    }

    /// The root directory.
    pub fn root(&self) -> NodeId {
        Tree::ROOT
    }

    /// The node that a name in a directory leads to.
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.tree.children(directory)?.get(name)
    }

    /// The names in a directory, sorted; nothing for what is no directory.
    pub fn children(&self, directory: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        self.tree
            .children(directory)
            .into_iter()
            .flat_map(Children::iter)
    }

    /// The directory that holds a directory (the root holds itself); `None` for anything else.
    pub fn parent(&self, directory: NodeId) -> Option<NodeId> {
        match self.tree.get(directory).ok()?.content {
            Content::Directory { parent, .. } => Some(parent),
            _ => None,
        }
    }

    /// What a node is.
    ///
    /// # Panics
    /// If the node was removed or is another writer's.
    pub fn file_type(&self, node: NodeId) -> FileType {
        self.node(node).file_type()
    }

    /// A node's metadata. Extended attributes are read apart, so `xattrs` is empty; times are the
    /// nearest that ext4 can hold.
    ///
    /// # Panics
    /// If the node was removed or is another writer's.
    pub fn metadata(&self, node: NodeId) -> Metadata {
        self.node(node).stamp.metadata()
    }

    /// How many names a node has. Directories have one.
    ///
    /// # Panics
    /// If the node was removed or is another writer's.
    pub fn links(&self, node: NodeId) -> u32 {
        self.node(node).links
    }

    fn node(&self, node: NodeId) -> &Node {
        self.tree
            .get(node)
            .expect("a node is named by who made it and did not remove it")
    }

    /// Replaces a node's metadata, attributes too.
    ///
    /// # Errors
    /// As [`Writer::create_directory`], but for names.
    pub fn set_metadata(&mut self, node: NodeId, metadata: &Metadata) -> Result<()> {
        self.tree.get(node)?;
        let attributes = self.attach(&metadata.xattrs)?;
        let node = self.tree.get_mut(node)?;
        node.stamp = Stamp::new(metadata);
        let before = std::mem::replace(&mut node.attributes, attributes);
        self.sets.detach(&mut self.allocator, &before);
        Ok(())
    }

    /// What the checksums of the next node's own blocks begin with, if nothing before it is removed;
    /// see [`Checksum::generation`] for what happens if something is.
    fn expected_seed(&self) -> Checksum {
        self.seed.of_inode(self.tree.next().expected_inode(), 0)
    }

    /// Takes a block for each part of an extent tree and writes it there.
    fn tree_block(&mut self) -> impl FnMut(&[u8]) -> Result<u64> {
        let Self {
            geometry,
            allocator,
            stage,
            ..
        } = self;
        |block: &[u8]| {
            let start = allocator.take(1)?.start;
            stage.write(geometry.offset(start), block)?;
            Ok(start)
        }
    }

    /// Writes bytes into as many blocks as they take, without a tree.
    fn write_blocks(&mut self, bytes: &[u8]) -> Result<Extents> {
        let geometry = self.geometry;
        let mut extents = Extents::None;
        let mut done = 0u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let want = size(rest).div_ceil(u64::from(geometry.block_size));
            let span = self.allocator.take_any(want)?;
            extents.push(logical(done), span);
            let length = index(geometry.offset(span.count));
            let (now, later) = rest.split_at(length.min(rest.len()));
            let mut blocks = now.to_vec();
            blocks.resize(length, 0);
            self.stage.write(geometry.offset(span.start), &blocks)?;
            done = done.saturating_add(span.count);
            rest = later;
        }
        Ok(extents)
    }

    /// Writes the metadata and completes the volume.
    ///
    /// # Errors
    /// `NoSpace` when the size asked for is too small, `TooLarge` for more than ext4 can hold, `Io`
    /// from the output. The volume is incomplete then: its superblock, written last, is missing.
    pub fn finish(self) -> Result<(Finished, W)> {
        Finish::new(self).run()
    }
}

/// A block's number inside a file or directory that is written from its start.
fn logical(done: u64) -> u32 {
    logical_block(done, 1)
}

/// A length on disk of something in memory.
fn size(bytes: &[u8]) -> u64 {
    wide(bytes.len())
}

// Their judge is a program of Linux.
#[cfg(test)]
#[cfg(unix)]
mod tests;
