//! Checks a tree that is there: it is worked out again, and compared where it would be written.

use std::cell::Cell;
use std::io;

use positioned_io::{ReadAt, WriteAt};
use uuid::Uuid;

use super::{Area, BLOCK, DIGEST, Hashing, Verity, Written, hex, read_exact, superblock};
use crate::{Control, Error, Result};

/// A disk whose tree is compared with what is written to it.
struct Compared<D> {
    disk: D,
    /// The first byte that differs.
    different: Cell<Option<u64>>,
}

impl<D: ReadAt> ReadAt for Compared<D> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(position, buffer)
    }
}

impl<D: ReadAt> WriteAt for Compared<D> {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut there = vec![0; bytes.len()];
        self.disk.read_exact_at(position, &mut there)?;
        if let Some(at) = there.iter().zip(bytes).position(|(a, b)| a != b)
            && self.different.get().is_none()
        {
            self.different.set(Some(position + at as u64));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What does not fit together in a disk with a tree that should be this one, if anything.
pub(crate) fn check(
    disk: impl ReadAt,
    verity: &Verity,
    control: &Control,
) -> Result<Option<String>> {
    let uuid = Uuid::parse_str(&verity.uuid);
    let uuid = uuid.map_err(|_| Error::corrupt("the hash tree's UUID is none"))?;
    let size = verity.data_blocks.checked_mul(BLOCK);
    let size = size.ok_or_else(|| Error::corrupt("the hash tree is of too many blocks"))?;
    let area = Area::behind(size)?;
    if verity.hash_offset != area.offset() || verity.data_blocks != area.data_blocks {
        return Err(Error::unsupported(
            "the hash tree does not lie behind its data",
        ));
    }
    let mut found = [0; superblock::SIZE];
    if read_exact(&disk, area.offset(), &mut found).is_none()
        || found != superblock::encode(uuid, area.data_blocks)
    {
        return Ok(Some(
            "the hash tree's superblock is not there, or another".into(),
        ));
    }
    let mut compared = Compared {
        disk,
        different: Cell::new(None),
    };
    let hashing = Hashing {
        written: &Written::all(area.offset()),
        control,
    };
    let root = hex(&hashing.run(&mut compared, &area)?);
    if let Some(at) = compared.different.get() {
        return Ok(Some(place(&area, at)));
    }
    Ok((root != verity.root_hash)
        .then(|| format!("the root hash is {root}, not {}", verity.root_hash)))
}

/// What a byte of the tree that is not as it should be speaks of.
fn place(area: &Area, at: u64) -> String {
    let leaves = area.levels.first().copied().unwrap_or(0) * BLOCK;
    let number = at.checked_sub(leaves).map(|at| at / DIGEST as u64);
    match number.filter(|number| *number < area.data_blocks) {
        Some(number) => format!(
            "block {number} (bytes from {}) does not have the hash that the tree has for it",
            number * BLOCK
        ),
        None => format!("the hash tree does not fit together at byte {at}"),
    }
}
