//! Memory is bounded: 64 MiB, and 512 bytes for each entry, both ways, whatever the entries are.
//!
//! It is what the allocator is asked for that is counted, so every machine counts the same. All is
//! one test: two at a time would be counted together.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests fail by panicking, and what was counted is worth reading"
)]

mod sys;

use std::fs::File;
use std::io::{self, Read};

use opengcs_layer::{
    DiskToTarOptions, TarToDiskOptions, TarToExt4Options, ext4_to_tar, plan_tar, tar_to_ext4,
};

#[allow(dead_code, unreachable_pub, reason = "it is another test's, too")]
#[path = "../it/forge.rs"]
mod forge;

use forge::{Header, Tar};

const FIXED: usize = 64 << 20;
const EACH: usize = 512;
/// Enough to fill what is kept of attributes, so that the difference to many is what an entry costs.
const FEW: usize = 6_000;
const MANY: usize = 21_000;

/// Entries made one at a time, as they are read.
struct Stream<'a> {
    entry: &'a dyn Fn(usize) -> Tar,
    next: usize,
    count: usize,
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.bytes.len() {
            self.at = 0;
            self.bytes = match self.next {
                next if next < self.count => (self.entry)(next).0,
                next if next == self.count => vec![0; 1024],
                _ => return Ok(0),
            };
            self.next += 1;
        }
        let read = (&self.bytes[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// A file of any name, as PAX tells it.
fn file(name: impl AsRef<[u8]>, data: &str) -> Tar {
    let records: [(&str, &[u8]); 1] = [("path", name.as_ref())];
    Tar::new().pax(b'x', &records).file("x", data)
}

fn dir(name: impl AsRef<[u8]>) -> Tar {
    let records: [(&str, &[u8]); 1] = [("path", name.as_ref())];
    Tar::new().pax(b'x', &records).dir("x")
}

fn link(kind: u8, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
    let records: [(&str, &[u8]); 2] = [("path", name.as_ref()), ("linkpath", target.as_ref())];
    Tar::new()
        .pax(b'x', &records)
        .header(&Header::new("x", kind, 0))
}

/// The most that converting `count` entries holds, or planning that, and the most that exporting them
/// holds.
fn peaks(entry: &dyn Fn(usize) -> Tar, count: usize) -> (usize, usize) {
    let file = tempfile::tempfile().unwrap();
    let stream = || Stream {
        entry,
        next: 0,
        count,
        bytes: Vec::new(),
        at: 0,
    };
    let options = TarToExt4Options::default();
    let (converted, there) =
        sys::peak(|| tar_to_ext4(stream(), file.try_clone().unwrap(), &options).unwrap());
    assert_eq!(converted.entries, count as u64);
    let (plan, planned) = sys::peak(|| plan_tar(stream(), &TarToDiskOptions::default()).unwrap());
    assert_eq!(plan.entries, count as u64);
    drop(plan);
    let there = there.max(planned);
    let back = || export(file.try_clone().unwrap(), count);
    let ((), back) = sys::peak(back);
    (there, back)
}

/// As [`peaks`], of a tar that is there whole and not counted.
fn peaks_of(tar: &[u8], options: &TarToExt4Options, sparse: bool) -> (usize, usize) {
    let file = tempfile::tempfile().unwrap();
    let convert = || tar_to_ext4(tar, file.try_clone().unwrap(), options).unwrap();
    let (_, there) = sys::peak(convert);
    let options = DiskToTarOptions {
        sparse,
        ..DiskToTarOptions::default()
    };
    let back = || ext4_to_tar(file.try_clone().unwrap(), io::sink(), &options).unwrap();
    let (_, back) = sys::peak(back);
    (there, back)
}

/// A sparse file (GNU's version 1.0) with a byte in every eighth kibibyte.
fn pieces(count: usize) -> Vec<u8> {
    let mut content = format!("{count}\n").into_bytes();
    for piece in 0..count {
        content.extend(format!("{}\n1\n", piece * 8192).into_bytes());
    }
    content.resize(content.len().next_multiple_of(512), 0);
    content.resize(content.len() + count, b'x');
    let size = (count * 8192).to_string();
    let records: [(&str, &[u8]); 3] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    Tar::new().pax(b'x', &records).file("pieces", content).end()
}

fn pieces_options() -> TarToExt4Options {
    let mut options = TarToExt4Options::default();
    options.filesystem.block_size = 1024;
    options
}

/// What extension headers can bring for one entry, and for all.
fn long_headers() -> Vec<(&'static str, Vec<u8>)> {
    let long = "n".repeat(7 << 20);
    let unknown = format!("SCHILY.xattr.{long}");
    let records: [(&str, &[u8]); 1] = [(&unknown, b"1")];
    let mut names = Tar::new();
    for entry in 0..150 {
        names = names.pax(b'x', &records).file(entry.to_string(), "");
    }
    let values: Vec<(String, Vec<u8>)> = (0..110)
        .map(|n| (format!("SCHILY.xattr.user.{n}"), vec![b'v'; 60_000]))
        .collect();
    let records: Vec<(&str, &[u8])> = values
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let all = Tar::new().pax(b'g', &records).file("e", "");
    let all = all.pax(b'x', &records);
    vec![
        ("names of attributes of 7 MiB", names.end()),
        (
            "6 MiB of attributes for all and for one",
            all.file("f", "").end(),
        ),
    ]
}

fn export(image: File, count: usize) {
    let options = DiskToTarOptions::default();
    let exported = ext4_to_tar(image, io::sink(), &options).unwrap();
    // Whiteouts of what is there are none.
    assert!(exported.entries >= count as u64 / 2);
}

#[test]
fn memory_is_bounded_by_the_number_of_entries() {
    type Shape = (&'static str, fn(usize) -> Tar);
    let shapes: [Shape; 15] = [
        ("small files in folders of 100", |n| {
            Tar::new().file(format!("folder-{}/file-{n}", n / 100), [1; 100])
        }),
        ("a folder of all", |n| {
            Tar::new().file(format!("usr/share/a-name-of-usual-length-{n}.html"), "")
        }),
        ("folders, one in another's neighbour", |n| {
            Tar::new().dir(format!("{}/{n}", n / 50))
        }),
        ("hard links", |n| match n % 2 {
            0 => Tar::new().file(format!("d/{n}"), "1"),
            _ => Tar::new().hardlink(format!("d/{n}"), format!("d/{}", n - 1)),
        }),
        ("symbolic links, times and attributes", |n| {
            let time = format!("{n}.5");
            let records: [(&str, &[u8]); 3] = [
                ("mtime", time.as_bytes()),
                ("atime", time.as_bytes()),
                ("SCHILY.xattr.user.a", b"1"),
            ];
            Tar::new()
                .pax(b'x', &records)
                .symlink(format!("d{}/{n}", n / 1000), format!("../{}/{n}", n / 100))
        }),
        ("files of several blocks, each apart", |n| {
            let data = [[1; 4096], [0; 4096], [2; 4096]].concat();
            Tar::new()
                .header(&Header::new(format!("d{}/{n}", n / 500), b'0', 12288))
                .data(data)
        }),
        ("names of 255 bytes", |n| file(format!("{n:0>255}"), "")),
        (
            "names of 255 bytes, each in a folder with such a name",
            |n| {
                let name = format!("{:0>255}", n / 2);
                match n % 2 {
                    0 => dir(name),
                    _ => file(format!("{name}/{n:0>255}"), ""),
                }
            },
        ),
        (
            "hard links with names of 255 bytes, of different nodes",
            |n| match n % 2 {
                0 => file(format!("{n:0>255}"), "1"),
                _ => link(b'1', format!("{n:0>255}"), format!("{:0>255}", n - 1)),
            },
        ),
        (
            "a chain of folders to a depth of 2000, again and again",
            |n| {
                let (chain, depth) = (n / 2000, n % 2000);
                dir(format!("{chain}{}", "/d".repeat(depth)))
            },
        ),
        (
            "folders in a folder that lies deep, and files in them after all",
            |n| {
                let deep = "deep/".repeat(300);
                match n.checked_sub(n.max(500) / 2) {
                    Some(at) if n % 2 == 1 => file(format!("{deep}{at}/file"), ""),
                    _ => dir(format!("{deep}{n}")),
                }
            },
        ),
        ("two names each of files that lie deep", |n| {
            let name = |n: usize| format!("{}{n}", "deep/".repeat(500));
            match n % 2 {
                0 => file(name(n), "1"),
                _ => link(b'1', name(n), name(n - 1)),
            }
        }),
        ("targets of 4,000 bytes", |n| {
            let target = format!("{n:a>4000}");
            link(b'2', format!("d{}/{n}", n / 500), target)
        }),
        ("attributes of 3,000 bytes, all different", |n| {
            let value = format!("{n:b>3000}");
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.user.a", value.as_bytes())])
                .file(format!("d{}/{n}", n / 500), "")
        }),
        ("whiteouts, and what they hide", |n| {
            let name = format!("{:0>200}", n / 2);
            match n % 2 {
                0 => file(name, ""),
                _ => file(format!(".wh.{name}"), ""),
            }
        }),
    ];
    for (what, entry) in shapes {
        let (few, many) = (peaks(&entry, FEW), peaks(&entry, MANY));
        for (way, few, many) in [("in", few.0, many.0), ("out", few.1, many.1)] {
            let each = many.saturating_sub(few) / (MANY - FEW);
            println!("{what}, {way}: {} KiB, and {each} bytes each", few >> 10);
            assert!(few <= FIXED, "{what}, {way}: {few} bytes for {FEW} entries");
            assert!(each <= EACH, "{what}, {way}: {each} bytes for each entry");
        }
    }
    // Entries that cost much each are fewer.
    let costly: [Shape; 2] = [
        ("files of 400 pieces", |n| {
            let pieces = [[1; 4096], [0; 4096]].concat().repeat(400);
            Tar::new().file(format!("{n}"), pieces)
        }),
        ("attributes of 40,000 bytes", |n| {
            let value = format!("{n:c>40000}");
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.user.a", value.as_bytes())])
                .file(format!("d{}/{n}", n / 500), "")
        }),
    ];
    for (what, entry) in costly {
        let (few, many) = (peaks(&entry, 150), peaks(&entry, 650));
        let each = many.0.saturating_sub(few.0) / 500;
        println!("{what}, in: {} KiB, and {each} bytes each", few.0 >> 10);
        assert!(few.0 <= FIXED, "{what}: {} bytes for 150 entries", few.0);
        assert!(each <= EACH, "{what}: {each} bytes for each entry");
        // The reader keeps some blocks of metadata, which few entries do not fill.
        println!("{what}, out: {} KiB", many.1 >> 10);
        assert!(many.1 <= FIXED / 8, "{what}: {} bytes out", many.1);
    }
    // A file in very many pieces is one entry, and so is one with very long headers.
    let (there, back) = peaks_of(&pieces(200_000), &pieces_options(), true);
    println!("a file of 200,000 pieces: {there} bytes in, {back} out");
    assert!(there <= FIXED / 2, "{there} bytes for a file in pieces");
    assert!(back <= FIXED / 4, "{back} bytes for a file in pieces");
    let options = TarToExt4Options::default();
    for (what, tar) in long_headers() {
        let (there, back) = peaks_of(&tar, &options, false);
        println!("{what}: {there} bytes in, {back} out");
        assert!(there <= FIXED, "{what}: {there} bytes");
        assert!(back <= FIXED, "{what}: {back} bytes");
    }
    // One file however large is one entry.
    let large = |_: usize| Tar::new().file("large", vec![7; 32 << 20]);
    let (there, back) = peaks(&large, 1);
    // What makes the tar holds it, here.
    assert!(
        there <= FIXED + (33 << 20),
        "{there} bytes for a large file"
    );
    assert!(back <= FIXED, "{back} bytes for a large file");
}
