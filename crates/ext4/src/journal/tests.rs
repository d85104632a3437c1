//! Logs built here, of every kind of checksum and tag, and damaged.
#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers are this file's own"
)]

use zerocopy::IntoBytes;

use super::checksum::Crc32;
use super::superblock::Checksums;
use super::{Log, LogGeometry, Replay, replay};
use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum::Checksum;
use crate::format::journal as format;

const BLOCK: usize = 1024;
const BLOCKS: usize = 64;
/// Blocks of the volume.
const VOLUME: u64 = 1 << 40;

/// A log in memory and where it is written next.
#[derive(Clone)]
struct Build {
    blocks: Vec<Vec<u8>>,
    geometry: LogGeometry,
    at: u32,
    sequence: u32,
    time: u64,
}

impl Log for Vec<Vec<u8>> {
    fn read(&self, block: u32, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.get(block as usize);
        let bytes = bytes.ok_or_else(|| Error::corrupt("outside the log"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// The magic number at its start makes a copy that must be escaped.
fn data(number: u8, magic: bool) -> Vec<u8> {
    let mut bytes = vec![number; BLOCK];
    if magic {
        bytes[..4].copy_from_slice(&format::MAGIC.to_be_bytes());
    }
    bytes
}

impl Build {
    fn new(checksums: Checksums, has_64_bits: bool) -> Self {
        let geometry = LogGeometry {
            block_size: BLOCK,
            first: 1,
            last: BLOCKS as u32,
            start: 1,
            first_sequence: 7,
            has_64_bits,
            has_async_commit: false,
            checksums,
            seed: Checksum::of_uuid(&[9; 16]),
            fast_commits: None,
        };
        let blocks = vec![vec![0; BLOCK]; BLOCKS];
        let (at, sequence, time) = (geometry.start, geometry.first_sequence, 1_000_000);
        Self {
            blocks,
            geometry,
            at,
            sequence,
            time,
        }
    }

    fn starting(mut self, block: u32, sequence: u32) -> Self {
        (self.geometry.start, self.at) = (block, block);
        (self.geometry.first_sequence, self.sequence) = (sequence, sequence);
        self
    }

    fn put(&mut self, bytes: Vec<u8>) -> u32 {
        let at = self.at;
        self.blocks[at as usize] = bytes;
        self.at = if at + 1 == self.geometry.last {
            self.geometry.first
        } else {
            at + 1
        };
        at
    }

    fn header(&self, kind: u32) -> Vec<u8> {
        let mut bytes = format::Header {
            h_magic: format::MAGIC.into(),
            h_blocktype: kind.into(),
            h_sequence: self.sequence.into(),
        }
        .as_bytes()
        .to_vec();
        bytes.resize(BLOCK, 0);
        bytes
    }

    fn seal(&self, bytes: &mut [u8]) {
        if self.geometry.has_block_checksums() {
            let sum = self.geometry.seed.add(bytes);
            bytes[BLOCK - 4..].copy_from_slice(&sum.0.to_be_bytes());
        }
    }

    /// Writes a descriptor block and copies; gives back where the descriptor is.
    fn copies(&mut self, copies: &[(u64, u8, bool)]) -> u32 {
        let mut bytes = self.header(format::DESCRIPTOR);
        let mut at = format::HEADER_SIZE;
        let mut stored = Vec::new();
        for (index, &(block, number, magic)) in copies.iter().enumerate() {
            let mut copy = data(number, magic);
            let mut flags = if index == 0 { 0 } else { format::TAG_SAME_UUID };
            if magic {
                copy[..4].fill(0);
                flags |= format::TAG_ESCAPE;
            }
            if index + 1 == copies.len() {
                flags |= format::TAG_LAST;
            }
            let sum = self
                .geometry
                .seed
                .add(&self.sequence.to_be_bytes())
                .add(&copy);
            let high = ((block >> 32) as u32).to_be_bytes();
            let mut tag = (block as u32).to_be_bytes().to_vec();
            if self.geometry.checksums == Checksums::V3 {
                tag.extend(u32::from(flags).to_be_bytes());
                tag.extend(high);
                tag.extend(sum.0.to_be_bytes());
            } else {
                let low = if self.geometry.checksums == Checksums::V2 {
                    sum.low()
                } else {
                    0
                };
                tag.extend(low.to_be_bytes());
                tag.extend(flags.to_be_bytes());
                if self.geometry.has_64_bits {
                    tag.extend(high);
                }
                if self.geometry.checksums == Checksums::V2 {
                    tag.extend([0; 2]);
                }
            }
            if flags & format::TAG_SAME_UUID == 0 {
                tag.extend([9; 16]);
            }
            bytes[at..at + tag.len()].copy_from_slice(&tag);
            at += tag.len();
            stored.push(copy);
        }
        self.seal(&mut bytes);
        let place = self.put(bytes);
        for copy in stored {
            self.put(copy);
        }
        place
    }

    fn revoke(&mut self, blocks: &[u64]) -> u32 {
        let mut bytes = self.header(format::REVOKE);
        let mut at = format::REVOKE_HEADER_SIZE;
        for &block in blocks {
            let long = block.to_be_bytes();
            let record = if self.geometry.has_64_bits {
                &long[..]
            } else {
                &long[4..]
            };
            bytes[at..at + record.len()].copy_from_slice(record);
            at += record.len();
        }
        bytes[12..16].copy_from_slice(&(at as u32).to_be_bytes());
        self.seal(&mut bytes);
        self.put(bytes)
    }

    /// Ends the transaction, which began at `from`.
    fn commit(&mut self, from: u32) -> u32 {
        let mut bytes = self.header(format::COMMIT);
        bytes[0x30..0x38].copy_from_slice(&self.time.to_be_bytes());
        self.time += 1;
        match self.geometry.checksums {
            Checksums::None => {}
            Checksums::V1 => {
                let mut sum = Crc32::START;
                let mut block = from;
                while block != self.at {
                    let bytes = &self.blocks[block as usize];
                    let kind = u32::from_be_bytes(*bytes[4..].first_chunk().unwrap());
                    if !(bytes[..4] == format::MAGIC.to_be_bytes() && kind == format::REVOKE) {
                        sum = sum.add(bytes);
                    }
                    block = self.geometry.next(block, 1);
                }
                bytes[12..14].copy_from_slice(&[format::CHECKSUM_CRC32, 4]);
                bytes[16..20].copy_from_slice(&sum.0.to_be_bytes());
            }
            Checksums::V2 | Checksums::V3 => {
                let sum = self.geometry.seed.add(&bytes);
                bytes[16..20].copy_from_slice(&sum.0.to_be_bytes());
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.put(bytes)
    }

    fn transaction(&mut self, copies: &[(u64, u8, bool)]) -> u32 {
        let from = self.copies(copies);
        self.commit(from);
        from
    }

    fn replay(&self) -> Result<Replay> {
        replay(&self.blocks, &self.geometry, VOLUME)
    }

    /// The blocks of the volume and the bytes they get.
    fn result(&self) -> Vec<(u64, u8, bool)> {
        let show = |(&block, copied): (&u64, &super::Copied)| {
            let bytes = &self.blocks[copied.log_block as usize];
            (block, bytes[BLOCK - 1], copied.escaped)
        };
        self.replay().unwrap().blocks.iter().map(show).collect()
    }

    fn flip(&mut self, block: u32, byte: usize) {
        self.blocks[block as usize][byte] ^= 0x10;
    }
}

fn kinds() -> impl Iterator<Item = Build> {
    use Checksums::{None, V1, V2, V3};
    [None, V1, V2, V3]
        .into_iter()
        .flat_map(|checksums| [false, true].map(|bits| Build::new(checksums, bits)))
}

fn is_corrupt(result: Result<Replay>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::Corrupt)
}

#[test]
fn newest_copies_win() {
    for mut log in kinds() {
        let far = if log.geometry.has_64_bits {
            5 << 32
        } else {
            50
        };
        log.transaction(&[(10, 1, false), (11, 2, true), (far, 3, false)]);
        log.transaction(&[(10, 4, true)]);
        let from = log.copies(&[(11, 9, false)]);
        let _never_committed = from;
        assert_eq!(
            log.result(),
            [(10, 4, true), (11, 2, true), (far, 3, false)]
        );
        assert_eq!(log.replay().unwrap().transactions, 2);
    }
}

#[test]
fn log_and_sequence_wrap_around() {
    for log in kinds() {
        for start in BLOCKS as u32 - 9..BLOCKS as u32 {
            let mut log = log.clone().starting(start, u32::MAX - 1);
            for number in 0..4 {
                let from =
                    log.copies(&[(10, number, false), (20 + u64::from(number), number, true)]);
                if number == 2 {
                    log.revoke(&[20]);
                }
                log.commit(from);
            }
            let expected = [(10, 3, false), (21, 1, true), (22, 2, true), (23, 3, true)];
            assert_eq!(log.result(), expected);
        }
    }
}

#[test]
fn revokes_end_older_copies_only() {
    for mut log in kinds() {
        log.transaction(&[(10, 1, false), (11, 1, false), (12, 1, false)]);
        // A block that is revoked in its own transaction is not written either.
        let from = log.copies(&[(12, 2, false), (13, 2, false)]);
        log.revoke(&[10, 13]);
        log.commit(from);
        log.transaction(&[(10, 3, false)]);
        let from = log.at;
        log.revoke(&[11]);
        log.commit(from);
        // Not committed, so nothing is revoked.
        log.revoke(&[10, 12]);
        assert_eq!(log.result(), [(10, 3, false), (12, 2, false)]);
    }
}

#[test]
fn full_revoke_blocks_count_to_the_last_entry() {
    for mut log in kinds() {
        let record = if log.geometry.has_64_bits { 8 } else { 4 };
        let tail = if log.geometry.has_block_checksums() {
            4
        } else {
            0
        };
        let full = (BLOCK - format::REVOKE_HEADER_SIZE - tail) / record;
        let blocks: Vec<u64> = (100..100 + full as u64).collect();
        let last = *blocks.last().unwrap();
        log.transaction(&[(last, 1, false), (last + 1, 1, false)]);
        let from = log.at;
        let revoke = log.revoke(&blocks);
        log.commit(from);
        assert_eq!(log.result(), [(last + 1, 1, false)]);
        // More than the block holds.
        let mut bytes = log.blocks[revoke as usize].clone();
        bytes[12..16].copy_from_slice(&(BLOCK as u32 - tail as u32 + 1).to_be_bytes());
        bytes[BLOCK - tail..].fill(0);
        log.seal(&mut bytes);
        log.blocks[revoke as usize] = bytes;
        assert!(is_corrupt(log.replay()));
    }
}

#[test]
fn bad_commit_checksum_is_corrupt_unless_commits_may_overtake() {
    for mut log in kinds().filter(|log| log.geometry.checksums != Checksums::None) {
        log.transaction(&[(10, 1, false)]);
        let from = log.copies(&[(10, 2, false)]);
        let commit = log.commit(from);
        log.flip(commit, 17);
        assert!(is_corrupt(log.replay()));
        log.geometry.has_async_commit = true;
        assert_eq!(log.result(), [(10, 1, false)]);
    }
}

#[test]
fn older_transactions_behind_the_end_are_stale() {
    for mut log in kinds().filter(|log| log.geometry.has_block_checksums()) {
        log.transaction(&[(10, 1, false)]);
        log.time -= 1000;
        let from = log.copies(&[(10, 2, false)]);
        let commit = log.commit(from);
        let good = log.clone();
        log.flip(commit, 17);
        assert_eq!(log.result(), [(10, 1, false)]);
        let mut log = good;
        log.flip(from, 100);
        assert_eq!(log.result(), [(10, 1, false)]);
    }
}

#[test]
fn bad_descriptor_revoke_and_copy_checksums_are_corrupt() {
    for mut log in kinds().filter(|log| log.geometry.has_block_checksums()) {
        let from = log.copies(&[(10, 1, false), (11, 2, false)]);
        let revoke = log.revoke(&[11]);
        log.commit(from);
        for (block, byte) in [(from, 900), (revoke, 900), (from + 1, 3)] {
            let mut log = log.clone();
            log.flip(block, byte);
            assert!(is_corrupt(log.replay()), "{block}");
        }
        // Revoked, so never looked at.
        log.flip(from + 2, 3);
        assert_eq!(log.result(), [(10, 1, false)]);
    }
}

#[test]
fn bad_copy_is_corrupt_with_whole_transaction_checksums() {
    let mut log = Build::new(Checksums::V1, false);
    let from = log.transaction(&[(10, 1, false)]);
    log.flip(from + 1, 3);
    assert!(is_corrupt(log.replay()));
}

#[test]
fn copies_outside_the_volume_are_corrupt() {
    let mut log = Build::new(Checksums::V3, true);
    log.transaction(&[(VOLUME - 1, 1, false)]);
    assert!(log.replay().is_ok());
    log.transaction(&[(VOLUME, 1, false)]);
    assert!(is_corrupt(log.replay()));
}

#[test]
fn a_circle_without_end_ends() {
    let mut log = Build::new(Checksums::None, false);
    for _ in 1..BLOCKS {
        log.revoke(&[1]);
    }
    assert_eq!(log.replay().unwrap(), Replay::default());
    for block in 1..BLOCKS as u32 {
        log.at = block;
        log.copies(&[]);
    }
    assert_eq!(log.replay().unwrap(), Replay::default());
}

#[test]
fn flipped_bytes_never_panic() {
    for mut log in kinds() {
        let from = log.copies(&[(10, 1, true), (11, 2, false)]);
        log.revoke(&[11, 12]);
        log.commit(from);
        log.transaction(&[(11, 5, false)]);
        let expected = log.result();
        for block in 1..log.at {
            for byte in 0..BLOCK {
                let mut log = log.clone();
                log.flip(block, byte);
                if let Ok(found) = log.replay()
                    && log.geometry.has_block_checksums()
                    && found.transactions == 2
                {
                    assert_eq!(log.result(), expected);
                }
            }
        }
    }
}

fn superblock(change: impl FnOnce(&mut format::JournalSuperblock)) -> Vec<u8> {
    use zerocopy::FromZeros;
    let mut raw = format::JournalSuperblock::new_zeroed();
    raw.s_header.h_magic = format::MAGIC.into();
    raw.s_header.h_blocktype = format::SUPERBLOCK_V2.into();
    raw.s_blocksize = 1024.into();
    raw.s_maxlen = 4096.into();
    raw.s_first = 1.into();
    raw.s_start = 5.into();
    raw.s_feature_incompat = (format::INCOMPAT_CSUM_V3 | format::INCOMPAT_REVOKE).into();
    raw.s_checksum_type = format::CHECKSUM_CRC32C;
    change(&mut raw);
    let sum = Checksum::START.add(raw.as_bytes());
    raw.s_checksum = sum.0.into();
    raw.as_bytes().to_vec()
}

#[test]
fn superblocks_are_checked() {
    let parse = |bytes: &[u8]| LogGeometry::parse(bytes, 1024, 4096);
    let good = parse(&superblock(|_| {})).unwrap();
    assert_eq!((good.first, good.last, good.start), (1, 4096, 5));
    assert_eq!(good.checksums, Checksums::V3);
    let fast = |raw: &mut format::JournalSuperblock| {
        raw.s_feature_incompat = format::INCOMPAT_FAST_COMMIT.into();
    };
    let fast = parse(&superblock(fast)).unwrap();
    assert_eq!((fast.last, fast.fast_commits), (3840, Some(3841..4096)));

    type Change = fn(&mut format::JournalSuperblock);
    let corrupt: [Change; 8] = [
        |raw| raw.s_header.h_magic = 1.into(),
        |raw| raw.s_header.h_blocktype = 2.into(),
        |raw| raw.s_blocksize = 2048.into(),
        |raw| raw.s_maxlen = 4097.into(),
        |raw| raw.s_first = 0.into(),
        |raw| raw.s_first = 4096.into(),
        |raw| raw.s_start = 4096.into(),
        |raw| raw.s_feature_incompat = 0x18.into(),
    ];
    for change in corrupt {
        let error = parse(&superblock(change)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    let unsupported: [Change; 3] = [
        |raw| raw.s_feature_incompat = 0x110.into(),
        |raw| raw.s_feature_ro_compat = 1.into(),
        |raw| raw.s_checksum_type = 1,
    ];
    for change in unsupported {
        let error = parse(&superblock(change)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    let mut flipped = superblock(|_| {});
    flipped[0x60] ^= 1;
    assert_eq!(parse(&flipped).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(
        parse(&flipped[..1000]).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}
