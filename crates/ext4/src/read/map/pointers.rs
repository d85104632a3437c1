//! A block of the map that ext2 and ext3 have: pointers to data, or to more of them.

use std::sync::Arc;

use positioned_io::ReadAt;

use super::Run;
use super::walk::Step;
use crate::error::Result;
use crate::num::{index as size, wide};
use crate::read::inode::Inode;
use crate::read::volume::Volume;

/// Blocks that a block map names directly.
const DIRECT: u64 = 12;

/// Pointers that are being walked, each through `level` levels to `covered` blocks of the file.
#[derive(Debug)]
pub(super) struct Pointers {
    node: Arc<[u8]>,
    is_root: bool,
    level: u32,
    covered: u64,
    next: usize,
    logical: u64,
}

impl Pointers {
    /// Those in the inode: 12 to data, then one each through 1 to 3 levels.
    pub(super) fn root(node: Arc<[u8]>) -> Self {
        debug_assert!(pointers(&node).count() == size(DIRECT).saturating_add(3));
        Self {
            node,
            is_root: true,
            level: 0,
            covered: 1,
            next: 0,
            logical: 0,
        }
    }

    /// Those in the block that the pointer which was taken last names.
    pub(super) fn below<R>(&self, volume: &Volume<R>, node: Arc<[u8]>) -> Self {
        let covered = self.covered.checked_div(per_block(volume));
        Self {
            node,
            is_root: false,
            level: self.level.saturating_sub(1),
            covered: covered.unwrap_or(1),
            next: 0,
            logical: self.logical.saturating_sub(self.covered),
        }
    }

    /// Takes the next pointer. `logical` is behind what it covers then.
    pub(super) fn next<R: ReadAt>(
        &mut self,
        volume: &Volume<R>,
        inode: &Inode,
        from: u64,
        limit: u64,
    ) -> Result<Step> {
        let first = self.logical;
        let Some(block) = pointers(&self.node)
            .nth(self.next)
            .filter(|_| first < limit)
        else {
            return Ok(Step::Up);
        };
        if self.is_root && wide(self.next) >= DIRECT {
            self.level = self.level.saturating_add(1);
            self.covered = self.covered.saturating_mul(per_block(volume));
        }
        self.next = self.next.saturating_add(1);
        self.logical = first.saturating_add(self.covered);
        if block == 0 || self.logical <= from {
            return Ok(Step::Skip);
        }
        if self.level > 0 {
            return Ok(Step::Down(u64::from(block)));
        }
        volume
            .geometry
            .check_blocks(u64::from(block), 1, "a data block")
            .map_err(|error| error.at_inode(inode.number()))?;
        Ok(Step::Found(Run {
            logical: first,
            physical: u64::from(block),
            blocks: 1,
        }))
    }
}

fn per_block<R>(volume: &Volume<R>) -> u64 {
    u64::from(volume.geometry.block_size >> 2)
}

fn pointers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|pointer| u32::from_le_bytes(*pointer))
}
