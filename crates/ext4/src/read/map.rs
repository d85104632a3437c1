//! Where a file's bytes lie: runs of blocks, from an extent tree or a block map.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use positioned_io::ReadAt;
use zerocopy::FromBytes;

use super::inode::Inode;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::format::extent::{
    Extent, ExtentHeader, ExtentIdx, INIT_MAX_LEN, MAGIC, MAX_DEPTH, RECORD_SIZE,
};
use crate::num::{index as size, wide};
use crate::types::BlockNo;

/// Blocks that a block map names directly.
const DIRECT: u64 = 12;

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

/// A block of the map that is being walked.
#[derive(Debug)]
enum Frame {
    /// A node of an extent tree: its next entry must not begin before `start`, and none end
    /// behind `end`.
    Extents {
        node: Arc<[u8]>,
        block: Option<BlockNo>,
        level: u16,
        entries: usize,
        next: usize,
        start: u64,
        end: u64,
    },
    /// Pointers of a block map, each through `level` levels to `covered` blocks of the file.
    Pointers {
        node: Arc<[u8]>,
        level: u32,
        covered: u64,
        next: usize,
        logical: u64,
    },
}

/// What is to be done after a look at the innermost block.
enum Step {
    Up,
    Down(u64),
    Found(Run),
    Skip,
}

/// Finds a file's runs one after the other, up to its end; of the map only the way to the next run is
/// in memory.
#[derive(Debug)]
pub(super) struct Walk<'a, R> {
    volume: &'a Volume<R>,
    inode: &'a Inode,
    /// Runs that end before this block of the file are passed over.
    from: u64,
    /// Blocks of the file up to its size; what is mapped behind it is not part of it.
    limit: u64,
    frames: Vec<Frame>,
    /// Blocks of the map itself: one that occurs twice would let a small image hold a huge map.
    seen: HashSet<u64>,
    /// The run that was found last: the next may continue it.
    last: Option<Run>,
}

impl<'a, R: ReadAt> Walk<'a, R> {
    fn new(volume: &'a Volume<R>, inode: &'a Inode, from: u64) -> Result<Self> {
        inode.check_readable()?;
        let mut walk = Self {
            volume,
            inode,
            from,
            limit: inode.size().div_ceil(u64::from(volume.geometry.block_size)),
            frames: Vec::new(),
            seen: HashSet::new(),
            last: None,
        };
        let root: Arc<[u8]> = Arc::from(inode.i_block);
        if inode.has_extents() {
            walk.enter_extents(root, None, None, 0, 1 << 32)?;
        } else {
            debug_assert!(pointers(&root).count() == size(DIRECT).saturating_add(3));
            walk.frames.push(Frame::Pointers {
                node: root,
                level: 0,
                covered: 1,
                next: 0,
                logical: 0,
            });
        }
        Ok(walk)
    }

    /// The next run, joined with those that continue it.
    pub(super) fn next_run(&mut self) -> Result<Option<Run>> {
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
            let Some(frame) = self.frames.last_mut() else {
                return Ok(None);
            };
            let step = match frame {
                Frame::Extents { level: 0, .. } => extent(self.volume, self.inode, frame)?,
                Frame::Extents { .. } => index_entry(self.inode, frame, self.from)?,
                Frame::Pointers { .. } => {
                    pointer(self.volume, self.inode, frame, self.from, self.limit)?
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
        match self.frames.last() {
            Some(&Frame::Extents {
                ref node,
                level,
                entries,
                next,
                start,
                end,
                ..
            }) => {
                let first = index_first(node, next.saturating_sub(1)).unwrap_or(start);
                let last = if next < entries { start } else { end };
                let node = self.node(block, "an extent block")?;
                let below = level.checked_sub(1);
                self.enter_extents(node, Some(BlockNo(block)), below, first, last)
            }
            Some(&Frame::Pointers {
                level,
                covered,
                logical,
                ..
            }) => {
                let node = self.node(block, "an indirect block")?;
                let per_block = u64::from(self.volume.geometry.block_size >> 2);
                self.frames.push(Frame::Pointers {
                    node,
                    level: level.saturating_sub(1),
                    covered: covered.checked_div(per_block).unwrap_or(1),
                    next: 0,
                    logical: logical.saturating_sub(covered),
                });
                Ok(())
            }
            None => Ok(()),
        }
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

    /// A node of an extent tree that must cover file blocks from `start` to before `end`.
    fn enter_extents(
        &mut self,
        node: Arc<[u8]>,
        block: Option<BlockNo>,
        depth: Option<u16>,
        start: u64,
        end: u64,
    ) -> Result<()> {
        let inode = self.inode;
        let bad = |what: &str| bad_tree(inode, block, what);
        let (header, records) =
            ExtentHeader::read_from_prefix(&node).map_err(|_| bad("a node is cut off"))?;
        if header.eh_magic.get() != MAGIC {
            return Err(bad("bad magic number"));
        }
        let level = header.eh_depth.get();
        if depth.is_some_and(|depth| depth != level) || level > MAX_DEPTH {
            return Err(bad("bad depth"));
        }
        let most = size(header.eh_max.get());
        let entries = size(header.eh_entries.get());
        let room = records.len().checked_div(RECORD_SIZE).unwrap_or(0);
        if entries > most || most > room || most == 0 {
            return Err(bad("bad number of entries"));
        }
        if block.is_some() && self.volume.geometry.has_checksums() {
            let tail = most.saturating_add(1).saturating_mul(RECORD_SIZE);
            let (covered, rest) = node.split_at_checked(tail).unwrap_or((&node, &[]));
            let stored = rest
                .first_chunk::<4>()
                .map(|stored| u32::from_le_bytes(*stored));
            let seed = self.volume.seed(inode);
            if stored != Some(seed.add(covered).0) {
                return Err(bad("bad checksum"));
            }
        }
        if level > 0 && entries == 0 {
            return Err(bad("an index without entries"));
        }
        self.frames.push(Frame::Extents {
            node,
            block,
            level,
            entries,
            next: 0,
            start,
            end,
        });
        Ok(())
    }
}

fn bad_tree(inode: &Inode, block: Option<BlockNo>, what: &str) -> Error {
    let error = inode.corrupt(format!("extent tree: {what}"));
    match block {
        Some(block) => error.at_block(block),
        None => error,
    }
}

/// An entry of a node, whatever it is.
fn record(node: &[u8], number: usize) -> Option<&[u8]> {
    let at = number.saturating_add(1).saturating_mul(RECORD_SIZE);
    node.get(at..at.saturating_add(RECORD_SIZE))
}

/// The first block of the file that an index's entry covers.
fn index_first(node: &[u8], number: usize) -> Option<u64> {
    let index = ExtentIdx::read_from_bytes(record(node, number)?).ok()?;
    Some(u64::from(index.ei_block.get()))
}

/// Takes the next extent of a leaf.
fn extent<R: ReadAt>(volume: &Volume<R>, inode: &Inode, frame: &mut Frame) -> Result<Step> {
    let Frame::Extents {
        node,
        block,
        entries,
        next,
        start,
        end,
        ..
    } = frame
    else {
        return Ok(Step::Up);
    };
    if next >= entries {
        return Ok(Step::Up);
    }
    let bad = |what: &str| bad_tree(inode, *block, what);
    let extent = record(node, *next)
        .and_then(|record| Extent::read_from_bytes(record).ok())
        .ok_or_else(|| bad("an extent is cut off"))?;
    let logical = u64::from(extent.ee_block.get());
    let length = extent.ee_len.get();
    let (blocks, written) = match length.checked_sub(INIT_MAX_LEN) {
        Some(unwritten) if unwritten > 0 => (unwritten, false),
        _ => (length, true),
    };
    let behind = logical.saturating_add(u64::from(blocks));
    if blocks == 0 || logical < *start || behind > *end {
        return Err(bad(&format!(
            "the extent of block {logical} is out of order"
        )));
    }
    let physical =
        u64::from(extent.ee_start_lo.get()) | (u64::from(extent.ee_start_hi.get()) << 32);
    volume
        .geometry
        .check_blocks(physical, u64::from(blocks), "an extent")
        .map_err(|_| {
            bad(&format!(
                "the extent of block {logical} lies outside the volume"
            ))
        })?;
    *start = behind;
    *next = next.saturating_add(1);
    Ok(match written {
        true => Step::Found(Run {
            logical,
            physical,
            blocks: u64::from(blocks),
        }),
        false => Step::Skip,
    })
}

/// Takes the next entry of an index. `start` is behind what it covers then.
fn index_entry(inode: &Inode, frame: &mut Frame, from: u64) -> Result<Step> {
    let Frame::Extents {
        node,
        block,
        entries,
        next,
        start,
        end,
        ..
    } = frame
    else {
        return Ok(Step::Up);
    };
    if next >= entries {
        return Ok(Step::Up);
    }
    let bad = |what: &str| bad_tree(inode, *block, what);
    let index = record(node, *next)
        .and_then(|record| ExtentIdx::read_from_bytes(record).ok())
        .ok_or_else(|| bad("an index entry is cut off"))?;
    *next = next.saturating_add(1);
    let first = u64::from(index.ei_block.get());
    let last = match next < entries {
        true => index_first(node, *next).ok_or_else(|| bad("an index entry is cut off"))?,
        false => *end,
    };
    if first < *start || last <= first || last > *end {
        return Err(bad("index entries are out of order"));
    }
    *start = last;
    let child = u64::from(index.ei_leaf_lo.get()) | (u64::from(index.ei_leaf_hi.get()) << 32);
    Ok(if last <= from {
        Step::Skip
    } else {
        Step::Down(child)
    })
}

/// Takes the next pointer. Those in an ext2 or ext3 inode are 12 to data, then one each through 1 to
/// 3 levels. `logical` is behind what it covers then.
fn pointer<R: ReadAt>(
    volume: &Volume<R>,
    inode: &Inode,
    frame: &mut Frame,
    from: u64,
    limit: u64,
) -> Result<Step> {
    let Frame::Pointers {
        node,
        level,
        covered,
        next,
        logical,
    } = frame
    else {
        return Ok(Step::Up);
    };
    let Some(block) = pointers(node).nth(*next).filter(|_| *logical < limit) else {
        return Ok(Step::Up);
    };
    let is_root = node.len() == inode.i_block.len();
    if is_root && wide(*next) >= DIRECT {
        *level = level.saturating_add(1);
        *covered = covered.saturating_mul(u64::from(volume.geometry.block_size >> 2));
    }
    let first = *logical;
    *next = next.saturating_add(1);
    *logical = logical.saturating_add(*covered);
    if block == 0 || *logical <= from {
        return Ok(Step::Skip);
    }
    if *level > 0 {
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

fn pointers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|pointer| u32::from_le_bytes(*pointer))
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
