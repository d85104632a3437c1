//! What a journal that was not emptied means for the volume.

use std::collections::BTreeMap;
use std::sync::Arc;

use positioned_io::ReadAt;

use super::map::Run;
use super::volume::{Replayed, Volume};
use crate::error::{Error, Result};
use crate::journal::{FastCommits, Log, LogGeometry, replay};
use crate::types::{BlockNo, FileType, InodeNo};

/// The journal's file as a log.
struct File<'a, R> {
    volume: &'a Volume<R>,
    inode: InodeNo,
    runs: Arc<[Run]>,
}

impl<R> File<'_, R> {
    fn place(&self, block: u32) -> Result<BlockNo> {
        let block = u64::from(block);
        let index = self.runs.partition_point(|run| run.end() <= block);
        self.runs
            .get(index)
            .and_then(|run| Some((run, block.checked_sub(run.logical)?)))
            .map(|(run, skip)| BlockNo(run.physical.saturating_add(skip)))
            .ok_or_else(|| {
                Error::corrupt(format!("the journal has no block {block}")).at_inode(self.inode)
            })
    }
}

impl<R: ReadAt> Log for File<'_, R> {
    fn read(&self, block: u32, buffer: &mut [u8]) -> Result<()> {
        let place = self.place(block)?;
        self.volume
            .read_blocks(place, buffer)
            .map_err(|error| error.at_inode(self.inode))
    }
}

/// What recovery would write.
pub(super) struct Recovered {
    pub(super) overlay: BTreeMap<u64, Replayed>,
    pub(super) transactions: u32,
    pub(super) fast_commits: FastCommits,
}

/// Replays the journal in `inode` into memory.
pub(super) fn recover<R: ReadAt>(volume: &Volume<R>, number: InodeNo) -> Result<Recovered> {
    let inode = volume.inode(number)?;
    if inode.file_type() != FileType::File || inode.is_inline() {
        return Err(inode.corrupt("the journal is no regular file"));
    }
    let block_size = volume.geometry.block_size;
    let file = File {
        volume,
        inode: number,
        runs: volume.distinct_runs(&inode)?,
    };
    let mut superblock = vec![0; crate::num::index(block_size)];
    file.read(0, &mut superblock)?;
    let length = inode.size() >> volume.geometry.block_shift;
    let geometry = LogGeometry::parse(&superblock, block_size, length)
        .map_err(|error| error.at_inode(number))?;
    let replay =
        replay(&file, &geometry, volume.geometry.blocks).map_err(|error| error.at_inode(number))?;
    let mut overlay = BTreeMap::new();
    for (block, copied) in replay.blocks {
        let replayed = Replayed {
            copy: file.place(copied.log_block)?,
            escaped: copied.escaped,
        };
        overlay.insert(block, replayed);
    }
    Ok(Recovered {
        overlay,
        transactions: replay.transactions,
        fast_commits: replay.fast_commits,
    })
}
