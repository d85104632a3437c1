//! Differencing disks made from the specifications, byte by byte: this crate reads them, and makes none otherwise.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "only tests forge disks, and a test may panic"
)]

use std::collections::BTreeMap;

use positioned_io::WriteAt as _;

use super::MemoryFile;
use crate::vhd::{DiskType, Footer};
use crate::{Disk, DiskOptions, Format, Guid, Storage};

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// A differencing disk to be forged.
#[derive(Clone, Debug)]
pub struct Child<'a> {
    /// The virtual size in bytes.
    pub size: u64,
    /// The child's own identifier.
    pub id: Guid,
    /// The parent's identifier: a VHD's, or that of a VHDX's content.
    pub parent: Guid,
    /// Where the parent is: a VHD's platform code (`W2ru`) or a VHDX's key
    /// (`relative_path`), and the path.
    pub paths: &'a [(&'a str, &'a str)],
    /// The bytes in a block: at least 1 MiB in a VHDX.
    pub block_size: u32,
    /// The sectors that are the child's own, by number.
    pub sectors: BTreeMap<u64, [u8; 512]>,
}

impl Child<'_> {
    /// Takes as the child's own all sectors in which `new` differs from `old`.
    pub fn differ(&mut self, old: &[u8], new: &[u8]) {
        let (new, _) = new.as_chunks::<512>();
        for (number, sector) in new.iter().enumerate() {
            let at = number * 512;
            if old.get(at..at + 512) != Some(sector.as_slice()) {
                self.sectors.insert(number as u64, *sector);
            }
        }
    }

    /// The blocks that hold the child's sectors.
    fn blocks(&self) -> BTreeMap<u64, Vec<(u64, &[u8; 512])>> {
        let per_block = u64::from(self.block_size) / SECTOR;
        let mut blocks: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for (number, bytes) in &self.sectors {
            let block = blocks.entry(number / per_block).or_default();
            block.push((number % per_block, bytes));
        }
        blocks
    }

    /// The child as a differencing VHD ("Dynamic Disk Header Format").
    #[must_use]
    pub fn vhd(&self) -> MemoryFile {
        let file = MemoryFile::new();
        let put = |at: u64, bytes: &[u8]| file.store_at(at, bytes).unwrap();
        let footer = Footer {
            disk_type: DiskType::Differencing,
            data_offset: Some(512),
            ..Footer::fixed(self.size, self.id, 0)
        }
        .encode();
        let block_size = u64::from(self.block_size);
        let entries = self.size.div_ceil(block_size);
        let mut header = vec![0; 1024];
        let mut table = vec![0xff; (entries * 4).next_multiple_of(SECTOR) as usize];
        header[..8].copy_from_slice(b"cxsparse");
        header[8..16].fill(0xff);
        header[16..24].copy_from_slice(&1536_u64.to_be_bytes());
        header[24..28].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
        header[28..32].copy_from_slice(&(entries as u32).to_be_bytes());
        header[32..36].copy_from_slice(&self.block_size.to_be_bytes());
        header[40..56].copy_from_slice(&self.parent.to_bytes());
        let mut at = 1536 + table.len() as u64;
        for (index, (code, path)) in self.paths.iter().enumerate() {
            if *code == "name" {
                let units: Vec<u8> = path.encode_utf16().flat_map(u16::to_be_bytes).collect();
                header[64..64 + units.len()].copy_from_slice(&units);
                continue;
            }
            let text: Vec<u8> = match *code {
                "W2ru" | "W2ku" => path.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                _ => path.as_bytes().to_vec(),
            };
            let place = 576 + index * 24;
            header[place..place + 4].copy_from_slice(code.as_bytes());
            header[place + 4..place + 8].copy_from_slice(&512_u32.to_be_bytes());
            header[place + 8..place + 12].copy_from_slice(&(text.len() as u32).to_be_bytes());
            header[place + 16..place + 24].copy_from_slice(&at.to_be_bytes());
            put(at, &text);
            at += (text.len() as u64).next_multiple_of(SECTOR);
        }
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[36..40].copy_from_slice(&(!sum).to_be_bytes());
        let bitmap_size = (block_size / SECTOR / 8).next_multiple_of(SECTOR);
        for (block, sectors) in self.blocks() {
            let entry = block as usize * 4;
            table[entry..entry + 4].copy_from_slice(&((at / SECTOR) as u32).to_be_bytes());
            let mut bitmap = vec![0; bitmap_size as usize];
            // What is not the child's is not zero, so that it is noticed.
            put(at + bitmap_size, &vec![0xdd; block_size as usize]);
            for (number, bytes) in sectors {
                bitmap[number as usize / 8] |= 0x80 >> (number % 8);
                put(at + bitmap_size + number * SECTOR, bytes);
            }
            put(at, &bitmap);
            at += bitmap_size + block_size;
        }
        put(0, &footer);
        put(512, &header);
        put(1536, &table);
        put(at, &footer);
        file.settle();
        file
    }

    /// The child as a differencing VHDX of up to 64 GiB ([MS-VHDX] 2.5, 2.6.2.6).
    #[must_use]
    pub fn vhdx(&self) -> MemoryFile {
        assert!(self.size <= 64 << 30, "the block table would be longer");
        let options = DiskOptions {
            block_size: self.block_size,
            ..DiskOptions::new(Format::Vhdx, Some(self.size), self.id)
        };
        let mut disk = Disk::create(MemoryFile::new(), &options).unwrap();
        let block_size = u64::from(self.block_size);
        for (block, sectors) in self.blocks() {
            let start = block * block_size;
            let length = block_size.min(self.size - start) as usize;
            disk.write_all_at(start, &vec![0xdd; length]).unwrap();
            for (number, bytes) in sectors {
                disk.write_all_at(start + number * SECTOR, bytes).unwrap();
            }
        }
        let file = disk.finish().unwrap();
        let put = |at: u64, bytes: &[u8]| file.store_at(at, bytes).unwrap();
        // Its blocks are partial, and a bitmap behind them says which sectors
        // are there: one mebibyte for each chunk of 4 GiB.
        let ratio = (SECTOR << 23) / block_size;
        let mut bitmaps: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (block, sectors) in self.blocks() {
            let chunk = block / ratio;
            let index = block + chunk;
            let entry = file.bytes(3 * MIB + index * 8, 1);
            put(3 * MIB + index * 8, &[entry[0] | 7]);
            let bitmap = bitmaps.entry(chunk).or_insert_with(|| vec![0; 1 << 20]);
            for (number, _) in sectors {
                let bit = (block % ratio) * (block_size / SECTOR) + number;
                bitmap[bit as usize / 8] |= 1 << (bit % 8);
            }
        }
        for (chunk, bitmap) in bitmaps {
            let at = file.length().unwrap().next_multiple_of(MIB);
            let index = chunk * (ratio + 1) + ratio;
            put(3 * MIB + index * 8, &(at | 6).to_le_bytes());
            put(at, &bitmap);
        }
        let locator = self.locator();
        let mut entry = Guid::from_u128(0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c)
            .to_windows()
            .to_vec();
        entry.extend((128_u32 << 10).to_le_bytes());
        entry.extend((locator.len() as u32).to_le_bytes());
        entry.extend(4_u64.to_le_bytes());
        let metadata = 2 * MIB;
        put(metadata + 10, &[6]);
        put(metadata + 32 + 5 * 32, &entry);
        put(metadata + (128 << 10), &locator);
        put(metadata + (64 << 10) + 4, &[2]);
        file.settle();
        file
    }

    fn locator(&self) -> Vec<u8> {
        let units =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let linkage = format!("{{{}}}", self.parent);
        let mut pairs = vec![("parent_linkage", linkage.as_str())];
        pairs.extend(self.paths);
        let mut bytes = Guid::from_u128(0xb04a_efb7_d19e_4a81_b789_25b8_e944_5913)
            .to_windows()
            .to_vec();
        bytes.extend([0, 0]);
        bytes.extend((pairs.len() as u16).to_le_bytes());
        let mut at = bytes.len() + pairs.len() * 12;
        let mut text = Vec::new();
        for (key, value) in pairs {
            let (key, value) = (units(key), units(value));
            bytes.extend((at as u32).to_le_bytes());
            bytes.extend(((at + key.len()) as u32).to_le_bytes());
            bytes.extend((key.len() as u16).to_le_bytes());
            bytes.extend((value.len() as u16).to_le_bytes());
            at += key.len() + value.len();
            text.extend([key, value].concat());
        }
        bytes.extend(text);
        bytes
    }
}
