//! Directories at sizes where their form changes.

use opengcs_ext4::{Device, FileType};

use super::{BLOCK_SIZES, file, metadata, options};
use crate::judge::Image;

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
    assert!(image.debugfs("features").contains("large_dir"));
    assert!(image.debugfs("htree /").contains("Indirect levels: 2"));
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
    assert!(image.debugfs("stat /").contains("Links: 1 "));
}

#[test]
fn small_directories_lie_in_their_inodes_when_asked() {
    for block_size in BLOCK_SIZES {
        for ea_inode in [false, true] {
            let image = Image::write(
                &options(block_size).inline_data(true).ea_inode(ea_inode),
                |writer| {
                    let root = writer.root();
                    // Names that fill the first part, both, and neither, with and without
                    // attributes that want the same room.
                    for names in 0..14usize {
                        for (kind, value) in [("bare", 0), ("tagged", 10), ("full", 200)] {
                            let name = format!("{kind}{names}");
                            let folder = writer
                                .create_directory(root, name.as_bytes(), metadata())
                                .unwrap();
                            if value > 0 {
                                writer
                                    .set_xattr(folder, b"user.a", &vec![1; value])
                                    .unwrap();
                            }
                            for number in 0..names {
                                let name = "n".repeat(1 + number * 5 % 12) + &number.to_string();
                                if number % 2 == 0 {
                                    file(writer, folder, &name, b"small");
                                } else {
                                    writer
                                        .create_directory(folder, name.as_bytes(), metadata())
                                        .unwrap();
                                }
                            }
                        }
                    }
                },
            );
            image.check();
            for (path, inline) in [
                ("/bare0", true),
                ("/bare1", true),
                ("/bare4", true),
                ("/tagged2", true),
                ("/bare13", false),
                ("/", false),
                ("/lost+found", false),
            ] {
                let stat = image.debugfs(&format!("stat {path}"));
                let flag = stat.contains("Flags: 0x10000000");
                assert_eq!(flag, inline, "{block_size} {path}: {stat}");
            }
            let listed = image.debugfs("ls -p /tagged5");
            assert_eq!(listed.matches("/n").count(), 5, "{listed}");
        }
    }
}
