//! The reader: a volume of ext2, ext3 or ext4 as a tree of inodes, as it would be after recovery.

mod content;
mod directory;
mod fast_commit;
mod free;
mod geometry;
mod group;
mod inode;
mod map;
mod names;
mod ranges;
mod recovery;
mod summary;
mod volume;
mod xattr;

use positioned_io::ReadAt;

pub use self::content::{Segment, SegmentKind, Segments};
pub use self::directory::{DirEntry, Entries};
pub use self::free::GroupUse;
pub use self::inode::Inode;
pub use self::summary::{JournalState, Summary};

use self::geometry::Geometry;
use self::volume::{Volume, read_exact};
use crate::error::{Error, Result};
use crate::format::feature::Incompat;
use crate::format::superblock::{OFFSET, SIZE};
use crate::types::{BlockNo, FileType, InodeNo, Metadata, Xattr};

/// An open volume.
///
/// The source is only ever read. Everything in it is taken as hostile: what contradicts itself or
/// its checksums is an error of kind [`Corrupt`](crate::ErrorKind::Corrupt), what needs something
/// that is not served (encryption, an external journal, unknown features) one of kind
/// [`Unsupported`](crate::ErrorKind::Unsupported). Walking is the caller's: a hostile volume may
/// hold directory cycles, which [`InodeNo`]s tell.
#[derive(Debug)]
pub struct Reader<R> {
    volume: Volume<R>,
    journal: JournalState,
}

impl<R: ReadAt> Reader<R> {
    /// Opens a volume that begins at byte 0 of `source`, replaying its journal into memory.
    pub fn open(source: R) -> Result<Self> {
        let mut superblock = [0; SIZE];
        read_exact(&source, OFFSET, &mut superblock).map_err(|error| match error.kind() {
            crate::ErrorKind::Corrupt => Error::corrupt("too short for a file system"),
            _ => error,
        })?;
        let geometry = Geometry::parse(&superblock)?;
        let mut volume = Volume::new(source, geometry);
        volume.check_length()?;
        let journal = match volume.geometry.journal {
            None if volume.geometry.incompat.has(Incompat::RECOVER) => {
                return Err(Error::corrupt("needs recovery, but has no journal"));
            }
            None => JournalState::None,
            Some(0) => return Err(Error::unsupported("an external journal")),
            Some(_) if !volume.geometry.incompat.has(Incompat::RECOVER) => JournalState::Clean,
            Some(inode) => recover_into(&mut volume, InodeNo(inode))?,
        };
        Ok(Self { volume, journal })
    }

    /// What the volume is, in a few words and numbers.
    pub fn summary(&self) -> Summary {
        Summary::new(&self.volume.geometry, self.journal)
    }

    /// How full each block group is, in order, by what its descriptor says.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a descriptor that cannot be believed.
    pub fn groups(&self) -> impl Iterator<Item = Result<GroupUse>> {
        (0..self.volume.geometry.groups).map(|group| self.volume.group_use(group))
    }

    /// Tells `found` every run of blocks that nothing needs, in order and as long as can be: what
    /// is in them may change at any time, also under a journal that is yet to be replayed.
    ///
    /// That asks for more than reading: bitmaps, checksums and counts must agree in every group, and
    /// blocks of metadata count as used whatever a bitmap says. What orphans hold is in use until a
    /// kernel or `e2fsck` has let them go.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when anything contradicts itself or was not finished;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when it cannot be told: the journal holds fast
    /// commits, whose blocks no bitmap has yet, or the volume has a feature that this does not know.
    pub fn free_blocks(&self, found: impl FnMut(std::ops::Range<BlockNo>)) -> Result<()> {
        if let JournalState::Replayed {
            fast_commits: 1.., ..
        } = self.journal
        {
            return Err(Error::unsupported(
                "the journal holds fast commits, whose blocks no bitmap has yet",
            ));
        }
        self.volume.free_blocks(found)
    }

    /// The root directory.
    pub fn root(&self) -> InodeNo {
        InodeNo::ROOT
    }

    /// Reads an inode. Numbers come from [`Reader::root`] and [`Reader::read_dir`]; that of an
    /// inode which is not in use is an error.
    pub fn inode(&self, number: InodeNo) -> Result<Inode> {
        self.volume.inode(number)
    }

    /// A directory's entries one by one, in the order on disk, without `.` and `..`; of a large
    /// directory only some are in memory at a time.
    pub fn entries<'a>(&'a self, directory: &'a Inode) -> Result<Entries<'a, R>> {
        self.volume.entries(directory)
    }

    /// A directory's entries in the order on disk, without `.` and `..`. More than 1 GiB of names
    /// are [`TooLarge`](crate::ErrorKind::TooLarge): [`Reader::entries`] has no such limit.
    pub fn read_dir(&self, directory: &Inode) -> Result<Vec<DirEntry>> {
        self.volume.read_dir(directory)
    }

    /// A symbolic link's target: 1 to 4095 bytes, none of them zero.
    pub fn read_link(&self, link: &Inode) -> Result<Vec<u8>> {
        self.volume.read_link(link)
    }

    /// An inode's extended attributes by name, POSIX ACLs as `getxattr` gives them. What the
    /// kernel does not list (inline data, encryption contexts) is left out.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        self.volume.xattrs(inode)
    }

    /// An inode's metadata with its extended attributes.
    pub fn metadata(&self, inode: &Inode) -> Result<Metadata> {
        let xattrs = self.xattrs(inode)?;
        Ok(Metadata {
            xattrs,
            ..inode.metadata().clone()
        })
    }

    /// Where a regular file has data and where holes: stretches that cover it from 0 to its size.
    /// Preallocated blocks that were never written are holes. They are found as they are asked for.
    pub fn segments<'a>(&'a self, file: &'a Inode) -> Result<Segments<'a, R>> {
        self.volume.segments(file)
    }

    /// Reads a regular file's bytes from `offset` into `buffer`; gives back how many: fewer than
    /// asked for only at the file's end. Holes read as zeros.
    pub fn read_at(&self, file: &Inode, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        content::check_type(file, FileType::File)?;
        self.volume.read_file(file, offset, buffer)
    }
}

/// Replays the journal, then believes the superblock that recovery would have written.
fn recover_into<R: ReadAt>(volume: &mut Volume<R>, journal: InodeNo) -> Result<JournalState> {
    let recovered = recovery::recover(volume, journal)?;
    let state = JournalState::Replayed {
        transactions: recovered.transactions,
        blocks: crate::num::wide(recovered.overlay.len()),
        fast_commits: recovered.fast_commits.commits,
    };
    volume.set_overlay(recovered.overlay);
    let mut superblock = [0; SIZE];
    volume.read(OFFSET, &mut superblock)?;
    let geometry = Geometry::parse(&superblock)?;
    if geometry.block_size != volume.geometry.block_size {
        return Err(Error::corrupt("the journal holds another file system"));
    }
    volume.geometry = geometry;
    volume.check_length()?;
    volume.apply(recovered.fast_commits.changes)?;
    Ok(state)
}
