//! Whether the fast-commit area behind a log holds anything that recovery would replay.

use std::ops::Range;

use super::Log;
use super::superblock::LogGeometry;
use crate::error::{Error, Result};
use crate::format::checksum::Checksum;

/// Closes a fast commit; its value is the transaction and a crc32c from 0 (`EXT4_FC_TAG_TAIL`).
const TAIL: u16 = 8;
/// Heads the area; its value is features and the transaction (`EXT4_FC_TAG_HEAD`).
const HEAD: u16 = 9;

/// Whether the area holds a whole fast commit of the transaction `expected`, the one behind the
/// log's last.
pub(super) fn is_used(
    log: &impl Log,
    geometry: &LogGeometry,
    area: Range<u32>,
    expected: u32,
) -> Result<bool> {
    let mut bytes = vec![0; geometry.block_size];
    let mut sum = Checksum(0);
    for block in area.clone() {
        log.read(block, &mut bytes)?;
        let mut rest = bytes.as_slice();
        while let Some((head, behind)) = rest.split_first_chunk::<4>() {
            let [a, b, c, d] = *head;
            let tag = u16::from_le_bytes([a, b]);
            let length = usize::from(u16::from_le_bytes([c, d]));
            if block == area.start && rest.len() == bytes.len() && tag != HEAD {
                return Ok(false);
            }
            // Tags 1 to 9 exist; anything else is no fast commit any more.
            if !(1..=HEAD).contains(&tag) {
                return Ok(false);
            }
            let Some((value, next)) = behind.split_at_checked(length) else {
                return Ok(false);
            };
            let word = |at: usize| {
                let word = value.get(at..).and_then(|value| value.first_chunk::<4>());
                word.map(|word| u32::from_le_bytes(*word))
            };
            if tag == HEAD && word(4) != Some(expected) {
                return Ok(false);
            }
            if tag == TAIL {
                let covered = value.get(..4).unwrap_or_default();
                let matches = word(4) == Some(sum.add(head).add(covered).0);
                return match word(0) {
                    Some(transaction) if transaction != expected => Ok(false),
                    Some(_) if matches => Ok(true),
                    _ => Err(Error::corrupt(format!(
                        "journal: a fast commit with a bad checksum (log block {block})"
                    ))),
                };
            }
            sum = sum.add(head).add(value);
            rest = next;
        }
    }
    Ok(false)
}
