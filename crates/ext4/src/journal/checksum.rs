//! The checksums of a log: crc32c of blocks and copies, crc32 of whole transactions.

use super::superblock::{Checksums, LogGeometry};
use super::tag::Tag;
use crate::format::journal::{COMMIT_CHECKSUM_OFFSET, TAIL_SIZE};

/// Whether a descriptor or revoke block's last four bytes are its checksum.
pub(super) fn verify_tail(geometry: &LogGeometry, bytes: &[u8]) -> bool {
    let (covered, stored) = bytes.split_at(bytes.len().saturating_sub(TAIL_SIZE));
    let sum = geometry.seed.add(covered).add(&[0; 4]);
    stored == sum.0.to_be_bytes()
}

/// Whether a commit block holds its checksum.
pub(super) fn verify_commit(geometry: &LogGeometry, bytes: &[u8]) -> bool {
    let (before, rest) = bytes.split_at(bytes.len().min(COMMIT_CHECKSUM_OFFSET));
    let Some((stored, after)) = rest.split_first_chunk::<4>() else {
        return false;
    };
    let sum = geometry.seed.add(before).add(&[0; 4]).add(after);
    *stored == sum.0.to_be_bytes()
}

/// Whether a copy, as it lies in the log, is what its tag was made of.
pub(super) fn verify_tag(geometry: &LogGeometry, tag: &Tag, sequence: u32, copy: &[u8]) -> bool {
    let sum = geometry.seed.add(&sequence.to_be_bytes()).add(copy);
    match geometry.checksums {
        Checksums::V3 => tag.checksum == sum.0,
        // The low half, which is what the kernel's cast leaves.
        Checksums::V2 => tag.checksum == u32::from(sum.low()),
        Checksums::None | Checksums::V1 => true,
    }
}

/// The kernel's `crc32_be`: polynomial 0x04C11DB7, most significant bit first, not inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc32(pub(super) u32);

const POLYNOMIAL: u32 = 0x04C1_1DB7;

const TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut remaining: &mut [u32] = &mut table;
    let mut byte = 0u32;
    while let Some((entry, rest)) = remaining.split_first_mut() {
        let mut value = byte.wrapping_shl(24);
        let mut bit = 0u32;
        while bit < 8 {
            let carry = value & 0x8000_0000 != 0;
            value = value.wrapping_shl(1);
            if carry {
                value ^= POLYNOMIAL;
            }
            bit = bit.wrapping_add(1);
        }
        *entry = value;
        byte = byte.wrapping_add(1);
        remaining = rest;
    }
    table
};

impl Crc32 {
    pub(super) const START: Self = Self(u32::MAX);

    pub(super) fn add(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |sum, &byte| {
            let [high, ..] = sum.to_be_bytes();
            let entry = TABLE.get(usize::from(high ^ byte)).copied();
            sum.wrapping_shl(8) ^ entry.unwrap_or(0)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_matches_the_standard_check_values() {
        // CRC-32/MPEG-2.
        assert_eq!(Crc32::START.add(b"123456789").0, 0x0376_E6E7);
    }
}
