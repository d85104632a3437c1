//! An ext4 image as a tree to write.

use opengcs_ext4::{FileType, Inode, InodeNo, Reader, SegmentKind};
use positioned_io::ReadAt;

use crate::error::from_ext4;
use crate::export::{Facts, Order, Runs, Source};
use crate::tar::Run;
use crate::{Error, Result};

/// Reads nodes of an image.
pub(crate) struct Ext4Source<R> {
    reader: Reader<R>,
}

/// A node, read when it is first asked about.
pub(crate) struct Node {
    number: InodeNo,
    /// Boxed, for most nodes wait unread.
    inode: std::cell::OnceCell<Box<Inode>>,
}

impl<R: ReadAt> Ext4Source<R> {
    pub(crate) fn new(reader: Reader<R>) -> Self {
        Self { reader }
    }

    /// Bytes of blocks in use, by the file system's own account.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let summary = self.reader.summary();
        let blocks = summary.blocks.saturating_sub(summary.free_blocks);
        blocks.saturating_mul(u64::from(summary.block_size))
    }

    pub(crate) fn root(&self) -> Node {
        node(self.reader.root())
    }

    /// The child of the root with this name, which must be a folder.
    pub(crate) fn folder_in_root(&self, name: &[u8]) -> Result<Node> {
        let root = self.root();
        let entries = self
            .reader
            .read_dir(self.inode(&root)?)
            .map_err(from_ext4)?;
        let found = entries
            .into_iter()
            .find(|entry| entry.name == name)
            .map(|entry| node(entry.inode));
        let shown = String::from_utf8_lossy(name);
        match found {
            Some(node) if self.inode(&node)?.file_type() == FileType::Directory => Ok(node),
            Some(_) => Err(Error::corrupt(format!(
                "not a sandbox: its /{shown} is no directory"
            ))),
            None => Err(Error::new(
                crate::ErrorKind::NotFound,
                format!("not a sandbox: it has no /{shown}"),
            )),
        }
    }

    fn inode<'n>(&self, node: &'n Node) -> Result<&'n Inode> {
        if let Some(inode) = node.inode.get() {
            return Ok(inode);
        }
        let inode = self.reader.inode(node.number).map_err(from_ext4)?;
        Ok(node.inode.get_or_init(|| Box::new(inode)))
    }
}

impl Node {
    /// The same node, unread.
    pub(crate) fn again(&self) -> Self {
        node(self.number)
    }
}

fn node(number: InodeNo) -> Node {
    Node {
        number,
        inode: std::cell::OnceCell::new(),
    }
}

impl<R: ReadAt> Source for Ext4Source<R> {
    type Node = Node;
    const LIVE: bool = false;

    /// A file system that no kernel has mounted has its inodes in the order in which they were made:
    /// our writer's are a tar's entries.
    fn order(&self) -> Order {
        if self.reader.summary().ever_mounted {
            Order::Names
        } else {
            Order::Numbers
        }
    }

    fn number(&self, node: &Node) -> u64 {
        u64::from(node.number.0)
    }

    fn facts(&self, node: &Node) -> Result<Facts> {
        let inode = self.inode(node)?;
        Ok(Facts {
            file_type: inode.file_type(),
            metadata: self.reader.metadata(inode).map_err(from_ext4)?,
            size: inode.size(),
            device: inode.device().unwrap_or_default(),
            links: u64::from(inode.links()),
            identity: (0, u64::from(node.number.0)),
        })
    }

    fn children(&self, folder: &Node) -> Result<Vec<(Vec<u8>, Node)>> {
        let entries = self
            .reader
            .read_dir(self.inode(folder)?)
            .map_err(from_ext4)?;
        Ok(entries
            .into_iter()
            .map(|entry| (entry.name, node(entry.inode)))
            .collect())
    }

    fn link_target(&self, node: &Node) -> Result<Vec<u8>> {
        self.reader.read_link(self.inode(node)?).map_err(from_ext4)
    }

    fn runs<'n>(&'n self, node: &'n Node, _size: u64) -> Result<Runs<'n>> {
        let segments = self.reader.segments(self.inode(node)?).map_err(from_ext4)?;
        let runs = segments.filter_map(|segment| match segment {
            Ok(segment) => (segment.kind == SegmentKind::Data).then_some(Ok(Run {
                offset: segment.offset,
                length: segment.length,
            })),
            Err(error) => Some(Err(from_ext4(error))),
        });
        Ok(Box::new(runs))
    }

    fn read(&self, node: &Node, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = self
            .reader
            .read_at(self.inode(node)?, offset, buffer)
            .map_err(from_ext4)?;
        if read == 0 {
            return Err(Error::corrupt("the file ends before its size"));
        }
        Ok(read)
    }
}
