//! The EFI system partition: a FAT32 file system with one file, `EFI/BOOT/BOOTX64.EFI`.
//!
//! ```text
//! sector 0   boot sector   1 FSInfo   6, 7 their copies   32 FAT   FAT's copy   clusters from 2:
//! 2 root     3 EFI         4 EFI/BOOT                     5… the file, in one piece
//! ```
//!
//! After Microsoft's "FAT32 File System Specification" 1.03. What is zero is not written.

use std::io;

use positioned_io::WriteAt;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;
/// The same as a length in memory.
pub(super) const SECTOR_BYTES: usize = 512;
/// Sectors of a cluster: 4 KiB, so that firmware reads in pieces of some size.
const CLUSTER_SECTORS: u64 = 8;
const CLUSTER: u64 = SECTOR * CLUSTER_SECTORS;
/// Sectors before the first table.
const RESERVED: u64 = 32;
/// With fewer clusters it would be FAT16, whatever it says.
const LEAST_CLUSTERS: u64 = 65_536;
/// Clusters of folders: the root, `EFI`, `EFI/BOOT`.
const FOLDERS: u64 = 3;
/// The end of a chain.
const END: u32 = 0x0fff_ffff;
/// The volume's number. The same for all: the same input gives the same bytes.
const VOLUME_ID: u32 = 0x6763_7301;
/// 1980-01-01, the first day of FAT.
const DATE: u16 = 0x0021;

const FOLDER: u8 = 0x10;
const ARCHIVE: u8 = 0x20;

/// How large a volume for one file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    file: u32,
    clusters: u64,
    table_sectors: u64,
}

impl Geometry {
    /// For a file of `length` bytes; `None` when FAT cannot hold it.
    pub(super) fn of(length: usize) -> Option<Self> {
        let file = u32::try_from(length).ok()?;
        let clusters = (u64::from(file).div_ceil(CLUSTER) + FOLDERS).max(LEAST_CLUSTERS);
        Some(Self {
            file,
            clusters,
            table_sectors: ((clusters + 2) * 4).div_ceil(SECTOR),
        })
    }

    /// Sectors of the whole volume.
    pub(super) fn sectors(self) -> u64 {
        self.first_data() + self.clusters * CLUSTER_SECTORS
    }

    fn first_data(self) -> u64 {
        RESERVED + 2 * self.table_sectors
    }

    /// Byte in the volume where a cluster begins; the first is 2.
    fn cluster(self, number: u64) -> u64 {
        (self.first_data() + (number - 2) * CLUSTER_SECTORS) * SECTOR
    }
}

/// Writes the volume at byte `start` of a disk that reads as zeros there.
pub(super) fn write(
    out: &mut impl WriteAt,
    start: u64,
    geometry: Geometry,
    program: &[u8],
) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let narrow = |value: u64| u32::try_from(value).map_err(too_large);
    let file_clusters = u64::from(geometry.file).div_ceil(CLUSTER);
    let used = FOLDERS + file_clusters;

    let mut boot = [0; SECTOR_BYTES];
    let put = |sector: &mut [u8], at: usize, bytes: &[u8]| {
        sector[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut boot, 0, &[0xeb, 0x58, 0x90]);
    put(&mut boot, 3, b"MSWIN4.1");
    put(&mut boot, 11, &512_u16.to_le_bytes());
    put(&mut boot, 13, &[8]);
    put(&mut boot, 14, &32_u16.to_le_bytes());
    put(&mut boot, 16, &[2]); // tables
    put(&mut boot, 21, &[0xf8]); // a fixed disk
    put(&mut boot, 24, &63_u16.to_le_bytes()); // sectors of a track, heads: nobody asks
    put(&mut boot, 26, &255_u16.to_le_bytes());
    put(&mut boot, 28, &narrow(start / SECTOR)?.to_le_bytes());
    put(&mut boot, 32, &narrow(geometry.sectors())?.to_le_bytes());
    put(
        &mut boot,
        36,
        &narrow(geometry.table_sectors)?.to_le_bytes(),
    );
    put(&mut boot, 44, &2_u32.to_le_bytes()); // the root's cluster
    put(&mut boot, 48, &1_u16.to_le_bytes()); // FSInfo
    put(&mut boot, 50, &6_u16.to_le_bytes()); // the copies
    put(&mut boot, 64, &[0x80, 0, 0x29]);
    put(&mut boot, 67, &VOLUME_ID.to_le_bytes());
    put(&mut boot, 71, b"OPENGCS UVMFAT32   ");
    put(&mut boot, 510, &[0x55, 0xaa]);

    let mut info = [0; SECTOR_BYTES];
    put(&mut info, 0, b"RRaA");
    put(&mut info, 484, b"rrAa");
    put(
        &mut info,
        488,
        &narrow(geometry.clusters - used)?.to_le_bytes(),
    );
    put(&mut info, 492, &narrow(used + 2)?.to_le_bytes());
    put(&mut info, 508, &[0, 0, 0x55, 0xaa]);
    for copy in [0, 6] {
        out.write_all_at(start + copy * SECTOR, &boot)?;
        out.write_all_at(start + (copy + 1) * SECTOR, &info)?;
    }

    // The first two entries are the medium's mark and a clean volume's flags.
    let mut table: Vec<u8> = [0x0fff_fff8, END, END, END, END]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    for index in 0..file_clusters {
        let next = if index + 1 == file_clusters {
            END
        } else {
            narrow(2 + FOLDERS + index + 1)?
        };
        table.extend(next.to_le_bytes());
    }
    for copy in 0..2 {
        let at = start + (RESERVED + copy * geometry.table_sectors) * SECTOR;
        out.write_all_at(at, &table)?;
    }

    let volume = entry(b"OPENGCS UVM", 0x08, 0, 0);
    let root = [volume, entry(b"EFI        ", FOLDER, 3, 0)].concat();
    let efi = [
        entry(b".          ", FOLDER, 3, 0),
        entry(b"..         ", FOLDER, 0, 0),
        entry(b"BOOT       ", FOLDER, 4, 0),
    ]
    .concat();
    let first = if file_clusters == 0 { 0 } else { 5 };
    let folder = [
        entry(b".          ", FOLDER, 4, 0),
        entry(b"..         ", FOLDER, 3, 0),
        entry(b"BOOTX64 EFI", ARCHIVE, first, geometry.file),
    ]
    .concat();
    for (cluster, content) in [(2, root), (3, efi), (4, folder)] {
        out.write_all_at(start + geometry.cluster(cluster), &content)?;
    }
    out.write_all_at(start + geometry.cluster(5), program)
}

/// An entry of a folder with a short name.
fn entry(name: &[u8; 11], attributes: u8, cluster: u16, size: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}
