//! A folder of this machine, also one in use, as a tree to write.
//!
//! No path is ever resolved twice: each node is reached by its name from its
//! folder's descriptor, and no symbolic link is followed. Extended attributes
//! are read through `/proc/self/fd`, so `/proc` must be mounted.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use opengcs_ext4::{Device, FileType, Metadata, Timestamp, Xattr};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::export::{Facts, Runs, Source};
use crate::tar::Run;
use crate::{Error, Result};

/// Folders deeper than this are opened again for each use, to spare descriptors.
const KEPT_OPEN: usize = 128;

const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The folder that a tree starts at.
pub(crate) struct FolderSource;

/// An open, or openable, folder.
struct Folder {
    descriptor: Option<OwnedFd>,
    depth: usize,
    above: Option<(Rc<Folder>, CString)>,
}

/// A node by its name in a folder; the root without either.
pub(crate) struct Node {
    place: Place,
    file: OnceCell<OwnedFd>,
}

enum Place {
    Root(Rc<Folder>),
    Named(Rc<Folder>, CString),
}

impl FolderSource {
    /// Opens the root; its path itself may lead through symbolic links.
    pub(crate) fn open(path: &Path) -> Result<Node> {
        let flags = FOLDER_FLAGS.difference(OFlags::NOFOLLOW);
        let descriptor = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Error::io_at("cannot open the folder", path, error.into()))?;
        Ok(Node::new(Place::Root(Rc::new(Folder {
            descriptor: Some(descriptor),
            depth: 0,
            above: None,
        }))))
    }
}

impl Node {
    fn new(place: Place) -> Self {
        Self {
            place,
            file: OnceCell::new(),
        }
    }

    /// The file's descriptor, opened when first needed.
    fn file(&self) -> Result<BorrowedFd<'_>> {
        if let Some(file) = self.file.get() {
            return Ok(file.as_fd());
        }
        let Place::Named(folder, name) = &self.place else {
            return Err(Error::invalid("the root is no file"));
        };
        // A fifo put in the file's place would otherwise block the open.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = folder.with(|above| rustix::fs::openat(above, name, flags, Mode::empty()))?;
        let stat = rustix::fs::fstat(&file).map_err(cannot("cannot read"))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(Error::new(
                crate::ErrorKind::Io,
                "it stopped being a file while it was read",
            ));
        }
        Ok(self.file.get_or_init(|| file).as_fd())
    }
}

fn cannot(action: &'static str) -> impl Fn(Errno) -> Error {
    move |error| Error::io(action, error.into())
}

impl Folder {
    /// Uses the folder's descriptor, opening it and what is above as needed.
    fn with<T>(&self, use_it: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T>) -> Result<T> {
        let mut names = Vec::new();
        let mut folder = self;
        let descriptor = loop {
            match (&folder.descriptor, &folder.above) {
                (Some(descriptor), _) => break descriptor,
                (None, Some((above, name))) => {
                    names.push(name);
                    folder = above;
                }
                (None, None) => return Err(Error::invalid("the root is not open")),
            }
        };
        let mut opened: Option<OwnedFd> = None;
        for name in names.into_iter().rev() {
            let above = opened.as_ref().unwrap_or(descriptor);
            opened = Some(
                rustix::fs::openat(above, name, FOLDER_FLAGS, Mode::empty())
                    .map_err(cannot("cannot open the folder"))?,
            );
        }
        let descriptor = opened.as_ref().unwrap_or(descriptor);
        use_it(descriptor.as_fd()).map_err(cannot("cannot read"))
    }
}

impl Source for FolderSource {
    type Node = Node;
    const LIVE: bool = true;

    fn facts(&self, node: &Node) -> Result<Facts> {
        let (stat, xattrs) = match &node.place {
            Place::Root(folder) => {
                folder.with(|root| Ok((rustix::fs::fstat(root)?, read_xattrs(root, c".")?)))?
            }
            Place::Named(folder, name) => folder.with(|above| {
                let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok((stat, read_xattrs(above, name)?))
            })?,
        };
        facts(&stat, xattrs)
    }

    fn children(&self, node: &Node) -> Result<Vec<(Vec<u8>, Node)>> {
        let folder = match &node.place {
            Place::Root(folder) => Rc::clone(folder),
            Place::Named(above, name) => {
                let depth = above.depth + 1;
                let open = |above: BorrowedFd<'_>| {
                    rustix::fs::openat(above, name, FOLDER_FLAGS, Mode::empty())
                };
                let descriptor = if depth < KEPT_OPEN {
                    Some(above.with(open)?)
                } else {
                    None
                };
                Rc::new(Folder {
                    descriptor,
                    depth,
                    above: Some((Rc::clone(above), name.clone())),
                })
            }
        };
        let mut children = Vec::new();
        folder.with(|descriptor| {
            for entry in Dir::read_from(descriptor)? {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    let place = Place::Named(Rc::clone(&folder), name.to_owned());
                    children.push((name.to_bytes().to_vec(), Node::new(place)));
                }
            }
            Ok(())
        })?;
        Ok(children)
    }

    fn link_target(&self, node: &Node) -> Result<Vec<u8>> {
        match &node.place {
            Place::Root(_) => Err(Error::invalid("the root is no symbolic link")),
            Place::Named(folder, name) => folder
                .with(|above| rustix::fs::readlinkat(above, name, Vec::new()))
                .map(CString::into_bytes),
        }
    }

    fn runs<'n>(&'n self, node: &'n Node, size: u64) -> Result<Runs<'n>> {
        let file = node.file()?;
        let mut position = 0;
        let mut next = move || {
            if position >= size {
                return Ok(None);
            }
            let start = match rustix::fs::seek(file, SeekFrom::Data(position)) {
                Ok(start) => start,
                Err(Errno::NXIO) => return Ok(None),
                // The file system does not tell: all of it is data.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
                Err(error) => return Err(cannot("cannot find the holes")(error)),
            };
            if start >= size {
                return Ok(None);
            }
            let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
                Ok(end) => end.min(size),
                Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
                Err(error) => return Err(cannot("cannot find the holes")(error)),
            };
            if end <= start {
                return Ok(None);
            }
            position = end;
            Ok(Some(Run {
                offset: start,
                length: end - start,
            }))
        };
        Ok(Box::new(std::iter::from_fn(move || next().transpose())))
    }

    fn read(&self, node: &Node, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = node.file()?;
        loop {
            match rustix::io::pread(file, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                result => return result.map_err(cannot("cannot read")),
            }
        }
    }
}

fn facts(stat: &Stat, xattrs: Vec<Xattr>) -> Result<Facts> {
    use rustix::fs::FileType as Kind;
    let file_type = match Kind::from_raw_mode(stat.st_mode) {
        Kind::RegularFile => FileType::File,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::Unknown => return Err(Error::unsupported("its type is not known")),
    };
    #[allow(
        clippy::useless_conversion,
        reason = "the fields' types differ between architectures"
    )]
    let time = |seconds, nanoseconds| Timestamp {
        seconds: i64::from(seconds),
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    let mtime = time(stat.st_mtime, stat.st_mtime_nsec);
    let metadata = Metadata {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime,
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: mtime,
        xattrs,
    };
    #[allow(
        clippy::useless_conversion,
        reason = "the fields' types differ between architectures"
    )]
    Ok(Facts {
        file_type,
        metadata,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        device: Device {
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
        },
        links: u64::from(stat.st_nlink),
        identity: (u64::from(stat.st_dev), u64::from(stat.st_ino)),
    })
}

/// Reads a node's attributes by a path that only follows our own descriptor.
fn read_xattrs(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<Xattr>> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let names = match grow(|buffer| rustix::fs::llistxattr(path.as_slice(), buffer)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        match grow(|buffer| rustix::fs::lgetxattr(path.as_slice(), name, buffer)) {
            Ok(value) => xattrs.push(Xattr {
                name: name.to_vec(),
                value,
            }),
            // Removed since it was listed, or listed without being readable.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(xattrs)
}

/// Calls with a buffer large enough: 64 KiB is the most that Linux gives.
fn grow(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 16, 0),
            Err(error) => return Err(error),
        }
    }
}
