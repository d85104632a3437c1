//! An ext4 image, given in pieces: every node read in every way.

use std::collections::HashSet;

use opengcs_ext4::{Error, ErrorKind, FileType, InodeNo, Reader, Result, SegmentKind};

use super::pieces::Pieces;

/// An image is cut at this.
const LONGEST: usize = 4 << 20;
/// A walk ends after this many nodes and bytes: an image may say the same blocks again and again.
const MOST_NODES: usize = 500;
const MOST_BYTES: u64 = 4 << 20;

/// Flag: the checksums of superblock, groups and inodes are made right first.
const SEAL: u8 = 1;

/// The image that an input stands for.
pub fn image(bytes: &[u8]) -> Option<Vec<u8>> {
    let pieces = Pieces::parse(bytes)?;
    let mut image = pieces.expand(LONGEST);
    if pieces.flags & SEAL != 0 {
        seal(&mut image);
    }
    Some(image)
}

/// Opens and walks. Errors are fine, if they are of the right kind; wrong sums and panics are not.
pub fn run(bytes: &[u8]) {
    let Some(image) = image(bytes) else { return };
    match Reader::open(image.as_slice()) {
        Ok(reader) => walk(&reader),
        Err(error) => judge(&error),
    }
}

fn judge(error: &Error) {
    let kind = error.kind();
    let known = matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported);
    assert!(known, "{kind:?}: {error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

fn judged<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(judge).ok()
}

/// Reads all there is, within bounds.
pub fn walk(reader: &Reader<&[u8]>) {
    let _ = reader.summary();
    let mut seen = HashSet::new();
    let mut open: Vec<InodeNo> = (1..=11).map(InodeNo).collect();
    let mut bytes = 0;
    while let Some(number) = open.pop() {
        if !seen.insert(number) || seen.len() > MOST_NODES {
            continue;
        }
        let Some(inode) = judged(reader.inode(number)) else {
            continue;
        };
        if let Some(xattrs) = judged(reader.xattrs(&inode)) {
            let mut names: Vec<_> = xattrs.iter().map(|xattr| &xattr.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), xattrs.len(), "an attribute twice");
        }
        match inode.file_type() {
            FileType::Directory => {
                for entry in judged(reader.read_dir(&inode)).unwrap_or_default() {
                    let name = entry.name.as_slice();
                    assert!(!name.is_empty() && name.len() <= 255, "{name:?}");
                    assert!(!name.contains(&b'/') && !name.contains(&0), "{name:?}");
                    assert!(name != b"." && name != b"..", "{name:?}");
                    open.push(entry.inode);
                }
            }
            FileType::Symlink => {
                if let Some(target) = judged(reader.read_link(&inode)) {
                    assert!((1..=4095).contains(&target.len()));
                    assert!(!target.contains(&0));
                }
            }
            FileType::File if bytes < MOST_BYTES => bytes += read(reader, &inode),
            FileType::File => {}
            FileType::CharDevice | FileType::BlockDevice => {
                let device = inode.device().expect("devices have numbers");
                assert!(device.major < 1 << 12 && device.minor < 1 << 20);
            }
            FileType::Fifo | FileType::Socket => {}
        }
    }
}

/// Reads a file by its segments: they cover it, and holes are zeros.
fn read(reader: &Reader<&[u8]>, inode: &opengcs_ext4::Inode) -> u64 {
    const BUFFER: usize = 70_000;
    let Some(segments) = judged(reader.segments(inode)) else {
        return 0;
    };
    let mut position = 0;
    let mut bytes = 0;
    let mut buffer = vec![1; BUFFER];
    for segment in segments {
        let Some(segment) = judged(segment) else {
            return bytes;
        };
        assert_eq!(segment.offset, position, "segments have a gap");
        assert!(segment.length > 0, "a segment of nothing");
        position += segment.length;
        if bytes > MOST_BYTES {
            continue;
        }
        let want = BUFFER.min(usize::try_from(segment.length).unwrap_or(BUFFER));
        let last = segment.offset + segment.length - want as u64;
        for at in [segment.offset, last] {
            let Some(read) = judged(reader.read_at(inode, at, &mut buffer[..want])) else {
                continue;
            };
            assert_eq!(read, want, "a read within the file is whole");
            bytes += read as u64;
            if segment.kind == SegmentKind::Hole {
                assert!(
                    buffer[..read].iter().all(|byte| *byte == 0),
                    "a hole has bytes"
                );
            }
        }
    }
    assert_eq!(position, inode.size(), "segments do not cover the file");
    let end = judged(reader.read_at(inode, inode.size(), &mut buffer));
    assert!(end.is_none_or(|read| read == 0), "bytes behind the end");
    bytes
}

fn number(image: &[u8], at: usize, count: usize) -> usize {
    let bytes = image.get(at..at.saturating_add(count)).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | usize::from(*byte))
}

/// The kernel's crc32c: not inverted, carried on.
fn crc(sum: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!sum, bytes)
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = image.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

/// Makes the checksums of superblock, group descriptors and inodes right, where there are any.
pub fn seal(image: &mut [u8]) {
    const METADATA_CSUM: usize = 0x400;
    if image.len() < 2048 || number(image, 1024 + 0x64, 4) & METADATA_CSUM == 0 {
        return;
    }
    let seed = match number(image, 1024 + 0x60, 4) & 0x2000 {
        0 => crc(!0, &image[1024 + 0x68..1024 + 0x78]),
        _ => number(image, 1024 + 0x270, 4) as u32,
    };
    let block = 1024_usize << number(image, 1024 + 0x18, 1).min(6);
    let inode_size = number(image, 1024 + 0x58, 2).clamp(128, 1024);
    let inodes = number(image, 1024 + 0x28, 4).min(256);
    let groups = number(image, 1024 + 4, 4)
        .div_ceil(number(image, 1024 + 0x20, 4).max(1))
        .min(8);
    let desc_size = match number(image, 1024 + 0x60, 4) & 0x80 {
        0 => 32,
        _ => number(image, 1024 + 0xfe, 2).clamp(32, 1024),
    };
    for group in 0..groups {
        let at = (2048_usize.div_ceil(block)) * block + group * desc_size;
        let table = number(image, at + 8, 4).saturating_mul(block);
        for index in 0..inodes {
            let start = table.saturating_add(index * inode_size);
            let Some(inode) = image.get_mut(start..start.saturating_add(inode_size)) else {
                break;
            };
            if inode.iter().all(|byte| *byte == 0) {
                continue;
            }
            let has_extra = inode_size > 128 && number(inode, 0x80, 2) >= 4;
            inode[0x7c..0x7e].fill(0);
            if has_extra {
                inode[0x82..0x84].fill(0);
            }
            let own = (group * number(image, 1024 + 0x28, 4) + index + 1) as u32;
            let inode = &mut image[start..start + inode_size];
            let sum = crc(seed, &own.to_le_bytes());
            let sum = crc(sum, &inode[0x64..0x68]);
            let sum = crc(sum, inode).to_le_bytes();
            inode[0x7c..0x7e].copy_from_slice(&sum[..2]);
            if has_extra {
                inode[0x82..0x84].copy_from_slice(&sum[2..]);
            }
        }
        if let Some(desc) = image.get_mut(at..at + desc_size) {
            desc[0x1e..0x20].fill(0);
            let sum = crc(crc(seed, &(group as u32).to_le_bytes()), desc).to_le_bytes();
            desc[0x1e..0x20].copy_from_slice(&sum[..2]);
        }
    }
    let sum = crc(!0, &image[1024..2044]).to_le_bytes();
    put(image, 2044, &sum);
}
