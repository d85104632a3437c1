//! Decides what becomes of discarded bytes: whole blocks leave the file, parts of blocks become holes; and how blocks
//! move into the gaps, so that the file can end earlier.

use std::ops::Range;

use super::bat::Block;
use super::write::PAGES;
use super::{Mode, Vhdx};
use crate::number::{clamp, is_zero, wide};
use crate::{Error, Result, Storage};

/// What becomes of the part of a block that is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// It is zero then, written so if it must be.
    Clear,
    /// Its room is given back where that can be done without writing.
    Release,
}

/// How many blocks are moved at most: their places are kept in memory.
const MOST_MOVED: usize = 1 << 20;
/// How much of a block is copied at once.
const COPIED: usize = 1 << 20;
/// The unit in which zeros become holes.
const UNIT: usize = 4096;

impl<S: Storage> Vhdx<S> {
    /// Makes a range of the disk zero, and gives back the room it takes.
    ///
    /// A block that leaves the file is marked as zero. Its room is used again
    /// only when that is durable: until then, a crash may bring it back.
    pub(crate) fn discard(&mut self, range: Range<u64>, parts: Parts) -> Result<()> {
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
                    let place = offset.saturating_add(within);
                    let length = end.saturating_sub(position);
                    if within == 0 && end == block_end && !self.metadata.leave_allocated {
                        self.leave(block, offset)?;
                    } else if parts == Parts::Clear {
                        self.view.clear(place, length)?;
                    } else {
                        self.give_back(&(place..place.saturating_add(length)));
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

    /// Moves blocks at the end of the file into free room before them, and commits that. Until the
    /// table that says so is durable, a block is where it was. `go_on` is told how many bytes have
    /// moved, and may stop it.
    pub(crate) fn compact(&mut self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        if !matches!(self.mode, Mode::Writing(_)) {
            return Err(crate::disk::read_only());
        }
        // What has just been discarded is room too.
        self.commit()?;
        let block_size = self.metadata.block().get();
        let room = self.space.room(block_size);
        // Where the file ended if everything fitted; what lies before stays.
        let wanted = self.view.end.saturating_sub(room);
        let mut behind = Vec::new();
        let count = self.metadata.virtual_size.div_ceil(block_size);
        for block in 0..count {
            if let Block::Present(offset) = self.bat.block(&self.view, block)?
                && offset.saturating_add(block_size) > wanted
            {
                behind.push((offset, block));
                if behind.len() > MOST_MOVED {
                    return Ok(());
                }
            }
        }
        behind.sort_unstable();
        let mut moved = 0_u64;
        while let Some((from, block)) = behind.pop() {
            if !go_on(moved) {
                break;
            }
            let Some(to) = self.space.take(block_size) else {
                break;
            };
            if to >= from {
                self.space.add(to..to.saturating_add(block_size));
                break;
            }
            self.start()?;
            self.copy_block(from, to)?;
            self.bat.set(&self.view, block, Block::present(to))?;
            self.space.release(from..from.saturating_add(block_size));
            moved = moved.saturating_add(block_size);
            if self.bat.dirty.len() >= PAGES {
                self.commit()?;
            }
        }
        self.commit()
    }

    /// Copies a block to where nothing is that counts. What is zero stays a hole, or becomes one.
    fn copy_block(&self, mut from: u64, mut to: u64) -> Result<()> {
        let mut left = self.metadata.block().get();
        let is_hole = self
            .view
            .storage
            .punch(to, left)
            .map_err(|error| Error::io("cannot clear", to, error))?;
        let mut buffer = vec![0; clamp(COPIED, left)];
        while left > 0 {
            let length = clamp(buffer.len(), left);
            let Some(piece) = buffer.get_mut(..length) else {
                break;
            };
            self.view.read(from, piece)?;
            if is_hole {
                self.write_data(to, piece)?;
            } else {
                self.view.write(to, piece)?;
            }
            let length = wide(length);
            from = from.saturating_add(length);
            to = to.saturating_add(length);
            left = left.saturating_sub(length);
        }
        Ok(())
    }

    /// Writes what is not zero to where all is zero.
    fn write_data(&self, to: u64, bytes: &[u8]) -> Result<()> {
        let mut run = 0..0_usize;
        let write = |run: &Range<usize>| match bytes.get(run.clone()) {
            Some(data) if !data.is_empty() => {
                self.view.write(to.saturating_add(wide(run.start)), data)
            }
            _ => Ok(()),
        };
        for unit in bytes.chunks(UNIT) {
            let end = run.end.saturating_add(unit.len());
            if is_zero(unit) {
                write(&run)?;
                run.start = end;
            }
            run.end = end;
        }
        write(&run)
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
