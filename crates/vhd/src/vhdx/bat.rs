//! The block allocation table ([MS-VHDX] 2.5): where each block is, read page by page, changed in memory first.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::view::View;
use crate::number::{MIB, clamp, end_of, narrow, wide};
use crate::{Error, Result, Storage};

/// The entries in one 4 KiB page, as they lie on disk.
pub(crate) type Page = [u8; 4096];
pub(crate) const PAGE_SIZE: u64 = 4096;
const ENTRIES_PER_PAGE: u64 = PAGE_SIZE / 8;
/// How much free room in a file is kept in mind: a file may be full of gaps.
const MOST_GAPS: usize = 4096;
/// How many clean pages are kept in memory.
const KEPT: usize = 64;

/// What a block's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Not in this file: the parent's, or zero without one.
    NotPresent,
    /// Undefined, zero or unmapped: read as zero here.
    Zero,
    /// All at this byte of the file.
    Present(u64),
    /// At this byte of the file, as far as the sector bitmap says so.
    Partial(u64),
}

impl Block {
    fn parse(entry: u64) -> Result<Self> {
        let offset = (entry >> 20) << 20;
        match entry & 7 {
            0 => Ok(Self::NotPresent),
            // 5 stood for "unmapped" in files of version 0.95.
            1..=3 | 5 => Ok(Self::Zero),
            6 => Ok(Self::Present(offset)),
            7 => Ok(Self::Partial(offset)),
            state => Err(Error::corrupt(format!("a VHDX block has state {state}"))),
        }
    }

    /// The entry of a block that is all in the file, at a multiple of 1 MiB.
    pub(crate) fn present(offset: u64) -> u64 {
        offset | 6
    }

    /// The entry of a block that is zero and takes no room.
    pub(crate) const ZERO: u64 = 2;

    /// Where a block that is undefined or unmapped would come back to: some
    /// writers keep that room for it.
    fn anchor(entry: u64) -> Option<u64> {
        let offset = (entry >> 20) << 20;
        (matches!(entry & 7, 1 | 3 | 5) && offset != 0).then_some(offset)
    }
}

/// What a look at the whole table found.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Payload blocks in the file.
    pub(crate) blocks: u64,
    /// What nothing uses and can hold a block, in whole mebibytes; some of it,
    /// where there is much.
    pub(crate) free: Vec<Range<u64>>,
}

#[derive(Debug)]
pub(crate) struct Bat {
    /// Where the table lies.
    offset: u64,
    /// How many entries count.
    entries: u64,
    chunk_ratio: NonZeroU64,
    block_size: u64,
    has_parent: bool,
    /// Pages that differ from the file's, by number.
    pub(crate) dirty: BTreeMap<u64, Box<Page>>,
    kept: Mutex<HashMap<u64, Box<Page>>>,
    /// Whether the file has no table yet.
    pub(crate) unwritten: bool,
}

impl Bat {
    pub(crate) fn new(offset: u64, metadata: &super::metadata::Metadata) -> Self {
        Self {
            offset,
            entries: metadata.bat_entries(),
            chunk_ratio: metadata.chunk_ratio(),
            block_size: u64::from(metadata.block_size),
            has_parent: metadata.has_parent,
            dirty: BTreeMap::new(),
            kept: Mutex::default(),
            unwritten: false,
        }
    }

    /// Puts a table that is not in the file yet elsewhere, for another number of entries.
    pub(crate) fn place(&mut self, offset: u64, entries: u64) {
        self.offset = offset;
        self.entries = entries;
    }

    /// The entry of payload block `block`: one bitmap entry stands behind each chunk's.
    fn index(&self, block: u64) -> u64 {
        block.saturating_add(block / self.chunk_ratio)
    }

    /// Whether an entry is that of a sector bitmap block.
    fn is_bitmap(&self, index: u64) -> bool {
        let chunk = self.chunk_ratio.saturating_add(1);
        index % chunk == self.chunk_ratio.get()
    }

    /// Where page `number` lies in the file.
    pub(crate) fn page_offset(&self, number: u64) -> u64 {
        self.offset.saturating_add(number.saturating_mul(PAGE_SIZE))
    }

    fn entry<S: Storage>(&self, view: &View<S>, index: u64) -> Result<u64> {
        let number = index / ENTRIES_PER_PAGE;
        let within = narrow(index % ENTRIES_PER_PAGE)?;
        let pick = |page: &Page| {
            let (entries, _) = page.as_chunks::<8>();
            entries
                .get(within)
                .map_or(0, |entry| u64::from_le_bytes(*entry))
        };
        if let Some(page) = self.dirty.get(&number) {
            return Ok(pick(page));
        }
        if self.unwritten {
            return Ok(0);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = kept.get(&number) {
            return Ok(pick(page));
        }
        let page = self.read_page(view, number)?;
        let entry = pick(&page);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(number, page);
        Ok(entry)
    }

    fn read_page<S: Storage>(&self, view: &View<S>, number: u64) -> Result<Box<Page>> {
        let mut page = Box::new([0; 4096]);
        if !self.unwritten {
            view.read(self.page_offset(number), page.as_mut_slice())?;
        }
        Ok(page)
    }

    /// Where payload block `block` is.
    pub(crate) fn block<S: Storage>(&self, view: &View<S>, block: u64) -> Result<Block> {
        let index = self.index(block);
        Block::parse(self.entry(view, index)?)
            .map_err(|error| error.at(self.offset.saturating_add(index.saturating_mul(8))))
    }

    /// Where the sector bitmap block of the chunk of `block` is, and the first
    /// byte of it that speaks of `block`.
    pub(crate) fn bitmap<S: Storage>(&self, view: &View<S>, block: u64) -> Result<u64> {
        let chunk = block / self.chunk_ratio;
        let width = self.chunk_ratio.get().saturating_add(1);
        let index = chunk
            .saturating_mul(width)
            .saturating_add(self.chunk_ratio.get());
        let entry = self.entry(view, index)?;
        if entry & 7 != 6 {
            return Err(Error::corrupt("a VHDX block has no sector bitmap")
                .at(self.offset.saturating_add(index.saturating_mul(8))));
        }
        // One bitmap block, 1 MiB, is shared evenly by the blocks of the chunk.
        let share = MIB / self.chunk_ratio;
        let within = (block % self.chunk_ratio).saturating_mul(share);
        Ok(((entry >> 20) << 20).saturating_add(within))
    }

    /// Sets the entry of payload block `block`, in memory.
    pub(crate) fn set<S: Storage>(&mut self, view: &View<S>, block: u64, entry: u64) -> Result<()> {
        let index = self.index(block);
        let number = index / ENTRIES_PER_PAGE;
        if !self.dirty.contains_key(&number) {
            let page = self.read_page(view, number)?;
            self.dirty.insert(number, page);
            self.kept
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&number);
        }
        let within = narrow(index % ENTRIES_PER_PAGE)?;
        if let Some(page) = self.dirty.get_mut(&number) {
            let (entries, _) = page.as_chunks_mut::<8>();
            if let Some(place) = entries.get_mut(within) {
                *place = entry.to_le_bytes();
            }
        }
        Ok(())
    }

    /// Looks at every entry: blocks lie within the file, and overlap neither
    /// each other nor the `reserved` parts. Free room is looked for on request.
    pub(crate) fn survey<S: Storage>(
        &self,
        view: &View<S>,
        reserved: &[Range<u64>],
        with_free: bool,
    ) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut taken = Taken::default();
        for range in reserved {
            taken.take(range.clone());
        }
        let mut buffer = vec![0; 1 << 20];
        let mut index = 0_u64;
        while index < self.entries {
            let left = self.entries.saturating_sub(index).saturating_mul(8);
            let length = clamp(buffer.len(), left);
            let Some(chunk) = buffer.get_mut(..length) else {
                break;
            };
            let at = self.offset.saturating_add(index.saturating_mul(8));
            view.read(at, chunk)?;
            let (entries, _) = chunk.as_chunks::<8>();
            for (ahead, entry) in entries.iter().enumerate() {
                let entry = u64::from_le_bytes(*entry);
                if entry == 0 {
                    continue;
                }
                let index = index.saturating_add(wide(ahead));
                self.look(view, entry, self.is_bitmap(index), &mut taken, &mut usage)
                    .map_err(|error| {
                        error.at(self.offset.saturating_add(index.saturating_mul(8)))
                    })?;
            }
            index = index.saturating_add(wide(entries.len()));
        }
        if with_free {
            usage.free = taken.gaps(view.end, self.block_size);
        }
        Ok(usage)
    }

    fn look<S>(
        &self,
        view: &View<S>,
        entry: u64,
        is_bitmap: bool,
        taken: &mut Taken,
        usage: &mut Usage,
    ) -> Result<()> {
        let (offset, length) = match Block::parse(entry)? {
            Block::Present(offset) if is_bitmap => (offset, MIB),
            Block::Partial(_) if is_bitmap || !self.has_parent => {
                return Err(Error::corrupt("a VHDX block is partial where it cannot be"));
            }
            Block::Present(offset) | Block::Partial(offset) => {
                usage.blocks = usage.blocks.saturating_add(1);
                (offset, self.block_size)
            }
            Block::NotPresent | Block::Zero => {
                if let Some(offset) = Block::anchor(entry)
                    && let Some(end) = offset.checked_add(self.block_size)
                    && end <= view.end
                {
                    taken.keep(offset..end);
                }
                return Ok(());
            }
        };
        let end = end_of(offset, length)?;
        if end > view.end {
            return Err(Error::corrupt(
                "the file is cut short: a VHDX block lies past its end",
            ));
        }
        if taken.take(offset..end) {
            Ok(())
        } else {
            Err(Error::corrupt(
                "a VHDX block overlaps another part of the file",
            ))
        }
    }
}

/// Which mebibytes of the file are in use, a bit for each.
#[derive(Default)]
struct Taken {
    used: HashMap<u64, u64>,
    /// What is kept for blocks that are not there; it may overlap the rest.
    kept: HashMap<u64, u64>,
}

impl Taken {
    /// Takes a range of whole mebibytes; false when part of it was taken.
    fn take(&mut self, range: Range<u64>) -> bool {
        Self::mark(&mut self.used, range)
    }

    fn keep(&mut self, range: Range<u64>) {
        Self::mark(&mut self.kept, range);
    }

    fn mark(bits: &mut HashMap<u64, u64>, range: Range<u64>) -> bool {
        let mut free = true;
        for unit in range.start / MIB..range.end / MIB {
            let bit = 1_u64.rotate_left(u32::try_from(unit % 64).unwrap_or(0));
            let word = bits.entry(unit / 64).or_default();
            free &= *word & bit == 0;
            *word |= bit;
        }
        free
    }

    /// What is not in use before `end`, in ranges of at least `length` bytes.
    fn gaps(self, end: u64, length: u64) -> Vec<Range<u64>> {
        let mut all: BTreeMap<u64, u64> = self.used.into_iter().collect();
        for (at, word) in self.kept {
            *all.entry(at).or_default() |= word;
        }
        let mut gaps = Vec::new();
        let mut add = |from: u64, upto: u64| {
            let gap = from.saturating_mul(MIB)..upto.saturating_mul(MIB);
            if gap.end.saturating_sub(gap.start) >= length && gaps.len() < MOST_GAPS {
                gaps.push(gap);
            }
        };
        let mut free_from = 0_u64;
        for (at, word) in all {
            for bit in 0..64_u64 {
                if word & 1_u64.rotate_left(u32::try_from(bit).unwrap_or(0)) == 0 {
                    continue;
                }
                let unit = at.saturating_mul(64).saturating_add(bit);
                add(free_from, unit);
                free_from = unit.saturating_add(1);
            }
        }
        add(free_from, end / MIB);
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_neither_used_nor_kept() {
        let mut taken = Taken::default();
        assert!(taken.take(0..4 * MIB));
        assert!(taken.take(70 * MIB..71 * MIB));
        assert!(!taken.take(3 * MIB..5 * MIB));
        taken.keep(70 * MIB..80 * MIB);
        taken.take(101 * MIB..102 * MIB);
        let gaps = taken.gaps(110 * MIB + 5, 2 * MIB);
        assert_eq!(
            gaps,
            [5 * MIB..70 * MIB, 80 * MIB..101 * MIB, 102 * MIB..110 * MIB]
        );
    }
}
