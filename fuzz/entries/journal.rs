//! A journal, given as what is written to it: replay must find what was committed last and not revoked.
//!
//! The input is a little program; [`run`] keeps account of what it must mean. Bytes that it puts
//! over the log afterwards end the account: then only errors of the right kind count.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use opengcs_ext4::{ErrorKind, JournalState, Metadata, Reader, Writer, WriterOptions};

use super::ext4::walk;

const BLOCK: usize = 1024;
/// Blocks of the file that the log writes to.
const FILE_BLOCKS: usize = 64;
const LOG_BLOCKS: u32 = 1024;
/// An input may fill this many blocks of the log.
const ROOM: u32 = 900;
const MAGIC: u32 = 0xc03b_3998;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

/// A volume with a journal and one file, and where they are.
struct Base {
    image: Vec<u8>,
    log: usize,
    /// The file's first block.
    file: usize,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let size = u64::from(LOG_BLOCKS) * BLOCK as u64;
        let options = WriterOptions::default()
            .block_size(1024)
            .journal(Some(size))
            .lost_found(false);
        let mut writer = Writer::new(Vec::new(), &options).expect("good options");
        let root = writer.root();
        let mut file = writer
            .create_file(root, b"file", Metadata::default())
            .expect("a file");
        for block in 0..FILE_BLOCKS {
            file.write(&old(block)).expect("memory takes all");
        }
        file.finish().expect("a file");
        let (_, mut image) = writer.finish().expect("memory takes all");
        // It says that it must be recovered.
        image[1024 + 0x60] |= 4;
        super::ext4::seal(&mut image);
        let find = |bytes: &[u8]| {
            let at = image
                .chunks(BLOCK)
                .position(|block| block.starts_with(bytes));
            at.expect("it was written")
        };
        let log = find(&MAGIC.to_be_bytes()) * BLOCK;
        let file = find(&old(0));
        Base { log, file, image }
    })
}

/// What the file holds before.
fn old(block: usize) -> [u8; BLOCK] {
    let mut bytes = [0x5a; BLOCK];
    bytes[..7].copy_from_slice(b"content");
    bytes[7] = block as u8;
    bytes
}

/// What a copy numbered `number` holds; each fourth must be escaped.
fn new(number: usize) -> [u8; BLOCK] {
    let mut bytes = [number as u8 | 1; BLOCK];
    bytes[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    if number % 4 == 3 {
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
    }
    bytes
}

fn crc(sum: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!sum, bytes)
}

struct Log {
    image: Vec<u8>,
    log: usize,
    /// 0 none, 2, 3.
    checksums: u8,
    wide: bool,
    seed: u32,
    sequence: u32,
    at: u32,
    used: u32,
    copies: usize,
}

impl Log {
    fn append(&mut self, block: &[u8]) {
        let at = self.log + self.at as usize * BLOCK;
        self.image[at..at + BLOCK].copy_from_slice(block);
        self.used += 1;
        self.at += 1;
        if self.at == LOG_BLOCKS {
            self.at = 1;
        }
    }

    fn block(&self, kind: u32) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK);
        for number in [MAGIC, kind, self.sequence] {
            block.extend(number.to_be_bytes());
        }
        block
    }

    /// Fills up to a whole block, with its checksum at the end.
    fn close(&self, mut block: Vec<u8>) -> Vec<u8> {
        block.resize(BLOCK, 0);
        if self.checksums > 0 {
            let sum = crc(self.seed, &block);
            block[BLOCK - 4..].copy_from_slice(&sum.to_be_bytes());
        }
        block
    }

    /// A descriptor with a copy for each of `blocks`; gives back what the copies hold.
    fn descriptor(&mut self, blocks: &[u64]) -> Vec<[u8; BLOCK]> {
        let mut block = self.block(DESCRIPTOR);
        let (mut contents, mut copies) = (Vec::new(), Vec::new());
        for (index, number) in blocks.iter().enumerate() {
            let content = new(self.copies);
            self.copies += 1;
            let mut copy = content;
            let escape = copy.starts_with(&MAGIC.to_be_bytes());
            if escape {
                copy[..4].fill(0);
            }
            let same_uuid = index > 0;
            let last = index + 1 == blocks.len();
            let flags = u32::from(escape) | u32::from(same_uuid) << 1 | u32::from(last) << 3;
            let sum = crc(crc(self.seed, &self.sequence.to_be_bytes()), &copy);
            let (low, high) = (*number as u32, (*number >> 32) as u32);
            block.extend(low.to_be_bytes());
            if self.checksums == 3 {
                block.extend(flags.to_be_bytes());
                block.extend(high.to_be_bytes());
                block.extend(sum.to_be_bytes());
            } else {
                let sum = if self.checksums == 2 { sum as u16 } else { 0 };
                block.extend(sum.to_be_bytes());
                block.extend((flags as u16).to_be_bytes());
                if self.wide {
                    block.extend(high.to_be_bytes());
                }
                if self.checksums == 2 {
                    block.extend([0; 2]);
                }
            }
            if !same_uuid {
                block.extend([7; 16]);
            }
            contents.push(content);
            copies.push(copy);
        }
        let block = self.close(block);
        self.append(&block);
        for copy in copies {
            self.append(&copy);
        }
        contents
    }

    fn revoke(&mut self, blocks: &[u64]) {
        let mut block = self.block(REVOKE);
        let size = if self.wide { 8 } else { 4 };
        block.extend((16 + (blocks.len() * size) as u32).to_be_bytes());
        for number in blocks {
            block.extend(&number.to_be_bytes()[8 - size..]);
        }
        let block = self.close(block);
        self.append(&block);
    }

    fn commit(&mut self) {
        let mut block = self.block(COMMIT);
        block.resize(BLOCK, 0);
        if self.checksums > 0 {
            let sum = crc(self.seed, &block);
            block[16..20].copy_from_slice(&sum.to_be_bytes());
        }
        self.append(&block);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// The journal's own superblock.
    fn begin(&mut self) {
        let incompat = 1
            | u32::from(self.wide) << 1
            | match self.checksums {
                0 => 0,
                2 => 8,
                _ => 0x10,
            };
        let block = &mut self.image[self.log..self.log + BLOCK];
        block[4..8].copy_from_slice(&4_u32.to_be_bytes());
        block[0x18..0x1c].copy_from_slice(&self.sequence.to_be_bytes());
        block[0x1c..0x20].copy_from_slice(&self.at.to_be_bytes());
        block[0x24..0x2c].fill(0);
        block[0x28..0x2c].copy_from_slice(&incompat.to_be_bytes());
        block[0x50] = if self.checksums > 0 { 4 } else { 0 };
        block[0xfc..0x100].fill(0);
        self.seed = crc(!0, &block[0x30..0x40]);
        if self.checksums > 0 {
            let sum = crc(!0, block);
            block[0xfc..0x100].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Runs the program and holds the replay against the account.
pub fn run(bytes: &[u8]) {
    let base = base();
    let mut input = bytes.iter().copied();
    let (Some(flags), Some(start), Some(first)) = (input.next(), input.next(), input.next()) else {
        return;
    };
    let mut log = Log {
        image: base.image.clone(),
        log: base.log,
        checksums: [0, 0, 2, 3][usize::from(flags & 3)],
        wide: flags & 4 != 0,
        seed: 0,
        // Numbers go round, too.
        sequence: u32::from(first).wrapping_sub(3),
        at: 1 + u32::from(start) * 4 % (LOG_BLOCKS - 1),
        used: 0,
        copies: 0,
    };
    log.begin();
    let place = |index: u8| (base.file + usize::from(index) % FILE_BLOCKS) as u64;
    let mut written: HashMap<u64, (u32, [u8; BLOCK])> = HashMap::new();
    let mut revoked: HashMap<u64, u32> = HashMap::new();
    let mut open = (HashMap::new(), Vec::new());
    let (mut transactions, mut accounted) = (0, true);
    while let (Some(what), true) = (input.next(), log.used < ROOM) {
        let count = usize::from(what >> 4) + 1;
        match what % 8 {
            0..=2 => {
                let blocks: Vec<u64> = input.by_ref().take(count).map(place).collect();
                if blocks.is_empty() {
                    break;
                }
                let contents = log.descriptor(&blocks);
                open.0.extend(blocks.into_iter().zip(contents));
            }
            3 => {
                let blocks: Vec<u64> = input.by_ref().take(count).map(place).collect();
                log.revoke(&blocks);
                open.1.extend(blocks);
            }
            4 | 5 => {
                log.commit();
                for (block, content) in open.0.drain() {
                    written.insert(block, (transactions, content));
                }
                for block in open.1.drain(..) {
                    revoked.insert(block, transactions);
                }
                transactions += 1;
            }
            6 => {
                // Bytes over the log: the next two say where, the third what.
                let mut next = || usize::from(input.next().unwrap_or(0));
                let at = (next() | next() << 8) * 16 % (LOG_BLOCKS as usize * BLOCK);
                let value = next() as u8;
                let room = &mut log.image[base.log + at..];
                let count = count.min(room.len());
                room[..count].fill(value);
                accounted = false;
            }
            _ => {
                // A transaction on the file system's own blocks.
                let blocks: Vec<u64> = input.by_ref().take(count).map(u64::from).collect();
                if !blocks.is_empty() {
                    log.descriptor(&blocks);
                }
                accounted = false;
            }
        }
    }
    let reader = match Reader::open(log.image.as_slice()) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(!accounted, "a good journal is refused: {error}");
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported),
                "{error}"
            );
            return;
        }
    };
    if !accounted {
        return walk(&reader);
    }
    let JournalState::Replayed {
        transactions: found,
        ..
    } = reader.summary().journal
    else {
        panic!("{:?}", reader.summary().journal);
    };
    assert_eq!(found, transactions, "whole transactions");
    let root = reader.inode(reader.root()).expect("a root");
    let file = reader.read_dir(&root).expect("a folder").remove(0);
    let file = reader.inode(file.inode).expect("the file");
    let mut content = [0; BLOCK];
    let expected: BTreeMap<u64, [u8; BLOCK]> = written
        .into_iter()
        .filter(|(block, (when, _))| revoked.get(block).is_none_or(|last| when > last))
        .map(|(block, (_, content))| (block, content))
        .collect();
    for index in 0..FILE_BLOCKS {
        reader
            .read_at(&file, (index * BLOCK) as u64, &mut content)
            .expect("the content");
        let block = (base.file + index) as u64;
        let right = expected.get(&block).copied().unwrap_or_else(|| old(index));
        assert!(content == right, "block {index} of the file");
    }
}
