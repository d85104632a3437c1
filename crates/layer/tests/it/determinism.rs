//! The same tar gives the same bytes: however its stream is cut up, compressed or mixed with waiting.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;

use opengcs_layer::{Format, TarToDiskOptions, tar_to_disk};

use crate::forge::{Header, Tar, octal};

/// Content of many kinds: nodes of all types, long names, attributes that are shared and large, data
/// with and without zeros, sparse files, and entries that are replaced.
fn sample() -> Vec<u8> {
    let mut state = 7u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let bytes = (0..length).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        });
        bytes.collect()
    };
    let mut tar = Tar::new().header(&Header {
        mtime: octal(100, 12),
        ..Header::new("./", b'5', 0)
    });
    for number in 0..400 {
        let mut bytes = noise(number * 37 % 20_000);
        if number % 3 == 0 {
            bytes.extend([0; 30_000]);
            bytes.extend(noise(10));
        }
        let value = vec![b'a'; 10 + number % 4 * 100];
        tar = tar
            .pax(b'x', &[("SCHILY.xattr.user.a", &value)])
            .file(format!("many/file {number}"), bytes);
    }
    tar.file("many/file 7", noise(1_500_000))
        .file("gone/x", noise(300_000))
        .symlink("gone", "many")
        .hardlink("hard", "many/file 9")
        .pax(b'x', &[("SCHILY.xattr.user.big", &noise(20_000))])
        .device("device", b'3', 1, 3)
        .file("many/.wh.old", "")
        .pax(
            b'x',
            &[
                ("GNU.sparse.size", b"10000000"),
                ("GNU.sparse.name", b"sparse"),
                ("GNU.sparse.map", b"5000000,1000"),
            ],
        )
        .file("x", noise(1000))
        .end()
}

/// How long the piece with a number is.
type Length = fn(usize) -> usize;

/// Gives its bytes in pieces whose lengths follow a rule, and sometimes is interrupted.
struct Pieces<'a> {
    rest: &'a [u8],
    count: usize,
    length: Length,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.count += 1;
        if self.count.is_multiple_of(1000) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let end = (self.length)(self.count).max(1).min(buffer.len());
        self.rest.read(&mut buffer[..end])
    }
}

fn convert(input: impl Read, target: &Path, format: Format) -> Vec<u8> {
    let mut options = TarToDiskOptions {
        format,
        sync: false,
        verity: true,
        ..TarToDiskOptions::default()
    };
    options.ext4.filesystem.journal = Some(4 << 20);
    options.ext4.filesystem.inline_data = true;
    tar_to_disk(input, target, &options).unwrap();
    fs::read(target).unwrap()
}

#[test]
fn same_bytes_however_the_stream_comes() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("disk");
    let tar = sample();
    for format in [Format::Raw, Format::FixedVhd, Format::Vhdx] {
        let whole = convert(&tar[..], &target, format);
        let rules: [(&str, Length); 5] = [
            ("one byte", |_| 1),
            ("seven bytes", |_| 7),
            ("odd sizes", |count| (count * 7919 % 100_003) | 1),
            ("a byte short of blocks", |_| 4095),
            ("large and small", |count| 1 << (count % 22)),
        ];
        for (name, length) in rules {
            // One format is enough for what takes millions of reads.
            if format != Format::Raw && length(1) < 100 {
                continue;
            }
            let pieces = Pieces {
                rest: &tar,
                count: 0,
                length,
            };
            assert!(convert(pieces, &target, format) == whole, "{format} {name}");
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let gzip = gzip.finish().unwrap();
        assert!(convert(&gzip[..], &target, format) == whole, "gzip");
        #[cfg(feature = "zstd")]
        {
            let zstd = zstd::encode_all(&tar[..], 3).unwrap();
            assert!(convert(&zstd[..], &target, format) == whole, "zstd");
            let pieces = Pieces {
                rest: &zstd,
                count: 0,
                length: |_| 13,
            };
            assert!(convert(pieces, &target, format) == whole, "zstd in pieces");
        }
    }
}

#[test]
fn padding_behind_the_end_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("disk");
    let tar = sample();
    let whole = convert(&tar[..], &target, Format::Raw);
    for zeros in [512, 9216, 100_000] {
        let mut padded = tar.clone();
        padded.resize(tar.len() + zeros, 0);
        assert!(convert(&padded[..], &target, Format::Raw) == whole);
    }
}
