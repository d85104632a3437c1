//! What a disk file or layer folder is, in a form for people and for JSON.

use std::path::{Path, PathBuf};

use opengcs_ext4::{FileType, GroupUse, JournalState, Reader};
use opengcs_vhd::Summary;
use opengcs_vhd::vhdx::LogState;
use serde::Serialize;
use uuid::Uuid;

use crate::chain;
use crate::content;
use crate::details::{LayerVhdDetails, layer_vhd_details};
use crate::error::from_ext4;
use crate::image::from_vhd;
use crate::verity::{self, Verity};
use crate::{Error, Result};

/// The most parts of the map of a file system.
const MAP: usize = 60;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The disk file.
    pub path: PathBuf,
    /// The layer folder, where it was a folder that was inspected.
    pub folder: Option<LayerVhdDetails>,
    /// The disk file's format.
    pub disk: DiskInspection,
    /// The ext4 file system in it.
    pub filesystem: Option<FilesystemInspection>,
    /// The dm-verity tree behind the file system. It is told, not checked.
    pub verity: Option<Verity>,
    /// Why the file system cannot be read, where it cannot.
    pub problem: Option<String>,
    /// What the file is, such as `a gzip stream`, where it is no disk at all.
    pub content: Option<&'static str>,
}

/// What a disk file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiskInspection {
    /// `vhd`, `dynamic vhd`, `vhdx` or `raw`.
    pub format: String,
    /// Bytes of the disk.
    pub virtual_size: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes that the file takes on its own disk, where that is known.
    pub file_allocated: Option<u64>,
    /// Bytes of the disk for which there is room in the file.
    pub allocated: u64,
    /// Bytes in a block, of formats that have blocks.
    pub block_size: Option<u64>,
    /// Bytes in a logical sector, where the format says so.
    pub logical_sector_size: Option<u32>,
    /// Bytes in a physical sector, where the format says so.
    pub physical_sector_size: Option<u32>,
    /// The identifier of the disk.
    pub id: Option<String>,
    /// The tool that made the file.
    pub creator: Option<String>,
    /// The state of a VHDX's log.
    pub log: Option<String>,
    /// Blocks of the disk, of formats that have blocks.
    pub blocks: Option<u64>,
    /// Blocks of them that are in the file.
    pub blocks_in_file: Option<u64>,
    /// Where the parts of a VHDX lie that are no blocks, in the order of the file.
    pub regions: Vec<RegionInspection>,
    /// What a differencing disk says of its parent.
    pub parent: Option<ParentInspection>,
    /// The files of the parents that were found, the nearest first.
    pub chain: Vec<PathBuf>,
}

/// A part of a VHDX that is no block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RegionInspection {
    /// `log`, `metadata`, `block table`, or `unknown`.
    pub name: &'static str,
    /// Bytes from the file's start.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// What a differencing disk says of its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ParentInspection {
    /// The paths at which it should be, as the file has them.
    pub paths: Vec<String>,
    /// The identifiers that it may have.
    pub ids: Vec<String>,
}

/// What a file system says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FilesystemInspection {
    /// Bytes in a block.
    pub block_size: u32,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of all blocks.
    pub size: u64,
    /// Blocks that are free.
    pub free_blocks: u64,
    /// Bytes of those.
    pub free: u64,
    /// Block groups.
    pub groups: u32,
    /// How full the file system is from its start to its end: percent in use of each of up to 60
    /// equal parts; parts of whole block groups, where it cannot be told more exactly.
    pub map: Vec<u8>,
    /// Inodes.
    pub inodes: u32,
    /// Inodes that are free.
    pub free_inodes: u32,
    /// The UUID.
    pub uuid: String,
    /// The label; empty for none.
    pub label: String,
    /// All features, by the names that `dumpe2fs` gives them.
    pub features: Vec<String>,
    /// `none`, `clean` or what was replayed.
    pub journal: String,
    /// Whether the kernel has recorded errors in it.
    pub has_errors: bool,
    /// Whether it has the folder `upper` of a sandbox.
    pub is_sandbox: bool,
}

/// How a disk file is looked at.
#[derive(Clone, Debug, Default)]
pub struct InspectOptions {
    /// Folders in which the parents of a differencing disk may lie, besides the
    /// disk's own.
    pub parents: Vec<PathBuf>,
}

/// Looks at a disk file, or at the disk file of a layer folder.
///
/// # Errors
///
/// There is no such file or folder, the folder holds no disk file, or the disk
/// file breaks its format's rules. A file system that cannot be read, also for
/// want of a parent disk, is not an error but [`Inspection::problem`].
pub fn inspect(path: &Path) -> Result<Inspection> {
    inspect_with(path, &InspectOptions::default())
}

/// The same as [`inspect`], with options.
///
/// # Errors
///
/// As for [`inspect`].
pub fn inspect_with(path: &Path, options: &InspectOptions) -> Result<Inspection> {
    let folder = if path.is_dir() {
        Some(layer_vhd_details(path)?)
    } else {
        None
    };
    let path = folder
        .as_ref()
        .map_or_else(|| path.to_path_buf(), |details| details.path.clone());
    let (summary, parents, opened) = match chain::open(&path, &options.parents) {
        Ok(found) => {
            let summary = found
                .disk
                .summary()
                .map_err(|error| from_vhd(error).with_path(&path))?;
            (summary, found.parents, Ok(found.disk))
        }
        Err(error) => match chain::describe(&path) {
            Ok(summary) if summary.parent.is_some() => (summary, Vec::new(), Err(error)),
            _ => return Err(error),
        },
    };
    let mut content = None;
    let read = opened.and_then(|disk| {
        let begins = content::recognise(&disk);
        let no_disk = content::no_disk(&disk);
        let reader = Reader::open(disk).map_err(|error| {
            content = no_disk;
            content::without_ext4(begins, error)
        })?;
        filesystem(&reader)
    });
    let (filesystem, problem) = match read {
        Ok(filesystem) => (Some(filesystem), None),
        Err(error) => (None, Some(one_line(&error))),
    };
    let verity = filesystem.as_ref().and_then(|found| {
        let size = found.blocks.checked_mul(u64::from(found.block_size))?;
        verity::find(&chain::open(&path, &options.parents).ok()?.disk, size)
    });
    Ok(Inspection {
        path,
        folder,
        disk: disk_inspection(summary, parents),
        filesystem,
        verity,
        problem,
        content,
    })
}

fn disk_inspection(summary: Summary, parents: Vec<PathBuf>) -> DiskInspection {
    DiskInspection {
        format: summary.format.to_string(),
        virtual_size: summary.virtual_size,
        file_size: summary.file_size,
        file_allocated: summary.file_allocated,
        allocated: summary.allocated,
        block_size: summary.block_size,
        logical_sector_size: summary.logical_sector_size,
        physical_sector_size: summary.physical_sector_size,
        id: summary.id.map(|id| id.to_string()),
        creator: summary.creator,
        log: summary.log.map(|log| match log {
            LogState::Clean => "clean".into(),
            LogState::Replayed(entries) => format!("replayed {entries} entries"),
        }),
        blocks: summary.blocks,
        blocks_in_file: summary
            .block_size
            .and_then(|size| summary.allocated.checked_div(size)),
        regions: summary
            .regions
            .into_iter()
            .map(|region| RegionInspection {
                name: region.name,
                offset: region.offset,
                size: region.length,
            })
            .collect(),
        parent: summary.parent.map(|parent| ParentInspection {
            paths: parent.paths,
            ids: parent.ids.iter().map(ToString::to_string).collect(),
        }),
        chain: parents,
    }
}

fn filesystem<R: positioned_io::ReadAt>(reader: &Reader<R>) -> Result<FilesystemInspection> {
    let summary = reader.summary();
    let root = reader.inode(reader.root()).map_err(from_ext4)?;
    let entries = reader.read_dir(&root).map_err(from_ext4)?;
    let mut is_sandbox = false;
    for entry in entries.iter().filter(|entry| entry.name == b"upper") {
        let inode = reader.inode(entry.inode).map_err(from_ext4)?;
        is_sandbox = inode.file_type() == FileType::Directory;
    }
    let mut groups = Vec::new();
    for group in reader.groups() {
        groups.push(group.map_err(from_ext4)?);
    }
    // The superblock's own count is of the last clean end.
    let free_blocks = groups
        .iter()
        .fold(0, |sum: u64, group| sum.saturating_add(group.free));
    let block_size = u64::from(summary.block_size);
    let features = [&summary.compat, &summary.incompat, &summary.ro_compat];
    Ok(FilesystemInspection {
        block_size: summary.block_size,
        blocks: summary.blocks,
        size: summary.blocks.saturating_mul(block_size),
        free_blocks,
        free: free_blocks.saturating_mul(block_size),
        groups: summary.groups,
        map: exact_map(reader, summary.blocks).unwrap_or_else(|| map(&groups)),
        inodes: summary.inodes,
        free_inodes: summary.free_inodes,
        uuid: Uuid::from_bytes(summary.uuid).to_string(),
        label: String::from_utf8_lossy(&summary.label).into_owned(),
        features: features.into_iter().flatten().cloned().collect(),
        journal: match summary.journal {
            JournalState::None => "none".into(),
            JournalState::Clean => "clean".into(),
            JournalState::Replayed {
                transactions,
                blocks,
                fast_commits,
            } => {
                let fast = match fast_commits {
                    0 => String::new(),
                    _ => format!(", {fast_commits} fast commits"),
                };
                format!("replayed {transactions} transactions, {blocks} blocks{fast}")
            }
            other => format!("{other:?}").to_lowercase(),
        },
        has_errors: summary.has_errors,
        is_sandbox,
    })
}

/// How full each part of a file system is, block by block; nothing when that cannot be told.
fn exact_map<R: positioned_io::ReadAt>(reader: &Reader<R>, blocks: u64) -> Option<Vec<u8>> {
    let parts = blocks.min(MAP as u64);
    let start = |part: u64| {
        let start = u128::from(part) * u128::from(blocks) / u128::from(parts.max(1));
        u64::try_from(start).unwrap_or(u64::MAX)
    };
    let mut free = vec![0; usize::try_from(parts).ok()?];
    let mut part = 0;
    reader
        .free_blocks(|run| {
            let (mut at, end) = (run.start.0, run.end.0);
            while at < end {
                while part + 1 < parts && start(part + 1) <= at {
                    part += 1;
                }
                let upto = if part + 1 < parts {
                    end.min(start(part + 1))
                } else {
                    end
                };
                if let Some(free) = usize::try_from(part)
                    .ok()
                    .and_then(|part| free.get_mut(part))
                {
                    *free += upto - at;
                }
                at = upto;
            }
        })
        .ok()?;
    let used = |(part, free): (u64, u64)| {
        let blocks = start(part + 1) - start(part);
        percent(blocks.saturating_sub(free), blocks)
    };
    Some((0..parts).zip(free).map(used).collect())
}

/// What part is in use, in percent: rounded, but full and empty only where it is.
fn percent(used: u64, blocks: u64) -> u8 {
    let percent = u128::from(used) * 100 / u128::from(blocks.max(1));
    match u8::try_from(percent).unwrap_or(100) {
        0 if used > 0 => 1,
        percent => percent.min(100),
    }
}

/// How full each part of a file system is, by its groups.
fn map(groups: &[GroupUse]) -> Vec<u8> {
    let parts = groups.len().min(MAP);
    (0..parts)
        .filter_map(|part| {
            let first = part * groups.len() / parts;
            let last = (part + 1) * groups.len() / parts;
            let part = groups.get(first..last)?;
            let sum = |of: fn(&GroupUse) -> u64| part.iter().map(of).fold(0, u64::saturating_add);
            let blocks = sum(|group| group.blocks);
            let used = blocks - sum(|group| group.free).min(blocks);
            Some(percent(used, blocks))
        })
        .collect()
}

/// An error with its causes on one line.
fn one_line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    match error.advice() {
        Some(advice) => format!("{line} ({advice})"),
        None => line,
    }
}
