//! The 512 bytes that say how a hash tree was made (`struct verity_sb` of cryptsetup, version 1).

use uuid::Uuid;

use super::{BLOCK, Digest, Verity, hex};

/// Bytes of the superblock; the rest of its block is zeros.
pub(super) const SIZE: usize = 512;

pub(super) const MAGIC: [u8; 8] = *b"verity\0\0";
/// The version of the superblock, and of the order in which salt and data are hashed.
const VERSION: u32 = 1;
const ALGORITHM: &[u8] = b"sha256";
/// What hcsshim hashes before each block.
const SALT: [u8; 32] = [0; 32];
const SALT_MAX: usize = 256;

/// A superblock that was understood.
pub(super) struct Found {
    pub(super) data_blocks: u64,
    pub(super) salt: Vec<u8>,
    uuid: Uuid,
}

impl Found {
    pub(super) fn with_root(self, hash_offset: u64, root: &Digest) -> Verity {
        // One size of block and one hash are known, so these are what it says.
        let block = u32::try_from(BLOCK).unwrap_or(u32::MAX);
        Verity {
            root_hash: hex(root),
            hash_offset,
            data_blocks: self.data_blocks,
            data_block_size: block,
            hash_block_size: block,
            algorithm: String::from_utf8_lossy(ALGORITHM).into_owned(),
            salt: hex(&self.salt),
            uuid: self.uuid.to_string(),
        }
    }
}

/// The superblock of the one kind of tree that is written.
pub(super) fn encode(uuid: Uuid, data_blocks: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &MAGIC);
    put(8, &VERSION.to_le_bytes());
    // The type of hashing: 1 is "salt first", 0 was Chromium OS's.
    put(12, &1u32.to_le_bytes());
    put(16, uuid.as_bytes());
    put(32, ALGORITHM);
    let block = u32::try_from(BLOCK).unwrap_or(u32::MAX);
    put(64, &block.to_le_bytes());
    put(68, &block.to_le_bytes());
    put(72, &data_blocks.to_le_bytes());
    put(80, &32u16.to_le_bytes());
    put(88, &SALT);
    bytes
}

/// Reads a superblock; `None` for what is none, or one of another kind than is written.
pub(super) fn parse(bytes: &[u8; SIZE]) -> Option<Found> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let text = bytes.get(32..64)?;
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(32);
    let same = bytes.starts_with(&MAGIC)
        && word(8)? == VERSION
        && word(12)? == 1
        && text.get(..end)? == ALGORITHM
        && u64::from(word(64)?) == BLOCK
        && u64::from(word(68)?) == BLOCK;
    let salt = usize::from(u16::from_le_bytes(bytes.get(80..82)?.try_into().ok()?));
    let data_blocks = u64::from_le_bytes(bytes.get(72..80)?.try_into().ok()?);
    if !same || salt > SALT_MAX || data_blocks == 0 {
        return None;
    }
    Some(Found {
        data_blocks,
        salt: bytes.get(88..88 + salt)?.to_vec(),
        uuid: Uuid::from_slice(bytes.get(16..32)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let uuid = Uuid::from_u128(7);
        let bytes = encode(uuid, 1234);
        let found = parse(&bytes).unwrap();
        assert_eq!((found.data_blocks, found.uuid), (1234, uuid));
        assert_eq!(found.salt, [0; 32]);
    }

    #[test]
    fn other_kinds_are_not_taken() {
        for at in [0, 8, 12, 32, 37, 38, 64, 69, 81] {
            let mut bytes = encode(Uuid::nil(), 1234);
            bytes[at] ^= 0x12;
            assert!(parse(&bytes).is_none(), "byte {at}");
        }
        assert!(parse(&encode(Uuid::nil(), 0)).is_none());
    }
}
