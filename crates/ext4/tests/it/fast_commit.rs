//! Fast commits built here, in journals of `debugfs`, read as `e2fsck` replays them on a copy.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use opengcs_ext4::{Error, ErrorKind, JournalState, Reader};

use crate::journal::blocks;
use crate::read_tools::{Scratch, Tree, assert_same, noise, run, tree, tree_of_image};

const BLOCK: usize = 4096;
/// Blocks of the area, and the transaction that its commits belong to.
const AREA: u64 = 64;

/// Records of one commit.
#[derive(Clone, Default)]
struct Records(Vec<u8>);

impl Records {
    fn record(mut self, tag: u16, value: &[u8]) -> Self {
        self.0.extend(tag.to_le_bytes());
        self.0
            .extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        self.0.extend(value);
        self
    }

    fn head(self, transaction: u32) -> Self {
        let value = [[0; 4], transaction.to_le_bytes()].concat();
        self.record(9, &value)
    }

    /// An inode of 160 bytes, with extents.
    fn inode(self, number: u32, mode: u16, size: u32, links: u16) -> Self {
        self.inode_with(number, mode, size, links, 0x8_0000)
    }

    fn inode_with(self, number: u32, mode: u16, size: u32, links: u16, flags: u32) -> Self {
        let mut value = number.to_le_bytes().to_vec();
        let mut inode = [0; 160];
        inode[0..2].copy_from_slice(&mode.to_le_bytes());
        inode[4..8].copy_from_slice(&size.to_le_bytes());
        for at in [8, 12, 16, 144] {
            inode[at..at + 4].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
        }
        inode[26..28].copy_from_slice(&links.to_le_bytes());
        inode[32..36].copy_from_slice(&flags.to_le_bytes());
        inode[128] = 32;
        value.extend(inode);
        self.record(6, &value)
    }

    fn add(self, number: u32, first: u32, place: u64, length: u16) -> Self {
        let mut value = number.to_le_bytes().to_vec();
        value.extend(first.to_le_bytes());
        value.extend(length.to_le_bytes());
        value.extend([0; 2]);
        value.extend(u32::try_from(place).unwrap().to_le_bytes());
        self.record(1, &value)
    }

    fn remove(self, number: u32, first: u32, length: u32) -> Self {
        let value = [number, first, length].map(u32::to_le_bytes).concat();
        self.record(2, &value)
    }

    fn name(self, tag: u16, directory: u32, number: u32, name: &str) -> Self {
        let mut value = [directory, number].map(u32::to_le_bytes).concat();
        value.extend(name.as_bytes());
        self.record(tag, &value)
    }

    fn create(self, number: u32, name: &str) -> Self {
        self.name(3, 2, number, name)
    }

    /// The blocks of the commit: a record never crosses from one to the next.
    fn blocks(self, transaction: u32, damage: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = self.0.as_slice();
        while !rest.is_empty() {
            let length = 4 + usize::from(u16::from_le_bytes([rest[2], rest[3]]));
            let left = BLOCK - out.len() % BLOCK;
            if left < length + 16 {
                out.extend(7u16.to_le_bytes());
                out.extend(u16::try_from(left - 4).unwrap().to_le_bytes());
                out.resize(out.len() + left - 4, 0);
            }
            out.extend(&rest[..length]);
            rest = &rest[length..];
        }
        let left = BLOCK - out.len() % BLOCK;
        out.extend(8u16.to_le_bytes());
        out.extend(u16::try_from(left - 4).unwrap().to_le_bytes());
        out.extend(transaction.to_le_bytes());
        let sum = !crc32c::crc32c_append(!0, &out) ^ damage;
        out.extend(sum.to_le_bytes());
        out.resize(out.len() + left - 12, 0xEE);
        out
    }
}

/// An image with one transaction in its journal, and what a test needs to know of it.
struct Dirty {
    scratch: Scratch,
    image: PathBuf,
    /// Blocks of the volume that the area lies in.
    area: Vec<u64>,
    /// The transaction that fast commits belong to.
    transaction: u32,
    /// Inodes and blocks that are not in use.
    inodes: Vec<u32>,
    places: Vec<u64>,
    /// Inode of the file `old`.
    old: u32,
}

impl Dirty {
    fn new(options: &str) -> Self {
        let scratch = Scratch::new();
        let source = scratch.path("source");
        fs::create_dir_all(source.join("folder")).unwrap();
        fs::write(source.join("old"), noise(1, 10 * BLOCK - 100)).unwrap();
        fs::write(source.join("touched"), noise(2, BLOCK)).unwrap();
        fs::hard_link(source.join("old"), source.join("folder/second")).unwrap();
        let image = scratch.make(
            &format!("-b 4096 -O fast_commit -J size=8,fast_commit_size=256 {options}"),
            "64M",
            Some(&source),
        );
        let path = image.to_str().unwrap();
        let journal = blocks(&image, "<8>");
        let touched = blocks(&image, "/touched");
        let file = scratch.path("block");
        fs::write(&file, noise(3, BLOCK)).unwrap();
        let commands = [
            "jo".to_owned(),
            format!("jw -b {} {}", touched[0], file.to_str().unwrap()),
            "jc".to_owned(),
        ];
        scratch.debugfs(&image, &commands);
        // The kernel sets the feature when it mounts.
        let disk = File::options().read(true).write(true).open(&image).unwrap();
        let mut superblock = [0; 1024];
        disk.read_exact_at(&mut superblock, journal[0] * BLOCK as u64)
            .unwrap();
        superblock[0x2B] |= 0x20;
        let field = |at: usize| u32::from_be_bytes(*superblock[at..].first_chunk().unwrap());
        let (last, sequence, area) = (field(16), field(24), field(0x54));
        assert_eq!(u64::from(area), AREA);
        assert_ne!(field(28), 0);
        disk.write_all_at(&superblock, journal[0] * BLOCK as u64)
            .unwrap();
        let free = |command: &str| -> Vec<u64> {
            let text = run("debugfs", &["-R", command, path], &[0]);
            let words = text.split_whitespace();
            words.filter_map(|word| word.parse().ok()).collect()
        };
        let area = journal[(u64::from(last) - AREA + 1) as usize..].to_vec();
        let first = u32::try_from(free("ffi")[0]).unwrap();
        let places = free("ffb 40");
        assert!(places.len() >= 40, "{places:?}");
        for &place in &places {
            disk.write_all_at(&noise(place, BLOCK), place * BLOCK as u64)
                .unwrap();
        }
        let stat = run("debugfs", &["-R", "stat /old", path], &[0]);
        let old = stat.split_whitespace().nth(1).unwrap().parse().unwrap();
        Self {
            scratch,
            image,
            area,
            transaction: sequence + 1,
            inodes: (first..first + 8).collect(),
            places,
            old,
        }
    }

    /// Writes commits to the area, one behind the other.
    fn commit(&self, commits: &[Vec<u8>]) {
        let disk = File::options().write(true).open(&self.image).unwrap();
        let bytes = commits.concat();
        let zeros = vec![0; BLOCK];
        let blocks = bytes.chunks(BLOCK).chain(std::iter::once(zeros.as_slice()));
        for (block, &place) in blocks.zip(&self.area) {
            disk.write_all_at(block, place * BLOCK as u64).unwrap();
        }
    }

    fn read(&self) -> Result<(Tree, u32), Error> {
        let reader = Reader::open(File::open(&self.image).unwrap())?;
        let JournalState::Replayed {
            fast_commits,
            transactions,
            ..
        } = reader.summary().journal
        else {
            panic!("the journal was clean");
        };
        assert_eq!(transactions, 1);
        Ok((tree(&reader)?, fast_commits))
    }

    /// What `e2fsck` makes of a copy.
    fn mended(&self) -> Tree {
        let copy = self.scratch.path("copy");
        fs::copy(&self.image, &copy).unwrap();
        mend(&copy);
        let mut tree = tree_of_image(&copy);
        // Where it puts what has lost its name, such as the inodes of files that were deleted.
        tree.retain(|path, _| !path.starts_with(b"/lost+found/"));
        tree
    }

    fn head(&self) -> Records {
        Records::default().head(self.transaction)
    }

    fn whole(&self, records: Records) -> Vec<u8> {
        records.blocks(self.transaction, 0)
    }
}

fn mend(image: &Path) {
    let image = image.to_str().unwrap();
    run("e2fsck", &["-fy", image], &[0, 1]);
    run("e2fsck", &["-fn", image], &[0]);
}

const FILE: u16 = 0o100_640;
/// Makes an extent one that was never written.
const UNWRITTEN: u16 = 32768;

#[test]
fn files_come_move_and_go_as_e2fsck_replays_them() {
    for options in [
        "-t ext4 -O ^metadata_csum",
        "-t ext4 -O ^metadata_csum,^64bit",
    ] {
        let dirty = Dirty::new(options);
        let (new, other, places) = (dirty.inodes[0], dirty.inodes[1], &dirty.places);
        let first = dirty
            .head()
            .inode(new, FILE, 5 * 4096 - 7, 1)
            .add(new, 0, places[0], 2)
            .add(new, 3, places[5], 2)
            .create(new, "new")
            .inode(new, FILE, 5 * 4096 - 7, 1);
        // A stretch moves, another becomes a hole, a third was never written.
        let old = dirty.old;
        let second = Records::default()
            .add(old, 2, places[10], 3)
            .remove(old, 6, 2)
            .add(old, 8, places[20], UNWRITTEN + 1)
            .inode(old, FILE, 12 * 4096, 2)
            .add(old, 10, places[13], 2);
        // Over blocks of which some are gone again at the end, and of more than one block of records.
        let mut third = Records::default().inode(other, FILE, 30 * 4096, 1);
        for round in 0..300u32 {
            let at = round % 20;
            third = third.add(other, at, places[20 + at as usize % 10], 1);
        }
        third = third
            .remove(other, 15, 1 << 20)
            .create(other, "other")
            .name(4, 2, new, "linked")
            .name(5, 2, new, "new")
            .remove(new, 1, 100)
            .inode(new, FILE, 4096, 1)
            .inode(other, FILE, 14 * 4096 + 1, 1);
        dirty.commit(&[first, second, third].map(|records| dirty.whole(records)));
        let (found, commits) = dirty.read().unwrap();
        assert_eq!(commits, 3);
        assert_eq!(found[&b"/linked"[..]].content, noise(places[0], BLOCK));
        assert!(!found.contains_key(&b"/new"[..]));
        assert_eq!(found[&b"/other"[..]].content.len(), 14 * 4096 + 1);
        assert_same(options, &found, &dirty.mended());
    }
}

#[test]
fn folders_links_and_devices_are_made() {
    let dirty = Dirty::new("-t ext4");
    let [folder, inside, device, ..] = dirty.inodes[..] else {
        panic!("too few inodes");
    };
    let mut records = dirty
        .head()
        .inode(folder, 0o40_755, 4096, 2)
        .create(folder, "made")
        .inode(inside, FILE, 3000, 1)
        .add(inside, 0, dirty.places[0], 1)
        .name(3, folder, inside, "inside")
        .inode_with(device, 0o20_600, 0, 1, 0);
    // Its numbers: 5 and 1.
    let at = records.0.len() - 160 + 40;
    records.0[at..at + 4].copy_from_slice(&0x501_u32.to_le_bytes());
    records = records
        .create(device, "tty")
        .name(4, folder, device, "again")
        .name(4, folder, device, "never")
        .name(5, folder, device, "never");
    dirty.commit(&[dirty.whole(records)]);
    let (found, _) = dirty.read().unwrap();
    assert_eq!(found[&b"/made"[..]].links, 2);
    assert_eq!(
        found[&b"/made/inside"[..]].content,
        noise(dirty.places[0], 3000)
    );
    let device = &found[&b"/made/again"[..]];
    assert_eq!(device.device.map(|d| (d.major, d.minor)), Some((5, 1)));
    assert_eq!(device.links, 2);
    assert_eq!(found[&b"/tty"[..]], *device);
    assert!(!found.contains_key(&b"/made/never"[..]));
}

#[test]
fn what_is_not_whole_does_not_count() {
    let dirty = Dirty::new("-t ext4");
    let before = tree_of_image(&dirty.image);
    let file = |number: u32, name: &str, records: Records| {
        records.inode(number, FILE, 0, 1).create(number, name)
    };
    let first = file(dirty.inodes[0], "first", dirty.head());
    let second = file(dirty.inodes[1], "second", Records::default());
    let names = |commits: &[Vec<u8>]| -> Result<Vec<String>, Error> {
        dirty.commit(commits);
        let (found, _) = dirty.read()?;
        let new = found.keys().filter(|name| !before.contains_key(*name));
        Ok(new
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect())
    };
    let good = [first.clone(), second.clone()].map(|records| dirty.whole(records));
    assert_eq!(names(&good).unwrap(), ["/first", "/second"]);
    // A commit behind one that is not whole was never promised.
    let torn = second.clone().blocks(dirty.transaction, 1);
    let third = dirty.whole(file(dirty.inodes[2], "third", Records::default()));
    assert_eq!(names(&[good[0].clone(), torn, third]).unwrap(), ["/first"]);
    // Left from an earlier turn.
    let stale = second.clone().blocks(dirty.transaction - 1, 0);
    assert_eq!(names(&[good[0].clone(), stale]).unwrap(), ["/first"]);
    let stale = file(dirty.inodes[0], "first", Records::default().head(1)).blocks(1, 0);
    assert!(names(&[stale]).unwrap().is_empty());
    let torn = first.clone().blocks(dirty.transaction - 1, 0);
    assert!(names(&[torn]).unwrap().is_empty());
    // Without a head.
    assert!(names(&good[1..]).unwrap().is_empty());
    assert!(names(&[vec![0; BLOCK]]).unwrap().is_empty());
    // Damage, not a power cut: its tail is of this transaction.
    let bad = first.blocks(dirty.transaction, 1);
    assert_eq!(names(&[bad]).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn hostile_changes_are_refused() {
    let dirty = Dirty::new("-t ext4");
    let old = dirty.old;
    dirty
        .scratch
        .debugfs(&dirty.image, &["sif old flags 0".to_owned()]);
    let add = dirty.head().add(old, 0, dirty.places[0], 1);
    dirty.commit(&[dirty.whole(add)]);
    let error = dirty.read().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(error.inode().map(|inode| inode.0), Some(old));

    let dirty = Dirty::new("-t ext4");
    let (old, new, place) = (dirty.old, dirty.inodes[0], dirty.places[0]);
    let made = || dirty.head().inode(new, FILE, 0, 1);
    let cases = [
        dirty.head().add(old, 0, 1 << 20, 1),
        dirty.head().add(old, 0, place, 0),
        dirty.head().add(old, u32::MAX, place, 2),
        dirty.head().remove(old, u32::MAX, u32::MAX),
        dirty.head().inode(8, FILE, 0, 1),
        dirty.head().create(new, "not in use"),
        dirty.head().create(u32::MAX, "no inode"),
        made().create(new, "a/b"),
        made().create(new, ".."),
        made().name(3, old, new, "in a file"),
        dirty.head().name(4, 2, 2, "the root again"),
        dirty.head().name(4, 2, 11, "a folder again"),
        dirty
            .head()
            .record(6, &[&new.to_le_bytes()[..], &[1; 300]].concat()),
        dirty
            .head()
            .record(6, &[&u32::MAX.to_le_bytes()[..], &[1; 160]].concat()),
    ];
    for (number, records) in cases.into_iter().enumerate() {
        dirty.commit(&[dirty.whole(records)]);
        let error = dirty.read().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{number}: {error}");
    }
    // Deleted while it was open: its inode says so before its name comes and goes.
    let open = dirty
        .head()
        .inode(new, FILE, 0, 0)
        .create(new, "open")
        .name(5, 2, new, "open")
        .inode(new, FILE, 0, 0);
    dirty.commit(&[dirty.whole(open)]);
    let (found, commits) = dirty.read().unwrap();
    assert_eq!(commits, 1);
    assert!(!found.contains_key(&b"/open"[..]));
    // What the kernel passes over.
    let nowhere = dirty
        .head()
        .add(new, 0, place, 1)
        .remove(new, 0, 1)
        .name(4, 2, new, "nothing")
        .name(5, 2, new, "nothing");
    dirty.commit(&[dirty.whole(nowhere)]);
    let (found, commits) = dirty.read().unwrap();
    assert_eq!(commits, 1);
    assert!(!found.contains_key(&b"/nothing"[..]));
}

#[test]
fn flipped_records_never_panic() {
    let dirty = Dirty::new("-t ext4 -O ^metadata_csum");
    let (new, place) = (dirty.inodes[0], dirty.places[0]);
    let records = dirty
        .head()
        .inode(new, FILE, 9000, 1)
        .add(new, 0, place, 3)
        .remove(new, 1, 1)
        .create(new, "new")
        .name(4, 2, new, "link")
        .name(5, 2, new, "new");
    for at in 0..records.0.len() {
        for bit in [1, 0x80] {
            let mut records = records.clone();
            records.0[at] ^= bit;
            // The checksum is right: somebody wants it so.
            let length = usize::from(u16::from_le_bytes([records.0[2], records.0[3]]));
            if length > records.0.len() {
                continue;
            }
            let sealed = std::panic::catch_unwind(|| records.blocks(dirty.transaction, 0));
            if let Ok(sealed) = sealed {
                dirty.commit(&[sealed]);
                let _ = dirty.read();
            }
        }
    }
}
