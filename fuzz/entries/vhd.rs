//! A VHD, fixed or dynamic, given in pieces: read everywhere, and its chain opened.

use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::{Access, Disk, Error, ErrorKind, Storage, detect};
use positioned_io::ReadAt;

use super::pieces::Pieces;

/// Flag: the checksums are made right first.
const SEAL: u8 = 1;

/// The file that an input stands for; what was never said is a hole.
pub fn file(bytes: &[u8], seal: impl FnOnce(&MemoryFile, u64)) -> Option<MemoryFile> {
    let pieces = Pieces::parse(bytes)?;
    let file = MemoryFile::new();
    file.resize(pieces.length).ok()?;
    for (at, part) in &pieces.parts {
        let room = usize::try_from(pieces.length.saturating_sub(*at)).unwrap_or(usize::MAX);
        file.store_at(*at, &part[..part.len().min(room)]).ok()?;
    }
    if pieces.flags & SEAL != 0 {
        seal(&file, pieces.length);
    }
    file.settle();
    Some(file)
}

/// Opens and reads. Errors are fine, if they are of the right kind; panics are not.
pub fn run(bytes: &[u8]) {
    let Some(file) = file(bytes, seal) else {
        return;
    };
    let _ = detect(&file);
    read(&file);
    let _ = Disk::open_chain(file.snapshot(), |_| Ok(file.snapshot())).inspect_err(judge);
    assert_eq!(file.operations(), 0, "reading wrote");
}

/// Errors say of a file that it is wrong, not that something went wrong.
pub fn judge(error: &Error) {
    let kind = error.kind();
    let known = matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported);
    assert!(known, "{kind:?}: {error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

/// Reads here and there; gives back what there was, if it opens.
pub fn read(file: &MemoryFile) -> Option<Vec<Vec<u8>>> {
    let disk = Disk::open(file.clone(), Access::ReadOnly)
        .inspect_err(judge)
        .ok()?;
    disk.summary().expect("an open disk can be described");
    Some(
        places(disk.virtual_size())
            .map(|at| read_at(&disk, at))
            .collect(),
    )
}

/// Where a disk of this size is read and written.
pub fn places(size: u64) -> impl Iterator<Item = u64> {
    let end = size.saturating_sub(4096);
    [0, 1 << 20, (2 << 20) - 100, 1 << 30, size / 2, end]
        .into_iter()
        .filter(move |at| *at < size)
}

/// Some bytes from `at` on; none when they cannot be read.
pub fn read_at<S: Storage>(disk: &Disk<S>, at: u64) -> Vec<u8> {
    let mut buffer = vec![0xee; 5000];
    match disk.read_at(at, &mut buffer) {
        Ok(read) => {
            assert!(
                at + read as u64 <= disk.virtual_size(),
                "bytes behind the end"
            );
            assert!(read > 0, "nothing before the end");
            buffer.truncate(read);
            buffer
        }
        Err(_) => Vec::new(),
    }
}

/// Makes the checksums of both footers and of the dynamic header right.
fn seal(file: &MemoryFile, length: u64) {
    for at in [0, length.saturating_sub(512)] {
        if file.bytes(at, 8) == b"conectix" {
            sum(file, at, 512, 64);
        }
    }
    let offset = file
        .bytes(16, 8)
        .try_into()
        .map_or(u64::MAX, u64::from_be_bytes);
    if offset < length && file.bytes(offset, 8) == b"cxsparse" {
        sum(file, offset, 1024, 36);
    }
}

fn sum(file: &MemoryFile, at: u64, length: usize, checksum: usize) {
    let mut bytes = file.bytes(at, length);
    if bytes.len() == length {
        bytes[checksum..checksum + 4].fill(0);
        let sum = !bytes
            .iter()
            .fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        let _ = file.store_at(at + checksum as u64, &sum.to_be_bytes());
    }
}
