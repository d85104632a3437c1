//! Images that `mke2fs` made, of all common kinds, read as the trees they were made from.

use std::fs;

use crate::read_tools::{
    Scratch, Tree, assert_same, e2fsck, plant, run, tree_of_folder, tree_of_image,
};

/// The folder's tree as `mke2fs -d` brings it in: with `lost+found`.
fn expected(mut tree: Tree, found: &Tree) -> Tree {
    let lost = b"/lost+found".to_vec();
    if let Some(node) = found.get(&lost) {
        tree.insert(lost, node.clone());
    }
    tree
}

/// Makes an image of `options`, reads it, and reads it again with its directories indexed.
fn check(options: &str, size: &str, span: u64, longest_link: usize) {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    plant(&source, 600, span, longest_link);
    if options.contains("inline_data") {
        // With it, mke2fs 1.47.0 forgets a hole at a file's end.
        let sparse = fs::File::options().write(true).open(source.join("sparse"));
        sparse.unwrap().set_len(span / 5 * 5 + 10_000).unwrap();
    }
    let image = scratch.make(options, size, Some(&source));
    let found = tree_of_image(&image);
    let wanted = expected(tree_of_folder(&source), &found);
    assert_same(options, &found, &wanted);
    // Sorts large directories into hash trees, and whatever else it finds to better.
    run("e2fsck", &["-fyD", image.to_str().unwrap()], &[0, 1]);
    e2fsck(&image);
    assert_same(
        &format!("{options} (indexed)"),
        &tree_of_image(&image),
        &wanted,
    );
}

const MIB: u64 = 1 << 20;

#[test]
fn ext4_of_all_block_sizes() {
    for (block, link) in [
        (1024, 1000),
        (2048, 2000),
        (4096, 4000),
        (8192, 4000),
        (16384, 4000),
        (32768, 4000),
        (65536, 4000),
    ] {
        check(&format!("-t ext4 -b {block}"), "64M", 20 * MIB, link);
    }
}

#[test]
fn ext2_and_ext3_block_maps() {
    // 1 KiB blocks reach the third level behind 64 MiB.
    check("-t ext2 -b 1024", "64M", 90 * MIB, 1000);
    check("-t ext2 -b 4096", "64M", 30 * MIB, 4000);
    check("-t ext3 -b 1024", "64M", 90 * MIB, 1000);
    check("-t ext3 -b 4096", "64M", 30 * MIB, 4000);
    // e2fsprogs 1.47.1 has another word for the oldest revision.
    let revision = match run("mke2fs", &[], &[1]).contains("[-r fs-revision]") {
        true => "-r 0 -O none",
        false => "-E revision=0",
    };
    let oldest = format!("-t ext2 {revision} -b 1024");
    check(&oldest, "64M", 90 * MIB, 1000);
    check("-t ext2 -o hurd -I 128 -b 1024", "64M", MIB, 1000);
    check("-t ext2 -O ^filetype,dir_index -b 1024", "64M", MIB, 1000);
    check("-t ext4 -O ^extent,^64bit -b 1024", "64M", 90 * MIB, 1000);
}

#[test]
fn checksum_features() {
    check(
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg",
        "64M",
        MIB,
        1000,
    );
    check(
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit",
        "64M",
        MIB,
        1000,
    );
    check("-t ext4 -b 4096 -O ^metadata_csum", "64M", MIB, 4000);
    check(
        "-t ext4 -b 4096 -O metadata_csum,metadata_csum_seed",
        "64M",
        MIB,
        4000,
    );
    check("-t ext4 -b 4096 -O ^64bit,metadata_csum", "64M", MIB, 4000);
    check("-t ext4 -b 4096 -O 64bit -I 128", "64M", MIB, 4000);
}

#[test]
fn layout_features() {
    check("-t ext4 -b 1024 -O meta_bg,^resize_inode", "64M", MIB, 1000);
    check(
        "-t ext4 -b 1024 -O meta_bg,^resize_inode,bigalloc -C 16384",
        "128M",
        MIB,
        1000,
    );
    check(
        "-t ext4 -b 1024 -O ^flex_bg,^resize_inode,sparse_super2",
        "64M",
        MIB,
        1000,
    );
    check(
        "-t ext4 -b 1024 -O ^sparse_super,^resize_inode,meta_bg,^flex_bg",
        "64M",
        MIB,
        1000,
    );
    check("-t ext4 -b 4096 -O bigalloc -C 65536", "128M", MIB, 4000);
    check("-t ext4 -b 1024 -g 256 -O ^resize_inode", "16M", MIB, 1000);
    check(
        "-t ext4 -b 1024 -G 4 -E packed_meta_blocks=1,lazy_itable_init=1,num_backup_sb=1",
        "64M",
        MIB,
        1000,
    );
}

#[test]
fn inode_features() {
    check("-t ext4 -b 4096 -O inline_data -I 256", "64M", MIB, 4000);
    check("-t ext4 -O inline_data -I 1024 -b 1024", "64M", MIB, 1000);
    check(
        "-t ext4 -b 4096 -O inline_data,^metadata_csum -I 4096 -N 2048",
        "64M",
        MIB,
        4000,
    );
    check(
        "-t ext4 -b 4096 -I 512 -O ea_inode,large_dir,project,quota",
        "64M",
        MIB,
        4000,
    );
    check(
        "-t ext4 -b 4096 -O encrypt,verity,mmp,stable_inodes,^has_journal",
        "64M",
        MIB,
        4000,
    );
    check(
        "-t ext4 -b 4096 -O casefold -E encoding=utf8",
        "64M",
        MIB,
        4000,
    );
    check(
        "-t ext4 -b 4096 -O orphan_file,fast_commit",
        "64M",
        MIB,
        4000,
    );
}
