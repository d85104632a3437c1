//! What a VHDX of ours holds, read back by us.

use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::{Access, Disk, DiskOptions, ErrorKind, Format, Guid, Storage};
use positioned_io::{ReadAt, Size, WriteAt};
use proptest::prelude::*;

pub(crate) const ID: Guid = Guid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
pub(crate) const SESSION: Guid = Guid::from_u128(0x0fed_cba9_8765_4321_8fed_cba9_8765_4321);
pub(crate) const WRITE: Access = Access::ReadWrite { session: SESSION };

pub(crate) fn new(size: Option<u64>) -> Disk<MemoryFile> {
    Disk::create(MemoryFile::new(), &DiskOptions::new(Format::Vhdx, size, ID)).unwrap()
}

pub(crate) fn read(disk: &impl ReadAt, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    disk.read_exact_at(at, &mut bytes).unwrap();
    bytes
}

#[test]
fn same_calls_give_the_same_bytes() {
    let make = || {
        let mut disk = new(Some(5 << 30));
        disk.write_all_at(3 << 30, b"x").unwrap();
        disk.finish().unwrap()
    };
    assert_eq!(make().bytes(0, 16 << 20), make().bytes(0, 16 << 20));
}

#[test]
fn scratch_of_20_gb_takes_few_writes_and_bytes() {
    let file = new(Some(20 << 30)).finish().unwrap();
    assert!(file.operations() <= 12, "{} operations", file.operations());
    assert!(file.held() <= 64 << 10, "{} bytes", file.held());
    assert!(file.bytes(0, 8 << 20).len() <= 4 << 20);
}

#[test]
fn zeros_do_not_allocate() {
    let mut disk = new(Some(1 << 30));
    disk.write_all_at(0, &vec![0; 3 << 20]).unwrap();
    disk.write_all_at(100, b"x").unwrap();
    assert_eq!(disk.summary().unwrap().allocated, 1 << 20);
    let file = disk.finish().unwrap();
    let mut disk = Disk::open(file, WRITE).unwrap();
    disk.write_all_at(5 << 20, &vec![0; 3 << 20]).unwrap();
    assert_eq!(disk.summary().unwrap().allocated, 1 << 20);
    disk.write_all_at(100, b"\0").unwrap();
    assert_eq!(read(&disk, 100, 1), [0]);
}

#[test]
fn disk_grows_with_what_is_written() {
    let mut disk = new(None);
    disk.write_all_at((3 << 20) + 5, b"end").unwrap();
    disk.write_all_at(7, b"start").unwrap();
    let file = disk.finish().unwrap();
    let disk = Disk::open(file, Access::ReadOnly).unwrap();
    assert_eq!(disk.virtual_size(), (3 << 20) + 512);
    assert_eq!(read(&disk, 7, 5), b"start");
    assert_eq!(read(&disk, (3 << 20) + 5, 3), b"end");
    assert!(new(None).finish().is_err());
}

#[test]
fn writes_past_the_end_are_refused_and_reads_are_short() {
    let mut disk = new(Some(1 << 20));
    let error = disk.write_all_at((1 << 20) - 1, b"ab").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(disk.read_at((1 << 20) - 1, &mut [0; 9]).unwrap(), 1);
    assert_eq!(disk.read_at(1 << 20, &mut [0; 9]).unwrap(), 0);
    assert_eq!(disk.read_at(u64::MAX, &mut [0; 9]).unwrap(), 0);
}

#[test]
fn illegal_options_are_refused() {
    let legal = DiskOptions::new(Format::Vhdx, Some(1 << 30), ID);
    for options in [
        DiskOptions {
            block_size: 512 << 10,
            ..legal.clone()
        },
        DiskOptions {
            block_size: 3 << 20,
            ..legal.clone()
        },
        DiskOptions {
            block_size: 512 << 20,
            ..legal.clone()
        },
        DiskOptions {
            logical_sector_size: 1024,
            ..legal.clone()
        },
        DiskOptions {
            physical_sector_size: 0,
            ..legal.clone()
        },
        DiskOptions {
            size: Some(0),
            ..legal.clone()
        },
        DiskOptions {
            size: Some(1000),
            ..legal.clone()
        },
        DiskOptions {
            size: Some((64 << 40) + 512),
            ..legal.clone()
        },
        DiskOptions {
            format: Format::DynamicVhd,
            ..legal.clone()
        },
        DiskOptions {
            format: Format::FixedVhd,
            size: Some(1000),
            ..legal.clone()
        },
        DiskOptions {
            format: Format::FixedVhd,
            size: Some(2041 << 30),
            ..legal.clone()
        },
    ] {
        let error = Disk::create(MemoryFile::new(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{options:?}");
    }
}

#[test]
fn largest_disk_holds_its_last_sector() {
    let mut disk = new(Some(64 << 40));
    disk.write_all_at((64 << 40) - 512, &[7; 512]).unwrap();
    let file = disk.finish().unwrap();
    let disk = Disk::open(file, Access::ReadOnly).unwrap();
    assert_eq!(read(&disk, (64 << 40) - 512, 512), [7; 512]);
    assert_eq!(read(&disk, 32 << 40, 512), [0; 512]);
}

#[test]
fn many_blocks_in_one_session_commit_in_parts() {
    let file = new(Some(4 << 40)).finish().unwrap();
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    // Each write touches a page of the table of its own.
    for page in 0..250_u64 {
        disk.write_all_at(page * (600 << 20), &page.to_le_bytes())
            .unwrap();
    }
    disk.write_all_at(1 << 41, b"x").unwrap();
    disk.flush().unwrap();
    let again = Disk::open(file.snapshot(), Access::ReadOnly).unwrap();
    for page in 0..250_u64 {
        assert_eq!(read(&again, page * (600 << 20), 8), page.to_le_bytes());
    }
    let file = disk.finish().unwrap();
    let disk = Disk::open(file, Access::ReadOnly).unwrap();
    assert_eq!(
        disk.summary().unwrap().log,
        Some(opengcs_vhd::vhdx::LogState::Clean)
    );
    assert_eq!(read(&disk, 1 << 41, 1), b"x");
}

#[test]
fn writing_changes_the_identifiers_and_reading_changes_nothing() {
    let mut disk = new(Some(1 << 30));
    disk.write_all_at(0, b"a").unwrap();
    let file = disk.finish().unwrap();
    let guid = |file: &MemoryFile| {
        opengcs_vhd::vhdx::Vhdx::open(file.snapshot(), Access::ReadOnly)
            .unwrap()
            .data_write_guid()
    };
    let before = guid(&file);
    let operations = file.operations();
    drop(Disk::open(file.clone(), Access::ReadOnly).unwrap());
    Disk::open(file.clone(), WRITE).unwrap().finish().unwrap();
    assert_eq!(file.operations(), operations);
    let mut seen = vec![before];
    for _ in 0..3 {
        let mut disk = Disk::open(file.clone(), WRITE).unwrap();
        disk.write_all_at(0, b"b").unwrap();
        disk.finish().unwrap();
        assert!(!seen.contains(&guid(&file)));
        seen.push(guid(&file));
    }
}

#[test]
fn discarded_blocks_make_room_and_shorten_the_file() {
    let mut disk = new(Some(1 << 30));
    disk.write_all_at(0, &[1; 8 << 20]).unwrap();
    let file = disk.finish().unwrap();
    let full = file.size().unwrap().unwrap();
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    disk.discard(1 << 20..3 << 20).unwrap();
    assert_eq!(disk.summary().unwrap().allocated, 6 << 20);
    // Not yet: a crash could bring the blocks back.
    disk.write_all_at(100 << 20, b"end").unwrap();
    assert_eq!(disk.summary().unwrap().allocated, 7 << 20);
    disk.flush().unwrap();
    disk.write_all_at(200 << 20, b"reused").unwrap();
    disk.flush().unwrap();
    assert_eq!(read(&disk, 200 << 20, 8), b"reused\0\0");
    let file = disk.finish().unwrap();
    assert_eq!(file.size().unwrap().unwrap(), full + (1 << 20));
    // The rest of the room is found again, also without its session.
    let mut disk = Disk::open(file, WRITE).unwrap();
    disk.write_all_at(300 << 20, b"found").unwrap();
    disk.discard(100 << 20..101 << 20).unwrap();
    let file = disk.finish().unwrap();
    assert_eq!(file.size().unwrap().unwrap(), full);
    assert!(file.held() < 8 << 20, "{}", file.held());
    let disk = Disk::open(file, Access::ReadOnly).unwrap();
    assert_eq!(read(&disk, 300 << 20, 6), b"found\0");
    assert_eq!(read(&disk, 0, 1), [1]);
    assert_eq!(read(&disk, 7 << 20, 1), [1]);
}

#[test]
fn discard_past_the_end_or_of_a_disk_that_is_only_read_is_refused() {
    for format in [Format::Raw, Format::FixedVhd, Format::Vhdx] {
        let options = DiskOptions::new(format, Some(1 << 20), ID);
        let mut disk = Disk::create(MemoryFile::new(), &options).unwrap();
        let error = disk.discard(0..(1 << 20) + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        disk.discard(0..1 << 20).unwrap();
        disk.discard(5..5).unwrap();
        let file = disk.finish().unwrap();
        assert!(file.held() < 1 << 20);
        let mut disk = Disk::open(file, Access::ReadOnly).unwrap();
        let error = disk.discard(0..512).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
    }
}

/// Room that another writer keeps for a block that it has unmapped is not used for others.
#[test]
fn room_kept_for_unmapped_blocks_stays_theirs() {
    let mut disk = new(Some(1 << 30));
    disk.write_all_at(0, &[1; 3 << 20]).unwrap();
    let file = disk.finish().unwrap();
    // The middle block is unmapped (3) and keeps its place.
    let entry = 3 * (1 << 20) + 8;
    let place = file.bytes(entry, 8);
    file.store_at(entry, &[place[0] & !7 | 3]).unwrap();
    let mut disk = Disk::open(file.clone(), WRITE).unwrap();
    assert_eq!(read(&disk, 1 << 20, 4), [0; 4]);
    disk.write_all_at(9 << 20, b"new").unwrap();
    let file = disk.finish().unwrap();
    let new = file.bytes(3 * (1 << 20) + 9 * 8, 8);
    assert_ne!(new[2..], place[2..]);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, u8),
    Discard(u64, u64),
    Flush,
    Reopen,
    /// Open a copy as it is, without an end to this session.
    Crash,
}

fn step(size: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..size, 1..3_000_000_usize, 0..3_u8)
            .prop_map(move |(at, length, fill)| Step::Write(at, length.min((size - at) as usize), fill)),
        3 => (0..size, 1..6_000_000_u64)
            .prop_map(move |(at, length)| Step::Discard(at, size.min(at + length))),
        1 => (0..size >> 20, 1..9_u64)
            .prop_map(move |(at, length)| Step::Discard(at << 20, size.min((at + length) << 20))),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

const SIZE: u64 = (9 << 20) + 4096;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_writes_read_back(
        steps in prop::collection::vec(step(SIZE), 1..20),
        block in prop::sample::select(vec![1_u32 << 20, 2 << 20, 32 << 20]),
        sector in prop::sample::select(vec![512_u32, 4096]),
        format in prop::sample::select(vec![Format::Vhdx, Format::FixedVhd, Format::Raw]),
        fixed: bool,
        sized: bool,
        holes: bool,
    ) {
        let mut options = DiskOptions::new(format, sized.then_some(SIZE), ID);
        options.block_size = block;
        options.logical_sector_size = sector;
        options.fixed = fixed;
        let file = MemoryFile::new();
        if !holes {
            file.refuse_holes();
        }
        let mut disk = Disk::create(file, &options).unwrap();
        if !sized {
            disk.set_size(SIZE).unwrap();
        }
        let mut model = vec![0; SIZE as usize];
        for step in steps {
            match step {
                Step::Write(at, length, fill) => {
                    disk.write_all_at(at, &vec![fill; length]).unwrap();
                    model[at as usize..][..length].fill(fill);
                }
                Step::Discard(from, upto) => {
                    disk.discard(from..upto).unwrap();
                    model[from as usize..upto as usize].fill(0);
                }
                Step::Flush => disk.flush().unwrap(),
                Step::Crash => {
                    disk.flush().unwrap();
                    let left = disk.storage().snapshot();
                    if !holes {
                        left.refuse_holes();
                    }
                    disk = Disk::open(left, WRITE).unwrap();
                }
                Step::Reopen => disk = Disk::open(disk.finish().unwrap(), WRITE).unwrap(),
            }
        }
        prop_assert!(read(&disk, 0, SIZE as usize) == model);
        let disk = Disk::open(disk.finish().unwrap(), Access::ReadOnly).unwrap();
        prop_assert_eq!(disk.format(), format);
        prop_assert!(read(&disk, 0, SIZE as usize) == model);
    }
}
