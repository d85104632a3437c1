//! Which blocks are taken: ever forward while data streams, from freed runs for metadata.

use std::collections::BTreeMap;

use super::geometry::Geometry;
use crate::error::{Error, Result};

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) count: u64,
}

impl Span {
    pub(super) fn end(self) -> u64 {
        self.start.saturating_add(self.count)
    }
}

/// How many free runs are looked at for one that is long enough.
const SEARCH: usize = 64;

/// The state of every block: taken below `next` unless in `free`, free from `next` to `limit`.
#[derive(Clone, Debug)]
pub(super) struct Allocator {
    geometry: Geometry,
    next: u64,
    limit: u64,
    /// The first blocks not before `next` that descriptors or backups have.
    reserved: Span,
    free: BTreeMap<u64, u64>,
}

impl Allocator {
    pub(super) fn new(geometry: Geometry, limit: u64) -> Result<Self> {
        let next = geometry.first_free();
        if next > limit {
            return Err(no_space());
        }
        Ok(Self {
            geometry,
            next,
            limit,
            reserved: geometry.next_reserved(next),
            free: BTreeMap::new(),
        })
    }

    /// The end of what was ever taken.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// The same state for a trial, without the freed blocks.
    pub(super) fn without_free(&self) -> Self {
        Self {
            free: BTreeMap::new(),
            ..*self
        }
    }

    /// Moves the end up, over blocks that nobody needs.
    pub(super) fn grow_to(&mut self, end: u64) {
        while self.next < end {
            if self
                .fresh(end.saturating_sub(self.next))
                .map(|span| self.release(span))
                .is_err()
            {
                return;
            }
        }
    }

    /// One to `want` blocks for file data: the next ones, or freed ones when none are left.
    pub(super) fn take(&mut self, want: u64) -> Result<Span> {
        match self.fresh(want) {
            Ok(span) => Ok(span),
            Err(error) => {
                let (&start, &count) = self.free.first_key_value().ok_or(error)?;
                Ok(self.carve(Span { start, count }, want))
            }
        }
    }

    /// One to `want` blocks for metadata that is written whole: freed ones if a run is long enough.
    pub(super) fn take_any(&mut self, want: u64) -> Result<Span> {
        let fit = self
            .free
            .iter()
            .take(SEARCH)
            .map(|(&start, &count)| Span { start, count })
            .find(|span| span.count >= want);
        match fit {
            Some(span) => Ok(self.carve(span, want)),
            None => self.take(want),
        }
    }

    /// Exactly `count` blocks in a row that were never written.
    pub(super) fn take_fresh_row(&mut self, count: u64) -> Result<Span> {
        loop {
            let span = self.fresh(count)?;
            if span.count == count {
                return Ok(span);
            }
            self.release(span);
        }
    }

    /// One to `want` blocks that were never written.
    pub(super) fn fresh(&mut self, want: u64) -> Result<Span> {
        let mut start = self.next;
        while self.reserved.start <= start {
            start = start.max(self.reserved.end());
            self.reserved = self.geometry.next_reserved(start);
        }
        let end = start
            .saturating_add(want)
            .min(self.reserved.start)
            .min(self.limit);
        if end <= start {
            return Err(no_space());
        }
        self.next = end;
        Ok(Span {
            start,
            count: end.saturating_sub(start),
        })
    }

    /// Gives one block back. Its content stays.
    pub(super) fn release_block(&mut self, block: u64) {
        self.release(Span {
            start: block,
            count: 1,
        });
    }

    /// Gives blocks back. Their content stays.
    pub(super) fn release(&mut self, span: Span) {
        if span.count == 0 {
            return;
        }
        let mut span = span;
        if let Some((&start, &count)) = self.free.range(..span.start).next_back()
            && start.saturating_add(count) == span.start
        {
            self.free.remove(&start);
            span = Span {
                start,
                count: count.saturating_add(span.count),
            };
        }
        if let Some(count) = self.free.remove(&span.end()) {
            span.count = span.count.saturating_add(count);
        }
        self.free.insert(span.start, span.count);
    }

    /// Free runs between two blocks, both below the end.
    pub(super) fn free_within(&self, from: u64, to: u64) -> impl Iterator<Item = Span> {
        let before = self.free.range(..from).next_back();
        before
            .into_iter()
            .chain(self.free.range(from..to.max(from)))
            .filter_map(move |(&start, &count)| {
                let begin = start.max(from);
                let end = start.saturating_add(count).min(to);
                (begin < end).then(|| Span {
                    start: begin,
                    count: end.saturating_sub(begin),
                })
            })
    }

    fn carve(&mut self, span: Span, want: u64) -> Span {
        let count = span.count.min(want);
        self.free.remove(&span.start);
        if span.count > count {
            self.free.insert(
                span.start.saturating_add(count),
                span.count.saturating_sub(count),
            );
        }
        Span {
            start: span.start,
            count,
        }
    }
}

fn no_space() -> Error {
    Error::no_space("every block of the size asked for is taken")
}
