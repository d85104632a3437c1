//! How numbers change width, and how bytes get into a block, without panicking.

/// An index or length in memory. What is too large for memory stays too large.
pub(crate) fn index(n: impl TryInto<usize>) -> usize {
    n.try_into().unwrap_or(usize::MAX)
}

/// A length in memory as a length on disk.
pub(crate) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Bits 0 to 31.
pub(crate) fn low32(n: u64) -> u32 {
    let [a, b, c, d, ..] = n.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Bits 32 to 63.
pub(crate) fn high32(n: u64) -> u32 {
    low32(n >> 32)
}

/// Bits 0 to 15.
pub(crate) fn low16(n: u32) -> u16 {
    let [a, b, ..] = n.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// Bits 16 to 31.
pub(crate) fn high16(n: u32) -> u16 {
    low16(n >> 16)
}

/// Bits 0 to 7.
pub(crate) fn low8(n: usize) -> u8 {
    let [a, ..] = n.to_le_bytes();
    a
}

/// Copies `bytes` to `at`. The callers lay out blocks and know that it fits.
pub(crate) fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    let target = buffer
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..bytes.len()));
    debug_assert!(target.is_some(), "{} bytes at {at} do not fit", bytes.len());
    if let Some(target) = target {
        target.copy_from_slice(bytes);
    }
}

/// Rounds up to a multiple of 4, as names and values in directories and attributes are.
pub(crate) fn pad4(n: usize) -> usize {
    n.saturating_add(3) & !3
}
