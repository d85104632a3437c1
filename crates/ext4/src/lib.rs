//! ext4 images: a streaming writer, and a reader with journal replay.
#![forbid(unsafe_code)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

mod error;
mod format;
mod journal;
mod num;
mod read;
mod types;
mod write;

pub use error::{Error, ErrorKind, Result};
pub use read::{DirEntry, Inode, JournalState, Reader, Segment, SegmentKind, Summary};
pub use types::{BlockNo, Device, FileType, InodeNo, Metadata, Timestamp, Xattr};
pub use write::{FileWriter, Finished, NodeId, Writer, WriterOptions};
