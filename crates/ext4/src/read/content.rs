//! A file's bytes: data and holes, inline data, links' targets.

use positioned_io::ReadAt;

use super::inode::Inode;
use super::map::{Run, Runs, Window};
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

/// A file's segments, found as they are asked for. The first error is the last item.
#[derive(Debug)]
pub struct Segments<'a, R> {
    volume: &'a Volume<R>,
    /// `None` for what lies in the inode, whole or in part.
    runs: Option<Runs<'a, R>>,
    /// The next data, from its first byte to before another, once it is known whole.
    data: Option<(u64, u64)>,
    /// The first run behind it.
    ahead: Option<(u64, u64)>,
    position: u64,
    end: u64,
}

impl<R: ReadAt> Segments<'_, R> {
    /// The next data, as one while it goes on in the file.
    fn data(&mut self) -> Result<Option<(u64, u64)>> {
        if let Some(data) = self.data.take() {
            return Ok(Some(data));
        }
        let mut data = self.ahead.take();
        while let Some(runs) = &mut self.runs {
            let Some(run) = runs.next_run()? else {
                self.runs = None;
                break;
            };
            let start = self.volume.bytes(run.logical).min(self.end);
            let end = self.volume.bytes(run.end()).min(self.end);
            match &mut data {
                Some((_, known)) if *known == start => *known = end,
                Some(_) => {
                    self.ahead = Some((start, end));
                    break;
                }
                None => data = Some((start, end)),
            }
        }
        Ok(data.filter(|(start, end)| start < end))
    }

    fn step(&mut self) -> Result<Option<Segment>> {
        let offset = self.position;
        if offset >= self.end {
            return Ok(None);
        }
        let (end, kind) = match self.data()? {
            Some((start, end)) if start <= offset => (end, SegmentKind::Data),
            Some((start, end)) => {
                self.data = Some((start, end));
                (start, SegmentKind::Hole)
            }
            None => (self.end, SegmentKind::Hole),
        };
        self.position = end;
        Ok(Some(Segment {
            offset,
            length: end.saturating_sub(offset),
            kind,
        }))
    }
}

impl<R: ReadAt> Iterator for Segments<'_, R> {
    type Item = Result<Segment>;

    fn next(&mut self) -> Option<Result<Segment>> {
        let step = self.step();
        if step.is_err() {
            self.position = self.end;
        }
        step.transpose()
    }
}

impl<R: ReadAt> Volume<R> {
    fn bytes(&self, blocks: u64) -> u64 {
        self.geometry.offset(BlockNo(blocks))
    }

    pub(super) fn segments<'a>(&'a self, inode: &'a Inode) -> Result<Segments<'a, R>> {
        check_type(inode, FileType::File)?;
        inode.check_readable()?;
        let end = inode.size();
        let (runs, inline) = if inode.is_inline() {
            let stored = wide(self.inline_data(inode)?.len());
            (None, Some((0, stored.min(end))))
        } else {
            (Some(self.runs_from(inode, 0)?), None)
        };
        Ok(Segments {
            volume: self,
            runs,
            data: None,
            ahead: inline,
            position: 0,
            end,
        })
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
        let mut at = offset;
        while !rest.is_empty() {
            let window = self.window(inode, at >> self.geometry.block_shift)?;
            let reach = size(self.bytes(window.to).saturating_sub(at));
            let (now, later) = rest.split_at_mut(rest.len().min(reach.max(1)));
            self.read_window(inode, &window, at, now)?;
            at = at.saturating_add(wide(now.len()));
            rest = later;
        }
        Ok(length)
    }

    fn read_window(
        &self,
        inode: &Inode,
        window: &Window,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let block = offset >> self.geometry.block_shift;
        let first = window.runs.partition_point(|run| run.end() <= block);
        let mut rest = buffer;
        let mut at = offset;
        for run in window.runs.get(first..).unwrap_or_default() {
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
        Ok(())
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
