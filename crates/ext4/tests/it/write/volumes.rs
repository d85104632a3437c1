//! Whole volumes: empty, with room, with backups, and on an output that fails.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use opengcs_ext4::Writer;

use super::{BLOCK_SIZES, file, metadata, noise, options};
use crate::judge::Image;

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

/// The block that a group starts with.
fn group_start(block_size: u32, group: u32) -> u64 {
    u64::from(group) * u64::from(block_size) * 8 + u64::from(block_size == 1024)
}

/// Runs a tool of e2fsprogs, and gives its exit code and what it says.
fn tool(program: &str, arguments: &[&str], image: &Path) -> (Option<i32>, String) {
    let output = Command::new(program)
        .args(arguments)
        .arg(image)
        .output()
        .unwrap_or_else(|error| panic!("{program} runs (package e2fsprogs): {error}"));
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn backups_bring_a_lost_superblock_and_descriptors_back() {
    for (block_size, size) in [
        (1024, 20u64 << 20),
        (1024, 300 << 20),
        (2048, 100 << 20),
        (4096, 300 << 20),
    ] {
        // The content reaches over the first backup.
        let group = u64::from(block_size) * u64::from(block_size) * 8;
        let content = noise(usize::try_from(group + (1 << 20)).unwrap(), 5);
        let image = Image::write(&options(block_size).size(size), |writer| {
            let root = writer.root();
            file(writer, root, "content", &content);
        });
        image.check();
        let path = image.path();
        let descriptors = (image.finished.groups * 64).div_ceil(block_size);
        let first = u64::from(block_size == 1024) + 1 + u64::from(descriptors);
        let zeros = vec![0; usize::try_from(first * u64::from(block_size)).unwrap()];
        for group in [1, image.finished.groups - 1] {
            let writable = File::options().write(true).open(&path).unwrap();
            writable.write_all_at(&zeros, 0).unwrap();
            let (code, said) = tool("e2fsck", &["-fn"], &path);
            assert_ne!(code, Some(0), "{said}");
            let start = group_start(block_size, group).to_string();
            let block = block_size.to_string();
            let (code, said) = tool("e2fsck", &["-fy", "-b", &start, "-B", &block], &path);
            assert_eq!(code, Some(1), "{block_size} {size} {group}: {said}");
            image.check();
            assert!(image.dump("/content") == content);
        }
    }
}

#[test]
fn volumes_have_backups_only_where_they_fit() {
    let groups = |size: Option<u64>| {
        let image = Image::write(&options(1024).size(size), |_| {});
        image.check();
        let (_, said) = tool("dumpe2fs", &[], &image.path());
        said.matches("Backup superblock at").count()
    };
    assert_eq!(groups(None), 0);
    assert_eq!(groups(Some(8 << 20)), 0);
    // The last group has two blocks, then three, then four.
    assert_eq!(groups(Some((8 << 20) + (3 << 10))), 0);
    assert_eq!(groups(Some((8 << 20) + (4 << 10))), 1);
    assert_eq!(groups(Some(16 << 20)), 1);
    assert_eq!(groups(Some(24 << 20)), 2);
}

#[test]
fn resize2fs_grows_and_shrinks_volumes() {
    for size in [None, Some(64 << 20), Some(300 << 20)] {
        let image = Image::write(&options(4096).size(size).journal(4 << 20), |writer| {
            let root = writer.root();
            file(writer, root, "content", &noise(3_000_000, 5));
        });
        image.check();
        let path = image.path();
        for grown in ["400M", "2G", "200M"] {
            let (code, said) = tool(
                "sh",
                &["-c", &format!("exec resize2fs -f \"$0\" {grown}")],
                &path,
            );
            assert_eq!(code, Some(0), "{size:?} {grown}: {said}");
            image.check();
            assert!(image.dump("/content") == noise(3_000_000, 5));
        }
    }
}

#[test]
fn journals_of_all_sizes_are_clean_also_across_backups() {
    for (block_size, size, journal) in [
        (1024, None, 1 << 20),
        (1024, Some(64 << 20), 32 << 20),
        (1024, Some(300u64 << 20), 200 << 20),
        (2048, None, (2 << 20) + 1000),
        (4096, Some(1 << 30), 256 << 20),
        (4096, None, 1 << 30),
    ] {
        let image = Image::write(&options(block_size).size(size).journal(journal), |writer| {
            let root = writer.root();
            file(writer, root, "content", &noise(3_000_000, 5));
        });
        image.check();
        let (_, said) = tool("dumpe2fs", &["-h"], &image.path());
        let blocks = journal / u64::from(block_size);
        let told = said
            .lines()
            .find_map(|line| line.strip_prefix("Total journal blocks:"))
            .map(|text| text.trim().parse::<u64>().unwrap());
        assert_eq!(told, Some(blocks), "{said}");
        assert!(image.dump("/content") == noise(3_000_000, 5));
    }
}

#[test]
fn journal_of_too_few_blocks_is_told_in_bytes() {
    let error = Writer::new(Vec::new(), &options(2048).journal(1000)).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("1000 bytes") && said.contains("2 MiB"),
        "{said}"
    );
}
