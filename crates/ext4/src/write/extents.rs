//! Which blocks hold a file's data, and the tree that tells so on disk.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::allocate::Span;
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::extent::{
    Extent, ExtentHeader, ExtentIdx, INIT_MAX_LEN, MAGIC, MAX_DEPTH, RECORD_SIZE,
};
use crate::num::{high32, low16, low32, put, wide};

/// A run of a file's blocks that lies in a row, no longer than an extent can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    logical: u32,
    count: u32,
    physical: u64,
}

impl Run {
    fn record(self) -> Record {
        let extent = Extent {
            ee_block: U32::new(self.logical),
            ee_len: U16::new(low16(self.count)),
            ee_start_hi: U16::new(low16(high32(self.physical))),
            ee_start_lo: U32::new(low32(self.physical)),
        };
        zerocopy::transmute!(extent)
    }

    fn span(self) -> Span {
        Span {
            start: self.physical,
            count: u64::from(self.count),
        }
    }
}

/// An entry of a tree's node, as on disk.
type Record = [u8; RECORD_SIZE];

/// A file's runs, ascending. Most files have one, which needs no memory of its own.
#[derive(Clone, Debug, Default)]
pub(super) enum Extents {
    #[default]
    None,
    One(Run),
    Many(Vec<Run>),
    /// A tree that was written already.
    Tree(Box<Tree>),
}

/// What is kept of a tree whose blocks are on disk.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) i_block: [u8; 60],
    /// What the checksums of its blocks begin with.
    pub(super) seed: Checksum,
    /// Blocks of data and of the tree, in the order they were taken.
    spans: Vec<Span>,
}

impl Extents {
    /// Adds blocks behind all others, joined to the last run where they continue it.
    pub(super) fn push(&mut self, logical: u32, span: Span) {
        let longest = u32::from(INIT_MAX_LEN);
        let (mut logical, mut span) = (logical, span);
        while span.count > 0 {
            let joined = self.last_mut().filter(|last| {
                last.count < longest
                    && last.logical.checked_add(last.count) == Some(logical)
                    && last.span().end() == span.start
            });
            let taken = match joined {
                Some(last) => {
                    let taken = low32(span.count).min(longest.saturating_sub(last.count));
                    last.count = last.count.saturating_add(taken);
                    taken
                }
                None => {
                    let count = low32(span.count.min(u64::from(longest)));
                    self.add(Run {
                        logical,
                        count,
                        physical: span.start,
                    });
                    count
                }
            };
            logical = logical.saturating_add(taken);
            span.start = span.start.saturating_add(u64::from(taken));
            span.count = span.count.saturating_sub(u64::from(taken));
        }
    }

    fn last_mut(&mut self) -> Option<&mut Run> {
        match self {
            Self::One(run) => Some(run),
            Self::Many(runs) => runs.last_mut(),
            Self::None | Self::Tree(_) => None,
        }
    }

    fn add(&mut self, run: Run) {
        match self {
            Self::None => *self = Self::One(run),
            Self::One(first) => *self = Self::Many(vec![*first, run]),
            Self::Many(runs) => runs.push(run),
            Self::Tree(_) => debug_assert!(false, "a tree on disk does not grow"),
        }
    }

    fn runs(&self) -> &[Run] {
        match self {
            Self::None | Self::Tree(_) => &[],
            Self::One(run) => std::slice::from_ref(run),
            Self::Many(runs) => runs,
        }
    }

    /// The blocks, run by run; with those of the tree, once it is written.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        let tree: &[Span] = match self {
            Self::Tree(tree) => &tree.spans,
            _ => &[],
        };
        let runs = self.runs().iter().map(|run| run.span());
        runs.chain(tree.iter().copied())
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.spans().map(|span| span.count).sum()
    }

    /// Whether the whole tree lies in the inode.
    pub(super) fn fit_in_inode(&self) -> bool {
        self.runs().len() <= IN_INODE
    }
}

/// `i_block` of a tree that [`Extents::fit_in_inode`], or that is written.
pub(super) fn encode_in_inode(extents: &Extents) -> [u8; 60] {
    if let Extents::Tree(tree) = extents {
        return tree.i_block;
    }
    let runs = extents.runs().iter().take(IN_INODE);
    let entries: Vec<Record> = runs.map(|run| run.record()).collect();
    let mut i_block = [0; 60];
    node(&mut i_block, 0, IN_INODE, &entries);
    i_block
}

/// What of a tree lies in the inode, and what it took besides.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) i_block: [u8; 60],
    /// Blocks of the tree itself.
    pub(super) blocks: u64,
}

/// Entries that fit beside the header in an inode.
const IN_INODE: usize = 4;

fn node(buffer: &mut [u8], depth: u16, max: usize, entries: &[Record]) {
    let header = ExtentHeader {
        eh_magic: U16::new(MAGIC),
        eh_entries: U16::new(low16(low32(wide(entries.len())))),
        eh_max: U16::new(low16(low32(wide(max)))),
        eh_depth: U16::new(depth),
        eh_generation: U32::ZERO,
    };
    put(buffer, 0, header.as_bytes());
    put(buffer, RECORD_SIZE, entries.as_flattened());
}

/// A tree that grows from the left: of each level, what waits for its node to be full.
#[derive(Debug)]
struct Builder {
    levels: Vec<Vec<Record>>,
    block_len: usize,
    seed: Checksum,
}

impl Builder {
    fn new(block_len: usize, seed: Checksum) -> Self {
        Self {
            levels: vec![Vec::new()],
            block_len,
            seed,
        }
    }

    /// Adds an entry behind all others of its level. `place` gets each block that is full and tells
    /// where it put it.
    fn add(
        &mut self,
        level: usize,
        record: Record,
        place: &mut impl FnMut(&[u8]) -> Result<u64>,
    ) -> Result<()> {
        if level >= self.levels.len() {
            self.levels.push(Vec::new());
        }
        let max = node_max(self.block_len);
        if self
            .levels
            .get(level)
            .is_some_and(|level| level.len() >= max)
        {
            self.emit(level, place)?;
        }
        if let Some(level) = self.levels.get_mut(level) {
            level.push(record);
        }
        Ok(())
    }

    /// Puts what waits on a level into a block.
    fn emit(&mut self, level: usize, place: &mut impl FnMut(&[u8]) -> Result<u64>) -> Result<()> {
        let max = node_max(self.block_len);
        let entries = self.levels.get_mut(level).map(std::mem::take);
        let entries = entries.unwrap_or_default();
        let Some(&[a, b, c, d, ..]) = entries.first() else {
            return Ok(());
        };
        let mut buffer = vec![0; self.block_len];
        node(&mut buffer, low16(low32(wide(level))), max, &entries);
        let covered = RECORD_SIZE.saturating_mul(max.saturating_add(1));
        let sum = self.seed.add(buffer.get(..covered).unwrap_or_default());
        put(&mut buffer, covered, &sum.0.to_le_bytes());
        let block = place(&buffer)?;
        let entry = ExtentIdx {
            ei_block: U32::from_bytes([a, b, c, d]),
            ei_leaf_lo: U32::new(low32(block)),
            ei_leaf_hi: U16::new(low16(high32(block))),
            ei_unused: U16::ZERO,
        };
        self.add(level.saturating_add(1), zerocopy::transmute!(entry), place)
    }

    /// Ends the tree: every level goes out until what is left fits in the inode.
    fn finish(mut self, place: &mut impl FnMut(&[u8]) -> Result<u64>) -> Result<[u8; 60]> {
        let mut depth = 0usize;
        loop {
            let top = depth.saturating_add(1) >= self.levels.len();
            let entries = self.levels.get(depth).map(Vec::as_slice);
            let entries = entries.unwrap_or_default();
            if top && entries.len() <= IN_INODE {
                if depth > usize::from(MAX_DEPTH) {
                    return Err(Error::too_large(
                        "a file in too many pieces for an extent tree",
                    ));
                }
                let mut i_block = [0; 60];
                node(&mut i_block, low16(low32(wide(depth))), IN_INODE, entries);
                return Ok(i_block);
            }
            self.emit(depth, place)?;
            depth = depth.saturating_add(1);
        }
    }
}

/// Entries of a node in a block of its own.
fn node_max(block_len: usize) -> usize {
    let room = block_len.saturating_sub(RECORD_SIZE);
    room.checked_div(RECORD_SIZE).unwrap_or(0).max(1)
}

/// Lays a tree out whose inode is known: `seed` is the inode's checksum seed.
pub(super) fn encode(
    extents: &Extents,
    block_len: usize,
    seed: Checksum,
    mut place: impl FnMut(&[u8]) -> Result<u64>,
) -> Result<Root> {
    let mut blocks = 0u64;
    let mut place = |bytes: &[u8]| {
        blocks = blocks.saturating_add(1);
        place(bytes)
    };
    let mut builder = Builder::new(block_len, seed);
    for run in extents.runs() {
        builder.add(0, run.record(), &mut place)?;
    }
    let i_block = builder.finish(&mut place)?;
    Ok(Root { i_block, blocks })
}

/// The blocks of a file that is being written: of one in many pieces, all but the last are on disk.
#[derive(Debug, Default)]
pub(super) struct Growing {
    pending: Extents,
    tree: Option<Box<Begun>>,
}

/// A tree of which a part is on disk.
#[derive(Debug)]
struct Begun {
    builder: Builder,
    spans: Vec<Span>,
}

impl Begun {
    fn new(block_len: usize, seed: Checksum) -> Self {
        Self {
            builder: Builder::new(block_len, seed),
            spans: Vec::new(),
        }
    }

    fn take(&mut self, run: Run, place: &mut impl FnMut(&[u8]) -> Result<u64>) -> Result<()> {
        let Self { builder, spans } = self;
        add_span(spans, run.span());
        builder.add(0, run.record(), &mut |bytes| placed(spans, bytes, place))
    }
}

fn placed(
    spans: &mut Vec<Span>,
    bytes: &[u8],
    place: &mut impl FnMut(&[u8]) -> Result<u64>,
) -> Result<u64> {
    let start = place(bytes)?;
    add_span(spans, Span { start, count: 1 });
    Ok(start)
}

fn add_span(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut().filter(|last| last.end() == span.start) {
        Some(last) => last.count = last.count.saturating_add(span.count),
        None => spans.push(span),
    }
}

impl Growing {
    /// Adds blocks behind all others. [`Growing::settle`] is to follow where it
    /// [is due](Growing::is_long).
    pub(super) fn push(&mut self, logical: u32, span: Span) {
        self.pending.push(logical, span);
    }

    /// Whether more runs are in memory than a block of the tree holds.
    pub(super) fn is_long(&self, block_len: usize) -> bool {
        self.pending.runs().len() > node_max(block_len)
    }

    /// Moves all runs but the last, which may go on, into the tree. `seed` must be the same for all
    /// of a file; `place` gets each block that is full and tells where it put it.
    pub(super) fn settle(
        &mut self,
        block_len: usize,
        seed: Checksum,
        mut place: impl FnMut(&[u8]) -> Result<u64>,
    ) -> Result<()> {
        let Extents::Many(runs) = &mut self.pending else {
            return Ok(());
        };
        let mut runs = std::mem::take(runs);
        self.pending = Extents::None;
        if let Some(last) = runs.pop() {
            self.pending = Extents::One(last);
        }
        let begun = || Box::new(Begun::new(block_len, seed));
        let tree = self.tree.get_or_insert_with(begun);
        let mut runs = runs.into_iter();
        let done = runs.by_ref().try_for_each(|run| tree.take(run, &mut place));
        // What is not in the tree is still the file's, to be given back.
        runs.for_each(|run| add_span(&mut tree.spans, run.span()));
        done
    }

    /// Ends the file's map: it is in memory if the inode holds it whole, else on disk.
    pub(super) fn finish(
        &mut self,
        block_len: usize,
        seed: Checksum,
        mut place: impl FnMut(&[u8]) -> Result<u64>,
    ) -> Result<Extents> {
        if self.tree.is_none() && self.pending.fit_in_inode() {
            if let Extents::Many(runs) = &mut self.pending {
                runs.shrink_to_fit();
            }
            return Ok(std::mem::take(&mut self.pending));
        }
        self.settle(block_len, seed, &mut place)?;
        let tree = self.tree.as_mut();
        if let (Some(tree), Extents::One(run)) = (tree, &self.pending) {
            let run = *run;
            self.pending = Extents::None;
            tree.take(run, &mut place)?;
        }
        let Some(tree) = self.tree.as_mut() else {
            return Ok(Extents::None);
        };
        let builder = std::mem::replace(&mut tree.builder, Builder::new(block_len, seed));
        let spans = &mut tree.spans;
        let i_block = builder.finish(&mut |bytes| placed(spans, bytes, &mut place))?;
        let mut spans = std::mem::take(spans);
        spans.shrink_to_fit();
        self.tree = None;
        Ok(Extents::Tree(Box::new(Tree {
            i_block,
            seed,
            spans,
        })))
    }

    /// All blocks taken so far.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        let tree = self.tree.iter().flat_map(|tree| tree.spans.iter().copied());
        tree.chain(self.pending.spans())
    }
}

/// The longest file in bytes: block numbers inside it have 32 bits, of which the last is not used.
pub(super) fn max_file_size(block_size: u32) -> u64 {
    u64::from(u32::MAX).saturating_mul(u64::from(block_size))
}

/// The block of a file that a byte is in. The caller keeps within [`max_file_size`].
pub(super) fn logical_block(position: u64, block_size: u32) -> u32 {
    low32(position.checked_div(u64::from(block_size)).unwrap_or(0))
}
