//! A tar stream: what the writer takes, the reader gives back, and `e2fsck` finds in order.

use std::io::Read;
use std::process::Command;

use opengcs_layer::{
    DiskToTarOptions, Error, ErrorKind, FilesystemOptions, TarToExt4Options, TarWhiteouts,
    ext4_to_tar, tar_to_ext4,
};
use opengcs_vhd::testing::MemoryFile;
use positioned_io::Size;

/// Flags, in the input's first byte: the headers' checksums are made right first,
const SEAL: u8 = 1;
/// whiteouts stay files,
const KEEP: u8 = 2;
/// backslashes separate,
const BACKSLASH: u8 = 4;
/// small files lie in their inodes,
const INLINE: u8 = 8;
/// blocks are of 1024 bytes, or of 2048.
const SMALL: u8 = 0x10;
const MIDDLE: u8 = 0x20;

/// No image that comes of a few kilobytes is longer, but for tables of an enormous file's blocks.
const LONGEST: u64 = 64 << 20;

/// Gives its bytes in pieces of odd sizes.
struct Odd<'a>(&'a [u8], usize);

impl Read for Odd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 * 5 % 1021 + 1;
        let end = buffer.len().min(self.1);
        self.0.read(&mut buffer[..end])
    }
}

/// Converts there and back twice: nothing may differ. `e2fsck` looks where `fsck` says so.
pub fn run(bytes: &[u8], fsck: bool) {
    let Some((flags, tar)) = bytes.split_first() else {
        return;
    };
    let mut tar = tar.to_vec();
    if flags & SEAL != 0 {
        seal(&mut tar);
    }
    let options = TarToExt4Options {
        filesystem: FilesystemOptions {
            block_size: match flags & (SMALL | MIDDLE) {
                0 => 4096,
                SMALL => 1024,
                _ => 2048,
            },
            inline_data: flags & INLINE != 0,
            ..FilesystemOptions::default()
        },
        whiteouts: if flags & KEEP != 0 {
            TarWhiteouts::Keep
        } else {
            TarWhiteouts::default()
        },
        backslash_paths: flags & BACKSLASH != 0,
        ..TarToExt4Options::default()
    };
    let Some(image) = image(&tar[..], &options) else {
        return;
    };
    if fsck {
        assert!(image.same(&self::image(Odd(&tar, 7), &options).expect("taken whole")));
        e2fsck(&image);
    }
    let Some(first) = export(&image) else { return };
    let plain = TarToExt4Options {
        backslash_paths: false,
        ..options
    };
    let again = self::image(&first[..], &plain).expect("what we have written is taken");
    let second = export(&again).expect("and can be written again");
    // A tar does not say when the second name of a node was made, so those may find another place.
    let has_links = first
        .chunks(512)
        .any(|block| block.get(156) == Some(&b'1') && block.get(257..262) == Some(b"ustar"));
    assert!(has_links || first == second, "another tar the second time");
}

/// A file system in memory, with its length.
struct Image(MemoryFile, u64);

impl Image {
    fn bytes(&self) -> Vec<u8> {
        self.0
            .bytes(0, usize::try_from(self.1).expect("short enough"))
    }

    fn same(&self, other: &Self) -> bool {
        self.1 == other.1 && self.bytes() == other.bytes()
    }
}

fn image(tar: impl Read, options: &TarToExt4Options) -> Option<Image> {
    let file = MemoryFile::new();
    file.limit(LONGEST);
    let converted = match tar_to_ext4(tar, file.clone(), options) {
        Ok(converted) => converted,
        Err(error) => {
            judge(&error);
            return None;
        }
    };
    let length = file.size().expect("memory").expect("a size");
    assert_eq!(converted.size, length, "the image has its size");
    Some(Image(file.snapshot(), length))
}

fn judge(error: &Error) {
    let kind = error.kind();
    let known = matches!(
        kind,
        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NoSpace
    );
    assert!(known, "{kind:?}: {error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

/// Some content is refused for what it says (overlay redirects), none for how it lies there.
fn export(image: &Image) -> Option<Vec<u8>> {
    let options = DiskToTarOptions {
        sparse: true,
        ..DiskToTarOptions::default()
    };
    let mut tar = Vec::new();
    match ext4_to_tar(&image.0, &mut tar, &options) {
        Ok(_) => Some(tar),
        Err(error) => {
            assert_eq!(
                error.kind(),
                ErrorKind::Unsupported,
                "our own image: {error}"
            );
            None
        }
    }
}

/// Makes the checksum of each header right, as far as sizes lead from one to the next.
pub fn seal(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + 512) {
        if header.iter().any(|byte| *byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits = header[124..135]
            .iter()
            .take_while(|byte| matches!(byte, b'0'..=b'7'));
        let size = digits.fold(0_usize, |n, digit| n * 8 + usize::from(digit - b'0'));
        let has_data = !matches!(header[156], b'1'..=b'6');
        at += 512
            + if has_data {
                size.next_multiple_of(512)
            } else {
                0
            };
    }
}

fn e2fsck(image: &Image) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), image.bytes()).expect("room for an image");
    let output = Command::new("e2fsck")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .arg("-fn")
        .arg(file.path())
        .output()
        .expect("e2fsck is needed (package e2fsprogs)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "e2fsck: {said}");
}
