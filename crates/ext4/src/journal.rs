//! Journal replay, in memory: which blocks of the volume have newer copies in the log, and where;
//! and which changes were committed fast since.
//!
//! The rules are the kernel's (`fs/jbd2/recovery.c`): where it ends the replay, so does this; where
//! it would refuse to mount, this is an error.

mod checksum;
mod fast_commit;
mod scan;
mod superblock;
mod tag;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use zerocopy::FromBytes;

pub(crate) use self::fast_commit::{Change, FastCommits, Name};
pub(crate) use self::superblock::LogGeometry;

use self::checksum::verify_tag;
use self::scan::{Event, Kind, scan};
use self::tag::tags;
use crate::error::{Error, Result};
use crate::format::journal::{REVOKE_HEADER_SIZE, RevokeHeader, TAIL_SIZE};

/// A log, block by block.
pub(crate) trait Log {
    /// Reads a block of the log; `buffer` has a block's size.
    fn read(&self, block: u32, buffer: &mut [u8]) -> Result<()>;
}

/// Where a block's newest copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Block of the log.
    pub(crate) log_block: u32,
    /// The copy's first four bytes are zeros in place of the magic number.
    pub(crate) escaped: bool,
}

/// What a log says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Replay {
    /// Newest copies, by block of the volume.
    pub(crate) blocks: BTreeMap<u64, Copied>,
    /// Whole transactions found.
    pub(crate) transactions: u32,
    /// What was committed behind them.
    pub(crate) fast_commits: FastCommits,
}

/// Replays a log for a volume of `volume_blocks` blocks.
pub(crate) fn replay(log: &impl Log, geometry: &LogGeometry, volume_blocks: u64) -> Result<Replay> {
    let mut replay = Replay::default();
    if geometry.start == 0 {
        return Ok(replay);
    }
    let scanned = scan(log, geometry)?;
    replay.transactions = scanned.transactions;
    let committed = || {
        let whole = scanned.transactions;
        scanned
            .events
            .iter()
            .filter(move |event| event.transaction < whole)
    };
    let mut buffer = vec![0; geometry.block_size];
    // By block: the last transaction that revoked it.
    let mut revoked = HashMap::new();
    for event in committed().filter(|event| event.kind == Kind::Revoke) {
        log.read(event.block, &mut buffer)?;
        for block in revokes(&buffer, geometry, event)? {
            revoked.insert(block, event.transaction);
        }
    }
    let mut copy = vec![0; geometry.block_size];
    for event in committed().filter(|event| event.kind == Kind::Descriptor) {
        log.read(event.block, &mut buffer)?;
        let mut at = event.block;
        for tag in tags(&buffer, geometry) {
            at = geometry.next(at, 1);
            if revoked
                .get(&tag.block)
                .is_some_and(|&last| event.transaction <= last)
            {
                continue;
            }
            let bad = |what: &str| {
                let transaction = geometry.sequence(event.transaction);
                Error::corrupt(format!(
                    "journal transaction {transaction}: {what} (log block {at})"
                ))
                .at_block(crate::BlockNo(tag.block))
            };
            if tag.block >= volume_blocks {
                return Err(bad("a copy of a block outside the volume"));
            }
            if geometry.has_block_checksums() {
                log.read(at, &mut copy)?;
                let sequence = geometry.sequence(event.transaction);
                if !verify_tag(geometry, &tag, sequence, &copy) {
                    return Err(bad("a copy with a bad checksum"));
                }
            }
            let copied = Copied {
                log_block: at,
                escaped: tag.escaped,
            };
            replay.blocks.insert(tag.block, copied);
        }
    }
    if let Some(area) = &geometry.fast_commits {
        let expected = geometry.sequence(scanned.transactions);
        replay.fast_commits = fast_commit::read(log, geometry, area.clone(), expected)?;
    }
    Ok(replay)
}

/// The blocks that a revoke block lists.
fn revokes(bytes: &[u8], geometry: &LogGeometry, event: &Event) -> Result<Vec<u64>> {
    let bad = || {
        let transaction = geometry.sequence(event.transaction);
        let at = event.block;
        Error::corrupt(format!(
            "journal transaction {transaction}: bad revoke block (log block {at})"
        ))
    };
    let (header, _) = RevokeHeader::read_from_prefix(bytes).map_err(|_| bad())?;
    let used = usize::try_from(header.r_count.get()).map_err(|_| bad())?;
    let tail = if geometry.has_block_checksums() {
        TAIL_SIZE
    } else {
        0
    };
    if used > bytes.len().saturating_sub(tail) {
        return Err(bad());
    }
    let records = bytes.get(REVOKE_HEADER_SIZE..used).unwrap_or_default();
    Ok(if geometry.has_64_bits {
        let records = records.as_chunks::<8>().0.iter();
        records.map(|record| u64::from_be_bytes(*record)).collect()
    } else {
        let records = records.as_chunks::<4>().0.iter();
        records
            .map(|record| u64::from(u32::from_be_bytes(*record)))
            .collect()
    })
}
