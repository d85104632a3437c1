//! What takes too much data to reach from outside: far blocks, and volumes that end at odd places.

use std::fs::File;
use std::process::Command;

use super::*;

#[test]
fn blocks_past_16_tib_are_clean() {
    let directory = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let path = directory.path().join("image");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let mut writer = Writer::new(file, &WriterOptions::default()).unwrap();
    writer.allocator.grow_to((1 << 32) + 5);
    let root = writer.root();
    let many = writer
        .create_directory(root, b"many", Metadata::default())
        .unwrap();
    for number in 0..500 {
        let mut file = writer
            .create_file(
                many,
                format!("a longer name {number}").as_bytes(),
                Metadata::default(),
            )
            .unwrap();
        for _ in 0..10 {
            file.write(&[7; 4096]).unwrap();
            file.skip(4096).unwrap();
        }
        file.finish().unwrap();
    }
    writer.set_xattr(root, b"user.large", &[3; 3000]).unwrap();
    writer
        .create_symlink(root, b"slow", &[b's'; 100], Metadata::default())
        .unwrap();
    let (finished, file) = writer.finish().unwrap();
    assert!(finished.blocks > 1 << 32);
    file.set_len(finished.size).unwrap();
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(&path)
        .output()
        .expect("e2fsck runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Writes a little behind `start` in an otherwise empty volume, and has it checked.
fn ends_behind(block_size: u32, start: u64) {
    let directory = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let path = directory.path().join("image");
    let file = File::create_new(&path).unwrap();
    let options = WriterOptions::default().block_size(block_size);
    let mut writer = Writer::new(file, &options).unwrap();
    writer.allocator.grow_to(start);
    let root = writer.root();
    let mut file = writer.create_file(root, b"f", Metadata::default()).unwrap();
    file.write(&[7; 5000]).unwrap();
    file.finish().unwrap();
    let (finished, _) = writer.finish().unwrap();
    assert!(finished.blocks > start);
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(&path)
        .output()
        .expect("e2fsck runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{block_size} {start}: {said}");
}

#[test]
fn volumes_past_their_first_descriptors_are_clean() {
    for block_size in [1024, 2048, 4096] {
        let geometry = Geometry::new(block_size, None).unwrap();
        let per_block = geometry.descriptors_per_block();
        let first = geometry.descriptor_blocks * per_block;
        for group in [
            first - 1,
            first,
            first + 1,
            first + per_block - 1,
            first + per_block,
        ] {
            ends_behind(block_size, geometry.group_start(group) + 100);
        }
    }
}

#[test]
fn volumes_that_end_near_a_group_are_clean() {
    let geometry = Geometry::new(1024, None).unwrap();
    let first = geometry.descriptor_blocks * geometry.descriptors_per_block();
    for group in [1, 2, first, first + 1] {
        // Behind the file come a directory or two, and the metadata of the groups.
        for before in (0..60).chain((560..640).step_by(3)) {
            ends_behind(1024, geometry.group_start(group) - before);
        }
    }
}
