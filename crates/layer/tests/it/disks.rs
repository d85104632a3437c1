//! Whole disk files: their formats, what is left when something fails, and that nothing is lost.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use opengcs_layer::{
    Compression, Control, DiskToTarOptions, ErrorKind, Existing, FilesystemOptions, Format,
    TarToDiskOptions, TarToExt4Options, disk_to_tar, tar_to_disk,
};

use crate::forge::{Header, Tar, octal};
use crate::judge;

fn sample() -> Vec<u8> {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..3_000_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    Tar::new()
        .header(&Header {
            mtime: octal(100, 12),
            ..Header::new("./", b'5', 0)
        })
        .dir("etc/")
        .file("etc/hostname", "box\n")
        .hardlink("etc/name", "etc/hostname")
        .symlink("etc/mtab", "/proc/mounts")
        .file("etc/.wh.gone", "")
        .file("noise", noise)
        .pax(b'x', &[("SCHILY.xattr.user.a", b"1"), ("mtime", b"-1.5")])
        .fifo("pipe")
        .end()
}

fn options(format: Format) -> TarToDiskOptions {
    TarToDiskOptions {
        format,
        sync: false,
        ..TarToDiskOptions::default()
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn each_format_gives_the_tar_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut tars = Vec::new();
    for (format, qemu) in [
        (Format::FixedVhd, "vpc"),
        (Format::Vhdx, "vhdx"),
        (Format::Raw, "raw"),
    ] {
        for size in [None, Some(64 << 20)] {
            let mut options = options(format);
            options.ext4.filesystem.size = size;
            let disk = folder.path().join(format!("{qemu}-{}", size.unwrap_or(0)));
            let converted = tar_to_disk(&sample()[..], &disk, &options).unwrap();
            assert_eq!(converted.size, fs::metadata(&disk).unwrap().len());
            if let Some(size) = size {
                assert_eq!(converted.virtual_size, size);
            }
            let raw = folder.path().join("raw");
            judge::succeed(
                "qemu-img",
                &[
                    "convert",
                    "-f",
                    qemu,
                    "-O",
                    "raw",
                    disk.to_str().unwrap(),
                    raw.to_str().unwrap(),
                ],
            );
            judge::fsck(&raw);
            fs::remove_file(&raw).unwrap();
            let mut tar = Vec::new();
            let exported = disk_to_tar(&disk, &mut tar, &DiskToTarOptions::default()).unwrap();
            assert!(exported.warnings.is_empty());
            assert_eq!(exported.tar_bytes, tar.len() as u64);
            tars.push(tar);
        }
    }
    assert!(tars.iter().all(|tar| *tar == tars[0]));
    // And once more through: the same tar again.
    let disk = folder.path().join("again");
    tar_to_disk(&tars[0][..], &disk, &options(Format::FixedVhd)).unwrap();
    let mut again = Vec::new();
    disk_to_tar(&disk, &mut again, &DiskToTarOptions::default()).unwrap();
    assert!(again == tars[0]);
}

#[test]
fn same_tar_gives_the_same_bytes_however_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    tar_to_disk(&sample()[..], &first, &options(Format::Vhdx)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&sample()).unwrap();
    let second = folder.path().join("second");
    let converted =
        tar_to_disk(&gzip.finish().unwrap()[..], &second, &options(Format::Vhdx)).unwrap();
    assert_eq!(converted.compression, Compression::Gzip);
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
}

#[test]
fn failure_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("layer.vhd");
    let whole = sample();
    for format in [Format::FixedVhd, Format::Vhdx, Format::Raw] {
        let error = tar_to_disk(&whole[..5000], &target, &options(format)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(files(folder.path()).is_empty());
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    let error = tar_to_disk(&gzip[..gzip.len() - 4], &target, &options(Format::Raw)).unwrap_err();
    assert!(error.to_string().contains("gzip"), "{error}");
    assert!(files(folder.path()).is_empty());
}

#[test]
fn failure_keeps_the_file_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("layer.vhd");
    fs::write(&target, "precious").unwrap();
    tar_to_disk(&b"no tar"[..], &target, &options(Format::Raw)).unwrap_err();
    let keep = TarToDiskOptions {
        existing: Existing::Keep,
        ..options(Format::Raw)
    };
    let error = tar_to_disk(&sample()[..], &target, &keep).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(files(folder.path()), ["layer.vhd"]);
}

#[test]
fn too_small_a_size_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("layer.vhd");
    for format in [Format::FixedVhd, Format::Vhdx, Format::Raw] {
        let mut options = options(format);
        options.ext4.filesystem.size = Some(2 << 20);
        let error = tar_to_disk(&sample()[..], &target, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        assert!(error.to_string().contains("layer.vhd"), "{error}");
        assert!(files(folder.path()).is_empty());
    }
}

#[test]
fn missing_folder_is_named() {
    let error = tar_to_disk(
        &sample()[..],
        Path::new("/nonexistent/layer.vhd"),
        &options(Format::Raw),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("/nonexistent/layer.vhd"),
        "{error}"
    );
}

#[test]
fn cancelling_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("layer.vhd");
    let control = Control::new();
    let options = TarToDiskOptions {
        ext4: TarToExt4Options {
            control: control.clone(),
            ..TarToExt4Options::default()
        },
        ..TarToDiskOptions::default()
    };
    control.cancel();
    let error = tar_to_disk(&sample()[..], &target, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(files(folder.path()).is_empty());
}

#[test]
fn progress_reaches_the_end() {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let options = TarToExt4Options {
        control: Control::new().on_progress(move |progress| sink.lock().unwrap().push(progress)),
        ..TarToExt4Options::default()
    };
    let tar = sample();
    let converted = opengcs_layer::tar_to_ext4(&tar[..], Vec::new(), &options).unwrap();
    let seen = seen.lock().unwrap();
    let last = seen.last().unwrap();
    assert_eq!(
        (last.entries, last.bytes),
        (converted.entries, tar.len() as u64)
    );
    assert!(seen.is_sorted_by_key(|progress| progress.bytes));
    assert!(seen.len() > 2);
}

#[test]
fn what_is_no_disk_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let read =
        |path: &Path| disk_to_tar(path, Vec::new(), &DiskToTarOptions::default()).unwrap_err();
    let error = read(&path);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(path.to_str().unwrap()));
    for content in [&b""[..], b"hello", &[0; 100_000], &sample()] {
        fs::write(&path, content).unwrap();
        let error = read(&path);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
    assert_eq!(read(folder.path()).kind(), ErrorKind::InvalidInput);
}

#[test]
fn cut_disk_is_told_and_never_read_as_less() {
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::FixedVhd, Format::Vhdx, Format::Raw] {
        let path = folder.path().join(format.to_string());
        tar_to_disk(&sample()[..], &path, &options(format)).unwrap();
        let length = fs::metadata(&path).unwrap().len();
        for cut in [length / 2, length / 10, 70_000, 1000] {
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(cut)
                .unwrap();
            let error = disk_to_tar(&path, Vec::new(), &DiskToTarOptions::default()).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Corrupt,
                "{format} {cut}: {error:?}"
            );
        }
    }
}

#[test]
fn failing_output_is_the_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 > 500_000 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    tar_to_disk(&sample()[..], &path, &options(Format::FixedVhd)).unwrap();
    for compression in [Compression::None, Compression::Gzip] {
        let options = DiskToTarOptions {
            compression,
            ..DiskToTarOptions::default()
        };
        let error = disk_to_tar(&path, Full(0), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        assert_eq!(error.to_string(), "cannot write the tar");
    }
}

#[test]
fn compressed_output_is_the_same_tar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    tar_to_disk(&sample()[..], &path, &options(Format::FixedVhd)).unwrap();
    let export = |compression| {
        let mut tar = Vec::new();
        let options = DiskToTarOptions {
            compression,
            ..DiskToTarOptions::default()
        };
        disk_to_tar(&path, &mut tar, &options).unwrap();
        tar
    };
    let plain = export(Compression::None);
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(&export(Compression::Gzip)[..])
        .read_to_end(&mut inflated)
        .unwrap();
    assert!(inflated == plain);
    assert!(export(Compression::Gzip) == export(Compression::Gzip));
    #[cfg(feature = "zstd")]
    assert!(zstd::decode_all(&export(Compression::Zstd)[..]).unwrap() == plain);
}

#[test]
fn label_uuid_journal_and_lost_found_are_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let mut options = options(Format::Raw);
    options.ext4.filesystem = FilesystemOptions {
        label: "layer".into(),
        uuid: Some("12345678-1234-4234-8234-123456789abc".parse().unwrap()),
        journal: Some(4 << 20),
        lost_found: false,
        created: 1_700_000_000,
        ..FilesystemOptions::default()
    };
    tar_to_disk(&sample()[..], &path, &options).unwrap();
    judge::fsck(&path);
    let text = judge::succeed("dumpe2fs", &["-h", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&text);
    for part in [
        "layer",
        "12345678-1234-4234-8234-123456789abc",
        "has_journal",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    options.ext4.filesystem.label = "longer than sixteen".into();
    let error = tar_to_disk(&sample()[..], &path, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_is_no_disk_file_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let tar = Tar::new().file("a", "1").end();
    for (start, name) in [(&b"QFI\xfb"[..], "qcow2"), (&tar[..], "a tar")] {
        let mut bytes = start.to_vec();
        bytes.resize(1 << 20, 0);
        fs::write(&path, bytes).unwrap();
        let error = disk_to_tar(&path, Vec::new(), &DiskToTarOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(name), "{error}");
    }
}
