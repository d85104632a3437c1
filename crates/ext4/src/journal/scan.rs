//! How far a log can be believed: its blocks in order, up to the last whole transaction.

use zerocopy::FromBytes;

use super::Log;
use super::checksum::{Crc32, verify_commit, verify_tail};
use super::superblock::{Checksums, LogGeometry};
use super::tag::tags;
use crate::error::{Error, Result};
use crate::format::journal::{
    CHECKSUM_CRC32, COMMIT, CommitHeader, DESCRIPTOR, Header, MAGIC, REVOKE,
};

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Descriptor,
    Revoke,
}

/// A block that says something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Which transaction of the log, from 0.
    pub(super) transaction: u32,
    /// Where in the log.
    pub(super) block: u32,
    pub(super) kind: Kind,
}

/// The log in order.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) events: Vec<Event>,
    /// How many transactions are whole. Later events do not count.
    pub(super) transactions: u32,
}

/// What a commit block means.
enum Verdict {
    Good,
    /// It is left from an earlier turn of the log.
    Stale,
    Bad,
}

struct Scan<'a, L> {
    log: &'a L,
    geometry: &'a LogGeometry,
    /// The next block.
    at: u32,
    /// Blocks passed; a log holds no more than it has.
    passed: u64,
    /// The checksum of the transaction so far (v1).
    sum: Crc32,
    /// A block of the transaction had a bad checksum: its commit block tells whether it is stale.
    suspect: bool,
    last_commit_time: u64,
}

impl<L: Log> Scan<'_, L> {
    /// Goes on by `count` blocks; `false` when that is more than the whole circle.
    fn advance(&mut self, count: u32) -> bool {
        self.passed = self.passed.saturating_add(u64::from(count));
        let room = self.geometry.last.saturating_sub(self.geometry.first);
        if self.passed > u64::from(room) {
            return false;
        }
        self.at = self.geometry.next(self.at, count);
        true
    }

    /// Passes the copies behind a descriptor block; `false` as for [`Self::advance`].
    fn descriptor(&mut self, bytes: &[u8], with_sum: bool) -> Result<bool> {
        let count = tags(bytes, self.geometry).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if !with_sum {
            return Ok(self.advance(count));
        }
        self.sum = self.sum.add(bytes);
        let mut copy = vec![0; self.geometry.block_size];
        for _ in 0..count {
            self.log.read(self.at, &mut copy)?;
            self.sum = self.sum.add(&copy);
            if !self.advance(1) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn commit(&mut self, bytes: &[u8]) -> Verdict {
        let Ok((commit, _)) = CommitHeader::read_from_prefix(bytes) else {
            return Verdict::Bad;
        };
        let time = commit.h_commit_sec.get();
        let good = !self.suspect
            && match self.geometry.checksums {
                Checksums::None => true,
                Checksums::V1 => {
                    let [stored, ..] = commit.h_chksum.map(zerocopy::U32::get);
                    let kind = (commit.h_chksum_type, commit.h_chksum_size);
                    (kind == (CHECKSUM_CRC32, 4) && stored == self.sum.0)
                        || (kind == (0, 0) && stored == 0)
                }
                Checksums::V2 | Checksums::V3 => verify_commit(self.geometry, bytes),
            };
        if good {
            self.last_commit_time = time;
            self.sum = Crc32::START;
            Verdict::Good
        } else if time < self.last_commit_time {
            Verdict::Stale
        } else {
            Verdict::Bad
        }
    }
}

/// Goes through a log that is not empty.
pub(super) fn scan(log: &impl Log, geometry: &LogGeometry) -> Result<Scanned> {
    let mut scanned = Scanned::default();
    let mut scan = Scan {
        log,
        geometry,
        at: geometry.start,
        passed: 0,
        sum: Crc32::START,
        suspect: false,
        last_commit_time: 0,
    };
    let mut transaction = 0u32;
    // The first transaction that is not whole although its commit block is there.
    let mut torn = None;
    let mut bytes = vec![0; geometry.block_size];
    loop {
        let block = scan.at;
        log.read(block, &mut bytes)?;
        let sequence = geometry.sequence(transaction);
        let Ok((header, _)) = Header::read_from_prefix(&bytes) else {
            break;
        };
        if header.h_magic.get() != MAGIC || header.h_sequence.get() != sequence {
            break;
        }
        let mut event = |kind| {
            scanned.events.push(Event {
                transaction,
                block,
                kind,
            });
        };
        if !scan.advance(1) {
            break;
        }
        match header.h_blocktype.get() {
            DESCRIPTOR => {
                scan.suspect |= geometry.has_block_checksums() && !verify_tail(geometry, &bytes);
                event(Kind::Descriptor);
                let with_sum = geometry.checksums == Checksums::V1 && torn.is_none();
                if !scan.descriptor(&bytes, with_sum)? {
                    break;
                }
            }
            REVOKE => {
                scan.suspect |= geometry.has_block_checksums() && !verify_tail(geometry, &bytes);
                event(Kind::Revoke);
            }
            COMMIT => {
                let bad = || {
                    Error::corrupt(format!(
                        "journal transaction {sequence}: bad checksum (log block {block})"
                    ))
                };
                // With v1 a whole transaction behind a torn one means damage, not a power cut.
                if torn.is_some() && geometry.checksums == Checksums::V1 {
                    return Err(bad());
                }
                match scan.commit(&bytes) {
                    Verdict::Good => {}
                    Verdict::Stale => break,
                    // Commit blocks that may overtake what they commit are no damage.
                    Verdict::Bad if geometry.has_async_commit && !scan.suspect => {
                        torn.get_or_insert(transaction);
                    }
                    Verdict::Bad => return Err(bad()),
                }
                transaction = transaction.saturating_add(1);
            }
            _ => break,
        }
    }
    scanned.transactions = torn.unwrap_or(transaction);
    Ok(scanned)
}
