//! What the fast commits behind a log tell, up to the first that is not whole.
//!
//! A fast commit is a list of changes to inodes, names and ranges since the log's last transaction,
//! closed by a tail with the number of the transaction that was running and a checksum.

use std::ops::Range;

use zerocopy::FromBytes;

use super::Log;
use super::superblock::LogGeometry;
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::directory::NAME_MAX;
use crate::format::extent::INIT_MAX_LEN;
use crate::format::fast_commit::{
    ADD_RANGE, AddRange, CREATE, Dentry, HEAD, Head, INODE, LINK, PAD, REMOVE_RANGE, RecordHeader,
    RemoveRange, TAIL, Tail, UNLINK,
};
use crate::format::inode::BASE_SIZE;
use crate::num::wide;

/// Most bytes of records that are kept in memory. Linux reserves 256 blocks.
const BYTES_MAX: u64 = 64 << 20;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) directory: u32,
    pub(crate) inode: u32,
    pub(crate) name: Box<[u8]>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// File blocks from `first` are `blocks` blocks of the volume from `physical`.
    AddRange {
        inode: u32,
        first: u32,
        blocks: u16,
        physical: u64,
        written: bool,
    },
    /// File blocks from `first` are a hole.
    RemoveRange { inode: u32, first: u32, blocks: u32 },
    /// A new inode has a name.
    Create(Name),
    /// An inode has one name more.
    Link(Name),
    /// A name is gone.
    Unlink(Name),
    /// An inode has these fields: at least the first 128 bytes of its record.
    Inode { inode: u32, record: Box<[u8]> },
}

/// What an area holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FastCommits {
    /// The changes of whole commits, in order.
    pub(crate) changes: Vec<Change>,
    /// How many commits that were.
    pub(crate) commits: u32,
}

/// What a record means to whoever goes through the area.
enum Step {
    Change(Change),
    Nothing,
    /// The commit ends here, whole.
    Tail,
    /// Here is what an earlier turn has left, or what a power cut has cut.
    Stop,
    /// The commit ends here with a bad checksum.
    Bad,
}

/// Reads the area of fast commits of the transaction `expected`, the one behind the log's last.
pub(super) fn read(
    log: &impl Log,
    geometry: &LogGeometry,
    area: Range<u32>,
    expected: u32,
) -> Result<FastCommits> {
    let mut found = FastCommits::default();
    let mut pending = Vec::new();
    let mut bytes = vec![0; geometry.block_size];
    let mut sum = Checksum(0);
    let mut total = 0u64;
    for block in area.clone() {
        log.read(block, &mut bytes)?;
        let mut rest = bytes.as_slice();
        if block == area.start && !is_head(rest) {
            return Ok(found);
        }
        while let Ok((header, behind)) = RecordHeader::read_from_prefix(rest) {
            let tag = header.fc_tag.get();
            let Some((value, next)) = behind.split_at_checked(usize::from(header.fc_len.get()))
            else {
                return Ok(found);
            };
            let (head, _) = rest.split_at(rest.len().saturating_sub(behind.len()));
            // Of a tail only what comes before its checksum counts.
            let counted = if tag == TAIL { value.get(..4) } else { None };
            sum = sum.add(head).add(counted.unwrap_or(value));
            match step(tag, value, expected, sum)? {
                Step::Change(change) => {
                    total = total.saturating_add(wide(value.len()));
                    if total > BYTES_MAX {
                        return Err(Error::unsupported(
                            "the journal holds more than 64 MiB of fast commits; \
                             mount the file system once to replay them",
                        ));
                    }
                    pending.push(change);
                }
                Step::Nothing => {}
                Step::Tail => {
                    found.changes.append(&mut pending);
                    found.commits = found.commits.saturating_add(1);
                    sum = Checksum(0);
                }
                Step::Stop => return Ok(found),
                // The first of an area: the kernel does not mount either.
                Step::Bad if found.commits == 0 => {
                    return Err(Error::corrupt(format!(
                        "journal: a fast commit with a bad checksum (log block {block})"
                    )));
                }
                Step::Bad => return Ok(found),
            }
            rest = next;
        }
    }
    Ok(found)
}

fn is_head(block: &[u8]) -> bool {
    RecordHeader::read_from_prefix(block).is_ok_and(|(header, _)| header.fc_tag.get() == HEAD)
}

/// What a record means; `sum` is the commit's checksum up to it, or up to the one that a tail holds.
fn step(tag: u16, value: &[u8], expected: u32, sum: Checksum) -> Result<Step> {
    Ok(match tag {
        PAD => Step::Nothing,
        HEAD => match Head::read_from_bytes(value) {
            Ok(head) if head.fc_tid.get() != expected => Step::Stop,
            Ok(head) if head.fc_features.get() != 0 => {
                return Err(Error::unsupported(format!(
                    "the journal holds fast commits with features {:#x}",
                    head.fc_features
                )));
            }
            Ok(_) => Step::Nothing,
            Err(_) => Step::Stop,
        },
        TAIL => match Tail::read_from_prefix(value) {
            Ok((tail, _)) if tail.fc_tid.get() != expected => Step::Stop,
            Ok((tail, _)) if tail.fc_crc.get() == sum.0 => Step::Tail,
            Ok(_) => Step::Bad,
            Err(_) => Step::Stop,
        },
        _ => change(tag, value).map_or(Step::Stop, Step::Change),
    })
}

/// A change; `None` for a record that is none, or has another length than it must.
fn change(tag: u16, value: &[u8]) -> Option<Change> {
    Some(match tag {
        ADD_RANGE => {
            let range = AddRange::read_from_bytes(value).ok()?;
            let length = range.fc_ex.ee_len.get();
            let unwritten = length
                .checked_sub(INIT_MAX_LEN)
                .filter(|&blocks| blocks > 0);
            Change::AddRange {
                inode: range.fc_ino.get(),
                first: range.fc_ex.ee_block.get(),
                blocks: unwritten.unwrap_or(length),
                physical: u64::from(range.fc_ex.ee_start_lo.get())
                    | (u64::from(range.fc_ex.ee_start_hi.get()) << 32),
                written: unwritten.is_none(),
            }
        }
        REMOVE_RANGE => {
            let range = RemoveRange::read_from_bytes(value).ok()?;
            Change::RemoveRange {
                inode: range.fc_ino.get(),
                first: range.fc_lblk.get(),
                blocks: range.fc_len.get(),
            }
        }
        CREATE | LINK | UNLINK => {
            let (dentry, name) = Dentry::read_from_prefix(value).ok()?;
            if name.is_empty() || name.len() > NAME_MAX {
                return None;
            }
            let name = Name {
                directory: dentry.fc_parent_ino.get(),
                inode: dentry.fc_ino.get(),
                name: name.into(),
            };
            match tag {
                CREATE => Change::Create(name),
                LINK => Change::Link(name),
                _ => Change::Unlink(name),
            }
        }
        INODE => {
            let (number, record) = value.split_first_chunk::<4>()?;
            if record.len() < BASE_SIZE {
                return None;
            }
            Change::Inode {
                inode: u32::from_le_bytes(*number),
                record: record.into(),
            }
        }
        _ => return None,
    })
}
