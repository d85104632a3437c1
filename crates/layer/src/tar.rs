//! The tar format: entries as plain values, decoded from a stream and encoded to one.
//!
//! Read are V7, ustar, GNU (long names, base-256 numbers, sparse files) and
//! PAX (local and global records, all of GNU's sparse forms). Written is ustar
//! with PAX records where ustar's fields do not suffice.

use opengcs_ext4::{Device, Timestamp, Xattr};

mod decode;
mod encode;
mod header;
mod pax;
mod sparse;

pub(crate) use decode::{Chunk, Decoder};
pub(crate) use encode::Encoder;
pub(crate) use header::BLOCK;

/// What a tar entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A run of data in a sparse file; what lies between runs is holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One entry of a tar, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As the tar gives it, not normalised.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// The target of a symbolic or hard link.
    pub(crate) link: Vec<u8>,
    /// Permission, set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) atime: Option<Timestamp>,
    pub(crate) ctime: Option<Timestamp>,
    /// For devices; the minor may be wider than what ext4 can hold.
    pub(crate) device: Device,
    pub(crate) xattrs: Vec<Xattr>,
    /// The file's size in bytes, holes included.
    pub(crate) size: u64,
    /// The data runs of a sparse file, ascending.
    pub(crate) runs: Option<Vec<Run>>,
    /// Where in the tar the entry's first header starts.
    pub(crate) offset: u64,
}

impl Entry {
    /// An entry with nothing in it, for an encoder's caller to fill.
    pub(crate) fn new(path: Vec<u8>, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            atime: None,
            ctime: None,
            device: Device::default(),
            xattrs: Vec::new(),
            size: 0,
            runs: None,
            offset: 0,
        }
    }
}
