//! Where a file's bytes lie: runs of blocks, from an extent tree or a block map.

mod extents;
mod pointers;
mod walk;

use std::sync::{Arc, Mutex, PoisonError};

use positioned_io::ReadAt;

use self::walk::Walk;
use super::inode::Inode;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::types::BlockNo;

/// Blocks with data that follow each other in the file and in the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the file.
    pub(super) logical: u64,
    /// First block in the volume.
    pub(super) physical: u64,
    pub(super) blocks: u64,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.logical.saturating_add(self.blocks)
    }
}

/// Runs one after the other: from the map as it goes, or from memory where a fast commit changed it.
#[derive(Debug)]
pub(super) enum Runs<'a, R> {
    Walked(Walk<'a, R>),
    Known(Arc<[Run]>, usize),
}

impl<R: ReadAt> Runs<'_, R> {
    pub(super) fn next_run(&mut self) -> Result<Option<Run>> {
        match self {
            Self::Walked(walk) => walk.next_run(),
            Self::Known(runs, next) => {
                let run = runs.get(*next).copied();
                *next = next.saturating_add(1);
                Ok(run)
            }
        }
    }
}

/// All that a file has from one of its blocks to before another.
#[derive(Clone, Debug)]
pub(super) struct Window {
    from: u64,
    pub(super) to: u64,
    pub(super) runs: Arc<[Run]>,
}

/// Runs of a window: what a file that is read keeps of its map.
const WINDOW: usize = 2048;

/// The window that was read last.
#[derive(Debug, Default)]
pub(super) struct LastWindow(Mutex<Option<Window>>);

impl LastWindow {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for LastWindow {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.lock().clone()))
    }
}

impl<R: ReadAt> Volume<R> {
    /// The seed of checksums of what belongs to an inode.
    pub(super) fn seed(&self, inode: &Inode) -> crate::format::checksum::Checksum {
        self.geometry
            .seed
            .of_inode(inode.number().0, inode.generation)
    }

    /// The runs of data up to the file's size, in order. Not for inline data, and not for what may
    /// be in very many pieces.
    pub(super) fn runs(&self, inode: &Inode) -> Result<Arc<[Run]>> {
        if let Some(runs) = inode.runs.get() {
            return Ok(Arc::clone(runs));
        }
        let mut walk = Walk::new(self, inode, 0)?;
        let mut runs = Vec::new();
        while let Some(run) = walk.next_run()? {
            runs.push(run);
        }
        if let Some(change) = self.changes.inode(inode.number())
            && !change.ranges.is_empty()
        {
            runs = change.ranges.over(&runs, walk.limit);
        }
        let runs: Arc<[Run]> = runs.into();
        Ok(Arc::clone(inode.runs.get_or_init(|| runs)))
    }

    /// The runs of data from a block of the file on, as they are asked for.
    pub(super) fn runs_from<'a>(&'a self, inode: &'a Inode, from: u64) -> Result<Runs<'a, R>> {
        let change = self.changes.inode(inode.number());
        if change.is_some_and(|change| !change.ranges.is_empty()) || inode.runs.get().is_some() {
            let runs = self.runs(inode)?;
            let first = runs.partition_point(|run| run.end() <= from);
            return Ok(Runs::Known(runs, first));
        }
        Ok(Runs::Walked(Walk::new(self, inode, from)?))
    }

    /// What the file has at a block, and behind it as far as a window goes.
    pub(super) fn window(&self, inode: &Inode, block: u64) -> Result<Window> {
        if let Some(window) = &*inode.window.lock()
            && (window.from..window.to).contains(&block)
        {
            return Ok(window.clone());
        }
        let mut walk = self.runs_from(inode, block)?;
        let mut runs = Vec::new();
        let to = loop {
            match walk.next_run()? {
                Some(run) => runs.push(run),
                None => break u64::MAX,
            }
            if let (WINDOW, Some(last)) = (runs.len(), runs.last()) {
                break last.end();
            }
        };
        let window = Window {
            from: block,
            to,
            runs: runs.into(),
        };
        *inode.window.lock() = Some(window.clone());
        Ok(window)
    }

    /// The runs of a file that must not share blocks with itself: one whose content is kept in
    /// memory, so that a small image cannot make a huge one.
    pub(super) fn distinct_runs(&self, inode: &Inode) -> Result<Arc<[Run]>> {
        let runs = self.runs(inode)?;
        let mut places: Vec<(u64, u64)> =
            runs.iter().map(|run| (run.physical, run.blocks)).collect();
        places.sort_unstable();
        let mut free = 0;
        for (start, blocks) in places {
            if start < free {
                return Err(Error::corrupt("a block occurs twice in one file")
                    .at_inode(inode.number())
                    .at_block(BlockNo(start)));
            }
            free = start.saturating_add(blocks);
        }
        Ok(runs)
    }
}
