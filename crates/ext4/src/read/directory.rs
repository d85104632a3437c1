//! A directory's entries, read block after block; hash trees are directories to whoever reads so.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use positioned_io::ReadAt;
use zerocopy::FromBytes;

use super::content::check_type;
use super::inode::Inode;
use super::map::Run;
use super::names::Edits;
use super::volume::Volume;
use super::xattr::inline_rest;
use crate::error::{Error, Result};
use crate::format::directory::{
    DirEntryHeader, DirEntryTail, HEADER_SIZE, TAIL_FILE_TYPE, TAIL_SIZE,
};
use crate::format::feature::Compat;
use crate::format::htree::{
    DxCountLimit, DxRootInfo, DxTail, ENTRY_SIZE, NODE_ENTRIES_OFFSET, ROOT_ENTRIES_OFFSET,
    ROOT_INFO_LENGTH, ROOT_INFO_OFFSET,
};
use crate::format::inode::{FLAG_INDEX, ROOT_INO};
use crate::num::{index as size, wide};
use crate::types::{BlockNo, FileType, InodeNo};

/// Bytes that are read at once.
const READ_AT_ONCE: usize = 256 << 10;
/// Most bytes of one directory's names that are kept in memory.
const NAMES_MAX: usize = 1 << 30;
/// Bytes of the shortest entry: a name of one byte.
const ENTRY_MIN: usize = 12;
/// Bytes of the parent's number that inline directories begin with.
const INLINE_PARENT_SIZE: usize = 4;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirEntry {
    /// The name as stored: 1 to 255 bytes without `/` and zero bytes, neither `.` nor `..`.
    pub name: Vec<u8>,
    /// What it names.
    pub inode: InodeNo,
}

/// Entries of one block, or of one stretch of an inline directory.
struct Parser<'a> {
    block_size: usize,
    inodes: u32,
    first_inode: u32,
    entries: &'a mut VecDeque<DirEntry>,
}

/// `ext4_rec_len_from_disk`: 64 KiB does not fit in 16 bits.
fn record_length(raw: u16, block_size: usize) -> usize {
    let length = usize::from(raw);
    if block_size < 65536 {
        length
    } else if length == 65535 || length == 0 {
        block_size
    } else {
        (length & 65532) | ((length & 3) << 16)
    }
}

impl Parser<'_> {
    fn parse(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (header, behind) = DirEntryHeader::read_from_prefix(rest)
                .map_err(|_| "an entry is cut off".to_owned())?;
            let length = record_length(header.rec_len.get(), self.block_size);
            let name_size = usize::from(header.name_len);
            if length < ENTRY_MIN
                || length & 3 != 0
                || length < name_size.saturating_add(HEADER_SIZE)
                || length > rest.len()
            {
                return Err(format!(
                    "an entry of {length} bytes with a name of {name_size}"
                ));
            }
            let inode = header.inode.get();
            if inode != 0 {
                self.entry(inode, behind.get(..name_size).unwrap_or_default())?;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn entry(&mut self, inode: u32, name: &[u8]) -> Result<(), String> {
        if name == b"." || name == b".." {
            return Ok(());
        }
        if name.is_empty() || name.iter().any(|&c| c == b'/' || c == 0) {
            let name = String::from_utf8_lossy(name);
            return Err(format!("the name {name:?}"));
        }
        if inode > self.inodes || (inode < self.first_inode && inode != ROOT_INO) {
            let name = String::from_utf8_lossy(name);
            return Err(format!("{name:?} names inode {inode}"));
        }
        self.entries.push_back(DirEntry {
            name: name.to_vec(),
            inode: InodeNo(inode),
        });
        Ok(())
    }
}

/// Where the entries of an index block begin; `None` for a block of names.
fn index_offset(block: &[u8], logical: u64) -> Option<usize> {
    let (first, _) = DirEntryHeader::read_from_prefix(block).ok()?;
    let length = record_length(first.rec_len.get(), block.len());
    if length == block.len() && first.inode.get() == 0 {
        return Some(NODE_ENTRIES_OFFSET);
    }
    (logical == 0).then_some(ROOT_ENTRIES_OFFSET)
}

/// A directory's entries in the order on disk, read as they are asked for: see
/// [`Reader::entries`](crate::Reader::entries). An error is the last item.
pub struct Entries<'a, R> {
    volume: &'a Volume<R>,
    inode: &'a Inode,
    /// Entries that were read and not yet given out.
    ahead: VecDeque<DirEntry>,
    edits: Option<Edits<'a>>,
    stage: Stage,
}

/// How far a directory has been read.
enum Stage {
    Inline,
    /// The next run, and the bytes of it that have been read.
    Blocks {
        runs: Arc<[Run]>,
        index: usize,
        skip: u64,
    },
    /// What fast commits have added.
    Added,
    End,
}

impl<R> fmt::Debug for Entries<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries")
            .field("directory", &self.inode.number())
            .finish_non_exhaustive()
    }
}

impl<R: ReadAt> Iterator for Entries<'_, R> {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ahead.pop_front() {
                return Some(Ok(entry));
            }
            if matches!(self.stage, Stage::End) {
                return None;
            }
            if let Err(error) = self.read_ahead() {
                self.ahead.clear();
                self.stage = Stage::End;
                return Some(Err(error));
            }
        }
    }
}

impl<R: ReadAt> Entries<'_, R> {
    fn bad(&self, what: &str) -> Error {
        self.inode.corrupt(format!("directory: {what}"))
    }

    /// Reads the next stretch.
    fn read_ahead(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Inline => {
                self.read_inline()?;
                self.edit();
                self.stage = Stage::Added;
            }
            Stage::Blocks { runs, index, skip } => {
                self.stage = match runs.get(index) {
                    Some(run) => {
                        let read = self.read_blocks(run, skip)?;
                        self.edit();
                        let skip = skip.saturating_add(read);
                        let is_over = skip >= self.volume.geometry.offset(BlockNo(run.blocks));
                        Stage::Blocks {
                            index: index.saturating_add(usize::from(is_over)),
                            skip: if is_over { 0 } else { skip },
                            runs,
                        }
                    }
                    None => Stage::Added,
                };
            }
            Stage::Added => {
                if let Some(edits) = &mut self.edits {
                    let rest = edits.rest().map_err(|what| {
                        Error::unsupported(format!(
                            "{what}; mount the file system once to replay it"
                        ))
                        .at_inode(self.inode.number())
                    })?;
                    self.ahead.extend(rest);
                }
            }
            Stage::End => {}
        }
        Ok(())
    }

    /// Lays what fast commits have changed over what was read.
    fn edit(&mut self) {
        if let Some(edits) = &mut self.edits {
            let read = std::mem::take(&mut self.ahead);
            self.ahead = read
                .into_iter()
                .filter_map(|entry| edits.entry(entry))
                .collect();
        }
    }

    fn parser(&mut self) -> Parser<'_> {
        let geometry = &self.volume.geometry;
        Parser {
            block_size: size(geometry.block_size),
            inodes: geometry.inodes,
            first_inode: geometry.first_inode,
            entries: &mut self.ahead,
        }
    }

    fn read_inline(&mut self) -> Result<()> {
        let inode = self.inode;
        let first = inode.i_block.get(INLINE_PARENT_SIZE..).unwrap_or_default();
        for part in [first, inline_rest(inode)?] {
            let parsed = self.parser().parse(part);
            parsed.map_err(|what| self.bad(&what))?;
        }
        Ok(())
    }

    /// Reads blocks of a run, `skip` bytes from its start; gives back how many bytes that were.
    fn read_blocks(&mut self, run: &Run, skip: u64) -> Result<u64> {
        let geometry = &self.volume.geometry;
        let block_shift = geometry.block_shift;
        let block_size = size(geometry.block_size);
        let left = geometry.offset(BlockNo(run.blocks)).saturating_sub(skip);
        let mut buffer = vec![0; size(left).min(READ_AT_ONCE)];
        self.volume.read_run(self.inode, run, skip, &mut buffer)?;
        let first = skip >> block_shift;
        for (block, ahead) in buffer.chunks_exact(block_size).zip(first..) {
            let logical = run.logical.saturating_add(ahead);
            let place = BlockNo(run.physical.saturating_add(ahead));
            self.volume
                .check_dir_block(self.inode, block, logical)
                .map_err(|what| self.bad(what).at_block(place))?;
            let parsed = self.parser().parse(block);
            parsed.map_err(|what| self.bad(&what).at_block(place))?;
        }
        Ok(wide(buffer.len()))
    }
}

impl<R: ReadAt> Volume<R> {
    pub(super) fn entries<'a>(&'a self, inode: &'a Inode) -> Result<Entries<'a, R>> {
        check_type(inode, FileType::Directory)?;
        inode.check_readable()?;
        let change = self.changes.directory(inode.number());
        let stage = if change.is_some_and(|change| change.is_fresh) {
            Stage::Added
        } else if inode.is_inline() {
            Stage::Inline
        } else {
            let runs = self.distinct_runs(inode)?;
            let mut next = 0;
            for run in runs.iter() {
                if run.logical != next {
                    return Err(inode.corrupt("directory: a hole"));
                }
                next = run.end();
            }
            if self.geometry.offset(BlockNo(next)) < inode.size() {
                return Err(inode.corrupt("directory: a hole"));
            }
            Stage::Blocks {
                runs,
                index: 0,
                skip: 0,
            }
        };
        Ok(Entries {
            volume: self,
            inode,
            ahead: VecDeque::new(),
            edits: change.map(|change| Edits::new(change, inode.is_casefolded())),
            stage,
        })
    }

    pub(super) fn read_dir(&self, inode: &Inode) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        let mut bytes = 0usize;
        for entry in self.entries(inode)? {
            let entry = entry?;
            bytes = bytes
                .saturating_add(size_of::<DirEntry>())
                .saturating_add(entry.name.len());
            if bytes > NAMES_MAX {
                return Err(
                    Error::too_large("a directory with more than 1 GiB of names")
                        .at_inode(inode.number()),
                );
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Checks the checksum of a block of names or of the index.
    fn check_dir_block(
        &self,
        inode: &Inode,
        block: &[u8],
        logical: u64,
    ) -> Result<(), &'static str> {
        if !self.geometry.has_checksums() {
            return Ok(());
        }
        let seed = self.seed(inode);
        let indexed = inode.has(FLAG_INDEX) && self.geometry.compat.has(Compat::DIR_INDEX);
        if indexed && let Some(entries) = index_offset(block, logical) {
            return check_index(block, entries, seed);
        }
        let (covered, tail) = block.split_at(block.len().saturating_sub(TAIL_SIZE));
        let tail = DirEntryTail::read_from_bytes(tail).map_err(|_| "no checksum")?;
        if tail.det_reserved_zero1.get() != 0
            || usize::from(tail.det_rec_len.get()) != TAIL_SIZE
            || tail.det_reserved_zero2 != 0
            || tail.det_reserved_ft != TAIL_FILE_TYPE
        {
            return Err("no checksum");
        }
        if tail.det_checksum.get() != seed.add(covered).0 {
            return Err("bad checksum");
        }
        Ok(())
    }
}

fn check_index(
    block: &[u8],
    entries: usize,
    seed: crate::format::checksum::Checksum,
) -> Result<(), &'static str> {
    if entries == ROOT_ENTRIES_OFFSET {
        let info = block.get(ROOT_INFO_OFFSET..).unwrap_or_default();
        let (info, _) = DxRootInfo::read_from_prefix(info).map_err(|_| "no index root")?;
        if info.reserved_zero.get() != 0 || info.info_length != ROOT_INFO_LENGTH {
            return Err("bad index root");
        }
    }
    let head = block.get(entries..).unwrap_or_default();
    let (head, _) = DxCountLimit::read_from_prefix(head).map_err(|_| "no index")?;
    let (count, limit) = (size(head.count.get()), size(head.limit.get()));
    let place = |number: usize| entries.saturating_add(number.saturating_mul(ENTRY_SIZE));
    if count > limit {
        return Err("bad number of index entries");
    }
    let tail = block.get(place(limit)..).unwrap_or_default();
    let (tail, _) = DxTail::read_from_prefix(tail).map_err(|_| "no room for a checksum")?;
    let covered = block.get(..place(count)).unwrap_or_default();
    let sum = seed
        .add(covered)
        .add(&tail.dt_reserved.get().to_le_bytes())
        .add(&[0; 4]);
    if tail.dt_checksum.get() != sum.0 {
        return Err("bad checksum of the index");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_64_kib_blocks_are_decoded() {
        assert_eq!(record_length(12, 65536), 12);
        assert_eq!(record_length(65535, 65536), 65536);
        assert_eq!(record_length(0, 65536), 65536);
        assert_eq!(record_length(65532, 65536), 65532);
        assert_eq!(record_length(65532, 4096), 65532);
        assert_eq!(record_length(0, 4096), 0);
    }

    #[test]
    fn hostile_entries_are_refused() {
        let mut entry = vec![12, 0, 0, 0, 12, 0, 1, 1, b'a', 0, 0, 0];
        let parse = |bytes: &[u8]| {
            let mut entries = VecDeque::new();
            Parser {
                block_size: 1024,
                inodes: 20,
                first_inode: 11,
                entries: &mut entries,
            }
            .parse(bytes)
            .map(|()| entries)
        };
        assert_eq!(parse(&entry).unwrap().len(), 1);
        for (at, value) in [
            (0, 21),
            (0, 8),
            (4, 8),
            (4, 13),
            (4, 16),
            (6, 0),
            (6, 5),
            (8, b'/'),
            (8, 0),
        ] {
            let old = std::mem::replace(&mut entry[at], value);
            assert!(parse(&entry).is_err(), "{at} {value}");
            entry[at] = old;
        }
        assert!(parse(&entry[..7]).is_err());
    }
}
