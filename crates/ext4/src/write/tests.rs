//! What cannot be reached from outside: blocks with numbers past 32 bits.

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
