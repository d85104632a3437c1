//! Images of the writer under `e2fsck` and `debugfs`.

use std::fs::File;

use opengcs_ext4::{Device, FileType, Metadata, NodeId, Timestamp, Writer, WriterOptions, Xattr};

use crate::judge::Image;

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

#[test]
fn empty_image_is_clean() {
    for block_size in BLOCK_SIZES {
        for lost_found in [true, false] {
            let image = Image::write(&options(block_size).lost_found(lost_found), |_| {});
            image.check();
        }
    }
}

#[test]
fn every_kind_of_node_is_there() {
    for block_size in BLOCK_SIZES {
        let long = "t".repeat(block_size as usize - 1);
        let image = Image::write(&options(block_size), |writer| {
            let root = writer.root();
            let directory = writer.create_directory(root, b"dir", metadata()).unwrap();
            let hello = file(writer, directory, "hello", b"hello\n");
            writer.link(hello, root, b"again").unwrap();
            file(writer, directory, "big", &noise(3_000_000, 1));
            file(writer, directory, "empty", b"");
            writer
                .create_symlink(root, b"fast", b"dir/hello", metadata())
                .unwrap();
            writer
                .create_symlink(root, b"fast59", &[b'x'; 59], metadata())
                .unwrap();
            writer
                .create_symlink(root, b"slow60", &[b'x'; 60], metadata())
                .unwrap();
            writer
                .create_symlink(root, b"slow", long.as_bytes(), metadata())
                .unwrap();
            for (name, file_type, major, minor) in [
                ("null", FileType::CharDevice, 1, 3),
                ("new", FileType::CharDevice, 259, 70_000),
                ("disk", FileType::BlockDevice, 8, 1),
                ("pipe", FileType::Fifo, 0, 0),
                ("sock", FileType::Socket, 0, 0),
            ] {
                let device = Device { major, minor };
                writer
                    .create_special(root, name.as_bytes(), file_type, device, metadata())
                    .unwrap();
            }
        });
        image.check();
        assert_eq!(image.dump("/again"), b"hello\n");
        assert_eq!(image.dump("/dir/big"), noise(3_000_000, 1));
        assert_eq!(image.dump("/dir/empty"), b"");
        assert!(image.debugfs("stat /again").contains("Links: 2"));
        assert!(
            image
                .debugfs("stat /fast")
                .contains("Fast link dest: \"dir/hello\"")
        );
        assert!(
            image
                .debugfs("stat /null")
                .contains("Device major/minor number: 01:03")
        );
        assert!(
            image
                .debugfs("stat /new")
                .contains("Device major/minor number: 259:70000")
        );
        assert!(image.debugfs("stat /pipe").contains("Type: FIFO"));
        assert!(image.debugfs("stat /sock").contains("Type: socket"));
        assert!(
            image
                .debugfs("stat /slow")
                .contains(&format!("Size: {}", long.len()))
        );
    }
}

#[test]
fn owners_modes_and_times_are_exact() {
    let image = Image::write(&options(4096), |writer| {
        let root = writer.root();
        let odd = Metadata {
            mode: 0o6755,
            uid: 3_000_000_000,
            gid: 70_000,
            mtime: Timestamp {
                seconds: 10_000_000_000,
                nanoseconds: 5,
            },
            atime: Timestamp {
                seconds: -2,
                nanoseconds: 500_000_000,
            },
            ..metadata()
        };
        writer.create_directory(root, b"odd", odd).unwrap();
    });
    image.check();
    let stat = image.debugfs("stat /odd");
    assert!(stat.contains("Mode:  06755"), "{stat}");
    assert!(stat.contains("User: -1294967296   Group: 70000"), "{stat}");
    assert!(stat.contains("mtime: 0x540be400:00000016"), "{stat}");
    assert!(stat.contains("atime: 0xfffffffe:77359400"), "{stat}");
}

#[test]
fn attributes_lie_in_inode_then_block_then_inodes_of_their_own() {
    for block_size in BLOCK_SIZES {
        let xattr = |name: &str, value: Vec<u8>| Xattr {
            name: name.into(),
            value,
        };
        let small = vec![
            xattr("user.a", b"one".to_vec()),
            xattr(
                "security.capability",
                vec![
                    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
            ),
        ];
        let mut more = small.clone();
        more.push(xattr("trusted.overlay.opaque", b"y".to_vec()));
        more.push(xattr("user.empty", vec![]));
        more.push(xattr("user.large", noise(700, 3)));
        let mut most = more.clone();
        most.push(xattr("user.huge", noise(60_000, 4)));
        most.push(xattr("user.huge2", noise(5_000, 5)));
        let image = Image::write(&options(block_size).ea_inode(true), |writer| {
            let root = writer.root();
            for (name, xattrs) in [
                ("small", &small),
                ("more", &more),
                ("same", &more),
                ("most", &most),
            ] {
                let metadata = Metadata {
                    xattrs: xattrs.clone(),
                    ..metadata()
                };
                writer
                    .create_directory(root, name.as_bytes(), metadata)
                    .unwrap();
            }
        });
        image.check();
        assert!(image.debugfs("ea_get /small user.a").contains("one"));
        for path in ["/more", "/same", "/most"] {
            for xattr in &most {
                if path != "/most" && xattr.name.starts_with(b"user.huge") {
                    continue;
                }
                let name = String::from_utf8(xattr.name.clone()).unwrap();
                let target = image.beside("value");
                image.debugfs(&format!("ea_get -f {} {path} {name}", target.display()));
                assert_eq!(
                    std::fs::read(&target).unwrap(),
                    xattr.value,
                    "{path} {name}"
                );
            }
        }
    }
}

#[test]
fn attributes_that_fit_nowhere_are_refused() {
    let mut writer = Writer::new(vec![0u8; 1 << 20], &options(4096)).unwrap();
    let root = writer.root();
    let error = writer
        .set_xattr(root, b"user.huge", &[1; 5000])
        .unwrap_err();
    assert_eq!(error.kind(), opengcs_ext4::ErrorKind::TooLarge);
    let error = writer.set_xattr(root, b"nowhere.x", b"").unwrap_err();
    assert_eq!(error.kind(), opengcs_ext4::ErrorKind::Unsupported);
}

#[test]
fn large_directories_have_hash_trees() {
    for (block_size, count) in [(4096, 100_000), (1024, 20_000)] {
        let image = Image::write(&options(block_size), |writer| {
            let root = writer.root();
            let directory = writer.create_directory(root, b"many", metadata()).unwrap();
            let one = file(writer, directory, "one", b"1");
            for number in 0..count {
                let name = format!("entry with a name {number}");
                if number % 1000 == 0 {
                    writer.link(one, directory, name.as_bytes()).unwrap();
                } else {
                    writer
                        .create_special(
                            directory,
                            name.as_bytes(),
                            FileType::Fifo,
                            Device::default(),
                            metadata(),
                        )
                        .unwrap();
                }
            }
        });
        image.check();
        assert!(image.debugfs("htree /many").contains("Hash Version: 1"));
        assert!(
            image
                .debugfs("stat \"/many/entry with a name 77\"")
                .contains("Type: FIFO")
        );
    }
}

#[test]
fn names_of_255_bytes_fill_three_levels() {
    let image = Image::write(&options(1024), |writer| {
        let root = writer.root();
        for number in 0..60_000 {
            let name = format!("{number:0255}");
            writer
                .create_special(
                    root,
                    name.as_bytes(),
                    FileType::Fifo,
                    Device::default(),
                    metadata(),
                )
                .unwrap();
        }
    });
    image.check();
}

#[test]
fn directories_link_past_65000() {
    let image = Image::write(&options(4096), |writer| {
        let root = writer.root();
        for number in 0..65_100 {
            writer
                .create_directory(root, number.to_string().as_bytes(), metadata())
                .unwrap();
        }
    });
    image.check();
}

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

#[test]
fn removed_and_replaced_nodes_leave_free_blocks() {
    let image = Image::write(&options(4096), |writer| {
        let root = writer.root();
        let directory = writer.create_directory(root, b"gone", metadata()).unwrap();
        for number in 0..50 {
            file(
                writer,
                directory,
                &format!("f{number}"),
                &noise(100_000, number),
            );
        }
        let kept = writer.lookup(directory, b"f7").unwrap();
        writer.link(kept, root, b"kept").unwrap();
        writer.remove(root, b"gone").unwrap();
        assert!(writer.lookup(root, b"gone").is_none());
        file(writer, root, "gone", &noise(5_000_000, 99));
        let mut abandoned = writer.create_file(root, b"abandoned", metadata()).unwrap();
        abandoned.write(&noise(1_000_000, 5)).unwrap();
        drop(abandoned);
    });
    image.check();
    assert!(image.finished.free_blocks > 1000);
    assert_eq!(image.dump("/kept"), noise(100_000, 7));
    assert_eq!(image.dump("/gone"), noise(5_000_000, 99));
    assert!(image.debugfs("stat /kept").contains("Links: 1"));
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
fn sized_images_have_room() {
    for (block_size, size) in [
        (4096, 20u64 << 30),
        (1024, 64 << 20),
        (1024, 20 << 30),
        (2048, 1 << 30),
        (4096, 16 << 20),
        (4096, (1 << 30) - 12_345),
    ] {
        let image = Image::write(&options(block_size).size(size).journal(4 << 20), |_| {});
        image.check();
        assert_eq!(image.finished.size, size - size % u64::from(block_size));
        assert!(image.finished.free_inodes > 500);
    }
}

/// An output that takes so many bytes and fails from then on.
struct Failing(u64);

impl positioned_io::WriteAt for Failing {
    fn write_at(&mut self, _: u64, bytes: &[u8]) -> std::io::Result<usize> {
        let length = bytes.len() as u64;
        if self.0 < length {
            return Err(std::io::Error::other("the disk is gone"));
        }
        self.0 -= length;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn failing_output_is_an_error_wherever_it_fails() {
    fn write(bytes: u64) -> opengcs_ext4::Result<()> {
        let mut writer = Writer::new(Failing(bytes), &options(4096).journal(4 << 20))?;
        let root = writer.root();
        for number in 0..20u64 {
            let mut file = writer.create_file(root, number.to_string().as_bytes(), metadata())?;
            file.write(&noise(300_000, number))?;
            file.finish()?;
        }
        writer.finish().map(|_| ())
    }
    let mut bytes = 0;
    while let Err(error) = write(bytes) {
        assert_eq!(error.kind(), opengcs_ext4::ErrorKind::Io);
        assert!(std::error::Error::source(&error).is_some());
        bytes += 50_000;
    }
    assert!(bytes > 6_000_000);
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
fn names_and_places_that_cannot_be_are_refused() {
    use opengcs_ext4::ErrorKind;
    let mut writer = Writer::new(vec![0u8; 1 << 20], &options(4096)).unwrap();
    let root = writer.root();
    for (name, kind) in [
        (&b""[..], ErrorKind::InvalidInput),
        (b".", ErrorKind::InvalidInput),
        (b"..", ErrorKind::InvalidInput),
        (b"a/b", ErrorKind::InvalidInput),
        (b"a\0", ErrorKind::InvalidInput),
        (&[b'x'; 256], ErrorKind::TooLarge),
        (b"lost+found", ErrorKind::AlreadyExists),
    ] {
        let error = writer.create_directory(root, name, metadata()).unwrap_err();
        assert_eq!(error.kind(), kind, "{name:?}");
        assert_eq!(
            writer
                .create_file(root, name, metadata())
                .unwrap_err()
                .kind(),
            kind
        );
    }
    let node = writer
        .create_symlink(root, b"link", b"x", metadata())
        .unwrap();
    let directory = writer.create_directory(root, b"dir", metadata()).unwrap();
    let wrong = writer.create_directory(node, b"x", metadata()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongType);
    assert_eq!(
        writer.link(directory, root, b"d2").unwrap_err().kind(),
        ErrorKind::WrongType
    );
    assert_eq!(
        writer.remove(root, b"none").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    writer.remove(root, b"dir").unwrap();
    let gone = writer
        .create_directory(directory, b"x", metadata())
        .unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let device = Device {
        major: 4096,
        minor: 0,
    };
    let error = writer
        .create_special(root, b"dev", FileType::CharDevice, device, metadata())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    for _ in 1..65_000 {
        let name = writer.links(node).to_string();
        writer.link(node, root, name.as_bytes()).unwrap();
    }
    assert_eq!(
        writer.link(node, root, b"more").unwrap_err().kind(),
        ErrorKind::TooLarge
    );
}

#[test]
fn deep_trees_are_written_and_removed() {
    let image = Image::write(&options(4096), |writer| {
        let root = writer.root();
        for top in [&b"kept"[..], b"gone"] {
            let mut parent = writer.create_directory(root, top, metadata()).unwrap();
            for _ in 0..5000 {
                parent = writer.create_directory(parent, b"d", metadata()).unwrap();
            }
        }
        writer.remove(root, b"gone").unwrap();
    });
    image.check();
}
