//! A VHDX, given in pieces: opened with its log, read, written, and read again.

use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::{Access, Disk, Guid, Storage, detect};
use positioned_io::WriteAt;

use super::vhd::{file, judge, places, read, read_at};

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];

/// Opens, reads and writes. Errors are fine, panics are not; and what two ways of opening a file
/// give must be the same.
pub fn run(bytes: &[u8]) {
    let Some(file) = file(bytes, seal) else {
        return;
    };
    let _ = detect(&file);
    let before = read(&file);
    assert_eq!(file.operations(), 0, "reading wrote");
    let _ = Disk::open_chain(file.snapshot(), |_| Ok(file.snapshot())).inspect_err(judge);
    let session = Guid::from_bytes([7; 16]);
    let Ok(mut disk) = Disk::open(file.clone(), Access::ReadWrite { session }) else {
        return;
    };
    let size = disk.virtual_size();
    let found: Vec<_> = places(size).map(|at| read_at(&disk, at)).collect();
    assert!(
        before.is_some_and(|before| before == found),
        "replay gives another disk"
    );
    // Written is what lies apart from what is read.
    let at = (size / 3) & !511;
    let written = disk.write_at(at, &[1; 700]).is_ok();
    if disk.finish().inspect_err(judge_any).is_err() || !written {
        return;
    }
    let disk = Disk::open(file, Access::ReadOnly).expect("what we have finished opens");
    let wrote = read_at(&disk, at);
    let count = wrote.len().min(700);
    assert!(
        count > 0 && wrote[..count].iter().all(|byte| *byte == 1),
        "what was written is lost"
    );
    for (place, found) in places(size).zip(found) {
        if place.abs_diff(at) > 8192 && !found.is_empty() {
            assert!(
                read_at(&disk, place) == found,
                "what was not written has changed"
            );
        }
    }
}

fn judge_any(error: &opengcs_vhd::Error) {
    assert!(!error.to_string().contains('\n'), "{error}");
}

/// Makes the checksums of headers, region tables and log entries right.
fn seal(file: &MemoryFile, _length: u64) {
    for at in REGIONS {
        sum(file, at, 64 << 10, b"regi");
    }
    for at in HEADERS {
        sum(file, at, 4096, b"head");
        let field = |at: u64| file.bytes(at, 8).try_into().map_or(0, u64::from_le_bytes);
        let (length, offset) = (field(at + 68) & 0xffff_ffff, field(at + 72));
        for entry in (0..length.min(1 << 20)).step_by(4096) {
            // Far behind every file, and never more than a position may be.
            let entry = offset.min(1 << 60) + entry;
            let bytes = field(entry + 8) & 0xf_ffff;
            sum(file, entry, usize::try_from(bytes).unwrap_or(0), b"loge");
        }
    }
}

fn sum(file: &MemoryFile, at: u64, length: usize, signature: &[u8]) {
    if file.bytes(at, 4) != signature {
        return;
    }
    let mut bytes = file.bytes(at, length);
    if bytes.len() == length && length >= 8 {
        bytes[4..8].fill(0);
        let _ = file.store_at(at + 4, &crc32c::crc32c(&bytes).to_le_bytes());
    }
}
