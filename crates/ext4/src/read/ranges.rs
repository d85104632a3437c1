//! Which stretches of a file lie elsewhere than its map says, because fast commits moved them.

use std::collections::BTreeMap;

use super::map::Run;

/// Where a stretch of a file lies now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Behind its last block in the file.
    end: u64,
    /// First block in the volume; `None` for a hole and for blocks that were never written.
    physical: Option<u64>,
}

impl Place {
    /// What is left behind the first `blocks` blocks.
    fn behind(self, blocks: u64) -> Self {
        let physical = self.physical.map(|start| start.saturating_add(blocks));
        Self { physical, ..self }
    }
}

/// Stretches that do not overlap, by their first block in the file.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, Place>);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says where the file's blocks from `first` to before `end` lie, whatever was said before.
    pub(super) fn set(&mut self, first: u64, end: u64, physical: Option<u64>) {
        if end <= first {
            return;
        }
        let reaches =
            |(&start, &place): (&u64, &Place)| (place.end > first).then_some((start, place));
        if let Some((start, place)) = self.0.range(..first).next_back().and_then(reaches) {
            self.0.insert(
                start,
                Place {
                    end: first,
                    ..place
                },
            );
            if place.end > end {
                self.0.insert(end, place.behind(end.saturating_sub(start)));
            }
        }
        let inside: Vec<u64> = self.0.range(first..end).map(|(&start, _)| start).collect();
        for start in inside {
            if let Some(place) = self.0.remove(&start)
                && place.end > end
            {
                self.0.insert(end, place.behind(end.saturating_sub(start)));
            }
        }
        self.0.insert(first, Place { end, physical });
    }

    /// A file's runs with these stretches over them, up to the file's block `limit`.
    pub(super) fn over(&self, runs: &[Run], limit: u64) -> Vec<Run> {
        let mut pieces = Vec::with_capacity(runs.len());
        let mut push = |logical: u64, end: u64, physical: u64| {
            let blocks = end.min(limit).saturating_sub(logical);
            if blocks > 0 {
                pieces.push(Run {
                    logical,
                    physical,
                    blocks,
                });
            }
        };
        for run in runs {
            let place = |at: u64| {
                let skip = at.saturating_sub(run.logical);
                run.physical.saturating_add(skip)
            };
            let mut at = run.logical;
            let before = self.0.range(..=run.logical).next_back();
            let inside = self
                .0
                .range(run.logical.saturating_add(1)..run.end().max(run.logical.saturating_add(1)));
            for (&start, covered) in before.into_iter().chain(inside) {
                push(at, start.min(run.end()), place(at));
                at = at.max(covered.end);
            }
            push(at, run.end(), place(at));
        }
        for (&start, place) in &self.0 {
            if let Some(physical) = place.physical {
                push(start, place.end, physical);
            }
        }
        pieces.sort_unstable_by_key(|run| run.logical);
        pieces.dedup_by(|next, last| {
            let follows = last.end() == next.logical
                && last.physical.saturating_add(last.blocks) == next.physical;
            if follows {
                last.blocks = last.blocks.saturating_add(next.blocks);
            }
            follows
        });
        pieces
    }
}

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the numbers are this file's own"
)]
mod tests {
    use super::*;

    /// The volume's block of each file block, 0 for none.
    fn map(runs: &[Run]) -> Vec<u64> {
        let mut map = vec![0; 40];
        let mut last = 0;
        for run in runs {
            assert!(run.logical >= last && run.blocks > 0);
            last = run.end();
            for block in 0..run.blocks {
                map[(run.logical + block) as usize] = run.physical + block;
            }
        }
        map
    }

    #[test]
    fn stretches_lie_over_runs_as_block_by_block() {
        let runs =
            [(2, 100, 10), (12, 200, 5), (20, 300, 15)].map(|(logical, physical, blocks)| Run {
                logical,
                physical,
                blocks,
            });
        let mut state = 7u64;
        let mut dice = |limit: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % limit
        };
        for _ in 0..3000 {
            let mut ranges = Ranges::default();
            let mut expected = map(&runs);
            for step in 1..=dice(6) {
                let first = dice(36);
                let end = first + 1 + dice(39 - first);
                let physical = (dice(3) > 0).then_some(1000 * step + dice(5));
                ranges.set(first, end, physical);
                for block in first..end {
                    expected[block as usize] = physical.map_or(0, |start| start + block - first);
                }
            }
            let limit = 30 + dice(10);
            expected[limit as usize..].fill(0);
            assert_eq!(map(&ranges.over(&runs, limit)), expected);
        }
    }

    #[test]
    fn neighbours_become_one_run() {
        let mut ranges = Ranges::default();
        ranges.set(4, 8, Some(104));
        ranges.set(8, 9, None);
        let run = |logical, physical, blocks| Run {
            logical,
            physical,
            blocks,
        };
        let found = ranges.over(&[run(0, 100, 10)], 10);
        assert_eq!(found, [run(0, 100, 8), run(9, 109, 1)]);
    }
}
