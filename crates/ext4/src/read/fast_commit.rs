//! What fast commits change, laid over inodes, maps and directories when they are read.
//!
//! The rules are the kernel's (`fs/ext4/fast_commit.c`), but nothing is allocated: a new directory
//! has no blocks, and a moved stretch of a file no extents. Where the kernel passes over a change
//! because its inode cannot be read, so does this.

use std::collections::HashMap;
use std::sync::Arc;

use positioned_io::ReadAt;

use super::inode::Inode;
use super::names::{DirectoryChange, NameChange};
use super::ranges::Ranges;
use super::volume::Volume;
use crate::error::{Error, ErrorKind, Result};
use crate::format::extent;
use crate::format::inode::{FLAG_EXTENTS, FLAG_INLINE_DATA, ROOT_INO, S_IFDIR, S_IFMT, S_IFREG};
use crate::journal::{Change, Name};
use crate::num::put;
use crate::types::{FileType, InodeNo};

/// Where `i_block` lies in an inode, and how long it is.
const BLOCK_OFFSET: usize = 40;
const BLOCK_SIZE: usize = 60;
/// Offset of `i_flags`.
const FLAGS_OFFSET: usize = 32;
/// Behind the last block that an extent can name.
const FILE_END: u64 = 1 << 32;

/// Everything that fast commits have changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    inodes: HashMap<u32, InodeChange>,
    directories: HashMap<u32, DirectoryChange>,
}

/// What has become of an inode.
#[derive(Debug, Default)]
pub(super) struct InodeChange {
    logged: Option<Logged>,
    links: Option<u32>,
    pub(super) ranges: Ranges,
}

/// The fields of an inode.
#[derive(Debug)]
struct Logged {
    /// The first bytes of the record.
    record: Vec<u8>,
    /// `i_block` is among them; otherwise it is that on disk.
    has_block: bool,
}

impl InodeChange {
    /// The record with what was logged over it; `None` when nothing was. It has no checksum then.
    pub(super) fn record(&self, on_disk: &[u8]) -> Option<Arc<[u8]>> {
        let logged = self.logged.as_ref()?;
        let mut record = on_disk.to_vec();
        for (at, (to, from)) in record.iter_mut().zip(&logged.record).enumerate() {
            let in_block = (BLOCK_OFFSET..BLOCK_OFFSET.saturating_add(BLOCK_SIZE)).contains(&at);
            if logged.has_block || !in_block {
                *to = *from;
            }
        }
        Some(record.into())
    }

    /// How many names the inode has, of which its record says `on_disk`.
    pub(super) fn links(&self, on_disk: u32) -> u32 {
        self.links.unwrap_or(on_disk)
    }
}

impl Changes {
    pub(super) fn inode(&self, number: InodeNo) -> Option<&InodeChange> {
        self.inodes.get(&number.0)
    }

    pub(super) fn directory(&self, number: InodeNo) -> Option<&DirectoryChange> {
        self.directories.get(&number.0)
    }
}

impl<R: ReadAt> Volume<R> {
    /// Takes changes in the order in which they were committed.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Result<()> {
        changes.into_iter().try_for_each(|change| match change {
            Change::Inode { inode, record } => self.log_inode(InodeNo(inode), &record),
            Change::AddRange {
                inode,
                first,
                blocks,
                physical,
                written,
            } => {
                let length = u64::from(blocks);
                self.geometry
                    .check_blocks(physical, length, "a fast commit's extent")
                    .map_err(|error| error.at_inode(InodeNo(inode)))?;
                let place = written.then_some(physical);
                self.log_range(InodeNo(inode), first, length, place)
            }
            Change::RemoveRange {
                inode,
                first,
                blocks,
            } => self.log_range(InodeNo(inode), first, u64::from(blocks), None),
            Change::Create(name) => self.create(name),
            Change::Link(name) => self.link(name),
            Change::Unlink(name) => self.unlink(name),
        })
    }

    /// An inode as it is now; `None` when it is not in use or cannot be believed.
    fn present(&self, number: u32) -> Result<Option<Inode>> {
        match self.inode(InodeNo(number)) {
            Ok(inode) => Ok(Some(inode)),
            Err(error) if error.kind() == ErrorKind::Io => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn log_inode(&mut self, number: InodeNo, logged: &[u8]) -> Result<()> {
        let bad =
            |what: &str| Error::corrupt(format!("a fast commit's inode {what}")).at_inode(number);
        if number.0 < self.geometry.first_inode && number.0 != ROOT_INO {
            return Err(bad("is reserved"));
        }
        if logged.len() > usize::from(self.geometry.inode_size) {
            return Err(bad("is larger than the volume's are"));
        }
        let (_, on_disk) = self.record(number)?;
        let change = self.changes.inodes.entry(number.0).or_default();
        let current = change.record(&on_disk).unwrap_or(on_disk);
        let had_block = change.logged.as_ref().is_some_and(|old| old.has_block);
        let mut record = logged.to_vec();
        if let Some(old) = &change.logged {
            record.extend(old.record.iter().skip(logged.len()));
        }
        let word = |at: usize| {
            let bytes = logged.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let flags = word(FLAGS_OFFSET);
        let [low, high, ..] = word(0).to_le_bytes();
        let file_type = u16::from_le_bytes([low, high]) & S_IFMT;
        let magic = extent::MAGIC.to_le_bytes();
        let has_tree = current
            .get(BLOCK_OFFSET..)
            .is_some_and(|block| block.starts_with(&magic));
        let has_block = if flags & FLAG_EXTENTS != 0 && !has_tree {
            // No entries, room for four, depth 0.
            put(&mut record, BLOCK_OFFSET, &[0; extent::RECORD_SIZE]);
            put(&mut record, BLOCK_OFFSET, &magic);
            put(&mut record, BLOCK_OFFSET.saturating_add(4), &[4]);
            true
        } else if flags & FLAG_EXTENTS == 0
            && (flags & FLAG_INLINE_DATA != 0 || !matches!(file_type, S_IFREG | S_IFDIR))
        {
            // Inline data; and targets of links and device numbers, which are nowhere else.
            true
        } else {
            let block = current.get(BLOCK_OFFSET..).unwrap_or_default();
            put(
                &mut record,
                BLOCK_OFFSET,
                block.get(..BLOCK_SIZE).unwrap_or_default(),
            );
            had_block
        };
        change.logged = Some(Logged { record, has_block });
        change.links = None;
        Ok(())
    }

    fn log_range(
        &mut self,
        number: InodeNo,
        first: u32,
        blocks: u64,
        place: Option<u64>,
    ) -> Result<()> {
        let Some(inode) = self.present(number.0)? else {
            return Ok(());
        };
        if !inode.has_extents() {
            return Err(Error::unsupported(
                "the journal holds a fast commit of a file without extents; \
                 `e2fsck -fy` replays it, on a copy of the disk",
            )
            .at_inode(number));
        }
        let first = u64::from(first);
        let end = first.saturating_add(blocks);
        if blocks == 0 || end > FILE_END {
            return Err(inode.corrupt(format!("a fast commit's range of {blocks} blocks")));
        }
        let change = self.changes.inodes.entry(number.0).or_default();
        change.ranges.set(first, end, place);
        Ok(())
    }

    /// The directory that a name is in, checked to be one; `None` when it cannot be read.
    fn directory_of(&self, name: &Name) -> Result<Option<Inode>> {
        let Some(directory) = self.present(name.directory)? else {
            return Ok(None);
        };
        let bytes = &*name.name;
        if directory.file_type() != FileType::Directory
            || matches!(bytes, b"." | b"..")
            || bytes.iter().any(|&c| c == b'/' || c == 0)
        {
            let shown = String::from_utf8_lossy(bytes);
            return Err(directory.corrupt(format!("a fast commit's name {shown:?}")));
        }
        Ok(Some(directory))
    }

    fn create(&mut self, name: Name) -> Result<()> {
        let number = InodeNo(name.inode);
        // One that was open when its last name went has none here, though it had one then.
        if self.present(name.inode)?.is_none()
            && let Some(change) = self.changes.inodes.get_mut(&name.inode)
            && change.logged.is_some()
        {
            change.links = Some(1);
        }
        let inode = self
            .present(name.inode)?
            .filter(|_| name.inode >= self.geometry.first_inode);
        let Some(inode) = inode else {
            return Err(
                Error::corrupt("a fast commit names an inode that is not in use").at_inode(number),
            );
        };
        let Some(directory) = self.directory_of(&name)? else {
            return Ok(());
        };
        if inode.file_type() == FileType::Directory {
            let fresh = DirectoryChange {
                is_fresh: true,
                names: Vec::new(),
            };
            self.changes.directories.insert(name.inode, fresh);
            self.count_subdirectory(&directory, true);
        } else {
            self.set_links(number, 1);
        }
        self.push(name, true);
        Ok(())
    }

    fn link(&mut self, name: Name) -> Result<()> {
        let (Some(inode), Some(_)) = (self.present(name.inode)?, self.directory_of(&name)?) else {
            return Ok(());
        };
        if inode.file_type() == FileType::Directory || name.inode < self.geometry.first_inode {
            return Err(inode.corrupt("a fast commit links to it"));
        }
        self.set_links(inode.number(), inode.links().saturating_add(1));
        self.push(name, true);
        Ok(())
    }

    fn unlink(&mut self, name: Name) -> Result<()> {
        let (Some(inode), Some(directory)) = (self.present(name.inode)?, self.directory_of(&name)?)
        else {
            return Ok(());
        };
        if inode.file_type() == FileType::Directory {
            self.count_subdirectory(&directory, false);
        } else {
            self.set_links(inode.number(), inode.links().saturating_sub(1));
        }
        self.push(name, false);
        Ok(())
    }

    fn push(&mut self, name: Name, is_new: bool) {
        let directory = self.changes.directories.entry(name.directory).or_default();
        directory.names.push(NameChange {
            is_new,
            inode: name.inode,
            name: name.name,
        });
    }

    fn set_links(&mut self, number: InodeNo, links: u32) {
        self.changes.inodes.entry(number.0).or_default().links = Some(links);
    }

    /// Counts `..` of a directory that came or went. One that says 1 has stopped counting.
    fn count_subdirectory(&mut self, parent: &Inode, came: bool) {
        let links = match (parent.links(), came) {
            (0 | 1, _) => return,
            (links, true) => links.saturating_add(1),
            (links, false) => links.saturating_sub(1).max(2),
        };
        self.set_links(parent.number(), links);
    }
}
