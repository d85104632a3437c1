//! What a volume is, in a few words and numbers.

use super::geometry::Geometry;

/// State of the journal when the volume was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalState {
    /// There is none.
    None,
    /// Nothing was left to replay.
    Clean,
    /// It was replayed, in memory.
    Replayed {
        /// Transactions that were committed but not yet written home.
        transactions: u32,
        /// Blocks whose newest copy lies in the journal.
        blocks: u64,
        /// Fast commits behind the last transaction.
        fast_commits: u32,
    },
}

/// A volume at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks of the volume.
    pub blocks: u64,
    /// Blocks that are free, as the superblock says.
    pub free_blocks: u64,
    /// Inodes, used or not.
    pub inodes: u32,
    /// Inodes that are free, as the superblock says.
    pub free_inodes: u32,
    /// Bytes of an inode.
    pub inode_size: u16,
    /// Block groups.
    pub groups: u32,
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// The volume's label, up to 16 bytes; empty for none.
    pub label: Vec<u8>,
    /// Features that may be ignored, by `dumpe2fs`'s names; unknown ones as a hexadecimal mask.
    pub compat: Vec<String>,
    /// Features without which the volume cannot be read.
    pub incompat: Vec<String>,
    /// Features without which the volume cannot be written.
    pub ro_compat: Vec<String>,
    /// The journal.
    pub journal: JournalState,
    /// Whether a kernel has ever mounted the volume for writing.
    pub ever_mounted: bool,
    /// Whether the kernel saw errors in the volume and recorded that.
    pub has_errors: bool,
}

impl Summary {
    pub(super) fn new(geometry: &Geometry, journal: JournalState) -> Self {
        Self {
            block_size: geometry.block_size,
            blocks: geometry.blocks,
            free_blocks: geometry.free_blocks,
            inodes: geometry.inodes,
            free_inodes: geometry.free_inodes,
            inode_size: geometry.inode_size,
            groups: geometry.groups,
            uuid: geometry.uuid,
            label: geometry.label.clone(),
            compat: geometry.compat.names(),
            incompat: geometry.incompat.names(),
            ro_compat: geometry.ro_compat.names(),
            journal,
            ever_mounted: geometry.ever_mounted,
            has_errors: geometry.has_errors,
        }
    }
}
