//! An empty journal: a JBD2 superblock, version 2, that says nothing needs replay.

use crate::num::put;

/// Fewest blocks that the kernel takes (`JBD2_MIN_JOURNAL_BLOCKS`).
pub(super) const MIN_BLOCKS: u64 = 1024;

/// The journal's first block; the rest need not be written. Big-endian, unlike all else.
pub(super) fn superblock(block_len: usize, blocks: u32, uuid: &[u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0; block_len];
    let mut word = |at: usize, value: u32| put(&mut bytes, at, &value.to_be_bytes());
    // h_magic, h_blocktype (superblock v2); h_sequence stays 0.
    word(0x00, 0xC03B_3998);
    word(0x04, 4);
    // s_blocksize, s_maxlen, s_first, s_sequence; s_start 0 is "clean".
    word(0x0C, crate::write::tree::short(block_len));
    word(0x10, blocks);
    word(0x14, 1);
    word(0x18, 1);
    // s_nr_users.
    word(0x40, 1);
    // s_uuid.
    put(&mut bytes, 0x30, uuid);
    bytes
}
