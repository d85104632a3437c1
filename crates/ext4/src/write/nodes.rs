//! Decides what may be made and removed: directories, links, devices, files, and their other names.

use positioned_io::WriteAt;

use super::Writer;
use super::children::Children;
use super::file::FileWriter;
use super::tree::{self, Content, Node, NodeId, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Device, FileType, Metadata};

#[allow(
    clippy::needless_pass_by_value,
    reason = "what makes a node takes its metadata, whether this node's is kept whole or not"
)]
impl<W: WriteAt> Writer<W> {
    fn add(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: &Metadata,
        content: Content,
    ) -> Result<NodeId> {
        self.tree.vacant(parent, name)?;
        let node = Node {
            stamp: Stamp::new(metadata),
            attributes: self.attach(&metadata.xattrs)?,
            content,
            links: 1,
        };
        self.tree.add(parent, name, node)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `AlreadyExists`; `WrongType` if the parent is no directory; `InvalidInput` for an empty
    /// name, `.`, `..` and names with a slash or zero; `TooLarge` for a name of more than 255 bytes
    /// and attributes that do not fit; `InvalidInput` or `Unsupported` for attributes that ext4
    /// cannot have.
    pub fn create_directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<NodeId> {
        let content = Content::Directory {
            parent,
            children: Children::new(),
            subdirectories: 0,
        };
        self.add(parent, name, &metadata, content)
    }

    /// Makes a symbolic link. The target is not looked at.
    ///
    /// # Errors
    /// As [`Writer::create_directory`], and `InvalidInput` or `TooLarge` for a target that is empty,
    /// has a zero byte, or does not fit in a block with a zero byte behind it.
    pub fn create_symlink(
        &mut self,
        parent: NodeId,
        name: &[u8],
        target: &[u8],
        metadata: Metadata,
    ) -> Result<NodeId> {
        if target.is_empty() || target.contains(&0) {
            return Err(Error::invalid(
                "a symbolic link's target is empty or has a zero byte",
            ));
        }
        if target.len() >= self.geometry.block_len() {
            return Err(Error::too_large(format!(
                "a symbolic link's target of {} bytes, {} fit",
                target.len(),
                self.geometry.block_len().saturating_sub(1)
            )));
        }
        if target.len() < 60 {
            return self.add(parent, name, &metadata, Content::Symlink(target.into()));
        }
        // What is longer goes out at once.
        self.tree.vacant(parent, name)?;
        self.check_xattrs(&metadata.xattrs)?;
        let block = self.allocator.take_any(1)?.start;
        let mut bytes = target.to_vec();
        bytes.resize(self.geometry.block_len(), 0);
        self.stage.write(self.geometry.offset(block), &bytes)?;
        let size = tree::short(target.len());
        self.add(
            parent,
            name,
            &metadata,
            Content::LongSymlink { size, block },
        )
        .inspect_err(|_| self.allocator.release_block(block))
    }

    /// Makes a device, fifo or socket. The device's numbers matter for devices only.
    ///
    /// # Errors
    /// As [`Writer::create_directory`]; `WrongType` for another type; `TooLarge` for a major number
    /// past 4095 or a minor number past 1,048,575.
    pub fn create_special(
        &mut self,
        parent: NodeId,
        name: &[u8],
        file_type: FileType,
        device: Device,
        metadata: Metadata,
    ) -> Result<NodeId> {
        match file_type {
            FileType::CharDevice | FileType::BlockDevice => {
                if device.major >= 1 << 12 || device.minor >= 1 << 20 {
                    return Err(Error::too_large(format!(
                        "device {}:{}: ext4 keeps 12 and 20 bits",
                        device.major, device.minor
                    )));
                }
            }
            FileType::Fifo | FileType::Socket => {}
            FileType::File | FileType::Directory | FileType::Symlink => {
                return Err(Error::new(
                    ErrorKind::WrongType,
                    "not a device, fifo or socket",
                ));
            }
        }
        self.add(parent, name, &metadata, Content::Special(file_type, device))
    }

    /// Begins a regular file. It exists once [`FileWriter::finish`] was called.
    ///
    /// # Errors
    /// As [`Writer::create_directory`].
    pub fn create_file(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<FileWriter<'_, W>> {
        self.tree.vacant(parent, name)?;
        self.check_xattrs(&metadata.xattrs)?;
        Ok(FileWriter::new(self, parent, name, metadata))
    }

    /// Gives a node that is no directory another name (a hard link).
    ///
    /// # Errors
    /// As [`Writer::create_directory`]; `WrongType` for directories; `TooLarge` past 65,000 names.
    pub fn link(&mut self, node: NodeId, parent: NodeId, name: &[u8]) -> Result<()> {
        self.tree.link(node, parent, name)
    }

    /// Removes a name; of a directory, with all that is below it. Blocks of nodes that have no name
    /// left are free again.
    ///
    /// # Errors
    /// `NotFound`, and `WrongType` if the parent is no directory.
    pub fn remove(&mut self, parent: NodeId, name: &[u8]) -> Result<()> {
        let Self {
            tree,
            allocator,
            sets,
            ..
        } = self;
        tree.remove(parent, name, |node| {
            match &node.content {
                Content::File { extents, .. } => {
                    for span in extents.spans() {
                        allocator.release(span);
                    }
                }
                Content::LongSymlink { block, .. } => allocator.release_block(*block),
                _ => {}
            }
            sets.detach(allocator, &node.attributes);
        })
    }
}
