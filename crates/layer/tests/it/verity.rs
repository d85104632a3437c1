//! dm-verity trees, judged by `veritysetup`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use opengcs_layer::{
    Control, DiskToTarOptions, ErrorKind, Format, TarToDiskOptions, Verity, disk_to_tar, inspect,
    tar_to_disk,
};

use crate::forge::Tar;
use crate::judge;

fn sample() -> Vec<u8> {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..2_000_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect();
    Tar::new()
        .dir("etc/")
        .file("etc/hostname", "box\n")
        .file("noise", noise)
        .symlink("link", "noise")
        .end()
}

fn options(format: Format) -> TarToDiskOptions {
    TarToDiskOptions {
        format,
        sync: false,
        verity: true,
        ..TarToDiskOptions::default()
    }
}

/// `veritysetup verify`; what it says when it does not agree.
fn verify(disk: &Path, verity: &Verity) -> Result<(), String> {
    let disk = disk.to_str().unwrap();
    let offset = format!("--hash-offset={}", verity.hash_offset);
    let output = judge::run(
        "veritysetup",
        &["verify", disk, disk, &verity.root_hash, &offset],
    );
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn veritysetup_agrees_in_every_format_and_size() {
    let folder = tempfile::tempdir().unwrap();
    let tar = sample();
    let mut roots = Vec::new();
    for size in [None, Some(64 << 20), Some((600 << 20) + 12_800)] {
        for (format, qemu) in [
            (Format::Raw, "raw"),
            (Format::FixedVhd, "vpc"),
            (Format::Vhdx, "vhdx"),
        ] {
            let disk = folder.path().join(format!("disk.{qemu}"));
            let mut options = options(format);
            options.ext4.filesystem.size = size;
            let converted = tar_to_disk(&tar[..], &disk, &options).unwrap();
            let verity = converted.verity.unwrap();
            assert_eq!(
                converted.virtual_size,
                fs::metadata(&disk).map_or(0, |found| match format {
                    Format::Raw => found.len(),
                    Format::FixedVhd => found.len() - 512,
                    _ => converted.virtual_size,
                })
            );
            // A fixed VHD is the disk with a footer behind it, so it is judged as it is.
            let raw = if format == Format::Vhdx {
                let raw = folder.path().join("raw");
                let [from, to] = [&disk, &raw].map(|path| path.to_str().unwrap());
                judge::succeed("qemu-img", &["convert", "-O", "raw", from, to]);
                raw
            } else {
                disk.clone()
            };
            assert_eq!(verify(&raw, &verity), Ok(()), "{format} {size:?}");
            if format == Format::Raw {
                judge::fsck(&disk);
            }
            let found = inspect(&disk).unwrap();
            assert_eq!(found.verity.as_ref(), Some(&verity));
            let filesystem = found.filesystem.unwrap();
            assert_eq!(
                verity.hash_offset,
                filesystem.blocks * u64::from(filesystem.block_size)
            );
            roots.push((size, verity.root_hash));
            let mut back = Vec::new();
            disk_to_tar(&disk, &mut back, &DiskToTarOptions::default()).unwrap();
            assert!(back.windows(8).any(|bytes| bytes == b"hostname"));
            fs::remove_file(&disk).unwrap();
        }
    }
    // The format is around the file system, and does not change its hash.
    for (size, root) in &roots {
        assert!(
            roots
                .iter()
                .all(|(other, hash)| (other == size) == (hash == root)),
            "{roots:?}"
        );
    }
}

#[test]
fn veritysetup_agrees_where_a_level_ends_with_a_full_block() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let tar = Tar::new().file("a", "1").end();
    for blocks in [127, 128, 129, 128 * 128, 128 * 128 + 1] {
        let mut options = options(Format::Raw);
        options.ext4.filesystem.size = Some(blocks * 4096);
        let verity = tar_to_disk(&tar[..], &disk, &options)
            .unwrap()
            .verity
            .unwrap();
        assert_eq!(verity.data_blocks, blocks);
        assert_eq!(verify(&disk, &verity), Ok(()), "{blocks}");
    }
}

#[test]
fn cancelling_ends_the_hashing_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let control = Control::new();
    let mut options = options(Format::Raw);
    // Told at the tar's end, which is before the tree is made.
    let told = control.clone();
    options.ext4.control = control.on_progress(move |_| told.cancel());
    let tar = Tar::new().file("a", "1").end();
    let error = tar_to_disk(&tar[..], &disk, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let converted = tar_to_disk(&sample()[..], &disk, &options(Format::Raw)).unwrap();
    let verity = converted.verity.unwrap();
    let file = File::options().read(true).write(true).open(&disk).unwrap();
    let end = verity.hash_offset;
    // In the superblock, in data, in the last block, in the tree's root and leaves.
    for at in [1024, 1_000_000, end - 1, end + 4096, end + 2 * 4096 + 5] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        assert!(verify(&disk, &verity).is_err(), "byte {at}");
        file.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(verify(&disk, &verity), Ok(()));
}

#[test]
fn the_same_input_gives_the_same_root_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let disk = folder.path().join(name);
        let converted = tar_to_disk(&sample()[..], &disk, &options(Format::FixedVhd)).unwrap();
        (converted.verity.unwrap(), fs::read(disk).unwrap())
    };
    let first = write("first");
    assert!(first == write("second"));
    assert_eq!(first.0.salt, "0".repeat(64));
    assert_eq!(first.0.algorithm, "sha256");
}

#[test]
fn veritysetup_reads_the_superblock_as_it_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let mut options = options(Format::Raw);
    // A file system of small blocks may end within a block of the tree.
    options.ext4.filesystem.block_size = 1024;
    let converted = tar_to_disk(&sample()[..], &disk, &options).unwrap();
    let verity = converted.verity.unwrap();
    assert_eq!(verify(&disk, &verity), Ok(()));
    assert_eq!(inspect(&disk).unwrap().verity.as_ref(), Some(&verity));
    let offset = format!("--hash-offset={}", verity.hash_offset);
    let text = judge::succeed("veritysetup", &["dump", disk.to_str().unwrap(), &offset]);
    let text = String::from_utf8_lossy(&text);
    let has = |name: &str, value: &str| {
        text.lines()
            .any(|line| line.starts_with(name) && line.trim_end().ends_with(value))
    };
    for (name, value) in [
        ("UUID", verity.uuid.as_str()),
        ("Hash type", "1"),
        ("Data blocks", &verity.data_blocks.to_string()),
        ("Data block size", "4096"),
        ("Hash block size", "4096"),
        ("Hash algorithm", "sha256"),
        ("Salt", &verity.salt),
    ] {
        assert!(has(name, value), "{name} {value}: {text}");
    }
}

#[test]
fn disk_without_a_tree_shows_none() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let plain = TarToDiskOptions {
        verity: false,
        ..options(Format::Raw)
    };
    let converted = tar_to_disk(&sample()[..], &disk, &plain).unwrap();
    assert_eq!(converted.verity, None);
    assert_eq!(inspect(&disk).unwrap().verity, None);
}
