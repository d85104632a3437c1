//! Decides what a crash leaves of a file in memory: what was synced, and of the rest some.

use super::content::Content;
use super::{MemoryFile, Operation};
use crate::number::{clamp, wide};

/// What the disk under a file writes at once, in bytes.
const SECTOR: u64 = 512;

/// Numbers that look random and are the same for the same seed (`xorshift64*`).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// True for `parts` of 16 throws.
    fn hits(&mut self, parts: u64) -> bool {
        self.roll() % 16 < parts
    }
}

impl MemoryFile {
    /// Files that a crash after the first `count` operations may leave: all that
    /// was synced is there; of the rest nothing, all, every other one, all but
    /// the first, or all with the last torn.
    #[must_use]
    pub fn crashes_after(&self, count: usize) -> Vec<Self> {
        let (content, pending) = self.durable_and_pending(count);
        let keep = |chosen: &dyn Fn(usize) -> bool| {
            let mut content = content.clone();
            for (at, operation) in pending.iter().enumerate() {
                if chosen(at) {
                    operation.apply(&mut content);
                }
            }
            content
        };
        let mut left = vec![keep(&|_| false)];
        if let Some(last) = pending.len().checked_sub(1) {
            left.push(keep(&|_| true));
            left.push(keep(&|at| at % 2 == 0));
            left.push(keep(&|at| at % 2 == 1));
            left.push(keep(&|at| at != 0));
            if let Some(Operation::Write(position, data)) = pending.last() {
                for length in [
                    1,
                    17,
                    512,
                    4096,
                    data.len() / 2,
                    data.len().saturating_sub(1),
                ] {
                    let mut torn = keep(&|at| at != last);
                    torn.write(*position, data.get(..length).unwrap_or(data));
                    left.push(torn);
                }
            }
        }
        left.into_iter().map(Self::from).collect()
    }

    /// A file that a crash after the first `count` operations may leave: all
    /// that was synced is there, and of what was not, any part: each sector of
    /// 512 bytes of each write, each hole and each resize has come to the disk
    /// or not, by `seed`. The same seed gives the same file.
    #[must_use]
    pub fn crash_after(&self, count: usize, seed: u64) -> Self {
        let (mut content, pending) = self.durable_and_pending(count);
        let mut dice = Dice::new(seed.wrapping_add(wide(count).wrapping_mul(0x1_0001)));
        // Some crashes leave nearly nothing, some nearly all.
        let parts = dice.roll() % 17;
        for operation in &pending {
            match operation {
                Operation::Write(position, data) => {
                    let (mut position, mut data): (u64, &[u8]) = (*position, data);
                    while !data.is_empty() {
                        let within = SECTOR.saturating_sub(position % SECTOR);
                        let (sector, rest) = data.split_at(clamp(data.len(), within));
                        if dice.hits(parts) {
                            content.write(position, sector);
                        }
                        position = position.saturating_add(wide(sector.len()));
                        data = rest;
                    }
                }
                whole if dice.hits(parts) => whole.apply(&mut content),
                _ => {}
            }
        }
        content.into()
    }

    /// What is durable after the first `count` operations, and what is not.
    fn durable_and_pending(&self, count: usize) -> (Content, Vec<Operation>) {
        let state = self.state();
        let done = state.operations.get(..count).unwrap_or(&state.operations);
        let durable = done
            .iter()
            .rposition(|operation| matches!(operation, Operation::Sync))
            .map_or(0, |at| at.saturating_add(1));
        let (durable, pending) = done.split_at(durable);
        let mut content = state.base.clone();
        for operation in durable {
            operation.apply(&mut content);
        }
        (content, pending.to_vec())
    }
}
