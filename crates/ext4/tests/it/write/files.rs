//! How files' bytes lie: in extent trees, in inodes, and the same however they come.

use opengcs_ext4::Writer;

use super::{BLOCK_SIZES, file, metadata, noise, options};
use crate::judge::Image;

#[test]
fn many_holes_make_a_deep_extent_tree() {
    for block_size in BLOCK_SIZES {
        let block = block_size as usize;
        let mut expected = Vec::new();
        let image = Image::write(&options(block_size), |writer| {
            let root = writer.root();
            let mut holes = writer.create_file(root, b"holes", metadata()).unwrap();
            for number in 0..8000 {
                let bytes = noise(block, number + 1);
                holes.write(&bytes).unwrap();
                holes.skip(block as u64).unwrap();
                expected.extend_from_slice(&bytes);
                expected.resize(expected.len() + block, 0);
            }
            holes.finish().unwrap();
        });
        image.check();
        assert_eq!(image.dump("/holes"), expected);
    }
}

/// Blocks of an extent tree are sealed before the inode's number is known: what is removed later
/// changes the number. Long targets of links go out as they come, too.
#[test]
fn what_is_removed_changes_nothing_for_what_was_written() {
    for block_size in BLOCK_SIZES {
        let block = block_size as usize;
        let target = |number: u64| vec![b'a' + number as u8 % 26; 60 + number as usize * 7];
        let pieces = |seed: u64| {
            let piece = |number| [noise(block, seed + number), vec![0; block]].concat();
            (0..600).flat_map(piece).collect::<Vec<u8>>()
        };
        let image = Image::write(&options(block_size), |writer| {
            let root = writer.root();
            for number in 0..40 {
                file(
                    writer,
                    root,
                    &format!("gone{number}"),
                    &noise(9 * block, number),
                );
                file(
                    writer,
                    root,
                    &format!("pieces{number}"),
                    &pieces(number * 1000),
                );
                let name = format!("link{number}");
                writer
                    .create_symlink(root, name.as_bytes(), &target(number), metadata())
                    .unwrap();
            }
            // An unfinished file gives everything back, its tree too.
            let mut left = writer.create_file(root, b"left", metadata()).unwrap();
            left.write(&pieces(7)).unwrap();
            drop(left);
            for number in 0..40 {
                let name = |what: &str| format!("{what}{number}").into_bytes();
                writer.remove(root, &name("gone")).unwrap();
                if number % 4 == 3 {
                    writer.remove(root, &name("pieces")).unwrap();
                    writer.remove(root, &name("link")).unwrap();
                }
            }
        });
        image.check();
        for number in [0, 1, 38] {
            assert_eq!(
                image.dump(&format!("/pieces{number}")),
                pieces(number * 1000)
            );
            let shown = image.debugfs(&format!("cat /link{number}"));
            assert_eq!(shown.into_bytes(), target(number));
        }
    }
}

#[test]
fn journal_and_inline_data_are_clean() {
    for block_size in BLOCK_SIZES {
        let image = Image::write(
            &options(block_size).journal(8 << 20).inline_data(true),
            |writer| {
                let root = writer.root();
                for length in [1, 59, 60, 61, 100, 128, 129, 200] {
                    file(writer, root, &format!("f{length}"), &noise(length, 3));
                    let tagged = file(writer, root, &format!("x{length}"), &noise(length, 4));
                    writer.set_xattr(tagged, b"user.tag", &[7; 30]).unwrap();
                }
            },
        );
        image.check();
        for length in [1, 59, 60, 61, 100, 128, 129, 200] {
            for (letter, seed) in [('f', 3), ('x', 4)] {
                let path = format!("/{letter}{length}");
                assert!(
                    image
                        .debugfs(&format!("stat {path}"))
                        .contains(&format!("Size: {length}\n"))
                );
                // debugfs dumps all of i_block for shorter inline files.
                let mut dumped = image.dump(&path);
                dumped.truncate(length);
                assert_eq!(dumped, noise(length, seed));
            }
        }
        assert!(
            image
                .debugfs("logdump -S")
                .contains("Journal starts at block 0, transaction 1")
        );
    }
}

#[test]
fn chunking_does_not_change_the_bytes() {
    let write = |pieces: &[usize]| {
        let mut writer = Writer::new(vec![0u8; 4 << 20], &options(1024)).unwrap();
        let root = writer.root();
        let mut bytes = noise(400_000, 8);
        bytes[10_000..90_000].fill(0);
        bytes[200_000..204_000].fill(0);
        let mut file = writer.create_file(root, b"file", metadata()).unwrap();
        let mut rest = bytes.as_slice();
        for &piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            file.write(now).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        file.finish().unwrap();
        writer.finish().unwrap().1
    };
    let whole = write(&[400_000]);
    for pieces in [
        &[1usize, 7, 1023][..],
        &[1024],
        &[1025, 4096, 3],
        &[65_536],
        &[300_000],
    ] {
        assert!(write(pieces) == whole, "{pieces:?}");
    }
}

#[test]
fn extent_trees_are_as_deep_as_they_must_be() {
    // With 1 KiB blocks an inode has room for 4 entries and a block for 84.
    for (extents, depth) in [
        (4u64, 0),
        (5, 1),
        (336, 1),
        (337, 2),
        (28_224, 2),
        (28_225, 3),
    ] {
        let image = Image::write(&options(1024), |writer| {
            let root = writer.root();
            let mut holes = writer.create_file(root, b"holes", metadata()).unwrap();
            for number in 0..extents {
                holes.write(&noise(1024, number + 1)).unwrap();
                holes.skip(1024).unwrap();
            }
            holes.finish().unwrap();
        });
        image.check();
        let tree = image.debugfs("extents /holes");
        let level = format!(" {depth}/ {depth} ");
        assert!(tree.contains(&level), "{extents}: {}", &tree[..300]);
        let dumped = image.dump("/holes");
        for number in [0, extents / 2, extents - 1] {
            let at = usize::try_from(number * 2048).unwrap();
            assert!(dumped[at..at + 1024] == noise(1024, number + 1));
        }
    }
}
