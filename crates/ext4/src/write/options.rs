//! What a caller decides about a volume before it is written.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::types::Timestamp;

/// How to write a volume. The same options and calls give the same bytes.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
    pub(crate) label: Vec<u8>,
    pub(crate) block_size: u32,
    pub(crate) size: Option<u64>,
    pub(crate) inodes: Option<u32>,
    pub(crate) journal: Option<u64>,
    pub(crate) lost_found: bool,
    pub(crate) inline_data: bool,
    pub(crate) ea_inode: bool,
    pub(crate) created: Timestamp,
    pub(crate) read_again: Option<Arc<AtomicBool>>,
}

impl Default for WriterOptions {
    /// 4 KiB blocks, as small as the content, no journal, `lost+found`, a UUID of zeros, 1970.
    fn default() -> Self {
        Self {
            uuid: [0; 16],
            hash_seed: [0; 16],
            label: Vec::new(),
            block_size: 4096,
            size: None,
            inodes: None,
            journal: None,
            lost_found: true,
            inline_data: false,
            ea_inode: false,
            created: Timestamp::default(),
            read_again: None,
        }
    }
}

impl WriterOptions {
    /// The volume's UUID. It seeds the checksums too.
    #[must_use]
    pub fn uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = uuid;
        self
    }

    /// The secret that directory hashes are seeded with; zeros stand for the specification's own.
    #[must_use]
    pub fn hash_seed(mut self, seed: [u8; 16]) -> Self {
        self.hash_seed = seed;
        self
    }

    /// The volume's label, at most 16 bytes.
    #[must_use]
    pub fn label(mut self, label: impl Into<Vec<u8>>) -> Self {
        self.label = label.into();
        self
    }

    /// Bytes a block: 1024, 2048 or 4096.
    #[must_use]
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = bytes;
        self
    }

    /// Bytes of the whole volume, rounded down to blocks. `None`: as small as the content.
    #[must_use]
    pub fn size(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.size = bytes.into();
        self
    }

    /// How many inodes there should be at least. `None`: with a size, one for 16 KiB; without,
    /// what the content needs.
    #[must_use]
    pub fn inodes(mut self, count: impl Into<Option<u32>>) -> Self {
        self.inodes = count.into();
        self
    }

    /// Bytes of an empty journal, at least 1024 blocks. `None`: no journal.
    #[must_use]
    pub fn journal(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.journal = bytes.into();
        self
    }

    /// Whether there is a `lost+found`. `e2fsck` makes one when it needs it.
    #[must_use]
    pub fn lost_found(mut self, wanted: bool) -> Self {
        self.lost_found = wanted;
        self
    }

    /// Whether files and directories small enough lie in their inodes (`inline_data`).
    #[must_use]
    pub fn inline_data(mut self, wanted: bool) -> Self {
        self.inline_data = wanted;
        self
    }

    /// Whether attribute values too large for a block lie in inodes of their own (`ea_inode`,
    /// Linux 4.13). Otherwise they are errors.
    #[must_use]
    pub fn ea_inode(mut self, wanted: bool) -> Self {
        self.ea_inode = wanted;
        self
    }

    /// When the volume was made: the superblock's times, and those of the root, `lost+found` and
    /// journal.
    #[must_use]
    pub fn created(mut self, time: Timestamp) -> Self {
        self.created = time;
        self
    }
    /// A flag that is raised while those bytes are put out that [`Writer::xattrs`](crate::Writer::xattrs)
    /// and [`Writer::set_xattr`](crate::Writer::set_xattr) may read again: an output that only counts
    /// can forget all others. The bytes of the volume are the same with it.
    #[must_use]
    pub fn read_again(mut self, flag: Arc<AtomicBool>) -> Self {
        self.read_again = Some(flag);
        self
    }
}
