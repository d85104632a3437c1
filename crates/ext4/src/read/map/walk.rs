//! Finds a file's runs one after the other, whichever way the map of the file is written.

use std::collections::HashSet;
use std::sync::Arc;

use positioned_io::ReadAt;

use super::Run;
use super::extents::Extents;
use super::pointers::Pointers;
use crate::error::Result;
use crate::read::inode::Inode;
use crate::read::volume::Volume;
use crate::types::BlockNo;

/// What is to be done after a look at the innermost block.
pub(super) enum Step {
    Up,
    Down(u64),
    Found(Run),
    Skip,
}

/// A block of the map that is being walked.
#[derive(Debug)]
enum Frame {
    Extents(Extents),
    Pointers(Pointers),
}

/// Finds a file's runs one after the other, up to its end; of the map only the way to the next run is
/// in memory.
#[derive(Debug)]
pub(in crate::read) struct Walk<'a, R> {
    volume: &'a Volume<R>,
    inode: &'a Inode,
    /// Runs that end before this block of the file are passed over.
    from: u64,
    /// Blocks of the file up to its size; what is mapped behind it is not part of it.
    pub(super) limit: u64,
    frames: Vec<Frame>,
    /// Blocks of the map itself: one that occurs twice would let a small image hold a huge map.
    seen: HashSet<u64>,
    /// The run that was found last: the next may continue it.
    last: Option<Run>,
}

impl<'a, R: ReadAt> Walk<'a, R> {
    pub(super) fn new(volume: &'a Volume<R>, inode: &'a Inode, from: u64) -> Result<Self> {
        inode.check_readable()?;
        let root: Arc<[u8]> = Arc::from(inode.i_block);
        let root = if inode.has_extents() {
            Frame::Extents(Extents::root(volume, inode, root)?)
        } else {
            Frame::Pointers(Pointers::root(root))
        };
        Ok(Self {
            volume,
            inode,
            from,
            limit: inode.size().div_ceil(u64::from(volume.geometry.block_size)),
            frames: vec![root],
            seen: HashSet::new(),
            last: None,
        })
    }

    /// The next run, joined with those that continue it.
    pub(in crate::read) fn next_run(&mut self) -> Result<Option<Run>> {
        while let Some(found) = self.find()? {
            match &mut self.last {
                Some(last)
                    if last.end() == found.logical
                        && last.physical.saturating_add(last.blocks) == found.physical =>
                {
                    last.blocks = last.blocks.saturating_add(found.blocks);
                }
                last => {
                    if let Some(whole) = last.replace(found) {
                        return Ok(Some(whole));
                    }
                }
            }
        }
        Ok(self.last.take())
    }

    fn find(&mut self) -> Result<Option<Run>> {
        loop {
            let step = match self.frames.last_mut() {
                None => return Ok(None),
                Some(Frame::Extents(node)) => node.next(self.volume, self.inode, self.from)?,
                Some(Frame::Pointers(node)) => {
                    node.next(self.volume, self.inode, self.from, self.limit)?
                }
            };
            match step {
                Step::Up => {
                    self.frames.pop();
                }
                Step::Skip => {}
                Step::Down(block) => self.enter(block)?,
                Step::Found(run) => {
                    let blocks = run.blocks.min(self.limit.saturating_sub(run.logical));
                    let run = Run { blocks, ..run };
                    if blocks > 0 && run.end() > self.from {
                        return Ok(Some(run));
                    }
                }
            }
        }
    }

    /// Goes down to the block that the innermost frame's last entry names.
    fn enter(&mut self, block: u64) -> Result<()> {
        let what = match self.frames.last() {
            Some(Frame::Extents(_)) => "an extent block",
            Some(Frame::Pointers(_)) => "an indirect block",
            None => return Ok(()),
        };
        let bytes = self.node(block, what)?;
        let below = match self.frames.last() {
            Some(Frame::Extents(node)) => {
                Frame::Extents(node.below(self.volume, self.inode, bytes, BlockNo(block))?)
            }
            Some(Frame::Pointers(node)) => Frame::Pointers(node.below(self.volume, bytes)),
            None => return Ok(()),
        };
        self.frames.push(below);
        Ok(())
    }

    /// A block of the map.
    fn node(&mut self, block: u64, what: &'static str) -> Result<Arc<[u8]>> {
        let number = self.inode.number();
        self.volume
            .geometry
            .check_blocks(block, 1, what)
            .map_err(|error| error.at_inode(number))?;
        if !self.seen.insert(block) {
            return Err(self
                .inode
                .corrupt(format!("{what} occurs twice"))
                .at_block(BlockNo(block)));
        }
        self.volume
            .block(BlockNo(block))
            .map_err(|error| error.at_inode(number))
    }
}
