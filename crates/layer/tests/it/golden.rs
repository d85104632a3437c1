//! The bytes of images as they were written down: the same on every machine, and in every version
//! until somebody changes the layout and says so.
//!
//! When this fails and the layout was meant to change, put the new digests here, in the same commit,
//! and tell it in the changelog. Scratch disks in caches change too: see `CACHE_VERSION`.

use opengcs_layer::{Format, TarToDiskOptions, tar_to_disk};
use sha2::{Digest, Sha256};

use crate::forge::{Header, Tar, base256};

/// Numbers that look random and are always the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| 1 + self.roll(255) as u8).collect()
    }
}

/// Something of all that an image can have.
fn tar() -> Vec<u8> {
    let mut dice = Dice(20_260_101);
    let mut tar = Tar::new().dir("./").dir("usr/").dir("usr/share/");
    // A file that goes again, so that what follows has other numbers than it was expected to have.
    tar = tar.file("replaced", dice.bytes(50_000));
    for number in 0..700 {
        let length = match number % 9 {
            0 => 0,
            1..=5 => dice.roll(150),
            6 | 7 => dice.roll(9000),
            _ => dice.roll(150_000),
        };
        let header = Header {
            mtime: base256(i128::from(dice.roll(1 << 33)) - (1 << 31), 12),
            uid: base256(i128::from(dice.roll(1 << 32)), 8),
            ..Header::new(format!("usr/share/file with a name {number}"), b'0', length)
        };
        tar = tar.header(&header).data(dice.bytes(length));
    }
    let pieces: Vec<u8> = (0..900)
        .flat_map(|piece: u32| match piece % 2 {
            0 => dice.bytes(4096),
            _ => vec![0; 4096],
        })
        .collect();
    tar = tar.file("usr/pieces", pieces);
    tar = tar
        .symlink("usr/short", "share")
        .hardlink("usr/link", "usr/pieces");
    for (number, value) in [10, 500, 3000, 3000, 20_000, 65_536]
        .into_iter()
        .enumerate()
    {
        let value = vec![b'v'; value];
        let time = format!("{}.000000001", number * 1_000_000_000);
        let records: [(&str, &[u8]); 4] = [
            ("SCHILY.xattr.user.value", &value),
            (
                "SCHILY.xattr.security.capability",
                &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            ("mtime", time.as_bytes()),
            ("atime", b"-1.5"),
        ];
        tar = tar
            .pax(b'x', &records)
            .file(format!("attributes{number}"), "x");
        let target = "t".repeat(59 + number * 190);
        let records: [(&str, &[u8]); 1] = [("linkpath", target.as_bytes())];
        tar = tar
            .pax(b'x', &records)
            .symlink(format!("symlink{number}"), "x");
    }
    let acl = b"user::rw-,user:7:r--,group::r--,mask::r--,other::---";
    tar.pax(b'x', &[("SCHILY.acl.access", acl)])
        .file("listed", "x")
        .device("null", b'3', 1, 3)
        .device("large", b'4', 259, 70_000)
        .fifo("fifo")
        .file("usr/share/.wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .file("replaced", dice.bytes(10))
        .end()
}

type Change = fn(&mut TarToDiskOptions);

/// What is asked for, and the SHA-256 of the whole disk file.
const GOLDEN: [(&str, Change, &str); 8] = [
    (
        "raw",
        |o| o.format = Format::Raw,
        "103defdb5122e0e00e4c10abfbfba938c4acec4ff5bd8254fe756c64780006c7",
    ),
    (
        "VHD",
        |o| o.format = Format::FixedVhd,
        "b604d8992b72dcbbd87725e83797184d347ba2f83dd276c9909f37d75eb5bd33",
    ),
    (
        "VHDX",
        |o| o.format = Format::Vhdx,
        "8ebd01e03617e5e95a04c9c665cb207c4574f2fd1282a2b5ecb677a405eb31bf",
    ),
    (
        "raw, blocks of 1 KiB",
        |o| {
            o.format = Format::Raw;
            o.ext4.filesystem.block_size = 1024;
        },
        "24256740a686154b7dbb25bb98ef249f23febeddbdc82b630ad15320c6089365",
    ),
    (
        "raw, journal",
        |o| {
            o.format = Format::Raw;
            o.ext4.filesystem.journal = Some(4 << 20);
        },
        "4cfec5eefad75e7ee780aca0fc9339a921c982ea8d0467c8cd3e144601d9d3ae",
    ),
    (
        "raw, inline data",
        |o| {
            o.format = Format::Raw;
            o.ext4.filesystem.inline_data = true;
        },
        "6aba5be2fb1a3c23a6b9e6f37829614d4142091f1e0c6452312235c3519b43b5",
    ),
    (
        "VHD, verity",
        |o| {
            o.format = Format::FixedVhd;
            o.verity = true;
        },
        "ee0218db45f91adf3a53bc1eb48285a6051b9f2a81b837ed025843adc15335ad",
    ),
    (
        "VHDX, 1 GiB to grow into",
        |o| {
            o.format = Format::Vhdx;
            o.ext4.filesystem.size = Some(1 << 30);
        },
        "ec148750a7c0820f76620b28bf92434d62c9a0b7b9ed1c0b823ab424fab20f5d",
    ),
];

#[test]
fn images_have_the_bytes_that_were_written_down() {
    let tar = tar();
    let folder = tempfile::TempDir::new().unwrap();
    let mut wrong = Vec::new();
    let sum = |bytes: &[u8]| {
        let digest = Sha256::digest(bytes);
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let input = sum(&tar);
    if input != TAR {
        wrong.push(format!("the tar itself: {input}"));
    }
    for (what, change, golden) in GOLDEN {
        let mut options = TarToDiskOptions {
            sync: false,
            ..TarToDiskOptions::default()
        };
        change(&mut options);
        let path = folder.path().join("disk");
        tar_to_disk(&tar[..], &path, &options).unwrap();
        let found = sum(&std::fs::read(&path).unwrap());
        if found != golden {
            wrong.push(format!("{what}: {found}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "other bytes than before:\n{}",
        wrong.join("\n")
    );
}

/// The SHA-256 of the tar: if this one is another, what makes it has changed, and not the images.
const TAR: &str = "c15d96845123deb3c86f178f3d742a3f6f3cdf8cb74e4bbdeeea866163613c73";
