//! Decides how numbers change width, so that no offset is ever cut short silently.

use crate::{Error, Result};

/// One mebibyte, the unit in which VHDX places everything.
pub(crate) const MIB: u64 = 1 << 20;

/// A length in memory as a length on disk.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A length on disk that must fit in memory.
pub(crate) fn narrow(length: u64) -> Result<usize> {
    usize::try_from(length)
        .map_err(|_| Error::unsupported("a length exceeds this machine's memory"))
}

/// The smaller of a length in memory and one on disk.
pub(crate) fn clamp(length: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(length, |limit| limit.min(length))
}

/// `offset + length`, refused as corrupt when that is no offset.
pub(crate) fn end_of(offset: u64, length: u64) -> Result<u64> {
    offset
        .checked_add(length)
        .ok_or_else(|| Error::corrupt("an offset is out of range").at(offset))
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<128>();
    chunks
        .iter()
        .all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        assert!(is_zero(&[0; 1000]));
        for at in 0..1000 {
            let mut bytes = [0; 1000];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "byte {at}");
        }
    }
}
