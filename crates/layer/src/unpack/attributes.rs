//! Decides which metadata a node gets from its entry.
//!
//! Times outside what ext4 holds become the nearest it does, with a warning.
//! A mode follows the access control list beside it, as the kernel keeps both.
//! Attributes of namespaces that Linux does not know (macOS's `com.apple.…`)
//! are left out with a warning. A global header's count for each entry, so a small
//! tar could bring very many: more than the tar has bytes are refused.

use opengcs_ext4::{FileType, Metadata, Timestamp, Xattr};

use crate::problem::ProblemKind;
use crate::tar::Entry;
use crate::warning::Warnings;
use crate::{Error, Result};

/// The prefixes of the attributes' names that ext4 has a place for.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// What it keeps beside them: the kernel makes the rest of `system.` itself, or other file systems do.
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Bytes of attributes that a tar may bring beyond its own bytes.
const MOST: u64 = 64 << 20;

/// How many bytes of attributes there were.
#[derive(Default)]
pub(super) struct Attributes {
    bytes: u64,
}

impl Attributes {
    /// Takes from `entry` what has no place, tells it, and counts the rest. `position` is how much of
    /// the tar was read.
    pub(super) fn take(
        &mut self,
        entry: &mut Entry,
        position: u64,
        warnings: &mut Warnings,
    ) -> Result<()> {
        let path = &entry.path;
        let times = [Some(entry.mtime), entry.atime, entry.ctime];
        let held = Timestamp::MIN..=Timestamp::MAX;
        if let Some(time) = times.iter().flatten().find(|time| !held.contains(time)) {
            warnings.push_as(
                ProblemKind::TimeOutOfRange,
                path,
                format!(
                    "its time, {} seconds from 1970, becomes the nearest that ext4 can hold \
                     (December 1901 to May 2446)",
                    time.seconds
                ),
            );
        }
        entry.xattrs.retain(|xattr| {
            let known = NAMESPACES
                .iter()
                .any(|prefix| xattr.name.len() > prefix.len() && xattr.name.starts_with(prefix))
                || LISTS.contains(&xattr.name.as_slice());
            if !known {
                let name = String::from_utf8_lossy(&xattr.name);
                warnings.push_as(
                    ProblemKind::ForeignAttribute,
                    path,
                    format!(
                        "its attribute {name:?} is left out: Linux keeps none of this name in ext4"
                    ),
                );
            }
            known
        });
        self.bytes += entry
            .xattrs
            .iter()
            .map(|xattr| (xattr.name.len() + xattr.value.len()) as u64)
            .sum::<u64>();
        if self.bytes > MOST.saturating_add(position) {
            return Err(Error::unsupported(format!(
                "the extended attributes up to here take {} bytes, far more than the tar: a global \
                 header repeats them for each entry",
                self.bytes
            )));
        }
        Ok(())
    }
}

pub(super) fn implied(time: Timestamp) -> Metadata {
    Metadata {
        mode: 0o755,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        ..Metadata::default()
    }
}

/// The mode that goes with an access control list: its group bits are the list's mask. bsdtar, for
/// one, tells those of the group's own entry.
fn mode_beside_list(mode: u16, list: &[u8]) -> u16 {
    const USER_OBJ: u16 = 1;
    const GROUP_OBJ: u16 = 4;
    const MASK: u16 = 16;
    const OTHER: u16 = 32;
    let permissions = |tag: u16| {
        let entries = list.get(4..).unwrap_or_default().chunks_exact(8);
        let mut of_tag = entries.filter(|entry| entry.starts_with(&tag.to_le_bytes()));
        let entry = of_tag.next()?;
        Some(u16::from_le_bytes([*entry.get(2)?, *entry.get(3)?]) & 7)
    };
    let group = permissions(MASK).or_else(|| permissions(GROUP_OBJ));
    match (permissions(USER_OBJ), group, permissions(OTHER)) {
        (Some(user), Some(group), Some(other)) => mode & !0o777 | user << 6 | group << 3 | other,
        _ => mode,
    }
}

pub(super) fn metadata(entry: &Entry, xattrs: Vec<Xattr>) -> Metadata {
    let is_list = |xattr: &&Xattr| xattr.name == b"system.posix_acl_access";
    let list = xattrs.iter().find(is_list);
    Metadata {
        mode: list.map_or(entry.mode, |list| mode_beside_list(entry.mode, &list.value)),
        uid: entry.uid,
        gid: entry.gid,
        atime: entry.atime.unwrap_or(entry.mtime),
        mtime: entry.mtime,
        ctime: entry.ctime.unwrap_or(entry.mtime),
        crtime: entry.mtime,
        xattrs,
    }
}

pub(super) fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::File => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::CharDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
    }
}
