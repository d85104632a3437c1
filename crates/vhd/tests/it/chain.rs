//! Differencing disks are read with their parents, and refused without.

use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::vhdx::Vhdx;
use opengcs_vhd::{Access, Disk, ErrorKind, Storage};
use positioned_io::WriteAt;

use crate::vhdx::{new, read};

const MIB: u64 = 1 << 20;

/// Makes a VHDX of 1 GiB with one block a child, of which only the second
/// sector is its own.
fn make_child(file: &MemoryFile, linkage: &str) {
    let units =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let pairs = [
        ("parent_linkage", linkage),
        ("relative_path", r"..\parent.vhdx"),
    ];
    let pairs = pairs.map(|(key, value)| (units(key), units(value)));
    let mut locator = vec![
        0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59,
        0x13, 0, 0, 2, 0,
    ];
    let mut at = 20 + 2 * 12;
    let mut text = Vec::new();
    for (key, value) in &pairs {
        locator.extend((at as u32).to_le_bytes());
        locator.extend(((at + key.len()) as u32).to_le_bytes());
        locator.extend((key.len() as u16).to_le_bytes());
        locator.extend((value.len() as u16).to_le_bytes());
        at += key.len() + value.len();
        text.extend([key.clone(), value.clone()].concat());
    }
    locator.extend(text);
    let metadata = 2 * MIB;
    let mut entry = vec![
        0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab,
        0x0c,
    ];
    entry.extend((128_u32 << 10).to_le_bytes());
    entry.extend((locator.len() as u32).to_le_bytes());
    entry.extend(4_u64.to_le_bytes());
    file.store_at(metadata + 10, &[6]).unwrap();
    file.store_at(metadata + 32 + 5 * 32, &entry).unwrap();
    file.store_at(metadata + (128 << 10), &locator).unwrap();
    file.store_at(metadata + (64 << 10) + 4, &[2]).unwrap();
    // The block is partial, and its bitmap lies behind it.
    let end = file.length().unwrap();
    file.store_at(3 * MIB, &[7]).unwrap();
    file.store_at(3 * MIB + 4096 * 8, &(end | 6).to_le_bytes())
        .unwrap();
    file.store_at(end, &[0b10]).unwrap();
    file.resize(end + MIB).unwrap();
}

#[test]
fn sectors_come_from_the_child_or_its_parent() {
    let mut parent = new(Some(1 << 30));
    parent.write_all_at(0, &[1; 2 << 20]).unwrap();
    let parent = parent.finish().unwrap();
    let linkage = Vhdx::open(parent.clone(), Access::ReadOnly).unwrap();
    let linkage = format!("{{{}}}", linkage.data_write_guid());
    let mut child = new(Some(1 << 30));
    child.write_all_at(0, &[2; 4096]).unwrap();
    let child = child.finish().unwrap();
    make_child(&child, &linkage);

    let error = Disk::open(child.clone(), Access::ReadOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("parent.vhdx"), "{error}");

    let disk = Disk::open_chain(child.clone(), |named| {
        assert_eq!(named.paths, [r"..\parent.vhdx"]);
        Ok(parent.clone())
    })
    .unwrap();
    let found = read(&disk, 0, 3 << 20);
    assert!(found[..512] == [1; 512] && found[512..1024] == [2; 512]);
    assert!(found[1024..2 << 20].iter().all(|byte| *byte == 1));
    assert!(found[2 << 20..].iter().all(|byte| *byte == 0));

    let stranger = new(Some(1 << 30));
    let stranger = {
        let file = stranger.finish().unwrap();
        let mut disk = Disk::open(file, crate::vhdx::WRITE).unwrap();
        disk.write_all_at(0, b"changed").unwrap();
        disk.finish().unwrap()
    };
    let error = Disk::open_chain(child, |_| Ok(stranger.clone())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
