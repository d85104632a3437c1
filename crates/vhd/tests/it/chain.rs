//! Differencing disks are read with their parents, and refused without.

use std::collections::BTreeMap;

use opengcs_vhd::testing::{Child, MemoryFile};
use opengcs_vhd::{Access, Disk, DiskOptions, ErrorKind, Format, Guid, Storage};
use positioned_io::WriteAt;

use crate::script::Dice;
use crate::vhdx::{ID, WRITE, new, read};

const MIB: u64 = 1 << 20;

fn content_id(file: &MemoryFile) -> Guid {
    Disk::describe(file.snapshot()).unwrap().content_id.unwrap()
}

fn child<'a>(size: u64, parent: Guid, paths: &'a [(&'a str, &'a str)]) -> Child<'a> {
    Child {
        size,
        id: Guid::from_u128(99),
        parent,
        paths,
        block_size: 1 << 20,
        sectors: BTreeMap::new(),
    }
}

/// A sector that differs with its seed.
fn sector(seed: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (seed as u8).wrapping_mul(31).wrapping_add(at as u8) | 1;
    }
    bytes
}

/// Random sectors over a model, of which the child takes those.
fn change(child: &mut Child<'_>, model: &mut [u8], seed: u64) {
    let mut dice = Dice(seed);
    for _ in 0..60 {
        let first = dice.below(child.size / 512);
        for number in first..(first + 1 + dice.below(40)).min(child.size / 512) {
            let bytes = sector(dice.below(1000));
            child.sectors.insert(number, bytes);
            model[number as usize * 512..][..512].copy_from_slice(&bytes);
        }
    }
}

/// Chains of three disks, of all formats and several block sizes, read as the model says.
#[test]
fn chains_read_as_their_sectors_say() {
    let size = 9 * MIB + 1536;
    for (seed, format, blocks) in [
        (1, Format::FixedVhd, [2 << 20, 512 << 10]),
        (2, Format::FixedVhd, [4096, 1 << 20]),
        (3, Format::Vhdx, [1 << 20, 2 << 20]),
        (4, Format::Vhdx, [8 << 20, 1 << 20]),
    ] {
        let mut base =
            Disk::create(MemoryFile::new(), &DiskOptions::new(format, Some(size), ID)).unwrap();
        let mut model = vec![0; size as usize];
        model[..3 << 20].fill(7);
        base.write_all_at(0, &model[..3 << 20]).unwrap();
        let mut files = vec![base.finish().unwrap()];
        for (step, block_size) in blocks.into_iter().enumerate() {
            let mut child = child(size, content_id(files.last().unwrap()), &[]);
            child.id = Guid::from_u128(500 + step as u128);
            child.block_size = block_size;
            change(&mut child, &mut model, seed * 10 + step as u64);
            files.push(match format {
                Format::Vhdx => child.vhdx(),
                _ => child.vhd(),
            });
        }
        let top = files.pop().unwrap();
        let disk = Disk::open_chain(top, |_| Ok(files.pop().unwrap())).unwrap();
        assert!(
            read(&disk, 0, size as usize) == model,
            "{format} {blocks:?}"
        );
        let mut dice = Dice(seed);
        for _ in 0..300 {
            let at = dice.below(size);
            let length = (1 + dice.below(5000)).min(size - at) as usize;
            assert!(read(&disk, at, length) == model[at as usize..][..length]);
        }
    }
}

/// A child may be larger than its parent: what the parent does not have is zero.
#[test]
fn beyond_a_shorter_parent_is_zero() {
    let parent = MemoryFile::new();
    let options = DiskOptions::new(Format::FixedVhd, Some(MIB + 512), ID);
    let mut disk = Disk::create(parent.clone(), &options).unwrap();
    disk.write_all_at(0, &vec![3; MIB as usize + 512]).unwrap();
    disk.finish().unwrap();
    let mut child = child(4 * MIB, ID, &[]);
    child.sectors.insert(2 * 2048, sector(5));
    let disk = Disk::open_chain(child.vhd(), |_| Ok(parent.clone())).unwrap();
    let found = read(&disk, 0, 4 << 20);
    assert!(found[..(1 << 20) + 512].iter().all(|byte| *byte == 3));
    assert!(
        found[(1 << 20) + 512..2 << 20]
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(found[2 << 20..(2 << 20) + 512], sector(5));
}

#[test]
fn child_says_where_its_parent_is() {
    let paths = [
        ("W2ku", r"C:\disks\base.vhd"),
        ("W2ru", r".\base.vhd"),
        ("name", "base.vhd"),
    ];
    let file = child(4 * MIB, ID, &paths).vhd();
    let parent = Disk::describe(file.clone()).unwrap().parent.unwrap();
    assert_eq!(parent.ids, [ID]);
    assert_eq!(
        parent.paths,
        [r".\base.vhd", r"C:\disks\base.vhd", "base.vhd"]
    );
    let error = Disk::open(file, Access::ReadOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("base.vhd"), "{error}");

    let paths = [
        ("absolute_win32_path", r"\\?\C:\disks\base.vhdx"),
        ("relative_path", r"..\base.vhdx"),
        ("volume_path", r"\\?\Volume{x}\base.vhdx"),
    ];
    let file = child(4 * MIB, ID, &paths).vhdx();
    let parent = Disk::describe(file.clone()).unwrap().parent.unwrap();
    assert_eq!(parent.ids, [ID]);
    assert_eq!(parent.paths[0], r"..\base.vhdx");
    assert_eq!(parent.paths.len(), 3);
    for access in [Access::ReadOnly, WRITE] {
        let error = Disk::open(file.snapshot(), access).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn parent_that_was_changed_or_is_of_another_kind_is_refused() {
    let mut disk = new(Some(MIB));
    disk.write_all_at(0, b"parent").unwrap();
    let parent = disk.finish().unwrap();
    let id = content_id(&parent);
    let of_vhdx = child(MIB, id, &[]).vhdx();
    Disk::open_chain(of_vhdx.snapshot(), |_| Ok(parent.snapshot())).unwrap();
    let mut disk = Disk::open(parent.snapshot(), WRITE).unwrap();
    disk.write_all_at(0, b"change").unwrap();
    let changed = disk.finish().unwrap();
    let raw = MemoryFile::new();
    raw.resize(MIB).unwrap();
    let vhd = Disk::create(
        MemoryFile::new(),
        &DiskOptions::new(Format::FixedVhd, Some(MIB), id),
    )
    .unwrap()
    .finish()
    .unwrap();
    let of_vhd = child(MIB, id, &[]).vhd();
    for (child, other) in [
        (&of_vhdx, &changed),
        (&of_vhdx, &raw),
        (&of_vhdx, &vhd),
        (&of_vhd, &raw),
        (&of_vhd, &parent),
    ] {
        let error = Disk::open_chain(child.snapshot(), |_| Ok(other.snapshot())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    Disk::open_chain(of_vhd, |_| Ok(vhd.snapshot())).unwrap();
}

#[test]
fn chain_without_end_is_refused() {
    let own = Guid::from_u128(99);
    let file = child(MIB, own, &[]).vhd();
    let mut opened = 0;
    let error = Disk::open_chain(file.snapshot(), |_| {
        opened += 1;
        Ok(file.snapshot())
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(opened < 100);
}

/// The footer in front stands in for one at the end that was torn; sectors without a parent's are zero.
#[test]
fn dynamic_vhd_with_a_damaged_tail_is_read_by_its_copy() {
    let mut child = child(6 * MIB + 1000, Guid::from_u128(5), &[]);
    child.sectors.insert(0, sector(1));
    child.sectors.insert(2048 * 5, sector(2));
    let file = child.vhd();
    let parent = Disk::create(
        MemoryFile::new(),
        &DiskOptions::new(Format::FixedVhd, Some(MIB), Guid::from_u128(5)),
    )
    .unwrap()
    .finish()
    .unwrap();
    let length = file.length().unwrap();
    for damage in [1, 400, 511, 512] {
        let torn = file.snapshot();
        if damage == 512 {
            torn.resize(length - 512).unwrap();
        } else {
            torn.store_at(length - 512 + damage - 1, &[0xee]).unwrap();
        }
        let disk = Disk::open_chain(torn, |_| Ok(parent.snapshot())).unwrap();
        assert_eq!(disk.format(), Format::DynamicVhd);
        assert_eq!(disk.virtual_size(), 6 * MIB + 1000);
        assert_eq!(read(&disk, 0, 512), sector(1));
        assert_eq!(read(&disk, 5 * MIB, 512), sector(2));
        assert_eq!(read(&disk, 5 * MIB + 512, 512), [0; 512]);
    }
}
