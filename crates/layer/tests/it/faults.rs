//! Storage that fails, tears or stops at each write in turn, and streams that fail at each byte.

use std::cell::Cell;
use std::error::Error as _;
use std::io::{self, Read, Write};

use opengcs_ext4::Reader;
use opengcs_layer::{
    Compression, DiskToTarOptions, Error, ErrorKind, Format, Result, ext4_to_tar, tar_to_ext4,
};
use opengcs_vhd::testing::{Fault, MemoryFile};
use opengcs_vhd::{Access, Disk, DiskOptions, Guid};
use positioned_io::{ReadAt, Size};

use crate::corpus::options;
use crate::forge::Tar;
use crate::{judge, listing};

const FORMATS: [Format; 3] = [Format::Raw, Format::FixedVhd, Format::Vhdx];

/// Content that no stage can hold back: files, large and small, a folder of many, an attribute.
fn sample() -> Vec<u8> {
    let large: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
    let mut tar = Tar::new()
        .dir("d")
        .file("d/large", large)
        .pax(b'x', &[("SCHILY.xattr.user.a", &[7; 900])])
        .file("d/small", "1")
        .symlink("s", "t".repeat(80));
    for number in 0..60 {
        tar = tar.file(format!("many/{number}"), [number; 5000]);
    }
    tar.end()
}

fn vhd_error(error: opengcs_vhd::Error) -> Error {
    Error::io("cannot finish", io::Error::from(error))
}

/// What `tar_to_disk` does, on a file in memory.
fn convert(tar: &[u8], file: &MemoryFile, format: Format) -> Result<()> {
    let disk = DiskOptions::new(format, Some(8 << 20), Guid::from_bytes([1; 16]));
    let mut disk = Disk::create(file.clone(), &disk).map_err(vhd_error)?;
    tar_to_ext4(tar, &mut disk, &options())?;
    disk.finish().map_err(vhd_error)?;
    Ok(())
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

#[test]
fn write_that_fails_tears_or_stops_fails_the_conversion() {
    let tar = sample();
    for format in FORMATS {
        let good = MemoryFile::new();
        convert(&tar, &good, format).unwrap();
        let total = good.operations();
        assert!(total > 10, "{format}: only {total} operations");
        let disk = Disk::open(good.clone(), Access::ReadOnly).unwrap();
        let right = listing::list(disk);
        let faults = [
            Fault::FailOnce,
            Fault::Stop,
            Fault::Tear(1),
            Fault::Tear(1500),
        ];
        for at in 0..total {
            for fault in faults {
                let file = MemoryFile::new();
                file.inject(at, fault);
                let what = format!("{format}, operation {at} of {total}, {fault:?}");
                let error = convert(&tar, &file, format).expect_err(&what);
                assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error}");
                let text = chain(&error);
                assert!(
                    text.contains("injected") && !text.contains('\n'),
                    "{what}: {text}"
                );
                if fault == Fault::FailOnce {
                    continue;
                }
                // What is left is no file system, or the whole of it: never a part.
                let left = Disk::open(file.snapshot(), Access::ReadOnly);
                if left.is_ok_and(|disk| Reader::open(disk).is_ok()) {
                    let disk = Disk::open(file.snapshot(), Access::ReadOnly).unwrap();
                    assert_eq!(listing::list(disk), right, "{what}");
                }
            }
        }
    }
}

#[test]
fn full_disk_is_no_space_wherever_it_fills() {
    let tar = sample();
    for format in FORMATS {
        let good = MemoryFile::new();
        convert(&tar, &good, format).unwrap();
        let length = good.size().unwrap().unwrap();
        for part in 0..12 {
            let file = MemoryFile::new();
            file.limit(length * part / 12);
            let error = convert(&tar, &file, format).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{format} {part}: {error}");
        }
    }
}

/// Gives so many bytes, and then fails each time.
struct FailsAt<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl Read for FailsAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.left).min(self.bytes.len());
        if count == 0 && !buffer.is_empty() {
            return Err(io::Error::other("injected"));
        }
        let (now, later) = self.bytes.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.bytes = later;
        self.left -= count;
        Ok(count)
    }
}

fn small() -> Tar {
    Tar::new()
        .dir("d")
        .pax(b'x', &[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"1")])
        .file("d/a", [7; 700])
        .hardlink("b", "d/a")
}

/// The same tar in each compression.
fn compressed(tar: &[u8]) -> Vec<(Compression, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tar");
    std::fs::write(&path, tar).unwrap();
    let path = path.to_str().unwrap();
    vec![
        (Compression::None, tar.to_vec()),
        (Compression::Gzip, gzip.finish().unwrap()),
        (Compression::Zstd, judge::succeed("zstd", &["-qc", path])),
        (Compression::Xz, judge::succeed("xz", &["-c", path])),
    ]
}

#[test]
fn input_that_fails_at_any_byte_fails_the_conversion_as_input() {
    for (compression, tar) in compressed(&small().end()) {
        tar_to_ext4(&tar[..], Vec::new(), &options()).unwrap();
        // What lies behind the end mark need not be read.
        let needed = match compression {
            Compression::None => tar.len() - 512,
            _ => tar.len() - 30,
        };
        for left in 0..needed {
            let input = FailsAt { bytes: &tar, left };
            let error = tar_to_ext4(input, Vec::new(), &options())
                .expect_err(&format!("{compression}, {left} of {} bytes", tar.len()));
            assert_eq!(
                error.kind(),
                ErrorKind::Io,
                "{compression} {left}: {}",
                chain(&error)
            );
            assert!(chain(&error).contains("injected"), "{}", chain(&error));
        }
    }
}

#[test]
fn input_that_ends_at_any_byte_is_corrupt() {
    for (compression, tar) in compressed(&small().end()) {
        let needed = match compression {
            // Without its end mark a tar is taken where an entry ends, as GNU tar does.
            Compression::None => tar.len() - 1024,
            _ => tar.len(),
        };
        for left in 1..needed {
            match tar_to_ext4(&tar[..left], Vec::new(), &options()) {
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Corrupt,
                        "{compression} {left}: {error}"
                    );
                }
                Ok(converted) => assert!(
                    compression == Compression::None
                        && left % 512 == 0
                        && converted.warnings.total() > 0,
                    "{compression}: {left} of {} bytes are taken",
                    tar.len()
                ),
            }
        }
    }
}

/// Is interrupted before each read, and gives a byte at a time.
struct Interrupted<'a>(&'a [u8], bool);

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn interrupted_input_goes_on() {
    for (compression, tar) in compressed(&small().end()) {
        let (mut plain, mut interrupted) = (Vec::new(), Vec::new());
        tar_to_ext4(&tar[..], &mut plain, &options()).unwrap();
        tar_to_ext4(Interrupted(&tar, false), &mut interrupted, &options()).unwrap();
        assert!(plain == interrupted, "{compression}");
    }
}

/// An image whose read number `fails` fails.
struct Broken<'a> {
    image: &'a [u8],
    reads: Cell<usize>,
    fails: usize,
}

impl ReadAt for Broken<'_> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let number = self.reads.replace(self.reads.get() + 1);
        if number == self.fails {
            return Err(io::Error::other("injected"));
        }
        self.image.read_at(position, buffer)
    }
}

#[test]
fn image_that_fails_at_any_read_fails_the_export() {
    let mut image = Vec::new();
    tar_to_ext4(&sample()[..], &mut image, &options()).unwrap();
    let export = |fails| {
        let source = Broken {
            image: &image,
            reads: Cell::new(0),
            fails,
        };
        let result = ext4_to_tar(source, io::sink(), &DiskToTarOptions::default());
        result.map(drop)
    };
    let mut fails = 0;
    while let Err(error) = export(fails) {
        assert_eq!(
            error.kind(),
            ErrorKind::Io,
            "read {fails}: {}",
            chain(&error)
        );
        assert!(chain(&error).contains("injected"), "{}", chain(&error));
        fails += 1;
    }
    // There are more reads than that only where the number lies behind the last.
    export(usize::MAX).unwrap();
    assert!(fails > 20, "only {fails} reads");
}

/// Takes so many bytes, and then fails.
struct Narrow(usize);

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_that_fails_at_any_byte_fails_the_export() {
    let mut image = Vec::new();
    tar_to_ext4(&small().end()[..], &mut image, &options()).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options = DiskToTarOptions {
            compression,
            ..DiskToTarOptions::default()
        };
        let mut tar = Vec::new();
        ext4_to_tar(&image[..], &mut tar, &options).unwrap();
        for room in 0..tar.len() {
            let error = ext4_to_tar(&image[..], Narrow(room), &options).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::NoSpace,
                "{room}: {}",
                chain(&error)
            );
        }
        ext4_to_tar(&image[..], Narrow(tar.len()), &options).unwrap();
    }
}
