//! What only some images have: deep trees of extents, odd flags, block sizes that few machines mount.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use opengcs_ext4::{ErrorKind, Reader, Segment, SegmentKind};

use crate::journal::blocks;
use crate::read_tools::{Scratch, assert_same, noise, run, tree, tree_of_image};

/// A file's bytes as `debugfs` finds them.
fn dump(scratch: &Scratch, image: &Path, name: &str) -> Vec<u8> {
    let target = scratch.path("dumped");
    let command = format!("dump {name} {}", target.display());
    run("debugfs", &["-R", &command, image.to_str().unwrap()], &[0]);
    fs::read(target).unwrap()
}

/// Blocks that are not in use, with noise in them.
fn free_blocks(image: &Path, count: u64, block_size: u64) -> Vec<u64> {
    let command = format!("ffb {count}");
    let text = run("debugfs", &["-R", &command, image.to_str().unwrap()], &[0]);
    let words = text.split_whitespace();
    let free: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    assert_eq!(free.len() as u64, count);
    let file = File::options().write(true).open(image).unwrap();
    for &block in &free {
        let bytes = noise(block, usize::try_from(block_size).unwrap());
        file.write_all_at(&bytes, block * block_size).unwrap();
    }
    free
}

/// A node of a tree of extents: its head, then records of three words.
fn node(depth: u32, most: u32, records: &[[u32; 3]]) -> Vec<u32> {
    let count = u32::try_from(records.len()).unwrap();
    let mut words = vec![0xF30A | (count << 16), most | (depth << 16), 0];
    words.extend(records.as_flattened());
    words
}

fn write_node(image: &Path, block: u64, words: &[u32]) {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(1024, 0);
    let file = File::options().write(true).open(image).unwrap();
    file.write_all_at(&bytes, block * 1024).unwrap();
}

/// Makes `file` one with this root of its tree.
fn set_root(scratch: &Scratch, image: &Path, words: &[u32], size: u64) {
    let mut commands = vec![format!("sif file size {size}")];
    for (number, word) in words.iter().enumerate() {
        commands.push(format!("sif file block[{number}] {word}"));
    }
    scratch.debugfs(image, &commands);
}

fn low(block: u64) -> u32 {
    u32::try_from(block).unwrap()
}

/// An image of 1 KiB blocks without checksums, with a file named `file`.
fn plain(scratch: &Scratch) -> std::path::PathBuf {
    let source = scratch.path("source");
    fs::create_dir_all(source.join("folder")).unwrap();
    fs::write(source.join("file"), noise(1, 3000)).unwrap();
    fs::write(source.join("other"), noise(2, 3000)).unwrap();
    scratch.make(
        "-t ext4 -b 1024 -O ^metadata_csum,^has_journal",
        "8M",
        Some(&source),
    )
}

#[test]
fn five_levels_of_extents_with_holes_and_unwritten_blocks() {
    let scratch = Scratch::new();
    let image = plain(&scratch);
    let free = free_blocks(&image, 20, 1024);
    let (nodes, data) = free.split_at(5);
    let leaf = [
        [3, 2, low(data[0])],
        [5, 32768 + 3, low(data[2])],
        [10, 1, low(data[7])],
        [12, 4, low(data[8])],
    ];
    write_node(&image, nodes[4], &node(0, 84, &leaf));
    for depth in 1..5 {
        let below = nodes[5 - depth];
        let index = [[0, low(below), 0]];
        let words = node(u32::try_from(depth).unwrap(), 84, &index);
        write_node(&image, nodes[4 - depth], &words);
    }
    let size = 13 * 1024 + 100;
    let root = node(5, 4, &[[0, low(nodes[0]), 0]]);
    set_root(&scratch, &image, &root, size);
    let found = tree_of_image(&image);
    let content = &found[&b"/file"[..]].content;
    assert_eq!(content.len() as u64, size);
    assert_eq!(
        content[3 * 1024..5 * 1024],
        [noise(data[0], 1024), noise(data[1], 1024)].concat()
    );
    assert!(content[5 * 1024..10 * 1024].iter().all(|&byte| byte == 0));
    assert!(*content == dump(&scratch, &image, "file"));

    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let root = reader.inode(reader.root()).unwrap();
    let entries = reader.read_dir(&root).unwrap();
    let entry = entries.iter().find(|entry| entry.name == b"file").unwrap();
    let inode = reader.inode(entry.inode).unwrap();
    let segments: Vec<_> = reader
        .segments(&inode)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let (hole, data) = (SegmentKind::Hole, SegmentKind::Data);
    let expected = [
        (0, 3072, hole),
        (3072, 2048, data),
        (5120, 5120, hole),
        (10240, 1024, data),
        (11264, 1024, hole),
        (12288, 1124, data),
    ];
    assert_eq!(
        segments,
        expected.map(|(offset, length, kind)| Segment {
            offset,
            length,
            kind
        })
    );
}

#[test]
fn trees_of_extents_that_contradict_themselves_are_corrupt() {
    let scratch = Scratch::new();
    let image = plain(&scratch);
    let free = free_blocks(&image, 8, 1024);
    let [a, b, c, d, ..] = free[..] else {
        panic!("too few blocks");
    };
    let good = node(0, 84, &[[0, 1, low(d)]]);
    write_node(&image, b, &good);
    write_node(&image, c, &good);
    // A circle.
    write_node(&image, a, &node(1, 84, &[[0, low(a), 0]]));
    let far = 8 * 1024;
    let roots = [
        // Overlapping, and out of order.
        node(0, 4, &[[0, 5, low(d)], [4, 2, low(a)]]),
        node(0, 4, &[[4, 1, low(d)], [0, 1, low(a)]]),
        // No blocks, the superblock's block, behind the volume, over its end.
        node(0, 4, &[[0, 0, low(d)]]),
        node(0, 4, &[[0, 1, 1]]),
        node(0, 4, &[[0, 1, far]]),
        node(0, 4, &[[0, 5, far - 2]]),
        // Behind what a file can have.
        node(0, 4, &[[u32::MAX, 2, low(d)]]),
        // The same leaf twice, a leaf below its own index, and one too deep.
        node(1, 4, &[[0, low(b), 0], [5, low(b), 0]]),
        node(2, 4, &[[0, low(a), 0]]),
        node(1, 4, &[[0, low(a), 0]]),
        node(6, 4, &[[0, low(b), 0]]),
        node(1, 4, &[]),
        // A leaf whose extents lie before its index, or in its neighbour's.
        node(1, 4, &[[3, low(b), 0]]),
        // More records than there is room for.
        vec![0x0005_F30A, 4, 0],
        vec![0x0001_F30A, 5, 0, 0, 1, low(d)],
        vec![0x0001_F30B, 4, 0, 0, 1, low(d)],
    ];
    for (number, root) in roots.into_iter().enumerate() {
        set_root(&scratch, &image, &root, 6 * 1024);
        let reader = Reader::open(File::open(&image).unwrap()).unwrap();
        let error = tree(&reader).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{number}: {error}");
        assert!(error.inode().is_some(), "{number}: {error}");
    }
    let root = node(1, 4, &[[0, low(b), 0]]);
    set_root(&scratch, &image, &root, 6 * 1024);
    assert_eq!(
        tree_of_image(&image)[&b"/file"[..]].content[..1024],
        noise(d, 1024)
    );
}

#[test]
fn flags_that_change_nothing_to_a_reader() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    fs::create_dir_all(source.join("folder/below")).unwrap();
    for name in ["verity", "huge", "append", "plain"] {
        fs::write(source.join(name), noise(5, 5000)).unwrap();
    }
    let image = scratch.make(
        "-t ext4 -b 4096 -O verity,encrypt,casefold,stable_inodes,project,quota",
        "32M",
        Some(&source),
    );
    let commands = [
        // With its blocks counted in blocks of the volume.
        "sif huge flags 0xc0000",
        "sif huge blocks 2",
        "sif verity flags 0x180000",
        // Synchronous, immutable, append-only, not dumped, no access times, secure deletion.
        "sif append flags 0x800f9",
        // Too many subdirectories to count them; and names without case.
        "sif folder links_count 1",
        "sif folder flags 0x40080000",
        // Beside them one that cannot be read.
        "mkdir secret",
        "sif secret flags 0x80800",
    ];
    scratch.debugfs(&image, &commands.map(str::to_owned));
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let root = reader.inode(reader.root()).unwrap();
    let mut seen = 0;
    for entry in reader.entries(&root).unwrap() {
        let entry = entry.unwrap();
        let inode = reader.inode(entry.inode).unwrap();
        match entry.name.as_slice() {
            b"folder" => {
                assert_eq!(inode.links(), 1);
                assert!(inode.is_casefolded());
                assert_eq!(reader.read_dir(&inode).unwrap()[0].name, b"below");
            }
            b"secret" => {
                let error = reader.entries(&inode).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
            b"lost+found" => continue,
            name => {
                assert_eq!(inode.is_verity(), name == b"verity");
                let mut bytes = vec![0; 6000];
                assert_eq!(reader.read_at(&inode, 0, &mut bytes).unwrap(), 5000);
                assert!(bytes[..5000] == noise(5, 5000));
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn entries_come_as_they_are_asked_for() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    fs::create_dir_all(source.join("many")).unwrap();
    for number in 0..2000 {
        let name = format!("{number:04}{}", "n".repeat(200));
        fs::write(source.join("many").join(name), []).unwrap();
    }
    let image = scratch.make("-t ext4 -b 1024 -N 3000", "32M", Some(&source));
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let root = reader.inode(reader.root()).unwrap();
    let entries = reader.read_dir(&root).unwrap();
    let many = entries.iter().find(|entry| entry.name == b"many").unwrap();
    let many = reader.inode(many.inode).unwrap();
    let at_once = reader.read_dir(&many).unwrap();
    let one_by_one: Vec<_> = reader.entries(&many).unwrap().map(Result::unwrap).collect();
    assert_eq!(one_by_one.len(), 2000);
    assert!(at_once == one_by_one);

    // Its last block is damaged: what comes before is given out, then one error, then nothing.
    let last = *blocks(&image, "many").last().unwrap();
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[0xFF; 16], last * 1024).unwrap();
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let mut entries = reader.entries(&many).unwrap();
    let good = entries.by_ref().take_while(Result::is_ok).count();
    assert!(good > 500 && good < 2000, "{good}");
    assert!(entries.next().is_none());
    assert!(reader.read_dir(&many).is_err());
}

#[test]
fn an_inline_file_that_is_all_hole_reads_as_zeros() {
    let folder = tempfile::TempDir::new().unwrap();
    let (source, image) = (folder.path().join("source"), folder.path().join("image"));
    fs::create_dir(&source).unwrap();
    let hole = File::create(source.join("hole")).unwrap();
    hole.set_len(5 << 20).unwrap();
    let made = std::process::Command::new("mkfs.ext4")
        .args(["-q", "-F", "-O", "inline_data", "-d"])
        .args([&source, &image])
        .arg("32M")
        .status()
        .unwrap();
    assert!(made.success());
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let root = reader.inode(reader.root()).unwrap();
    let entries = reader.read_dir(&root).unwrap();
    let entry = entries.iter().find(|entry| entry.name == b"hole").unwrap();
    let file = reader.inode(entry.inode).unwrap();
    assert_eq!(file.size(), 5 << 20);
    let mut bytes = vec![1; 5 << 20];
    assert_eq!(reader.read_at(&file, 0, &mut bytes).unwrap(), 5 << 20);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn orphans_are_in_no_folder_and_a_file_ends_where_it_was_being_cut() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    fs::create_dir_all(&source).unwrap();
    for (number, name) in (1..).zip(["gone", "cut", "stays"]) {
        fs::write(source.join(name), noise(number, 50_000)).unwrap();
    }
    for options in ["-t ext4 -b 1024", "-t ext3 -b 1024"] {
        let image = scratch.make(options, "8M", Some(&source));
        let reader = Reader::open(File::open(&image).unwrap()).unwrap();
        let root = reader.inode(reader.root()).unwrap();
        let entries = reader.read_dir(&root).unwrap();
        let number = |name: &[u8]| {
            let entry = entries.iter().find(|entry| entry.name == name);
            entry.unwrap().inode
        };
        let (gone, cut) = (number(b"gone"), number(b"cut"));
        // What a kernel leaves that dies with a file open that has no name, and within a truncation:
        // a list of them, linked by their times of deletion.
        let commands = [
            "unlink gone".to_owned(),
            format!("sif <{gone}> links_count 0"),
            format!("sif <{gone}> dtime @{cut}"),
            format!("sif <{cut}> dtime @0"),
            format!("sif <{cut}> size 10001"),
            format!("ssv last_orphan {gone}"),
        ];
        scratch.debugfs(&image, &commands);
        let found = tree_of_image(&image);
        assert!(!found.contains_key(&b"/gone"[..]));
        assert!(found[&b"/cut"[..]].content == noise(2, 50_000)[..10_001]);
        let said = run("e2fsck", &["-fy", image.to_str().unwrap()], &[0, 1]);
        for what in ["Clearing orphaned", "Truncating orphaned"] {
            assert!(said.contains(what), "{options}: {said}");
        }
        assert_same(options, &tree_of_image(&image), &found);
    }
}
