//! Images of the writer under `e2fsck` and `debugfs`, and what their tests share.

mod attributes;
mod directories;
mod files;
mod nodes;
mod volumes;

use std::fs::File;

use opengcs_ext4::{Metadata, NodeId, Timestamp, Writer, WriterOptions};

const BLOCK_SIZES: [u32; 3] = [1024, 2048, 4096];

fn options(block_size: u32) -> WriterOptions {
    WriterOptions::default()
        .block_size(block_size)
        .uuid(*b"0123456789abcdef")
        .hash_seed(*b"fedcba9876543210")
        .created(Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        })
}

fn metadata() -> Metadata {
    let time = Timestamp {
        seconds: 1_600_000_000,
        nanoseconds: 987_654_321,
    };
    Metadata {
        mode: 0o644,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        ..Metadata::default()
    }
}

fn file(writer: &mut Writer<File>, parent: NodeId, name: &str, bytes: &[u8]) -> NodeId {
    let mut file = writer
        .create_file(parent, name.as_bytes(), metadata())
        .unwrap();
    file.write(bytes).unwrap();
    file.finish().unwrap()
}

/// Bytes without zero blocks, different for each seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}
