//! ext4 images: a streaming writer, and a reader with journal replay.
//!
//! [`Writer`] makes a volume in one pass over content whose size nobody knows yet: file data goes
//! out as it comes, to blocks further and further on, and the tree of nodes stays in memory (some
//! 250 bytes a node). [`Writer::finish`] adds the metadata. [`Reader`] reads volumes of ext2, ext3
//! and ext4 from any source, as they would be after recovery.
//!
//! ```text
//! block 0 or 1   superblock, written last
//!                group descriptors (room for 16 blocks of them, or exactly what the size needs)
//!                journal, if wanted
//!                file data, in the order it came; blocks of zeros are holes
//!                directories, attribute blocks, extent blocks
//!                block bitmaps, inode bitmaps, inode tables of all groups (flex_bg)
//! end            free blocks, if a size was asked for
//! ```
//!
//! Volumes that outgrow the room for descriptors keep the others in their own groups (`meta_bg`).
//! Inode numbers follow the order in which nodes were made. There is no clock and no randomness:
//! the same options and calls give the same bytes, however writes were cut.
//!
//! What is refused: names, values, files and link counts past ext4's limits; attributes outside
//! `user.`, `trusted.`, `security.` and `system.`; and, reading, encrypted content, external
//! journals and whatever contradicts itself. Times outside [`Timestamp::MIN`] to
//! [`Timestamp::MAX`] are moved to the nearer of them. `e2fsck` remarks on times from 2310 on,
//! which an old kernel wrote by mistake for times before 1970, and leaves them. `lost+found` is
//! optional: neither `e2fsck` nor the kernel misses it.
//!
//! ```
//! use opengcs_ext4::{Metadata, Reader, Writer, WriterOptions};
//!
//! # fn main() -> opengcs_ext4::Result<()> {
//! let options = WriterOptions::default().label("example").lost_found(false);
//! let mut writer = Writer::new(vec![0; 1 << 20], &options)?;
//! let metadata = Metadata { mode: 0o644, ..Metadata::default() };
//! let root = writer.root();
//! let mut file = writer.create_file(root, b"hello", metadata)?;
//! file.write(b"hello, ")?;
//! file.write(b"world\n")?;
//! let hello = file.finish()?;
//! writer.link(hello, root, b"again")?;
//! let (finished, image) = writer.finish()?;
//! assert!(finished.size <= 1 << 20);
//!
//! let reader = Reader::open(image)?;
//! let entries = reader.read_dir(&reader.inode(reader.root())?)?;
//! let again = entries.iter().find(|entry| entry.name == b"again").expect("was made");
//! let mut bytes = [0; 13];
//! reader.read_at(&reader.inode(again.inode)?, 0, &mut bytes)?;
//! assert_eq!(&bytes, b"hello, world\n");
//! # Ok(())
//! # }
//! ```
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
pub use read::{
    DirEntry, Entries, GroupUse, Inode, JournalState, Reader, Segment, SegmentKind, Segments,
    Summary,
};
pub use types::{BlockNo, Device, FileType, InodeNo, Metadata, Timestamp, Xattr};
pub use write::{FileWriter, Finished, NodeId, Writer, WriterOptions};
