//! The tree itself: which bytes are hashed, by how many threads, and where each hash goes.

use std::num::NonZero;
use std::thread;

use positioned_io::{ReadAt, WriteAt};
use sha2::{Digest as _, Sha256};

use super::{Area, BLOCK, DIGEST, Digest, FANOUT, Written};
use crate::{Control, Error, Result};

const BLOCK_LEN: usize = 4096;
const SALT: [u8; 32] = [0; 32];
/// Bytes of data whose hashes fill a block.
pub(super) const UNIT: u64 = BLOCK * FANOUT;
const UNIT_LEN: usize = BLOCK_LEN * 128;
/// Units that are read at once.
const AT_ONCE: usize = 8;
const _: () = assert!(BLOCK == BLOCK_LEN as u64 && UNIT == UNIT_LEN as u64);

/// The hash of a block of data or of the tree.
pub(super) fn digest(salt: &[u8], block: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(block);
    hash.finalize().into()
}

/// How the data is gone through.
pub(crate) struct Hashing<'a> {
    /// What was ever written of the data.
    pub(crate) written: &'a Written,
    pub(crate) control: &'a Control,
}

impl Hashing<'_> {
    /// Writes the tree and gives its root's hash.
    pub(super) fn run<D: ReadAt + WriteAt>(&self, disk: &mut D, area: &Area) -> Result<Digest> {
        let zero = digest(&SALT, &[0; BLOCK_LEN]);
        if area.levels.is_empty() {
            let mut block = vec![0; BLOCK_LEN];
            read(disk, 0, &mut block)?;
            return Ok(digest(&SALT, &block));
        }
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = threads.min(AT_ONCE);
        let mut levels = Levels::new(area);
        let zeros = leaf(&vec![0; UNIT_LEN], &zero);
        let end = area.offset();
        let mut buffer = vec![0; UNIT_LEN * AT_ONCE];
        let mut at = 0;
        while at < end {
            self.control.check()?;
            if end - at >= UNIT && !self.written.has(at / UNIT) {
                levels.add(disk, 0, &zeros)?;
                at += UNIT;
                continue;
            }
            let units = (0..AT_ONCE as u64)
                .take_while(|step| *step == 0 || self.written.has(at / UNIT + step))
                .count();
            let length = usize::try_from(end - at).unwrap_or(usize::MAX);
            let data = &mut buffer[..(units * UNIT_LEN).min(length)];
            read(disk, at, data)?;
            for block in leaves(data, &zero, threads) {
                levels.add(disk, 0, &block)?;
            }
            at += data.len() as u64;
        }
        levels.finish(disk)
    }
}

/// Reads; what lies behind the disk's end is zeros.
fn read(disk: &impl ReadAt, mut at: u64, bytes: &mut [u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match disk.read_at(at, rest) {
            Ok(0) => {
                rest.fill(0);
                return Ok(());
            }
            Ok(read) => {
                at += read as u64;
                rest = &mut rest[read..];
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("cannot read the disk to hash it", error)),
        }
    }
    Ok(())
}

/// The blocks of hashes of some units of data, worked out in several threads.
fn leaves(data: &[u8], zero: &Digest, threads: usize) -> Vec<Vec<u8>> {
    let units: Vec<&[u8]> = data.chunks(UNIT_LEN).collect();
    let each = units.len().div_ceil(threads.max(1)).max(1);
    let hash =
        |units: &[&[u8]]| -> Vec<Vec<u8>> { units.iter().map(|unit| leaf(unit, zero)).collect() };
    let mut parts = units.chunks(each);
    let Some(first) = parts.next() else {
        return Vec::new();
    };
    thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|part| {
                let worker = thread::Builder::new()
                    .name("opengcs-verity".into())
                    .spawn_scoped(scope, move || hash(part));
                (part, worker)
            })
            .collect();
        let mut blocks = hash(first);
        for (part, worker) in others {
            blocks.extend(match worker {
                Ok(worker) => worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => hash(part),
            });
        }
        blocks
    })
}

/// The block of hashes of up to a unit of data; `zero` is the hash of a block of zeros.
fn leaf(data: &[u8], zero: &Digest) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    for (place, piece) in block.chunks_exact_mut(DIGEST).zip(data.chunks(BLOCK_LEN)) {
        let is_zero = piece.iter().all(|byte| *byte == 0);
        let hash = if is_zero { *zero } else { digest(&SALT, piece) };
        place.copy_from_slice(&hash);
    }
    block
}

/// The levels as they fill: where the next block of each goes, and the hashes waiting for one.
struct Levels {
    levels: Vec<(u64, Vec<u8>)>,
    root: Digest,
}

impl Levels {
    fn new(area: &Area) -> Self {
        let level = |first: &u64| (first * BLOCK, Vec::new());
        Self {
            levels: area.levels.iter().map(level).collect(),
            root: [0; DIGEST],
        }
    }

    /// Writes a full block of a level, and those above that it completes.
    fn add<D: WriteAt>(&mut self, disk: &mut D, level: usize, block: &[u8]) -> Result<()> {
        let mut level = level;
        let mut block = block.to_vec();
        while let Some((place, _)) = self.levels.get_mut(level) {
            disk.write_all_at(*place, &block)
                .map_err(|error| Error::io("cannot write the hash tree", error))?;
            *place += BLOCK;
            let hash = digest(&SALT, &block);
            level += 1;
            let Some((_, waiting)) = self.levels.get_mut(level) else {
                self.root = hash;
                return Ok(());
            };
            waiting.extend_from_slice(&hash);
            if waiting.len() < BLOCK_LEN {
                return Ok(());
            }
            block = std::mem::take(waiting);
        }
        Ok(())
    }

    /// Fills up what waits with zeros, from the leaves to the root.
    fn finish<D: WriteAt>(mut self, disk: &mut D) -> Result<Digest> {
        for level in 1..self.levels.len() {
            let mut waiting = std::mem::take(&mut self.levels[level].1);
            if !waiting.is_empty() {
                waiting.resize(BLOCK_LEN, 0);
                self.add(disk, level, &waiting)?;
            }
        }
        Ok(self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `run` gives, worked out level by level in memory.
    fn by_hand(data: &[u8]) -> (Vec<u8>, Digest) {
        let mut tree = Vec::new();
        let mut level = data.to_vec();
        while level.len() > BLOCK_LEN {
            let mut above: Vec<u8> = level
                .chunks(BLOCK_LEN)
                .flat_map(|block| digest(&SALT, block))
                .collect();
            above.resize(above.len().next_multiple_of(BLOCK_LEN), 0);
            tree.splice(0..0, above.iter().copied());
            level = above;
        }
        (tree, digest(&SALT, &level))
    }

    #[test]
    fn tree_is_the_one_made_level_by_level() {
        for blocks in [1usize, 2, 127, 128, 129, 1000, 16_384, 16_400] {
            let data: Vec<u8> = (0..blocks * BLOCK_LEN)
                .map(|at| {
                    // Blocks of zeros between, and a whole unit of them.
                    let block = at / BLOCK_LEN;
                    let empty = block % 5 == 1 || (256..384).contains(&block);
                    if empty {
                        0
                    } else {
                        (at / 7).to_le_bytes()[0] | 1
                    }
                })
                .collect();
            let mut written = Written::default();
            for block in (0..blocks).filter(|block| !(256..384).contains(block)) {
                written.note((block * BLOCK_LEN) as u64, BLOCK_LEN);
            }
            let area = Area::behind(data.len() as u64).unwrap();
            let mut disk = data.clone();
            disk.resize(usize::try_from(area.end).unwrap(), 0);
            let hashing = Hashing {
                written: &written,
                control: &Control::new(),
            };
            let root = hashing.run(&mut disk, &area).unwrap();
            let (tree, expected) = by_hand(&data);
            assert_eq!(root, expected, "{blocks}");
            assert!(disk[data.len() + BLOCK_LEN..] == tree, "{blocks}");
        }
    }
}
