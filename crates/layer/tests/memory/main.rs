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

use opengcs_layer::{DiskToTarOptions, TarToExt4Options, ext4_to_tar, tar_to_ext4};

#[allow(dead_code, unreachable_pub, reason = "it is another test's, too")]
#[path = "../it/forge.rs"]
mod forge;

use forge::{Header, Tar};

const FIXED: usize = 64 << 20;
const EACH: usize = 512;
const FEW: usize = 1_000;
const MANY: usize = 51_000;

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

/// The most that converting `count` entries holds, and the most that exporting them holds.
fn peaks(entry: &dyn Fn(usize) -> Tar, count: usize) -> (usize, usize) {
    let file = tempfile::tempfile().unwrap();
    let stream = Stream {
        entry,
        next: 0,
        count,
        bytes: Vec::new(),
        at: 0,
    };
    let options = TarToExt4Options::default();
    let (converted, there) =
        sys::peak(|| tar_to_ext4(stream, file.try_clone().unwrap(), &options).unwrap());
    assert_eq!(converted.entries, count as u64);
    let back = || export(file.try_clone().unwrap(), count);
    let ((), back) = sys::peak(back);
    (there, back)
}

fn export(image: File, count: usize) {
    let options = DiskToTarOptions::default();
    let exported = ext4_to_tar(image, io::sink(), &options).unwrap();
    assert!(exported.entries >= count as u64);
}

#[test]
fn memory_is_bounded_by_the_number_of_entries() {
    type Shape = (&'static str, fn(usize) -> Tar);
    let shapes: [Shape; 6] = [
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
