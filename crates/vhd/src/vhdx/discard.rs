//! Decides what becomes of discarded bytes: whole blocks leave the file, parts of blocks become holes.

use std::ops::Range;

use super::bat::Block;
use super::write::PAGES;
use super::{Mode, Vhdx};
use crate::{Error, Result, Storage};

impl<S: Storage> Vhdx<S> {
    /// Makes a range of the disk zero, and gives back the room it takes.
    ///
    /// A block that leaves the file is marked as zero. Its room is used again
    /// only when that is durable: until then, a crash may bring it back.
    pub(crate) fn discard(&mut self, range: Range<u64>) -> Result<()> {
        if matches!(self.mode, Mode::ReadOnly) {
            return Err(crate::disk::read_only());
        }
        if range.end > self.metadata.virtual_size {
            return Err(crate::disk::past_end(range.end));
        }
        let block_size = self.metadata.block();
        let mut position = range.start;
        while position < range.end {
            let (block, within) = (position / block_size, position % block_size);
            let start = position.saturating_sub(within);
            let block_end = start
                .saturating_add(block_size.get())
                .min(self.metadata.virtual_size);
            let end = block_end.min(range.end);
            match self.bat.block(&self.view, block)? {
                Block::NotPresent | Block::Zero => {}
                Block::Present(offset) => {
                    self.start()?;
                    if within == 0 && end == block_end && !self.metadata.leave_allocated {
                        self.leave(block, offset)?;
                    } else {
                        let length = end.saturating_sub(position);
                        self.view.clear(offset.saturating_add(within), length)?;
                    }
                }
                Block::Partial(_) => {
                    return Err(Error::corrupt("a VHDX block is partial where it cannot be"));
                }
            }
            position = end;
            if self.bat.dirty.len() >= PAGES && matches!(self.mode, Mode::Writing(_)) {
                self.commit()?;
            }
        }
        Ok(())
    }

    /// Takes a block out of the file, in memory.
    fn leave(&mut self, block: u64, offset: u64) -> Result<()> {
        self.bat.set(&self.view, block, Block::ZERO)?;
        self.blocks = self.blocks.saturating_sub(1);
        let room = offset..offset.saturating_add(self.metadata.block().get());
        if matches!(self.mode, Mode::Creating { .. }) {
            // No file says that the block is there.
            self.give_back(&room);
            self.space.add(room);
        } else {
            self.space.release(room);
        }
        Ok(())
    }

    /// Gives room that is free back to the system. That it stays taken when
    /// this fails is no failure of the disk.
    pub(super) fn give_back(&self, room: &Range<u64>) {
        let _ = self
            .view
            .storage
            .punch(room.start, room.end.saturating_sub(room.start));
    }

    /// Cuts off the free room at the end of the file, if blocks have left it.
    pub(super) fn shorten(&mut self) -> Result<()> {
        if !self.space.changed {
            return Ok(());
        }
        let end = self.space.cut(self.view.end);
        if end < self.view.end {
            self.view
                .storage
                .resize(end)
                .map_err(|error| Error::io("cannot shorten the file", end, error))?;
            self.view.end = end;
        }
        Ok(())
    }
}
