//! Volumes and files at sizes that only sparse output can reach.

use std::fs::File;

use opengcs_ext4::{ErrorKind, Metadata, Writer, WriterOptions};

use crate::judge::Image;

/// Disk space that an image really takes.
fn taken(image: &Image) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(image.path()).unwrap().blocks() * 512
}

#[test]
fn sparse_file_of_200_gib_takes_only_what_it_holds() {
    let image = Image::write(&WriterOptions::default(), |writer: &mut Writer<File>| {
        let root = writer.root();
        let mut sparse = writer
            .create_file(root, b"sparse", Metadata::default())
            .unwrap();
        sparse.write(b"begin").unwrap();
        for _ in 0..10 {
            sparse.skip(20 << 30).unwrap();
            sparse.write(b"middle").unwrap();
        }
        sparse.finish().unwrap();
    });
    image.check();
    assert!(
        image
            .debugfs("stat /sparse")
            .contains(&format!("Size: {}", 5 + 10 * ((20u64 << 30) + 6)))
    );
    assert!(taken(&image) < 1 << 20);
}

#[test]
fn longest_file_is_possible_and_no_longer_one() {
    let max = u64::from(u32::MAX) * 4096;
    let image = Image::write(&WriterOptions::default(), |writer: &mut Writer<File>| {
        let root = writer.root();
        let mut sparse = writer
            .create_file(root, b"longest", Metadata::default())
            .unwrap();
        sparse.skip(max - 1).unwrap();
        sparse.write(b"x").unwrap();
        let error = sparse.write(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        sparse.finish().unwrap();
    });
    image.check();
    assert!(
        image
            .debugfs("stat /longest")
            .contains(&format!("Size: {max}"))
    );
}

#[test]
fn empty_20_gib_scratch_takes_little() {
    let options = WriterOptions::default().size(20 << 30);
    let image = Image::write(&options, |_| {});
    image.check();
    assert!(taken(&image) < 4 << 20, "{} bytes", taken(&image));
    assert_eq!(image.finished.inodes, (20u64 << 30 >> 14) as u32);
}

#[test]
fn empty_volume_of_20_tib_is_clean() {
    let directory = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let path = directory.path().join("image");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let options = WriterOptions::default().size(20u64 << 40).inodes(1_000_000);
    let mut writer = Writer::new(file, &options).unwrap();
    let root = writer.root();
    let mut content = writer
        .create_file(root, b"file", Metadata::default())
        .unwrap();
    content.write(&[1; 100_000]).unwrap();
    content.finish().unwrap();
    let (finished, file) = writer.finish().unwrap();
    file.set_len(finished.size).unwrap();
    crate::judge::check(&path);
}

#[test]
fn too_small_a_size_is_no_space() {
    for size in [0, 1000, 20_000] {
        let options = WriterOptions::default().size(size);
        let error = Writer::new(vec![0u8; 1 << 20], &options)
            .and_then(Writer::finish)
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{size}");
    }
    let mut writer =
        Writer::new(vec![0u8; 1 << 20], &WriterOptions::default().size(1 << 20)).unwrap();
    let root = writer.root();
    let mut file = writer
        .create_file(root, b"large", Metadata::default())
        .unwrap();
    let error = file.write(&[1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
}

#[test]
fn more_inodes_than_blocks_stay_compact() {
    let image = Image::write(&WriterOptions::default(), |writer: &mut Writer<File>| {
        let root = writer.root();
        for number in 0..300_000u32 {
            let name = number.to_string();
            let file = writer
                .create_file(root, name.as_bytes(), Metadata::default())
                .unwrap();
            file.finish().unwrap();
        }
    });
    image.check();
    assert!(
        image.finished.size < 120 << 20,
        "{} bytes",
        image.finished.size
    );
}
