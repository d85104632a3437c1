//! Images with flipped bytes: an error or the same tree where there are checksums, never a panic,
//! a hang or a heap of memory.

use std::fs;
use std::os::unix::fs::symlink;

use opengcs_ext4::{ErrorKind, InodeNo, Reader};

use crate::read_tools::{Scratch, Tree, run, tree};

/// A small image with a bit of everything, and its blocks that are not file data.
fn image(options: &str, block_size: usize) -> (Vec<u8>, Vec<usize>) {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    fs::create_dir_all(source.join("many")).unwrap();
    for number in 0..30 {
        let name = format!("{number:02}{}", "n".repeat(100));
        fs::write(source.join("many").join(name), []).unwrap();
    }
    for size in [20, 100, 1000, 5000] {
        fs::write(source.join(format!("size-{size}")), vec![b'D'; size]).unwrap();
    }
    symlink("short", source.join("fast")).unwrap();
    symlink("D".repeat(200), source.join("slow")).unwrap();
    let image = scratch.make(&format!("{options} -N 96"), "512", Some(&source));
    let mut commands = vec![
        format!("ea_set size-20 user.short {}", "v".repeat(20)),
        format!("ea_set size-20 user.long {}", "w".repeat(300)),
        format!("ea_set size-100 user.long {}", "w".repeat(200)),
        "mknod device c 5 1".to_owned(),
    ];
    // A file of so many pieces that its map needs a block.
    let bits = scratch.path("pieces");
    let mut pieces = Vec::new();
    for piece in 0..8 {
        pieces.extend(vec![b'D'; block_size]);
        pieces.extend(vec![0; block_size * (1 + piece % 2)]);
    }
    fs::write(&bits, pieces).unwrap();
    commands.push(format!("write {} pieces", bits.to_str().unwrap()));
    scratch.debugfs(&image, &commands);
    run("e2fsck", &["-fyD", image.to_str().unwrap()], &[0, 1]);
    let bytes = fs::read(&image).unwrap();
    let blocks = bytes
        .chunks(block_size)
        .enumerate()
        .filter(|(_, block)| block.iter().any(|&byte| byte != 0) && block[..16] != [b'D'; 16])
        .map(|(number, _)| number)
        .collect();
    (bytes, blocks)
}

fn walk(bytes: &[u8]) -> opengcs_ext4::Result<Tree> {
    tree(&Reader::open(bytes)?)
}

/// Flips a bit of each used byte of metadata in turn.
fn flip(options: &str, block_size: usize, has_checksums: bool) {
    let (mut bytes, blocks) = image(options, block_size);
    let good = walk(&bytes).unwrap();
    assert!(good.len() > 35);
    let mut refused = 0;
    for block in blocks {
        for at in block * block_size..(block + 1) * block_size {
            // Long stretches of zeros, such as inodes that are not in use, are tried here and there.
            let around = at.saturating_sub(8)..(at + 8).min(bytes.len());
            if bytes[around].iter().all(|&byte| byte == 0) && at % 97 != 0 {
                continue;
            }
            let bit = 1 << (at % 8);
            bytes[at] ^= bit;
            match walk(&bytes) {
                Ok(found) => assert!(!has_checksums || found == good, "{options}: byte {at}"),
                Err(error) => {
                    refused += 1;
                    assert!(
                        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                        "{options}: byte {at}: {error}"
                    );
                }
            }
            bytes[at] ^= bit;
        }
    }
    assert!(refused > 500, "{options}: only {refused} refused");
}

#[test]
fn flipped_bytes_under_checksums_are_errors_or_harmless() {
    let features = "metadata_csum,64bit,inline_data,ea_inode,^has_journal,^resize_inode";
    flip(&format!("-t ext4 -b 1024 -O {features}"), 1024, true);
    let features = "metadata_csum,^64bit,^has_journal,^resize_inode";
    flip(&format!("-t ext4 -b 1024 -I 128 -O {features}"), 1024, true);
}

#[test]
fn flipped_bytes_without_checksums_never_panic() {
    flip("-t ext2 -b 1024 -O ^resize_inode", 1024, false);
    let features = "^metadata_csum,inline_data,ea_inode,^has_journal,^resize_inode";
    flip(&format!("-t ext4 -b 1024 -O {features}"), 1024, false);
}

#[test]
fn truncated_images_are_corrupt() {
    let (bytes, _) = image("-t ext4 -b 1024 -O ^has_journal,^resize_inode", 1024);
    for length in (0..bytes.len()).step_by(997) {
        let error = Reader::open(&bytes[..length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}");
    }
    assert!(walk(&bytes).is_ok());
}

#[test]
fn inodes_outside_the_volume_are_corrupt() {
    let (bytes, _) = image("-t ext4 -b 1024 -O ^has_journal,^resize_inode", 1024);
    let reader = Reader::open(bytes.as_slice()).unwrap();
    for number in [0, 97, u32::MAX] {
        let error = reader.inode(InodeNo(number)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.inode(), Some(InodeNo(number)));
    }
}
