//! Numbers from disk as sizes in memory.

/// A number as a size. What does not fit saturates, so that slicing by it fails.
pub(super) fn size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

/// A size in memory as a number. `usize` has at most 64 bits on every target.
pub(super) fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
