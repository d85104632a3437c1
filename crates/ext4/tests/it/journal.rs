//! Journals that `debugfs` wrote, replayed in memory and held against `e2fsck`'s replay of a copy.

use std::fs::{self, File};
use std::path::Path;

use opengcs_ext4::{ErrorKind, JournalState, Reader};

use crate::read_tools::{Scratch, assert_same, e2fsck, noise, plant, run, tree, tree_of_image};

/// The blocks of a file.
pub(crate) fn blocks(image: &Path, name: &str) -> Vec<u64> {
    let text = run(
        "debugfs",
        &["-R", &format!("blocks {name}"), image.to_str().unwrap()],
        &[0],
    );
    text.lines()
        .filter(|line| !line.starts_with("debugfs"))
        .flat_map(str::split_whitespace)
        .map(|word| word.parse().unwrap())
        .collect()
}

fn list(blocks: &[u64]) -> String {
    let words: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    words.join(",")
}

/// Writes transactions over a file's blocks with the journal opened by `open`; gives back what the
/// reader found and holds it against `e2fsck`.
fn check(options: &str, block_size: usize, open: &str) {
    let what = format!("{options} / {open}");
    let scratch = Scratch::new();
    let source = scratch.path("source");
    plant(&source, 30, 1 << 20, block_size - 30);
    let options = format!("{options} -b {block_size}");
    let image = scratch.make(&options, "40M", Some(&source));
    let before = tree_of_image(&image);
    let places = blocks(&image, "/size-300000");
    assert!(places.len() > 70);

    let mut commands = vec![open.to_owned()];
    let mut add = |number: u64, blocks: &[u64], revoked: &[u64], commit: bool| {
        let mut bytes = noise(number, blocks.len() * block_size);
        // Each third copy must be escaped.
        for block in bytes.chunks_mut(block_size).step_by(3) {
            block[..4].copy_from_slice(&0xC03B_3998_u32.to_be_bytes());
        }
        let file = scratch.path(&format!("blocks-{number}"));
        fs::write(&file, bytes).unwrap();
        let mut command = "jw".to_owned();
        if !blocks.is_empty() {
            command += &format!(" -b {}", list(blocks));
        }
        if !revoked.is_empty() {
            command += &format!(" -r {}", list(revoked));
        }
        if !commit {
            command += " -c";
        }
        commands.push(format!("{command} {}", file.to_str().unwrap()));
    };
    // debugfs 1.47.0 writes no commit block for copies and revokes together.
    add(1, &places[0..40], &[], true);
    add(2, &places[5..10], &[], true);
    add(3, &[], &places[12..20], true);
    add(4, &places[13..15], &[], true);
    add(5, &[], &places[5..7], true);
    add(6, &places[20..24], &[], false);
    commands.push("jc".to_owned());
    let text = scratch.debugfs(&image, &commands);
    assert!(!text.contains("error"), "{what}: {text}");

    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let found = tree(&reader).unwrap();
    assert_ne!(found, before, "{what}");
    let JournalState::Replayed { transactions, .. } = reader.summary().journal else {
        panic!("{what}: {:?}", reader.summary().journal);
    };
    assert_eq!(transactions, 5, "{what}");

    let checked = scratch.path("checked");
    fs::copy(&image, &checked).unwrap();
    e2fsck(&checked);
    assert_same(&what, &found, &tree_of_image(&checked));
}

#[test]
fn transactions_of_debugfs_read_as_e2fsck_replays_them() {
    for open in ["jo", "jo -c -v 2", "jo -c -v 3"] {
        check("-t ext4", 1024, open);
    }
    check("-t ext4 -O ^metadata_csum,^64bit", 4096, "jo");
    check("-t ext3", 1024, "jo");
}

#[test]
fn foreign_journals_are_refused() {
    let scratch = Scratch::new();
    let journal = scratch.make("-O journal_dev -b 4096", "8M", None);
    let error = Reader::open(File::open(&journal).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("external journal"), "{error}");

    let image = scratch.make("-t ext4 -b 4096", "16M", None);
    let commands = [
        "feature has_journal",
        "ssv journal_inum 0",
        "ssv journal_dev 0x0801",
    ];
    scratch.debugfs(&image, &commands.map(str::to_owned));
    let error = Reader::open(File::open(&image).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("external journal"), "{error}");
}

#[test]
fn recovery_without_a_journal_is_corrupt() {
    let scratch = Scratch::new();
    let image = scratch.make("-t ext4 -b 4096 -O ^has_journal", "16M", None);
    scratch.debugfs(&image, &["feature needs_recovery".to_owned()]);
    let error = Reader::open(File::open(&image).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
