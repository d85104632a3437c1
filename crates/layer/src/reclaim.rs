//! Gives the room back that a disk file takes for blocks that its file system does not use.
//!
//! Nothing that anybody can read is written: free blocks become holes, or leave the file. So the disk
//! is whole after every step, and a crash costs only what was not done yet. What is free is asked of
//! the file system as it will be when its journal has been replayed, and only when everything in it
//! agrees.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use opengcs_ext4::Reader;
use opengcs_vhd::{Access, Disk, Format, Guid, Storage as _};
use serde::Serialize;
use uuid::Uuid;

use crate::content;
use crate::control::{Control, Meter, Progress};
use crate::disk_file::{self, DiskFile};
use crate::error::from_ext4;
use crate::image::from_vhd;
use crate::{Error, ErrorKind, Result, chain, hold, verity};

/// Less than this is not worth a hole: no file system has smaller ones.
const UNIT: u64 = 4096;

/// How room is given back.
#[derive(Clone, Debug, Default)]
pub struct ReclaimOptions {
    /// Progress, in bytes of free blocks, and cancellation: what was given back until then stays so.
    pub control: Control,
}

/// What was gained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reclaimed {
    /// `vhd`, `vhdx` or `raw`.
    pub format: String,
    /// Bytes of blocks that the file system has free.
    pub free: u64,
    /// Bytes of the file before.
    pub size_before: u64,
    /// Bytes of the file now.
    pub size: u64,
    /// Bytes that the file took on its own disk, where that is known.
    pub allocated_before: Option<u64>,
    /// Bytes that it takes now.
    pub allocated: Option<u64>,
}

impl Reclaimed {
    /// Bytes that are free again on the disk that the file lies on; by the file's length where
    /// nothing else is known.
    #[must_use]
    pub fn gained(&self) -> u64 {
        match (self.allocated_before, self.allocated) {
            (Some(before), Some(now)) => before.saturating_sub(now),
            _ => self.size_before.saturating_sub(self.size),
        }
    }
}

/// Frees in a disk file what the ext4 file system in it has free.
///
/// In a raw disk and in a fixed VHD, free blocks become holes. Of a VHDX, blocks of the file without
/// anything in them leave it, those at its end move into the gaps, and the file gets shorter; parts
/// of blocks become holes. A device is told to discard. The file may be cut at any moment, also
/// while it is worked on, and holds the same file system.
///
/// A VHDX that is the parent of others is another one for them afterwards, and they refuse it.
///
/// # Errors
///
/// [`ErrorKind::Locked`] when a machine or another conversion has the file, or the system has it
/// mounted; [`ErrorKind::Corrupt`] when the file system contradicts itself or was left unfinished;
/// [`ErrorKind::Unsupported`] for dynamic VHDs and differencing disks, for one whose dm-verity tree
/// holds every block, where the journal holds fast commits, and where files have no holes;
/// [`ErrorKind::Cancelled`]; those of the system.
pub fn reclaim(path: &Path, options: &ReclaimOptions) -> Result<Reclaimed> {
    let file = chain::open_to_change(path)?;
    let _held = hold::alone(&file, path)?;
    reclaim_file(&file, options).map_err(|error| error.with_path(path))
}

fn reclaim_file(file: &File, options: &ReclaimOptions) -> Result<Reclaimed> {
    let again = || {
        file.try_clone()
            .map_err(|error| Error::io("cannot open the file again", error))
    };
    let system = |error| Error::io("cannot look at the file", error);
    let size_before = file.length().map_err(system)?;
    let allocated_before = file.allocated().map_err(system)?;
    // Everything is looked at before anything is changed: a journal of the VHDX too, which lies
    // over the file until then.
    let free = {
        let disk = Disk::open(again()?, Access::ReadOnly).map_err(from_vhd)?;
        refuse(&disk)?;
        let free = survey(&disk)?;
        prepare(file, disk.format())?;
        free
    };
    let session = Guid::from_u128(Uuid::new_v4().as_u128());
    let storage = DiskFile::new(again()?);
    let mut disk = Disk::open(storage, Access::ReadWrite { session }).map_err(from_vhd)?;
    let format = disk.format();
    let worked = release(again()?, &mut disk, free, &options.control);
    // Also after a failure: a VHDX is left without a log then.
    let closed = disk.finish().map_err(from_vhd);
    worked?;
    closed?
        .sync()
        .map_err(|error| Error::io("cannot write the file to its disk", error))?;
    Ok(Reclaimed {
        format: format.to_string(),
        free,
        size_before,
        size: file.length().map_err(system)?,
        allocated_before,
        allocated: file.allocated().map_err(system)?,
    })
}

/// Refuses what room cannot be given back in.
fn refuse(disk: &Disk<File>) -> Result<()> {
    if disk.format() == Format::DynamicVhd {
        return Err(Error::unsupported(
            "a dynamic VHD is only read, so that its room cannot be given back",
        )
        .with_hint("make a VHDX of it, which leaves out what is zero: qemu-img convert -O vhdx"));
    }
    Ok(())
}

/// Lets the file have holes where that must be asked for, if it may have them: zeros that take as much room as
/// before are not worth being written.
fn prepare(file: &File, format: Format) -> Result<()> {
    let can = match format {
        Format::Raw => disk_file::allow_holes(file),
        Format::FixedVhd => disk_file::has_holes(file),
        // Its blocks leave it.
        _ => return Ok(()),
    };
    if can {
        return Ok(());
    }
    Err(match format {
        Format::FixedVhd => Error::unsupported(
            "on Windows, where Hyper-V takes no file with holes, a fixed VHD has none",
        ),
        _ => no_holes(),
    }
    .with_hint("make a VHDX of it, which leaves out what is zero: qemu-img convert -O vhdx"))
}

fn no_holes() -> Error {
    Error::unsupported("the file system that the file lies on cannot make holes in files")
}

/// How many bytes are free, if everything agrees about it.
fn survey(disk: &Disk<File>) -> Result<u64> {
    let reader = Reader::open(disk)
        .map_err(|error| content::without_ext4(content::recognise(disk), error))?;
    let summary = reader.summary();
    let block_size = u64::from(summary.block_size);
    let mut free = 0_u64;
    reader
        .free_blocks(|blocks| {
            let blocks = blocks.end.0.saturating_sub(blocks.start.0);
            free = free.saturating_add(blocks.saturating_mul(block_size));
        })
        .map_err(|error| untold(error, &summary.journal))?;
    let end = summary.blocks.saturating_mul(block_size);
    if verity::is_behind(disk, end) {
        return Err(Error::unsupported(
            "a dm-verity tree is behind the file system, which holds free blocks to what they were too",
        ));
    }
    Ok(free)
}

/// What to do when it cannot be told what is free.
fn untold(error: opengcs_ext4::Error, journal: &opengcs_ext4::JournalState) -> Error {
    let hint = match (error.kind(), journal) {
        (opengcs_ext4::ErrorKind::Corrupt, _) => {
            "e2fsck -f mends it; of a VHD or VHDX, `qemu-img convert -O raw` makes a disk that e2fsck reads"
        }
        (opengcs_ext4::ErrorKind::Unsupported, opengcs_ext4::JournalState::Replayed { .. }) => {
            "mount it once for writing, in a VM or here, which replays the journal"
        }
        _ => return from_ext4(error),
    };
    from_ext4(error).with_hint(hint)
}

/// Gives back what is free, and moves blocks of a VHDX together.
fn release(view: File, disk: &mut Disk<DiskFile>, free: u64, control: &Control) -> Result<()> {
    control.expect(free);
    // A view of its own: what it reads are blocks in use, and those stay where they are until all
    // is released.
    let view = Disk::open(view, Access::ReadOnly).map_err(from_vhd)?;
    let reader = Reader::open(&view).map_err(from_ext4)?;
    let block_size = u64::from(reader.summary().block_size);
    let mut meter = Meter::new(control);
    let mut now = Progress::default();
    let mut failure = None;
    let mut step = |disk: &mut Disk<DiskFile>, range: Range<u64>| {
        now.bytes = now.bytes.saturating_add(range.end - range.start);
        let whole = range.start.next_multiple_of(UNIT)..range.end / UNIT * UNIT;
        if whole.start < whole.end && !disk.release(whole).map_err(from_vhd)? {
            return Err(no_holes());
        }
        now.entries += 1;
        meter.step(now)
    };
    reader
        .free_blocks(|blocks| {
            if failure.is_none() {
                let range = blocks.start.0 * block_size..blocks.end.0 * block_size;
                failure = step(disk, range).err();
            }
        })
        .map_err(from_ext4)?;
    if let Some(error) = failure {
        return Err(error);
    }
    let mut cancelled = false;
    disk.compact(&mut |_| {
        cancelled = control.check().is_err();
        !cancelled
    })
    .map_err(from_vhd)?;
    if cancelled {
        return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
    }
    meter.tell(now)
}
