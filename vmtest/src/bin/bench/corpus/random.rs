//! Numbers that look random and are the same everywhere (`splitmix64`).

/// A stream of numbers.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..limit`; 0 when the limit is 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let wide = u128::from(self.next()) * (limit as u128);
        usize::try_from(wide >> 64).expect("it is below the limit")
    }

    /// Whether the one of `limit` chances has come.
    pub(super) fn once_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }
}

/// `count` bits of `number`, from bit `from` on.
pub(super) fn bits(number: u64, from: u32, count: u32) -> usize {
    usize::try_from(number >> from & ((1 << count) - 1)).expect("few bits are asked for")
}
