//! How bytes are fetched: through the journal's overlay, metadata through a small cache.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use positioned_io::ReadAt;

use super::fast_commit::Changes;
use super::geometry::Geometry;
use crate::error::{Error, Result};
use crate::num::{index as size, wide};
use crate::types::BlockNo;

/// Bytes of metadata kept, in each of two generations.
const CACHE_BYTES: usize = 2 << 20;
/// Bytes of an inode table that are read at once.
const TABLE_READ: u32 = 32 << 10;

/// A block whose newest copy lies in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Where the copy lies.
    pub(super) copy: BlockNo,
    /// The block begins with the journal's magic number, and its copy with zeros instead.
    pub(super) escaped: bool,
}

/// The image, as it would be after recovery.
#[derive(Debug)]
pub(super) struct Volume<R> {
    source: R,
    pub(super) geometry: Geometry,
    pub(super) overlay: BTreeMap<u64, Replayed>,
    /// What was committed behind the journal's last transaction.
    pub(super) changes: Changes,
    cache: Mutex<Cache>,
}

/// Two generations: what was not used while one filled is dropped with the other.
#[derive(Debug, Default)]
struct Cache {
    young: HashMap<u64, Arc<[u8]>>,
    old: HashMap<u64, Arc<[u8]>>,
}

impl Cache {
    fn find(&mut self, block: u64, limit: usize) -> Option<Arc<[u8]>> {
        if let Some(found) = self.young.get(&block) {
            return Some(Arc::clone(found));
        }
        let found = self.old.remove(&block)?;
        self.insert(block, Arc::clone(&found), limit);
        Some(found)
    }

    fn insert(&mut self, block: u64, bytes: Arc<[u8]>, limit: usize) {
        if self.young.len() >= limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(block, bytes);
    }
}

/// Reads all of `buffer`; a source that ends before is a truncated image, not an I/O error.
pub(super) fn read_exact(source: &impl ReadAt, offset: u64, buffer: &mut [u8]) -> Result<()> {
    match source.read_exact_at(offset, buffer) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Error::corrupt("the image ends inside the file system").at_offset(offset))
        }
        Err(error) => Err(Error::io("read the image", offset, error)),
    }
}

impl<R: ReadAt> Volume<R> {
    pub(super) fn new(source: R, geometry: Geometry) -> Self {
        Self {
            source,
            geometry,
            overlay: BTreeMap::new(),
            changes: Changes::default(),
            cache: Mutex::default(),
        }
    }

    /// Puts the journal's copies over the image.
    pub(super) fn set_overlay(&mut self, overlay: BTreeMap<u64, Replayed>) {
        self.overlay = overlay;
        self.cache = Mutex::default();
    }

    /// Checks that the image is as long as the superblock says.
    pub(super) fn check_length(&self) -> Result<()> {
        let end = self.geometry.offset(BlockNo(self.geometry.blocks));
        read_exact(&self.source, end.saturating_sub(1), &mut [0]).map_err(|error| {
            match error.kind() {
                crate::ErrorKind::Corrupt => Error::corrupt(format!(
                    "the image is shorter than the file system of {end} bytes"
                )),
                _ => error,
            }
        })
    }

    /// Reads bytes of the volume, wherever their newest copies are.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read_exact(&self.source, offset, buffer)?;
        if self.overlay.is_empty() || buffer.is_empty() {
            return Ok(());
        }
        let shift = self.geometry.block_shift;
        let end = offset.saturating_add(wide(buffer.len()));
        let last = end.saturating_sub(1) >> shift;
        for (&block, &replayed) in self.overlay.range(offset >> shift..=last) {
            let start = self.geometry.offset(BlockNo(block));
            let from = start.max(offset);
            let to = start
                .saturating_add(u64::from(self.geometry.block_size))
                .min(end);
            let range = size(from.saturating_sub(offset))..size(to.saturating_sub(offset));
            if let Some(part) = buffer.get_mut(range) {
                self.read_copy(replayed, from.saturating_sub(start), part)?;
            }
        }
        Ok(())
    }

    fn read_copy(&self, replayed: Replayed, skip: u64, buffer: &mut [u8]) -> Result<()> {
        let offset = self.geometry.offset(replayed.copy).saturating_add(skip);
        read_exact(&self.source, offset, buffer)?;
        if replayed.escaped {
            let magic = crate::format::journal::MAGIC.to_be_bytes();
            for (to, from) in buffer.iter_mut().zip(magic.iter().skip(size(skip))) {
                *to = *from;
            }
        }
        Ok(())
    }

    /// Reads whole blocks.
    pub(super) fn read_blocks(&self, start: BlockNo, buffer: &mut [u8]) -> Result<()> {
        self.read(self.geometry.offset(start), buffer)
            .map_err(|error| error.at_block(start))
    }

    /// A block of metadata.
    pub(super) fn block(&self, block: BlockNo) -> Result<Arc<[u8]>> {
        self.block_ahead(block, 1)
    }

    /// A block of an inode table that ends at `end`, which reads some of those behind it.
    pub(super) fn table_block(&self, block: BlockNo, end: u64) -> Result<Arc<[u8]>> {
        let ahead = u64::from(TABLE_READ >> self.geometry.block_shift).max(1);
        self.block_ahead(block, ahead.min(end.saturating_sub(block.0)).max(1))
    }

    fn block_ahead(&self, block: BlockNo, count: u64) -> Result<Arc<[u8]>> {
        let block_size = size(self.geometry.block_size);
        let limit = (CACHE_BYTES >> self.geometry.block_shift).max(1);
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().find(block.0, limit) {
            return Ok(found);
        }
        let mut buffer = vec![0; size(count).saturating_mul(block_size)];
        self.read_blocks(block, &mut buffer)?;
        let mut cache = lock();
        let mut wanted = None;
        for (number, bytes) in (block.0..).zip(buffer.chunks_exact(block_size)) {
            let bytes: Arc<[u8]> = Arc::from(bytes);
            wanted.get_or_insert_with(|| Arc::clone(&bytes));
            cache.insert(number, bytes, limit);
        }
        wanted.ok_or_else(|| Error::corrupt("an empty block").at_block(block))
    }
}
