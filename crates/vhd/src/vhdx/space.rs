//! Decides which room in the file is free: what no block uses, and what a block has left once no crash can bring it back.

use std::collections::BTreeMap;
use std::ops::Range;

/// Room in the file that no region and no block uses, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Free ranges that neither touch nor overlap, start to end.
    free: BTreeMap<u64, u64>,
    /// Ranges that the table in the file still uses.
    leaving: Vec<Range<u64>>,
    /// Whether any block has left the file.
    pub(crate) changed: bool,
}

impl Space {
    /// Room that may be used at once.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        if let Some((before, upto)) = self.free.range(..start).next_back()
            && *upto >= start
        {
            (start, end) = (*before, end.max(*upto));
        }
        while let Some((next, upto)) = self.free.range(start..).next()
            && *next <= end
        {
            end = end.max(*upto);
            let next = *next;
            self.free.remove(&next);
        }
        self.free.insert(start, end);
    }

    /// Room that becomes free with the next commit.
    pub(crate) fn release(&mut self, range: Range<u64>) {
        self.changed = true;
        self.leaving.push(range);
    }

    /// After a commit: what was released is free. Gives what that is.
    pub(crate) fn settle(&mut self) -> Vec<Range<u64>> {
        let left = std::mem::take(&mut self.leaving);
        for range in &left {
            self.add(range.clone());
        }
        left
    }

    /// Takes the first room of `length` bytes.
    pub(crate) fn take(&mut self, length: u64) -> Option<u64> {
        let fits = |(start, end): &(&u64, &u64)| end.saturating_sub(**start) >= length;
        let (start, end) = self
            .free
            .iter()
            .find(fits)
            .map(|(start, end)| (*start, *end))?;
        self.free.remove(&start);
        self.add(start.saturating_add(length)..end);
        Some(start)
    }

    /// How many bytes of it are in pieces of `length` bytes.
    pub(crate) fn room(&self, length: u64) -> u64 {
        let pieces = self.free.iter().map(|(start, end)| {
            let room = end.saturating_sub(*start);
            room.checked_rem(length)
                .map_or(0, |rest| room.saturating_sub(rest))
        });
        pieces.fold(0, u64::saturating_add)
    }

    /// Where a file that ends at `end` ends without the free room at its end,
    /// which is taken away.
    pub(crate) fn cut(&mut self, end: u64) -> u64 {
        match self.free.last_key_value() {
            Some((start, upto)) if *upto >= end => {
                let start = *start;
                self.free.remove(&start);
                start.min(end)
            }
            _ => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one() {
        let mut space = Space::default();
        for range in [0..2, 4..6, 10..12, 2..4, 11..13] {
            space.add(range);
        }
        assert_eq!(space.free, BTreeMap::from([(0, 6), (10, 13)]));
        space.add(5..11);
        assert_eq!(space.free, BTreeMap::from([(0, 13)]));
    }

    #[test]
    fn released_room_is_taken_after_it_settles_and_the_end_can_be_cut() {
        let mut space = Space::default();
        space.release(4..8);
        assert_eq!(space.take(1), None);
        assert_eq!(space.settle().first(), Some(&(4..8)));
        assert_eq!(space.take(5), None);
        assert_eq!(space.take(3), Some(4));
        assert_eq!(space.cut(9), 9);
        assert_eq!(space.cut(8), 7);
        assert_eq!(space.take(1), None);
    }
}
