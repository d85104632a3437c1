//! What a caller chooses about the ext4 file system in a disk, and what stands in for what is not chosen.
//!
//! Nothing is taken from the machine: UUID and time default to constants, so
//! that the same tar gives the same bytes everywhere.

use opengcs_ext4::{Timestamp, WriterOptions};
use opengcs_vhd::vhd::Footer;
use opengcs_vhd::{DiskOptions, Format, Guid};
use uuid::Uuid;

use crate::{Error, Result};

/// The UUID of file systems and disks whose UUID is not chosen.
pub const DEFAULT_UUID: Uuid = Uuid::from_u128(0x6f70_656e_6763_8300_8065_7874_3400_0001);

/// The longest label, in bytes.
const LABEL_MAX: usize = 16;

/// An ext4 file system to be written.
#[derive(Clone, Debug)]
pub struct FilesystemOptions {
    /// Bytes of the whole file system, to grow into; as small as the content without it.
    pub size: Option<u64>,
    /// Bytes of a journal; none without it. Read-only layers need none.
    pub journal: Option<u64>,
    /// Bytes in a block: 1024, 2048 or 4096.
    pub block_size: u32,
    /// The label, at most 16 bytes.
    pub label: String,
    /// The UUID of the file system and of the disk around it; [`DEFAULT_UUID`] without it.
    pub uuid: Option<Uuid>,
    /// Whether there is a `lost+found`.
    pub lost_found: bool,
    /// Whether small files and directories lie in their inodes (`inline_data`).
    pub inline_data: bool,
    /// The time of creation that is written down, in seconds since 1970; 0 unless chosen.
    pub created: i64,
}

impl Default for FilesystemOptions {
    fn default() -> Self {
        Self {
            size: None,
            journal: None,
            block_size: 4096,
            label: String::new(),
            uuid: None,
            lost_found: true,
            inline_data: false,
            created: 0,
        }
    }
}

impl FilesystemOptions {
    pub(crate) fn uuid(&self) -> Uuid {
        self.uuid.unwrap_or(DEFAULT_UUID)
    }

    pub(crate) fn writer(&self) -> Result<WriterOptions> {
        if self.label.len() > LABEL_MAX {
            return Err(Error::invalid(format!(
                "label {:?} has more than {LABEL_MAX} bytes",
                self.label
            )));
        }
        let created = Timestamp {
            seconds: self.created,
            nanoseconds: 0,
        };
        Ok(WriterOptions::default()
            .uuid(self.uuid().into_bytes())
            .hash_seed(self.uuid().into_bytes())
            .label(self.label.as_bytes())
            .block_size(self.block_size)
            .size(self.size)
            .journal(self.journal)
            .lost_found(self.lost_found)
            .inline_data(self.inline_data)
            .ea_inode(true)
            .created(created))
    }

    /// Bytes that a file system of the size asked for takes: whole blocks.
    pub(crate) fn written_size(&self) -> Option<u64> {
        let block = u64::from(self.block_size).max(1);
        self.size.map(|size| size / block * block)
    }

    pub(crate) fn disk(&self, format: Format) -> DiskOptions {
        let since_2000 = u64::try_from(self.created)
            .unwrap_or(0)
            .saturating_sub(Footer::EPOCH);
        DiskOptions {
            time_stamp: u32::try_from(since_2000).unwrap_or(u32::MAX),
            ..DiskOptions::new(
                format,
                self.size,
                Guid::from_bytes(self.uuid().into_bytes()),
            )
        }
    }
}
