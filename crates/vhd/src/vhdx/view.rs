//! Decides what the file's bytes are: those in the storage, with a log laid over them that was not replayed.

use std::collections::BTreeMap;
use std::ops::Range;

use super::log::Change;
use crate::number::{clamp, end_of, narrow, wide};
use crate::{Error, Result, Storage};

/// The bytes of a VHDX file.
#[derive(Debug)]
pub(crate) struct View<S> {
    pub(crate) storage: S,
    /// What the log changes: pieces that do not overlap, by their start.
    overlay: BTreeMap<u64, Piece>,
    /// Where the file ends. The storage may end earlier; what lacks is zero.
    pub(crate) end: u64,
}

#[derive(Debug)]
struct Piece {
    length: u64,
    /// None for zeros.
    bytes: Option<Box<[u8]>>,
}

impl<S: Storage> View<S> {
    pub(crate) fn new(storage: S, end: u64) -> Self {
        Self {
            storage,
            overlay: BTreeMap::new(),
            end,
        }
    }

    /// Lays one change over the bytes.
    pub(crate) fn lay(&mut self, change: Change) {
        let (offset, length) = change.place();
        let end = offset.saturating_add(length);
        if length == 0 {
            return;
        }
        for start in self.touching(offset..end) {
            let Some(old) = self.overlay.remove(&start) else {
                continue;
            };
            // All pieces are whole 4 KiB pages and data is one page, so only
            // zeros are ever cut.
            let old_end = start.saturating_add(old.length);
            for (from, to) in [(start, offset.min(old_end)), (end.max(start), old_end)] {
                if let Some(length) = to.checked_sub(from).filter(|length| *length > 0) {
                    self.overlay.insert(
                        from,
                        Piece {
                            length,
                            bytes: None,
                        },
                    );
                }
            }
        }
        let bytes = match change {
            Change::Zeros { .. } => None,
            Change::Data { bytes, .. } => Some(bytes),
        };
        self.overlay.insert(offset, Piece { length, bytes });
    }

    /// The starts of the pieces that overlap `range`.
    fn touching(&self, range: Range<u64>) -> Vec<u64> {
        self.overlay
            .range(..range.end)
            .rev()
            .take_while(|(start, piece)| start.saturating_add(piece.length) > range.start)
            .map(|(start, _)| *start)
            .collect()
    }

    /// Reads all of `buf`.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = end_of(offset, wide(buf.len()))?;
        if end > self.end {
            return Err(Error::corrupt("the file is cut short").at(offset));
        }
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(wide(done));
            match self.storage.read_at(at, rest) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(read) => done = done.saturating_add(read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("cannot read", at, error)),
            }
        }
        if self.overlay.is_empty() {
            return Ok(());
        }
        for start in self.touching(offset..end) {
            let Some(piece) = self.overlay.get(&start) else {
                continue;
            };
            let from = start.max(offset);
            let to = start.saturating_add(piece.length).min(end);
            let within = narrow(from.saturating_sub(offset))?..narrow(to.saturating_sub(offset))?;
            let Some(target) = buf.get_mut(within) else {
                continue;
            };
            match &piece.bytes {
                None => target.fill(0),
                Some(bytes) => {
                    let skip = narrow(from.saturating_sub(start))?;
                    let source = bytes.get(skip..).unwrap_or_default();
                    for (to, from) in target.iter_mut().zip(source) {
                        *to = *from;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes all of `data`.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.storage
            .store_at(offset, data)
            .map_err(|error| Error::io("cannot write", offset, error))
    }

    /// Makes bytes within the storage zero, with as little room as can be.
    pub(crate) fn clear(&self, offset: u64, length: u64) -> Result<()> {
        clear(&self.storage, offset, length)
    }

    /// Makes everything durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.storage
            .sync()
            .map_err(|error| Error::io("cannot flush", 0, error))
    }
}

/// Makes bytes within the storage zero: a hole where it can have one.
pub(crate) fn clear(storage: &(impl Storage + ?Sized), mut offset: u64, length: u64) -> Result<()> {
    if length == 0 {
        return Ok(());
    }
    let end = end_of(offset, length)?;
    let cannot = |offset| move |error| Error::io("cannot clear", offset, error);
    if storage.punch(offset, length).map_err(cannot(offset))? {
        return Ok(());
    }
    let zeros = vec![0; clamp(1 << 20, length)];
    while offset < end {
        let left = clamp(zeros.len(), end.saturating_sub(offset));
        let piece = zeros.get(..left).unwrap_or_default();
        storage.store_at(offset, piece).map_err(cannot(offset))?;
        offset = offset.saturating_add(wide(left));
    }
    Ok(())
}
