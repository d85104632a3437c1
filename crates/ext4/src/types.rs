//! The plain types that reading and writing share.

use std::fmt;

use crate::format::inode;

/// A block's number in the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNo(pub u64);

/// An inode's number, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNo(pub u32);

impl InodeNo {
    /// The root directory.
    pub const ROOT: Self = Self(inode::ROOT_INO);
    /// The journal.
    pub const JOURNAL: Self = Self(inode::JOURNAL_INO);
}

impl fmt::Display for BlockNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
}

impl FileType {
    /// From the type bits of a Unix mode; `None` for a code that means nothing.
    pub fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & inode::S_IFMT {
            inode::S_IFREG => Self::File,
            inode::S_IFDIR => Self::Directory,
            inode::S_IFLNK => Self::Symlink,
            inode::S_IFCHR => Self::CharDevice,
            inode::S_IFBLK => Self::BlockDevice,
            inode::S_IFIFO => Self::Fifo,
            inode::S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }

    /// The type bits of a Unix mode.
    pub fn mode_bits(self) -> u16 {
        match self {
            Self::File => inode::S_IFREG,
            Self::Directory => inode::S_IFDIR,
            Self::Symlink => inode::S_IFLNK,
            Self::CharDevice => inode::S_IFCHR,
            Self::BlockDevice => inode::S_IFBLK,
            Self::Fifo => inode::S_IFIFO,
            Self::Socket => inode::S_IFSOCK,
        }
    }
}

/// A device's numbers: 12 bits of major, 20 of minor, as ext4 and Linux keep them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// The driver, below 4096.
    pub major: u32,
    /// The instance, below 1,048,576.
    pub minor: u32,
}

/// A point in time, in seconds and nanoseconds since 1970-01-01 UTC.
///
/// ext4 keeps 34 bits of seconds: 1901-12-13T20:45:52Z to 2446-05-10T22:38:55Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded down: negative before 1970.
    pub seconds: i64,
    /// The rest, below 1,000,000,000, always counted forward.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The earliest time that ext4 can hold.
    pub const MIN: Self = Self {
        seconds: -0x8000_0000,
        nanoseconds: 0,
    };
    /// The latest time that ext4 can hold.
    pub const MAX: Self = Self {
        seconds: 0x3_7FFF_FFFF,
        nanoseconds: 999_999_999,
    };

    /// Encodes to `i_xtime` and `i_xtime_extra`. Times outside [`Timestamp::MIN`] to
    /// [`Timestamp::MAX`] become the nearer end; nanoseconds of a second and more become 999,999,999.
    pub(crate) fn encode(self) -> (u32, u32) {
        let time = self.clamp(Self::MIN, Self::MAX);
        let [a, b, c, d, ..] = time.seconds.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        // The epoch counts how often the signed 32 bits wrapped.
        let wraps = time.seconds.wrapping_sub(i64::from(low.cast_signed())) >> 32;
        let epoch = u32::try_from(wraps & 3).unwrap_or(0);
        let nanoseconds = time.nanoseconds.min(999_999_999);
        (low, nanoseconds.wrapping_shl(2) | epoch)
    }

    /// Decodes `i_xtime` and, where the inode has it, `i_xtime_extra` (0 where it does not).
    pub(crate) fn decode(low: u32, extra: u32) -> Self {
        let epoch = i64::from(extra & 3) << 32;
        Self {
            seconds: i64::from(low.cast_signed()).saturating_add(epoch),
            nanoseconds: (extra >> 2).min(999_999_999),
        }
    }
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The full name: `user.comment`, `security.capability`, `system.posix_acl_access`.
    pub name: Vec<u8>,
    /// The value as `getxattr` gives it. POSIX ACLs too: the form on disk is this crate's business.
    pub value: Vec<u8>,
}

/// What a node has besides its type and content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission, set-id and sticky bits: `mode & 0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the node.
    pub ctime: Timestamp,
    /// When it was made.
    pub crtime: Timestamp,
    /// Extended attributes. Names are unique; the order does not matter.
    pub xattrs: Vec<Xattr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_to_2446() {
        for seconds in [
            -0x8000_0000,
            -1,
            0,
            0x7FFF_FFFF,
            0x8000_0000,
            0xFFFF_FFFF,
            0x1_0000_0000,
            0x3_7FFF_FFFF,
        ] {
            let time = Timestamp {
                seconds,
                nanoseconds: 123_456_789,
            };
            let (low, extra) = time.encode();
            assert_eq!(Timestamp::decode(low, extra), time);
        }
    }

    #[test]
    fn times_beyond_are_clamped() {
        let far = Timestamp {
            seconds: i64::MAX,
            nanoseconds: 5,
        };
        let (low, extra) = far.encode();
        assert_eq!(Timestamp::decode(low, extra), Timestamp::MAX);
        let early = Timestamp {
            seconds: i64::MIN,
            nanoseconds: 5,
        };
        let (low, extra) = early.encode();
        assert_eq!(Timestamp::decode(low, extra), Timestamp::MIN);
    }
}
