//! Buffers that begin at a page's start.
//!
//! The kernel copies into them and out of the page cache with one string instruction, which some
//! processors carry out several times slower when the two ends are not aligned alike.

use std::ops::{Deref, DerefMut};

const PAGE: usize = 4096;

/// Bytes, zero at first, the first of them at a page's start.
pub(crate) struct Buffer {
    room: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        let room = vec![0; length + PAGE].into_boxed_slice();
        // What is not to be had costs speed, not correctness.
        let start = Some(room.as_ptr().align_offset(PAGE)).filter(|start| *start <= PAGE);
        Self {
            start: start.unwrap_or(0),
            room,
            length,
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[self.start..][..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..][..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_is_a_pages_first() {
        for length in [0, 1, PAGE, 128 << 10] {
            let buffer = Buffer::new(length);
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.as_ptr().align_offset(PAGE), 0);
        }
    }
}
