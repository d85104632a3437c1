//! One file's data on its way to the output.

use positioned_io::WriteAt;

use super::Writer;
use super::allocate::Span;
use super::extents::{Growing, logical_block, max_file_size};
use super::tree::{Content, Node, NodeId, Stamp};
use crate::error::{Error, Result};
use crate::num::{index, low32, wide};
use crate::types::Metadata;

/// A file being written. Nothing of it stays in the image unless [`FileWriter::finish`] is called.
#[derive(Debug)]
pub struct FileWriter<'a, W: WriteAt> {
    writer: &'a mut Writer<W>,
    parent: NodeId,
    name: Box<[u8]>,
    metadata: Metadata,
    extents: Growing,
    /// Bytes written and skipped so far. What is past the last whole block waits in
    /// `writer.partial`.
    position: u64,
}

impl<'a, W: WriteAt> FileWriter<'a, W> {
    pub(super) fn new(
        writer: &'a mut Writer<W>,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
    ) -> Self {
        writer.partial.clear();
        Self {
            writer,
            parent,
            name: name.into(),
            metadata,
            extents: Growing::default(),
            position: 0,
        }
    }

    /// How many bytes the file has so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Appends bytes. Blocks of zeros become holes.
    ///
    /// # Errors
    /// `NoSpace` and `Io` from the output, `TooLarge` past what ext4 can hold.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let block_len = self.writer.geometry.block_len();
        let end = self.end(wide(bytes.len()))?;
        let mut rest = bytes;
        if !self.writer.partial.is_empty() {
            let missing = block_len.saturating_sub(self.writer.partial.len());
            let (head, tail) = rest.split_at(missing.min(rest.len()));
            self.writer.partial.extend_from_slice(head);
            rest = tail;
            if self.writer.partial.len() == block_len {
                let block = std::mem::take(&mut self.writer.partial);
                self.position = self.position.saturating_add(wide(head.len()));
                let done = self.blocks(self.position.saturating_sub(wide(block_len)), &block);
                self.writer.partial = block;
                self.writer.partial.clear();
                done?;
            }
        }
        let (whole, tail) = rest.split_at(
            rest.len()
                .saturating_sub(rest.len().checked_rem(block_len).unwrap_or(0)),
        );
        if !whole.is_empty() {
            self.blocks(end.saturating_sub(wide(rest.len())), whole)?;
        }
        self.writer.partial.extend_from_slice(tail);
        self.position = end;
        Ok(())
    }

    /// Appends zeros without writing them: a hole, as far as it covers whole blocks.
    ///
    /// # Errors
    /// As [`FileWriter::write`].
    pub fn skip(&mut self, count: u64) -> Result<()> {
        let block_len = self.writer.geometry.block_len();
        let end = self.end(count)?;
        let waiting = wide(self.writer.partial.len());
        if waiting > 0 {
            let missing = wide(block_len).saturating_sub(waiting);
            let zeros = vec![0; index(missing.min(count))];
            self.write(&zeros)?;
        }
        if self.writer.partial.is_empty() {
            let tail = end.checked_rem(wide(block_len)).unwrap_or(0);
            let whole = end.saturating_sub(tail);
            if self.position < whole || self.position < end {
                self.writer.partial.resize(index(tail), 0);
            }
            self.position = end;
        }
        Ok(())
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// As [`FileWriter::write`], for the last block.
    pub fn finish(mut self) -> Result<NodeId> {
        let size = self.position;
        let waiting = self.writer.partial.len();
        let content = if self.writer.inline_data
            && size > 0
            && size == wide(waiting)
            && waiting <= INLINE_MAX
        {
            Content::Inline(self.writer.partial.as_slice().into())
        } else {
            if waiting > 0 {
                let mut block = std::mem::take(&mut self.writer.partial);
                block.resize(self.writer.geometry.block_len(), 0);
                let done = self.blocks(size.saturating_sub(wide(waiting)), &block);
                self.writer.partial = block;
                done?;
            }
            let seed = self.writer.expected_seed();
            let block_len = self.writer.geometry.block_len();
            let mut place = self.writer.tree_block();
            let extents = self.extents.finish(block_len, seed, &mut place)?;
            Content::File { size, extents }
        };
        let attributes = self.writer.attach(&self.metadata.xattrs)?;
        let node = Node {
            stamp: Stamp::new(&self.metadata),
            attributes,
            content,
            links: 1,
        };
        self.writer.tree.add(self.parent, &self.name, node)
    }

    fn end(&self, more: u64) -> Result<u64> {
        let max = max_file_size(self.writer.geometry.block_size);
        self.position
            .checked_add(more)
            .filter(|&end| end <= max)
            .ok_or_else(|| Error::too_large(format!("a file of more than {max} bytes")))
    }

    /// Puts out whole blocks from a position at a block's start.
    fn blocks(&mut self, position: u64, bytes: &[u8]) -> Result<()> {
        let block_len = self.writer.geometry.block_len();
        let mut position = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let zero = is_zero(rest.get(..block_len).unwrap_or(rest));
            let run = rest
                .chunks(block_len)
                .take_while(|block| is_zero(block) == zero)
                .map(<[u8]>::len)
                .sum();
            let (run, tail) = rest.split_at_checked(run).unwrap_or((rest, &[]));
            if !zero {
                self.data(position, run)?;
            }
            position = position.saturating_add(wide(run.len()));
            rest = tail;
        }
        Ok(())
    }

    fn data(&mut self, position: u64, bytes: &[u8]) -> Result<()> {
        let geometry = self.writer.geometry;
        let mut logical = logical_block(position, geometry.block_size);
        let mut rest = bytes;
        while !rest.is_empty() {
            let want = wide(rest.len()).div_ceil(u64::from(geometry.block_size));
            let span: Span = self.writer.allocator.take(want)?;
            self.extents.push(logical, span);
            if self.extents.is_long(geometry.block_len()) {
                let seed = self.writer.expected_seed();
                let mut place = self.writer.tree_block();
                self.extents
                    .settle(geometry.block_len(), seed, &mut place)?;
            }
            let length = index(geometry.offset(span.count));
            let (now, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            self.writer.stage.write(geometry.offset(span.start), now)?;
            logical = logical.saturating_add(low32(span.count));
            rest = later;
        }
        Ok(())
    }
}

impl<W: WriteAt> Drop for FileWriter<'_, W> {
    /// Gives the blocks of a file that was not finished back.
    fn drop(&mut self) {
        for span in self.extents.spans() {
            self.writer.allocator.release(span);
        }
    }
}

/// The most that lies in an inode: `i_block`, and the value of an attribute behind it.
const INLINE_MAX: usize = 60 + super::xattr::INLINE_ROOM;

/// Whether all bytes are zero, looking at the first few before all.
fn is_zero(bytes: &[u8]) -> bool {
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    head.iter().all(|&byte| byte == 0)
        && rest
            .chunks(128)
            .all(|chunk| chunk.iter().fold(0, |any, &byte| any | byte) == 0)
}
