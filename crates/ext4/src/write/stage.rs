//! How bytes reach the output: neighbours gathered into large writes, large writes passed through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use positioned_io::{ReadAt, WriteAt};

use crate::error::{Error, Result};
use crate::num::{index, wide};

/// Bytes gathered before they are written: many enough for few calls, and few enough to stay in the
/// processor's cache until they are.
const CAPACITY: usize = 128 << 10;
/// Writes of this many bytes go out without being copied.
const DIRECT: usize = 32 << 10;

/// An output with one run of bytes waiting.
#[derive(Debug)]
pub(super) struct Stage<W> {
    out: W,
    start: u64,
    waiting: Vec<u8>,
    end: u64,
    /// Raised while what is put out may be read again.
    read_again: Option<Arc<AtomicBool>>,
}

impl<W: WriteAt> Stage<W> {
    pub(super) fn new(out: W, read_again: Option<Arc<AtomicBool>>) -> Self {
        Self {
            out,
            start: 0,
            waiting: Vec::new(),
            end: 0,
            read_again,
        }
    }

    /// Writes at a byte offset, now or later. What is written twice keeps the later bytes.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.end = self.end.max(offset.saturating_add(wide(bytes.len())));
        if self.start.saturating_add(wide(self.waiting.len())) != offset
            || self.waiting.len().saturating_add(bytes.len()) > CAPACITY
        {
            self.flush()?;
            self.start = offset;
        }
        if bytes.len() >= DIRECT {
            self.flush()?;
            return put(&mut self.out, offset, bytes);
        }
        if self.waiting.capacity() == 0 {
            self.waiting.reserve_exact(CAPACITY);
        }
        if self.waiting.is_empty() {
            self.start = offset;
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Says whether what is written from here on may be read again.
    pub(super) fn will_read(&mut self, again: bool) -> Result<()> {
        if self.read_again.is_some() {
            self.flush()?;
        }
        if let Some(flag) = &self.read_again {
            flag.store(again, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The end of the furthest write.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn flush(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            put(&mut self.out, self.start, &self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }

    /// Writes what waits and gives the output back.
    pub(super) fn finish(mut self) -> Result<W> {
        self.flush()?;
        self.out
            .flush()
            .map_err(|source| Error::io("flush the image", self.end, source))?;
        Ok(self.out)
    }
}

impl<W: WriteAt + ReadAt> Stage<W> {
    /// Reads what was written, also what still waits.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let mut done = 0usize;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(wide(done));
            match self.out.read_at(at, rest) {
                // What waits may lie behind the output's end.
                Ok(0) => break,
                Ok(read) => done = done.saturating_add(read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::io("read the image back", at, source)),
            }
        }
        for (at, byte) in (offset..).zip(bytes) {
            let place = at.checked_sub(self.start).map(index);
            if let Some(waiting) = place.and_then(|place| self.waiting.get(place)) {
                *byte = *waiting;
            }
        }
        Ok(())
    }
}

/// No piece is larger than those that were gathered: page caches take memory in pieces as large as a
/// write is, and large ones can be long to find.
fn put(out: &mut impl WriteAt, offset: u64, bytes: &[u8]) -> Result<()> {
    let mut offset = offset;
    for piece in bytes.chunks(CAPACITY) {
        out.write_all_at(offset, piece)
            .map_err(|source| Error::io("write the image", offset, source))?;
        offset = offset.saturating_add(wide(piece.len()));
    }
    Ok(())
}
