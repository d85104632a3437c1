//! crc32c as `metadata_csum` uses it: no final inversion, and seeds that name volume and inode.

use super::superblock::SIZE as SUPERBLOCK_SIZE;

/// A running checksum, as the kernel's `ext4_chksum` carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(pub(crate) u32);

impl Checksum {
    /// What every chain starts from.
    pub(crate) const START: Self = Self(u32::MAX);

    /// The volume's seed, from its UUID. With `INCOMPAT_CSUM_SEED` it is `s_checksum_seed` instead.
    pub(crate) fn of_uuid(uuid: &[u8; 16]) -> Self {
        Self::START.add(uuid)
    }

    /// The seed of everything that belongs to an inode; `self` is the volume's.
    pub(crate) fn of_inode(self, inode: u32, generation: u32) -> Self {
        self.add(&inode.to_le_bytes())
            .add(&generation.to_le_bytes())
    }

    /// The generation with which [`Self::of_inode`] gives a seed that is wanted.
    ///
    /// Four bytes replace the whole register, so there is one for each. What an inode owns can so be
    /// sealed before the inode's number is known.
    pub(crate) fn generation(self, inode: u32, wanted: Self) -> u32 {
        /// The polynomial of CRC-32C, its bits in reverse.
        const POLYNOMIAL: u32 = 0x82F6_3B78;
        // The register before its last 32 steps.
        let before = (0..32).fold(wanted.0, |register, _| {
            if register >> 31 == 0 {
                register.wrapping_shl(1)
            } else {
                (register ^ POLYNOMIAL).wrapping_shl(1) | 1
            }
        });
        self.add(&inode.to_le_bytes()).0 ^ before
    }

    /// Carries on over `bytes`.
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The low half, as 16-bit fields hold it.
    pub(crate) fn low(self) -> u16 {
        let [a, b, _, _] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The high half.
    pub(crate) fn high(self) -> u16 {
        let [_, _, a, b] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// `s_checksum` of a superblock.
    pub(crate) fn superblock(bytes: &[u8; SUPERBLOCK_SIZE]) -> u32 {
        let (covered, _) = bytes.split_at(SUPERBLOCK_SIZE.saturating_sub(4));
        Self::START.add(covered).0
    }

    /// `bg_checksum` of a descriptor of any size: its own two bytes at 0x1E count as zero.
    pub(crate) fn group_desc(self, group: u32, desc: &[u8]) -> u16 {
        let (before, rest) = desc.split_at(desc.len().min(0x1E));
        let after = rest.get(2..).unwrap_or_default();
        self.add(&group.to_le_bytes())
            .add(before)
            .add(&[0; 2])
            .add(after)
            .low()
    }

    /// `h_checksum` of a block of attributes: its own four bytes at 16 count as zero.
    pub(crate) fn xattr_block(self, block: u64, bytes: &[u8]) -> u32 {
        let (before, rest) = bytes.split_at(bytes.len().min(16));
        let after = rest.get(4..).unwrap_or_default();
        self.add(&block.to_le_bytes())
            .add(before)
            .add(&[0; 4])
            .add(after)
            .0
    }

    /// An inode's checksum (`self` is [`Self::of_inode`]), of the whole record on disk: the fields
    /// at 0x7C and, when `extra` says it exists, 0x82 count as zero.
    pub(crate) fn inode(self, bytes: &[u8], extra: bool) -> u32 {
        let (before, rest) = bytes.split_at(bytes.len().min(0x7C));
        let mut sum = self.add(before).add(&[0; 2]);
        let rest = rest.get(2..).unwrap_or_default();
        if extra {
            let (middle, rest) = rest.split_at(rest.len().min(4));
            sum = sum.add(middle).add(&[0; 2]);
            sum.add(rest.get(2..).unwrap_or_default()).0
        } else {
            sum.add(rest).0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_has_its_generation() {
        let volume = Checksum::of_uuid(b"some volume's id");
        for (inode, wanted) in [(11, 0), (12, 0xFFFF_FFFF), (0x1234_5678, 0x9ABC_DEF0)] {
            let generation = volume.generation(inode, Checksum(wanted));
            assert_eq!(volume.of_inode(inode, generation), Checksum(wanted));
        }
        assert_eq!(volume.generation(77, volume.of_inode(77, 0)), 0);
    }

    #[test]
    fn chain_matches_the_standard_check_value() {
        assert_eq!(!Checksum::START.add(b"123456789").0, 0xE306_9283);
        assert_eq!(
            Checksum::START.add(b"1234").add(b"56789"),
            Checksum::START.add(b"123456789")
        );
    }
}
