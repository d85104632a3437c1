//! Room given back: the same file system afterwards, judged by `e2fsck`, `qemu-img` and its tar.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opengcs_layer::{
    Control, Disk, DiskOptions, DiskToTarOptions, ErrorKind, Format, Guid, ReclaimOptions,
    TarToDiskOptions, disk_to_tar, reclaim, tar_to_disk,
};
use positioned_io::{ReadAt as _, WriteAt as _};

use crate::judge;

const SIZE: u64 = 160 << 20;

/// A raw image by `mke2fs`, of which half of the files were deleted: their bytes are still there.
fn image(folder: &Path, options: &[&str]) -> PathBuf {
    let source = folder.join("source");
    fs::create_dir_all(&source).unwrap();
    for number in 0..40u8 {
        let bytes: Vec<u8> = (0..2_000_000u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8 ^ number)
            .collect();
        fs::write(source.join(format!("f{number}")), bytes).unwrap();
    }
    let path = folder.join("made.img");
    let _ = fs::remove_file(&path);
    let (from, to) = (source.to_str().unwrap(), path.to_str().unwrap());
    let fixed = ["-q", "-F", "-t", "ext4", "-d", from];
    judge::succeed("mke2fs", &[&fixed, options, &[to, "160M"]].concat());
    let script = folder.join("script");
    let remove: Vec<_> = (0..40)
        .filter(|n| n % 4 != 1)
        .map(|n| format!("rm f{n}\n"))
        .collect();
    fs::write(&script, remove.concat()).unwrap();
    judge::succeed("debugfs", &["-w", "-f", script.to_str().unwrap(), to]);
    judge::run("e2fsck", &["-fy", to]);
    judge::fsck(&path);
    path
}

/// The same bytes in a disk file of another format.
fn wrapped(raw: &Path, format: Format) -> PathBuf {
    let path = raw.with_extension(format!("{format}").replace(' ', "-"));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    let mut disk = Disk::create(
        file,
        &DiskOptions::new(format, Some(SIZE), Guid::from_u128(5)),
    )
    .unwrap();
    let bytes = fs::read(raw).unwrap();
    for (number, chunk) in bytes.chunks(1 << 20).enumerate() {
        disk.write_all_at((number as u64) << 20, chunk).unwrap();
    }
    disk.finish().unwrap();
    path
}

fn tar(path: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    disk_to_tar(path, &mut tar, &DiskToTarOptions::default()).unwrap();
    tar
}

/// Holds the disk in a file against `e2fsck`.
fn check(path: &Path) {
    let file = File::open(path).unwrap();
    let disk = Disk::open(file, opengcs_vhd::Access::ReadOnly).unwrap();
    let mut bytes = vec![0; SIZE as usize];
    disk.read_exact_at(0, &mut bytes).unwrap();
    let raw = path.with_extension("check");
    fs::write(&raw, bytes).unwrap();
    judge::fsck(&raw);
}

#[test]
fn what_is_free_leaves_the_file_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    for options in [&["-b", "4096"][..], &["-b", "1024", "-O", "^has_journal"]] {
        let raw = image(folder.path(), options);
        let expected = tar(&raw);
        for format in [Format::Raw, Format::FixedVhd, Format::Vhdx] {
            let path = wrapped(&raw, format);
            let length = fs::metadata(&path).unwrap().len();
            let found = reclaim(&path, &ReclaimOptions::default()).unwrap();
            assert!(tar(&path) == expected, "{format}");
            check(&path);
            assert_eq!(found.format, format.to_string());
            assert_eq!(
                (found.size_before, found.size),
                (length, fs::metadata(&path).unwrap().len())
            );
            assert!(found.free > 60 << 20 && found.free < SIZE, "{found:?}");
            // A VHDX had no room for what was zero, so that all that it gives is what was deleted.
            assert!(found.gained() > 40 << 20, "{found:?}");
            assert!(found.allocated.unwrap() < 60 << 20, "{found:?}");
            if format == Format::Vhdx {
                assert!(found.size < length - (20 << 20), "{found:?}");
                judge::succeed("qemu-img", &["check", "-f", "vhdx", path.to_str().unwrap()]);
            } else {
                assert_eq!(found.size, length);
            }
            // Again there is nothing left.
            let again = reclaim(&path, &ReclaimOptions::default()).unwrap();
            assert_eq!((again.gained(), again.free), (0, found.free));
            assert!(tar(&path) == expected, "{format}");
        }
    }
}

#[test]
fn a_disk_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), &[]);
    let before = fs::read(&path).unwrap();
    for options in [&["-f", "raw"][..], &["-f", "raw", "-r"]] {
        let mut machine = Command::new("qemu-io")
            .args(options)
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It prompts when it has the disk.
        let mut prompt = [0; 1];
        std::io::Read::read_exact(machine.stdout.as_mut().unwrap(), &mut prompt).unwrap();
        let error = reclaim(&path, &ReclaimOptions::default()).unwrap_err();
        drop(machine.stdin.take());
        machine.wait().unwrap();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        assert!(error.advice().is_some());
    }
    assert!(fs::read(&path).unwrap() == before);
    reclaim(&path, &ReclaimOptions::default()).unwrap();
}

#[test]
fn what_cannot_be_done_is_told_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let raw = image(folder.path(), &["-O", "^has_journal"]);
    let refused = |path: &Path, kind: ErrorKind, words: &str| {
        let before = fs::read(path).unwrap();
        let error = reclaim(path, &ReclaimOptions::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(fs::read(path).unwrap() == before, "{error}");
        error
    };
    let dynamic = at("dynamic.vhd");
    let (from, to) = (raw.to_str().unwrap(), dynamic.to_str().unwrap());
    judge::succeed("qemu-img", &["convert", "-f", "raw", "-O", "vpc", from, to]);
    let error = refused(&dynamic, ErrorKind::Unsupported, "dynamic VHD");
    assert!(error.advice().unwrap().contains("qemu-img convert"));

    let unfinished = at("unfinished.img");
    fs::copy(&raw, &unfinished).unwrap();
    judge::succeed(
        "debugfs",
        &["-w", "-R", "ssv state 0", unfinished.to_str().unwrap()],
    );
    let error = refused(&unfinished, ErrorKind::Corrupt, "not unmounted");
    assert!(error.advice().unwrap().contains("e2fsck"));

    let verity = at("verity.img");
    let mut options = TarToDiskOptions {
        format: Format::Raw,
        verity: true,
        ..TarToDiskOptions::default()
    };
    options.ext4.filesystem.size = Some(32 << 20);
    tar_to_disk(&[0; 1024][..], &verity, &options).unwrap();
    refused(&verity, ErrorKind::Unsupported, "dm-verity");

    let noise = at("noise");
    fs::write(&noise, vec![7; 1 << 20]).unwrap();
    refused(&noise, ErrorKind::Corrupt, "noise");
    let error = reclaim(&at("gone"), &ReclaimOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_cancelled_one_leaves_a_whole_disk() {
    let folder = tempfile::tempdir().unwrap();
    let raw = image(folder.path(), &[]);
    let expected = tar(&raw);
    for format in [Format::Raw, Format::Vhdx] {
        let path = wrapped(&raw, format);
        let told = Arc::new(AtomicU64::new(0));
        let control = Control::new();
        let (handle, count) = (control.clone(), Arc::clone(&told));
        let control = control.on_progress(move |_| {
            if count.fetch_add(1, Ordering::Relaxed) == 3 {
                handle.cancel();
            }
        });
        let error = reclaim(&path, &ReclaimOptions { control }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(told.load(Ordering::Relaxed) >= 4);
        assert!(tar(&path) == expected);
        check(&path);
        if format == Format::Vhdx {
            // No log is left to replay, so that anybody can read it.
            judge::succeed("qemu-img", &["check", "-f", "vhdx", path.to_str().unwrap()]);
        }
    }
}
