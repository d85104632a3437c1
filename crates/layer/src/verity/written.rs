//! Which parts of an output were ever written, so that the rest need not be read to be known as zeros.

use std::collections::BTreeMap;
use std::io;

use positioned_io::{ReadAt, WriteAt};

use super::tree::UNIT;

/// Units that were written to: from the first of a run to behind its last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written(BTreeMap<u64, u64>);

impl Written {
    /// All of the first `length` bytes.
    pub(super) fn all(length: u64) -> Self {
        Self(BTreeMap::from([(0, length.div_ceil(UNIT))]))
    }

    /// Takes note of a write.
    pub(super) fn note(&mut self, position: u64, length: usize) {
        if length == 0 {
            return;
        }
        let mut from = position / UNIT;
        let mut to = position.saturating_add(length as u64).div_ceil(UNIT);
        // Runs that touch become one: those that begin up to its end, and do not end before it.
        while let Some((&start, &end)) = self.0.range(..=to).next_back() {
            if end < from {
                break;
            }
            if start <= from && end >= to {
                return;
            }
            self.0.remove(&start);
            from = from.min(start);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }

    /// Whether there was a write to this unit.
    pub(super) fn has(&self, unit: u64) -> bool {
        let run = self.0.range(..=unit).next_back();
        run.is_some_and(|(_, end)| *end > unit)
    }
}

/// An output that takes note of what is written to it, if asked to.
pub(crate) struct Noting<W> {
    pub(crate) out: W,
    pub(crate) written: Option<Written>,
}

impl<W> Noting<W> {
    pub(crate) fn new(out: W, is_asked: bool) -> Self {
        Self {
            out,
            written: is_asked.then(Written::default),
        }
    }
}

impl<W: ReadAt> ReadAt for Noting<W> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.out.read_at(position, buffer)
    }
}

impl<W: WriteAt> WriteAt for Noting<W> {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write_at(position, bytes)?;
        if let Some(written) = &mut self.written {
            written.note(position, length);
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_where_they_touch() {
        let unit = usize::try_from(UNIT).unwrap();
        let mut written = Written::default();
        written.note(0, 0);
        assert!(!written.has(0));
        for first in [7, 3, 5, 6, 20] {
            written.note(first * UNIT, unit);
        }
        assert_eq!(written.0, BTreeMap::from([(3, 4), (5, 8), (20, 21)]));
        written.note(4 * UNIT + 5, 1);
        assert_eq!(written.0, BTreeMap::from([(3, 8), (20, 21)]));
        written.note(2 * UNIT + 1, 20 * unit);
        assert_eq!(written.0, BTreeMap::from([(2, 23)]));
        assert!(!written.has(1) && written.has(2) && written.has(22) && !written.has(23));
    }
}
