//! The tree of nodes in memory: who is called what, and who has how many links.

use super::attributes::Attributes;
use super::children::Children;
use super::extents::Extents;
use crate::error::{Error, ErrorKind, Result};
use crate::format::directory::NAME_MAX;
use crate::format::inode::{FIRST_INO, ROOT_INO};
use crate::num::{index, low32, wide};
use crate::types::{Device, FileType, Metadata, Timestamp};

/// Names a node of the writer that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// Most links a file may have (`EXT4_LINK_MAX`).
pub(super) const LINK_MAX: u32 = 65_000;

impl NodeId {
    /// The inode's number, if no node that was made before is removed.
    pub(super) fn expected_inode(self) -> u32 {
        match self {
            Tree::ROOT => ROOT_INO,
            Self(id) => FIRST_INO.saturating_sub(1).saturating_add(id),
        }
    }

    #[cfg(test)]
    pub(super) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Content {
    File {
        size: u64,
        extents: Extents,
    },
    Inline(Box<[u8]>),
    Directory {
        parent: NodeId,
        children: Children,
        subdirectories: u32,
    },
    Symlink(Box<[u8]>),
    /// A target that lies in a block.
    LongSymlink {
        size: u32,
        block: u64,
    },
    Special(FileType, Device),
}

/// Metadata but for attributes, as small as an inode has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    mode: u16,
    uid: u32,
    gid: u32,
    /// Of access, change of content, change of the node, and creation.
    times: [(u32, u32); 4],
}

impl Stamp {
    pub(super) fn new(metadata: &Metadata) -> Self {
        let Metadata {
            atime,
            mtime,
            ctime,
            crtime,
            ..
        } = metadata;
        Self {
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            times: [atime, mtime, ctime, crtime].map(|time| time.encode()),
        }
    }

    pub(super) fn metadata(&self) -> Metadata {
        let [atime, mtime, ctime, crtime] =
            self.times.map(|(low, extra)| Timestamp::decode(low, extra));
        Metadata {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            atime,
            mtime,
            ctime,
            crtime,
            xattrs: Vec::new(),
        }
    }
}

/// A file, directory or other thing that has an inode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) stamp: Stamp,
    pub(super) attributes: Attributes,
    pub(super) content: Content,
    /// Names that lead here; directories have one.
    pub(super) links: u32,
}

impl Node {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory { .. })
    }

    pub(super) fn file_type(&self) -> FileType {
        match &self.content {
            Content::File { .. } | Content::Inline(_) => FileType::File,
            Content::Directory { .. } => FileType::Directory,
            Content::Symlink(_) | Content::LongSymlink { .. } => FileType::Symlink,
            Content::Special(file_type, _) => *file_type,
        }
    }
}

/// Nodes a chunk: the table grows without moving what it has.
const CHUNK: usize = 1024;

/// All nodes, in the order they were made.
#[derive(Debug)]
pub(super) struct Tree {
    chunks: Vec<Vec<Option<Node>>>,
}

impl Tree {
    /// The root directory's id.
    pub(super) const ROOT: NodeId = NodeId(0);

    pub(super) fn new(root: &Metadata) -> Self {
        let content = Content::Directory {
            parent: Self::ROOT,
            children: Children::new(),
            subdirectories: 0,
        };
        let node = Node {
            stamp: Stamp::new(root),
            attributes: Attributes::None,
            content,
            links: 1,
        };
        Self {
            chunks: vec![vec![Some(node)]],
        }
    }

    /// How many ids were given out.
    pub(super) fn ids(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK);
        full.saturating_add(self.chunks.last().map_or(0, Vec::len))
    }

    /// What the next node is called.
    pub(super) fn next(&self) -> NodeId {
        NodeId(u32::try_from(self.ids()).unwrap_or(u32::MAX))
    }

    /// Existing nodes in the order they were made; the root is first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..)
            .zip(self.chunks.iter().flatten())
            .filter_map(|(id, slot)| Some((NodeId(id), slot.as_ref()?)))
    }

    fn slot(&self, id: NodeId) -> Option<&Node> {
        let at = index(id.0);
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)?.as_ref()
    }

    fn slot_mut(&mut self, id: NodeId) -> Option<&mut Option<Node>> {
        let at = index(id.0);
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    pub(super) fn get(&self, id: NodeId) -> Result<&Node> {
        self.slot(id).ok_or_else(gone)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Result<&mut Node> {
        self.slot_mut(id).and_then(Option::as_mut).ok_or_else(gone)
    }

    pub(super) fn children(&self, id: NodeId) -> Option<&Children> {
        match &self.slot(id)?.content {
            Content::Directory { children, .. } => Some(children),
            _ => None,
        }
    }

    fn directory(&mut self, id: NodeId) -> Result<(&mut Children, &mut u32)> {
        match &mut self.get_mut(id)?.content {
            Content::Directory {
                children,
                subdirectories,
                ..
            } => Ok((children, subdirectories)),
            _ => Err(Error::new(
                ErrorKind::WrongType,
                "the parent is not a directory",
            )),
        }
    }

    /// Whether a name can be made in a directory.
    pub(super) fn vacant(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        self.get(parent)?;
        let children = self
            .children(parent)
            .ok_or_else(|| Error::new(ErrorKind::WrongType, "the parent is not a directory"))?;
        if name.is_empty()
            || name == b"."
            || name == b".."
            || name.contains(&b'/')
            || name.contains(&0)
        {
            return Err(Error::invalid(format!(
                "{:?} is not a name",
                String::from_utf8_lossy(name)
            )));
        }
        if name.len() > NAME_MAX {
            return Err(Error::too_large(format!(
                "a name of {} bytes, 255 are possible",
                name.len()
            )));
        }
        if children.get(name).is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                String::from_utf8_lossy(name).into_owned(),
            ));
        }
        Ok(())
    }

    /// Adds a node under a name that is vacant.
    pub(super) fn add(&mut self, parent: NodeId, name: &[u8], node: Node) -> Result<NodeId> {
        self.vacant(parent, name)?;
        let id = u32::try_from(self.ids())
            .ok()
            .filter(|&id| id < u32::MAX / 2)
            .map(NodeId)
            .ok_or_else(|| Error::too_large("more nodes than ext4 has inodes"))?;
        let is_directory = matches!(node.content, Content::Directory { .. });
        let (children, subdirectories) = self.directory(parent)?;
        children.insert(name, id);
        *subdirectories = subdirectories.saturating_add(u32::from(is_directory));
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(Some(node)),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Some(node));
                self.chunks.push(chunk);
            }
        }
        Ok(id)
    }

    /// Adds a name to a node that is no directory.
    pub(super) fn link(&mut self, id: NodeId, parent: NodeId, name: &[u8]) -> Result<()> {
        self.vacant(parent, name)?;
        let node = self.get_mut(id)?;
        if node.file_type() == FileType::Directory {
            return Err(Error::new(
                ErrorKind::WrongType,
                "a directory cannot have a second name",
            ));
        }
        if node.links >= LINK_MAX {
            return Err(Error::too_large("a file with more than 65000 hard links"));
        }
        node.links = node.links.saturating_add(1);
        let (children, _) = self.directory(parent)?;
        children.insert(name, id);
        Ok(())
    }

    /// Removes a name, and with the last name the node; of a directory, everything below it.
    /// `dead` gets each node that is no more.
    pub(super) fn remove(
        &mut self,
        parent: NodeId,
        name: &[u8],
        mut dead: impl FnMut(Node),
    ) -> Result<()> {
        let (children, _) = self.directory(parent)?;
        let id = children.remove(name).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                String::from_utf8_lossy(name).into_owned(),
            )
        })?;
        if self.get(id)?.file_type() == FileType::Directory {
            let (_, subdirectories) = self.directory(parent)?;
            *subdirectories = subdirectories.saturating_sub(1);
        }
        let mut unlinked = vec![id];
        while let Some(id) = unlinked.pop() {
            let node = self.get_mut(id)?;
            node.links = node.links.saturating_sub(1);
            if node.links > 0 {
                continue;
            }
            if let Some(mut node) = self.slot_mut(id).and_then(Option::take) {
                if let Content::Directory { children, .. } = &mut node.content {
                    unlinked.extend(children.iter().map(|(_, child)| child));
                    *children = Children::new();
                }
                dead(node);
            }
        }
        Ok(())
    }
}

fn gone() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the node was removed, or belongs to another writer",
    )
}

/// Something kept for each id that was given out.
#[derive(Debug)]
pub(super) struct ByNode<T>(Vec<T>);

impl<T: Clone + Default> ByNode<T> {
    pub(super) fn new(tree: &Tree) -> Self {
        Self(vec![T::default(); tree.ids()])
    }

    pub(super) fn set(&mut self, id: NodeId, value: T) {
        if let Some(slot) = self.0.get_mut(index(id.0)) {
            *slot = value;
        }
    }

    pub(super) fn get(&self, id: NodeId) -> T {
        self.0.get(index(id.0)).cloned().unwrap_or_default()
    }
}

/// How many links a directory shows: 1 stands for more than fit (`dir_nlink`).
pub(super) fn directory_links(subdirectories: u32) -> u32 {
    match subdirectories.saturating_add(2) {
        links if links > LINK_MAX => 1,
        links => links,
    }
}

/// The length of something in memory that was checked to be short.
pub(super) fn short(length: usize) -> u32 {
    low32(wide(length))
}
