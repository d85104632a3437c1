//! A file's bytes: data and holes, inline data, links' targets.

use positioned_io::ReadAt;

use super::inode::Inode;
use super::map::Run;
use super::volume::Volume;
use super::xattr::inline_rest;
use crate::error::{Error, ErrorKind, Result};
use crate::format::feature::Incompat;
use crate::num::{index as size, wide};
use crate::types::{BlockNo, FileType};

/// Longest target of a link that Linux can follow (`PATH_MAX`, its terminator not counted).
const TARGET_MAX: u64 = 4095;
/// Targets below this lie in the inode.
const FAST_TARGET: u64 = 60;

/// What a stretch of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// Bytes that are stored.
    Data,
    /// Zeros that are not.
    Hole,
}

/// A stretch of a file. Segments follow each other without gap, and neighbours differ in kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// First byte, in the file.
    pub offset: u64,
    /// Bytes, never 0.
    pub length: u64,
    /// Data or hole.
    pub kind: SegmentKind,
}

/// Appends a stretch that ends at `end`, if it is not empty.
fn extend(segments: &mut Vec<Segment>, end: u64, kind: SegmentKind) {
    let offset = segments
        .last()
        .map_or(0, |last| last.offset.saturating_add(last.length));
    let length = end.saturating_sub(offset);
    match segments.last_mut() {
        _ if length == 0 => {}
        Some(last) if last.kind == kind => last.length = last.length.saturating_add(length),
        _ => segments.push(Segment {
            offset,
            length,
            kind,
        }),
    }
}

impl<R: ReadAt> Volume<R> {
    fn bytes(&self, blocks: u64) -> u64 {
        self.geometry.offset(BlockNo(blocks))
    }

    pub(super) fn segments(&self, inode: &Inode) -> Result<Vec<Segment>> {
        check_type(inode, FileType::File)?;
        inode.check_readable()?;
        let end = inode.size();
        let mut segments = Vec::new();
        if inode.is_inline() {
            let stored = wide(self.inline_data(inode)?.len());
            extend(&mut segments, stored, SegmentKind::Data);
            extend(&mut segments, end, SegmentKind::Hole);
            return Ok(segments);
        }
        for run in self.runs(inode)?.iter() {
            let hole_end = self.bytes(run.logical).min(end);
            extend(&mut segments, hole_end, SegmentKind::Hole);
            let data_end = self.bytes(run.end()).min(end);
            extend(&mut segments, data_end, SegmentKind::Data);
        }
        extend(&mut segments, end, SegmentKind::Hole);
        Ok(segments)
    }

    /// Reads a file's bytes, whatever its type; gives back how many there were.
    pub(super) fn read_file(&self, inode: &Inode, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        inode.check_readable()?;
        let left = size(inode.size().saturating_sub(offset));
        let length = buffer.len().min(left);
        let mut rest = buffer.get_mut(..length).unwrap_or_default();
        if inode.is_inline() {
            let data = self.inline_data(inode)?;
            let from = data.get(size(offset)..).unwrap_or_default();
            rest.fill(0);
            for (to, from) in rest.iter_mut().zip(from) {
                *to = *from;
            }
            return Ok(length);
        }
        let runs = self.runs(inode)?;
        let block = offset >> self.geometry.block_shift;
        let first = runs.partition_point(|run| run.end() <= block);
        let mut at = offset;
        for run in runs.get(first..).unwrap_or_default() {
            if rest.is_empty() {
                break;
            }
            let start = self.bytes(run.logical);
            let hole = start.saturating_sub(at);
            let (zeros, behind) = rest.split_at_mut(rest.len().min(size(hole)));
            zeros.fill(0);
            at = at.saturating_add(wide(zeros.len()));
            let data = self.bytes(run.end()).saturating_sub(at);
            let (bytes, behind) = behind.split_at_mut(behind.len().min(size(data)));
            self.read_run(inode, run, at.saturating_sub(start), bytes)?;
            at = at.saturating_add(wide(bytes.len()));
            rest = behind;
        }
        rest.fill(0);
        Ok(length)
    }

    /// Reads bytes of a run, `skip` bytes from its start.
    pub(super) fn read_run(
        &self,
        inode: &Inode,
        run: &Run,
        skip: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        self.read(self.bytes(run.physical).saturating_add(skip), buffer)
            .map_err(|error| {
                error
                    .at_inode(inode.number())
                    .at_block(BlockNo(run.physical))
            })
    }

    /// The data that lies in an inode: `i_block`, then an attribute's value.
    pub(super) fn inline_data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = inode.i_block.to_vec();
        data.extend_from_slice(inline_rest(inode)?);
        // What a file lacks reads as zeros, as in the kernel.
        if wide(data.len()) < inode.size() && inode.file_type() != FileType::File {
            return Err(inode.corrupt("inline data is shorter than the file"));
        }
        data.truncate(size(inode.size()));
        Ok(data)
    }

    pub(super) fn read_link(&self, inode: &Inode) -> Result<Vec<u8>> {
        check_type(inode, FileType::Symlink)?;
        inode.check_readable()?;
        let length = inode.size();
        if length == 0 || length > TARGET_MAX {
            return Err(inode.corrupt(format!("a link's target of {length} bytes")));
        }
        let target = if !inode.is_inline() && self.is_fast_link(inode) {
            inode
                .i_block
                .get(..size(length))
                .unwrap_or_default()
                .to_vec()
        } else {
            let mut target = vec![0; size(length)];
            self.read_file(inode, 0, &mut target)?;
            target
        };
        if target.contains(&0) {
            return Err(inode.corrupt("a link's target with a zero byte"));
        }
        Ok(target)
    }

    /// Whether a link's target lies in `i_block`. Values of attributes in inodes of their own are
    /// counted in `i_blocks`, so with the feature `ea_inode` the size alone decides.
    fn is_fast_link(&self, inode: &Inode) -> bool {
        if inode.size() >= FAST_TARGET || inode.has_extents() {
            return false;
        }
        let own = if inode.xattr_block == 0 {
            0
        } else {
            u64::from(self.geometry.cluster_size() >> 9)
        };
        self.geometry.incompat.has(Incompat::EA_INODE) || inode.sectors == own
    }
}

/// Refuses an inode of another type than asked for.
pub(super) fn check_type(inode: &Inode, wanted: FileType) -> Result<()> {
    if inode.file_type() == wanted {
        return Ok(());
    }
    let what = match wanted {
        FileType::Directory => "not a directory",
        FileType::Symlink => "not a symbolic link",
        _ => "not a regular file",
    };
    Err(Error::new(ErrorKind::WrongType, what).at_inode(inode.number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_coalesced_and_never_empty() {
        let mut segments = Vec::new();
        extend(&mut segments, 0, SegmentKind::Hole);
        extend(&mut segments, 10, SegmentKind::Data);
        extend(&mut segments, 10, SegmentKind::Hole);
        extend(&mut segments, 15, SegmentKind::Data);
        extend(&mut segments, 20, SegmentKind::Hole);
        let found: Vec<_> = segments
            .iter()
            .map(|s| (s.offset, s.length, s.kind))
            .collect();
        assert_eq!(
            found,
            [(0, 15, SegmentKind::Data), (15, 5, SegmentKind::Hole)]
        );
    }
}
