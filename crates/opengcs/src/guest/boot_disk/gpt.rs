//! The partition table: GPT, after the UEFI specification 2.10, section 5.
//!
//! ```text
//! LBA 0 protective MBR   1 header   2–33 128 entries   …partitions…   −33 entries again   −1 header again
//! ```

use std::io;

use positioned_io::WriteAt;

use super::fat::{SECTOR, SECTOR_BYTES};

/// Sectors of the table at either end, the MBR's not counted.
pub(super) const TABLE_SECTORS: u64 = 33;

const ENTRIES: usize = 128;
const ENTRY: usize = 128;

/// A GUID as it lies on the disk: the first three fields are little-endian.
pub(super) type DiskGuid = [u8; 16];

/// `C12A7328-F81F-11D2-BA4B-00A0C93EC93B`.
pub(super) const EFI_SYSTEM: DiskGuid = guid(0xc12a_7328_f81f_11d2_ba4b_00a0_c93e_c93b);
/// `0FC63DAF-8483-4772-8E79-3D69D8477DE4`.
pub(super) const LINUX_FILESYSTEM: DiskGuid = guid(0x0fc6_3daf_8483_4772_8e79_3d69_d847_7de4);

/// The bytes of a GUID on the disk.
pub(super) const fn guid(value: u128) -> DiskGuid {
    let b = value.to_be_bytes();
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15],
    ]
}

/// A partition, in sectors.
pub(super) struct Partition {
    pub(super) kind: DiskGuid,
    pub(super) id: DiskGuid,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) name: &'static str,
}

/// Writes both tables of a disk of `sectors` sectors.
pub(super) fn write(
    out: &mut impl WriteAt,
    sectors: u64,
    disk: DiskGuid,
    partitions: &[Partition],
) -> io::Result<()> {
    let mut entries = vec![0; ENTRIES * ENTRY];
    for (slot, partition) in entries.chunks_exact_mut(ENTRY).zip(partitions) {
        slot[..16].copy_from_slice(&partition.kind);
        slot[16..32].copy_from_slice(&partition.id);
        slot[32..40].copy_from_slice(&partition.first.to_le_bytes());
        slot[40..48].copy_from_slice(&partition.last.to_le_bytes());
        for (pair, unit) in slot[56..]
            .chunks_exact_mut(2)
            .zip(partition.name.encode_utf16())
        {
            pair.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let last = sectors - 1;
    let backup_entries = sectors - TABLE_SECTORS;
    out.write_all_at(0, &protective_mbr(sectors))?;
    for (here, other, table) in [(1, last, 2), (last, 1, backup_entries)] {
        let header = header(here, other, table, last, disk, crc32(&entries));
        out.write_all_at(table * SECTOR, &entries)?;
        out.write_all_at(here * SECTOR, &header)?;
    }
    Ok(())
}

fn header(
    here: u64,
    other: u64,
    table: u64,
    last: u64,
    disk: DiskGuid,
    entries: u32,
) -> [u8; SECTOR_BYTES] {
    let mut header = [0; SECTOR_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"EFI PART");
    put(8, &0x0001_0000_u32.to_le_bytes());
    put(12, &92_u32.to_le_bytes());
    put(24, &here.to_le_bytes());
    put(32, &other.to_le_bytes());
    put(40, &(TABLE_SECTORS + 1).to_le_bytes());
    put(48, &(last - TABLE_SECTORS).to_le_bytes());
    put(56, &disk);
    put(72, &table.to_le_bytes());
    put(80, &128_u32.to_le_bytes());
    put(84, &128_u32.to_le_bytes());
    put(88, &entries.to_le_bytes());
    let checksum = crc32(&header[..92]);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// One partition of type 0xEE over the whole disk, for programs that know no GPT.
fn protective_mbr(sectors: u64) -> [u8; SECTOR_BYTES] {
    let mut mbr = [0; SECTOR_BYTES];
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[447..450].copy_from_slice(&[0x00, 0x02, 0x00]);
    mbr[450] = 0xee;
    mbr[451..454].copy_from_slice(&[0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1_u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&size.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_lies_as_uefi_has_it() {
        assert_eq!(
            EFI_SYSTEM,
            [
                0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e,
                0xc9, 0x3b
            ]
        );
    }

    #[test]
    fn the_checksum_is_the_one_of_ieee() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
