//! Directories at sizes where their form changes.

use opengcs_ext4::{Device, FileType};

use super::{file, metadata, options};
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
