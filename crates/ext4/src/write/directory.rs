//! A directory's form: inside its inode, one linear block while the names fit, a hash tree over
//! sorted leaves after.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use crate::error::{Error, Result};
use crate::format::checksum::Checksum;
use crate::format::directory::{
    DirEntryHeader, DirEntryTail, HEADER_SIZE, TAIL_FILE_TYPE, TAIL_SIZE, file_type,
};
use crate::format::hash::{self, HashVersion, NameHash};
use crate::format::htree::{
    self, DxCountLimit, DxEntry, DxRootInfo, DxTail, ENTRY_SIZE, NODE_ENTRIES_OFFSET,
    ROOT_ENTRIES_OFFSET, ROOT_INFO_LENGTH, ROOT_INFO_OFFSET,
};
use crate::num::{low8, low16, low32, pad4, put, wide};
use crate::types::FileType;

/// The hash that directories are sorted by.
pub(super) const HASH_VERSION: HashVersion = HashVersion::HALF_MD4;

/// A name and what it names.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
    pub(super) file_type: FileType,
}

/// What the blocks of a directory depend on.
pub(super) struct Shape {
    pub(super) block_len: usize,
    /// The directory's own checksum seed.
    pub(super) seed: Checksum,
    pub(super) hash_seed: [u32; 4],
    pub(super) inode: u32,
    pub(super) parent: u32,
}

/// How a directory is laid out, before its blocks are made.
pub(super) struct Plan<'a> {
    entries: Vec<(NameHash, Entry<'a>)>,
    /// The first entry of each leaf; empty for a linear directory.
    leaves: Vec<usize>,
    /// Index blocks of each level below the root, top first.
    levels: Vec<usize>,
}

fn code(file_type: FileType) -> u8 {
    match file_type {
        FileType::File => file_type::REG_FILE,
        FileType::Directory => file_type::DIR,
        FileType::Symlink => file_type::SYMLINK,
        FileType::CharDevice => file_type::CHRDEV,
        FileType::BlockDevice => file_type::BLKDEV,
        FileType::Fifo => file_type::FIFO,
        FileType::Socket => file_type::SOCK,
    }
}

fn entry_len(name: &[u8]) -> usize {
    pad4(HEADER_SIZE.saturating_add(name.len()))
}

/// `.` and `..` with their padding.
const DOTS_LEN: usize = 24;

impl<'a> Plan<'a> {
    pub(super) fn new(shape: &Shape, entries: impl Iterator<Item = Entry<'a>>) -> Result<Self> {
        let mut plan = Plan {
            entries: entries
                .map(|entry| (NameHash { major: 0, minor: 0 }, entry))
                .collect(),
            leaves: Vec::new(),
            levels: Vec::new(),
        };
        let room = shape.block_len.saturating_sub(TAIL_SIZE);
        let total = plan.entries.iter().fold(DOTS_LEN, |sum, (_, entry)| {
            sum.saturating_add(entry_len(entry.name))
        });
        if total <= room {
            return Ok(plan);
        }
        for (place, entry) in &mut plan.entries {
            if let Some(found) = hash::hash(HASH_VERSION, shape.hash_seed, entry.name) {
                *place = found;
            }
        }
        plan.entries
            .sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(y.name)));
        let mut used = usize::MAX;
        for (number, (_, entry)) in plan.entries.iter().enumerate() {
            let length = entry_len(entry.name);
            used = used.saturating_add(length);
            if used > room {
                plan.leaves.push(number);
                used = length;
            }
        }
        let root = limit(shape.block_len, ROOT_ENTRIES_OFFSET);
        let inner = limit(shape.block_len, NODE_ENTRIES_OFFSET).max(1);
        let mut width = plan.leaves.len();
        while width > root {
            width = width.div_ceil(inner);
            plan.levels.insert(0, width);
        }
        if plan.levels.len() >= htree::LEVELS_LARGE_DIR {
            return Err(Error::too_large(
                "a directory with too many entries for a hash tree",
            ));
        }
        Ok(plan)
    }

    /// How many blocks the directory takes.
    pub(super) fn blocks(&self) -> u64 {
        let index: usize = self.levels.iter().sum();
        wide(index.saturating_add(self.leaves.len()).saturating_add(1))
    }

    /// Whether there is a hash tree.
    pub(super) fn is_indexed(&self) -> bool {
        !self.leaves.is_empty()
    }

    /// Whether it takes `INCOMPAT_LARGEDIR` to read it.
    pub(super) fn is_large(&self, block_len: usize) -> bool {
        self.levels.len() >= htree::LEVELS
            || self.blocks().saturating_mul(wide(block_len)) > 0x7FFF_FFFF
    }

    /// Makes the blocks, in order.
    pub(super) fn encode(
        &self,
        shape: &Shape,
        mut emit: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut block = Block::new(shape);
        if !self.is_indexed() {
            block.add(shape.inode, file_type::DIR, b".");
            block.add(shape.parent, file_type::DIR, b"..");
            for (_, entry) in &self.entries {
                block.add(entry.inode, code(entry.file_type), entry.name);
            }
            return emit(block.seal());
        }
        self.index(shape, &mut emit)?;
        for (number, &first) in self.leaves.iter().enumerate() {
            let end = self.leaves.get(number.saturating_add(1)).copied();
            let entries = self.entries.get(first..end.unwrap_or(self.entries.len()));
            for (_, entry) in entries.unwrap_or_default() {
                block.add(entry.inode, code(entry.file_type), entry.name);
            }
            emit(block.seal())?;
            block.clear();
        }
        Ok(())
    }

    fn major(&self, entry: usize) -> u32 {
        self.entries.get(entry).map_or(0, |(place, _)| place.major)
    }

    /// The hash that a leaf's index entry has: bit 0 tells that the leaf before ends with it too.
    fn leaf_hash(&self, leaf: usize) -> u32 {
        let Some(&first) = self.leaves.get(leaf) else {
            return 0;
        };
        let hash = self.major(first);
        let continued = first > 0 && self.major(first.saturating_sub(1)) == hash;
        hash | u32::from(continued)
    }

    /// The root and the inner nodes.
    fn index(&self, shape: &Shape, emit: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let inner = limit(shape.block_len, NODE_ENTRIES_OFFSET).max(1);
        // Leaves that one entry of each level covers, the root's first.
        let mut covers: Vec<usize> = vec![1];
        for _ in &self.levels {
            let above = covers.first().copied().unwrap_or(1);
            covers.insert(0, above.saturating_mul(inner));
        }
        let mut child = 1usize;
        for (level, &cover) in covers.iter().enumerate() {
            let nodes = match level.checked_sub(1) {
                None => 1,
                Some(above) => self.levels.get(above).copied().unwrap_or(0),
            };
            let children = self.levels.get(level).copied().unwrap_or(self.leaves.len());
            let each = if level == 0 { children } else { inner };
            for node in 0..nodes {
                let first = node.saturating_mul(each);
                let count = children.saturating_sub(first).min(each);
                let entries = (0..count).map(|step| {
                    let number = first.saturating_add(step);
                    DxEntry {
                        hash: U32::new(self.leaf_hash(number.saturating_mul(cover))),
                        block: U32::new(low32(wide(child.saturating_add(number)))),
                    }
                });
                let bytes = if level == 0 {
                    root(shape, self.levels.len(), entries)
                } else {
                    inner_node(shape, entries)
                };
                emit(&bytes)?;
            }
            child = child.saturating_add(children);
        }
        Ok(())
    }
}

/// More entries than any inode has room for.
pub(super) const INLINE_MOST: usize = 16;
/// Bytes of a directory in `i_block`: the parent's number, then entries.
const INLINE_HEAD: usize = 60;
const INLINE_PARENT: usize = 4;

/// A directory inside its inode: what lies in `i_block`, and behind that the value of `system.data`.
/// `None` when the names are too many for any inode.
///
/// It has neither `.` nor `..`; the entries of each of the two parts fill that part.
pub(super) fn inline(parent: u32, entries: &[Entry<'_>], most: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; INLINE_HEAD];
    put(&mut bytes, 0, &parent.to_le_bytes());
    let room = INLINE_HEAD.saturating_sub(INLINE_PARENT);
    let mut used = 0usize;
    let fits = |entry: &&Entry<'_>| {
        used = used.saturating_add(entry_len(entry.name));
        used <= room
    };
    let count = entries.iter().take_while(fits).count();
    let (head, tail) = entries.split_at_checked(count)?;
    fill_part(bytes.get_mut(INLINE_PARENT..)?, head);
    let length = tail
        .iter()
        .try_fold(0usize, |sum, entry| sum.checked_add(entry_len(entry.name)))?;
    if length > most {
        return None;
    }
    bytes.resize(INLINE_HEAD.saturating_add(length), 0);
    fill_part(bytes.get_mut(INLINE_HEAD..)?, tail);
    Some(bytes)
}

/// Writes entries, the last stretched to the part's end; without any, one that names nothing.
fn fill_part(part: &mut [u8], entries: &[Entry<'_>]) {
    let end = part.len();
    if end > 0 && entries.is_empty() {
        put(part, 0, header(0, end, 0, file_type::UNKNOWN).as_bytes());
    }
    let mut at = 0usize;
    for (number, entry) in (1..).zip(entries) {
        let length = if number == entries.len() {
            end.saturating_sub(at)
        } else {
            entry_len(entry.name)
        };
        let code = code(entry.file_type);
        let head = header(entry.inode, length, entry.name.len(), code);
        put(part, at, head.as_bytes());
        put(part, at.saturating_add(HEADER_SIZE), entry.name);
        at = at.saturating_add(length);
    }
}

/// Entries that an index block has room for.
fn limit(block_len: usize, offset: usize) -> usize {
    block_len
        .saturating_sub(offset)
        .saturating_sub(htree::TAIL_SIZE)
        / ENTRY_SIZE
}

fn root(shape: &Shape, levels: usize, entries: impl Iterator<Item = DxEntry>) -> Vec<u8> {
    let mut bytes = vec![0; shape.block_len];
    let rest = shape.block_len.saturating_sub(12);
    put(
        &mut bytes,
        0,
        header(shape.inode, 12, 1, file_type::DIR).as_bytes(),
    );
    put(&mut bytes, 8, b".");
    put(
        &mut bytes,
        12,
        header(shape.parent, rest, 2, file_type::DIR).as_bytes(),
    );
    put(&mut bytes, 20, b"..");
    let info = DxRootInfo {
        reserved_zero: U32::ZERO,
        hash_version: HASH_VERSION.0,
        info_length: ROOT_INFO_LENGTH,
        indirect_levels: low8(levels),
        unused_flags: 0,
    };
    put(&mut bytes, ROOT_INFO_OFFSET, info.as_bytes());
    index_entries(shape, &mut bytes, ROOT_ENTRIES_OFFSET, entries);
    bytes
}

fn inner_node(shape: &Shape, entries: impl Iterator<Item = DxEntry>) -> Vec<u8> {
    let mut bytes = vec![0; shape.block_len];
    put(
        &mut bytes,
        0,
        header(0, shape.block_len, 0, file_type::UNKNOWN).as_bytes(),
    );
    index_entries(shape, &mut bytes, NODE_ENTRIES_OFFSET, entries);
    bytes
}

fn index_entries(
    shape: &Shape,
    bytes: &mut [u8],
    offset: usize,
    entries: impl Iterator<Item = DxEntry>,
) {
    let limit = limit(shape.block_len, offset);
    let mut end = offset;
    let mut count = 0usize;
    for entry in entries {
        put(bytes, end, entry.as_bytes());
        end = end.saturating_add(ENTRY_SIZE);
        count = count.saturating_add(1);
    }
    let head = DxCountLimit {
        limit: U16::new(low16(low32(wide(limit)))),
        count: U16::new(low16(low32(wide(count)))),
    };
    put(bytes, offset, head.as_bytes());
    let sum = shape
        .seed
        .add(bytes.get(..end).unwrap_or_default())
        .add(&[0; 8]);
    let tail = DxTail {
        dt_reserved: U32::ZERO,
        dt_checksum: U32::new(sum.0),
    };
    let place = limit.saturating_mul(ENTRY_SIZE).saturating_add(offset);
    put(bytes, place, tail.as_bytes());
}

fn header(inode: u32, rec_len: usize, name_len: usize, file_type: u8) -> DirEntryHeader {
    DirEntryHeader {
        inode: U32::new(inode),
        rec_len: U16::new(low16(low32(wide(rec_len)))),
        name_len: low8(name_len),
        file_type,
    }
}

/// A linear block being filled.
struct Block {
    bytes: Vec<u8>,
    used: usize,
    last: usize,
    seed: Checksum,
}

impl Block {
    fn new(shape: &Shape) -> Self {
        Self {
            bytes: vec![0; shape.block_len],
            used: 0,
            last: 0,
            seed: shape.seed,
        }
    }

    fn clear(&mut self) {
        self.bytes.fill(0);
        self.used = 0;
        self.last = 0;
    }

    fn add(&mut self, inode: u32, file_type: u8, name: &[u8]) {
        let length = entry_len(name);
        let head = header(inode, length, name.len(), file_type);
        put(&mut self.bytes, self.used, head.as_bytes());
        put(&mut self.bytes, self.used.saturating_add(HEADER_SIZE), name);
        self.last = self.used;
        self.used = self.used.saturating_add(length);
    }

    /// Stretches the last entry to the tail and writes that.
    fn seal(&mut self) -> &[u8] {
        let end = self.bytes.len().saturating_sub(TAIL_SIZE);
        let stretched = U16::new(low16(low32(wide(end.saturating_sub(self.last)))));
        put(
            &mut self.bytes,
            self.last.saturating_add(4),
            stretched.as_bytes(),
        );
        let sum = self.seed.add(self.bytes.get(..end).unwrap_or_default());
        let tail = DirEntryTail {
            det_reserved_zero1: U32::ZERO,
            det_rec_len: U16::new(12),
            det_reserved_zero2: 0,
            det_reserved_ft: TAIL_FILE_TYPE,
            det_checksum: U32::new(sum.0),
        };
        put(&mut self.bytes, end, tail.as_bytes());
        &self.bytes
    }
}
