//! QEMU reads what we write, and we read what QEMU writes.

use std::fs::File;
use std::path::Path;

use opengcs_vhd::{Access, Disk, DiskOptions, Format, detect};
use positioned_io::WriteAt;

use crate::judge::{qemu_img, qemu_io};
use crate::vhdx::{ID, WRITE, read};

/// Writes by us, in pieces that cross blocks, and a raw twin.
fn fill(disk: &mut impl WriteAt, size: u64) {
    for (at, length, byte) in pieces(size) {
        disk.write_all_at(at, &vec![byte; length]).unwrap();
    }
}

fn pieces(size: u64) -> Vec<(u64, usize, u8)> {
    vec![
        (0, 1, 1),
        (size / 3 + 11, 3_000_000, 2),
        (size / 2, 512, 3),
        (size - 70_000, 70_000, 4),
    ]
}

fn same(a: (&str, &Path), b: (&str, &Path)) {
    let text = qemu_img(&[
        "compare",
        "-f",
        a.0,
        "-F",
        b.0,
        a.1.to_str().unwrap(),
        b.1.to_str().unwrap(),
    ]);
    assert!(text.contains("identical"), "{text}");
}

fn create(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap()
}

#[test]
fn qemu_reads_our_vhdx() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, raw) = (dir.path().join("ours.vhdx"), dir.path().join("raw"));
    for (block_mib, size, fixed, sized) in [
        (1, 64 << 20, false, true),
        (1, (64 << 20) + 4096, true, true),
        (2, 300 << 20, false, false),
        (8, 2 << 30, false, true),
        (32, 3 << 40, false, true),
        (256, 600 << 20, false, true),
    ] {
        let mut options = DiskOptions::new(Format::Vhdx, sized.then_some(size), ID);
        options.block_size = block_mib << 20;
        options.fixed = fixed;
        let mut disk = Disk::create(create(&ours), &options).unwrap();
        fill(&mut disk, size);
        disk.finish().unwrap();
        let mut twin =
            Disk::create(create(&raw), &DiskOptions::new(Format::Raw, Some(size), ID)).unwrap();
        fill(&mut twin, size);
        twin.finish().unwrap();
        let path = ours.to_str().unwrap();
        qemu_img(&["check", "-f", "vhdx", path]);
        let info = qemu_img(&["info", "--output=json", path]);
        assert!(
            info.contains(&format!("\"virtual-size\": {size}")),
            "{info}"
        );
        assert!(info.contains("\"format\": \"vhdx\""), "{info}");
        if size < 1 << 30 {
            same(("vhdx", &ours), ("raw", &raw));
        }

        // Then a session of writing by us, and one by QEMU.
        let file = File::options().read(true).write(true).open(&ours).unwrap();
        let mut disk = Disk::open(file, WRITE).unwrap();
        disk.write_all_at(5 << 20, &[9; 4 << 20]).unwrap();
        disk.finish().unwrap();
        qemu_img(&["check", "-f", "vhdx", path]);
        qemu_io(
            "vhdx",
            &ours,
            &[
                "read -P 9 5M 4M",
                "read -P 0 1M 4M",
                "write -P 77 17M 3M",
                "write -P 78 4M 64k",
            ],
        );
        let disk = Disk::open(File::open(&ours).unwrap(), Access::ReadOnly).unwrap();
        assert_eq!(read(&disk, 17 << 20, 3 << 20), vec![77; 3 << 20]);
        assert_eq!(read(&disk, 4 << 20, 64 << 10), vec![78; 64 << 10]);
        assert_eq!(read(&disk, 5 << 20, 4 << 20), vec![9; 4 << 20]);
    }
}

#[test]
fn qemu_reads_our_fixed_vhd_with_its_exact_size() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, raw) = (dir.path().join("ours.vhd"), dir.path().join("raw"));
    for size in [12 << 20, (33 << 20) + 512, (200 << 20) + 1024] {
        for (path, format) in [(&ours, Format::FixedVhd), (&raw, Format::Raw)] {
            let options = DiskOptions::new(format, Some(size), ID);
            let mut disk = Disk::create(create(path), &options).unwrap();
            fill(&mut disk, size);
            disk.finish().unwrap();
        }
        let info = qemu_img(&["info", "--output=json", "-f", "vpc", ours.to_str().unwrap()]);
        assert!(
            info.contains(&format!("\"virtual-size\": {size}")),
            "{info}"
        );
        same(("vpc", &ours), ("raw", &raw));
    }
}

#[test]
fn we_read_what_qemu_makes() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, theirs, back) = (
        dir.path().join("raw"),
        dir.path().join("theirs"),
        dir.path().join("back"),
    );
    let size = 50_u64 << 20;
    let mut twin =
        Disk::create(create(&raw), &DiskOptions::new(Format::Raw, Some(size), ID)).unwrap();
    fill(&mut twin, size);
    twin.finish().unwrap();
    for (format, options, expected) in [
        ("vhdx", "block_size=1M", Format::Vhdx),
        ("vhdx", "block_size=16M", Format::Vhdx),
        ("vhdx", "block_size=256M", Format::Vhdx),
        ("vhdx", "subformat=fixed", Format::Vhdx),
        ("vhdx", "block_state_zero=off", Format::Vhdx),
        ("vhdx", "log_size=4M", Format::Vhdx),
        ("vpc", "subformat=fixed,force_size=on", Format::FixedVhd),
        ("vpc", "subformat=dynamic,force_size=on", Format::DynamicVhd),
    ] {
        let path = theirs.to_str().unwrap();
        qemu_img(&[
            "convert",
            "-f",
            "raw",
            "-O",
            format,
            "-o",
            options,
            raw.to_str().unwrap(),
            path,
        ]);
        let file = File::open(&theirs).unwrap();
        assert_eq!(detect(&file).unwrap(), expected, "{options}");
        let disk = Disk::open(file, Access::ReadOnly).unwrap();
        assert_eq!(disk.virtual_size(), size, "{format} {options}");
        std::fs::write(&back, read(&disk, 0, size as usize)).unwrap();
        assert!(
            std::fs::read(&back).unwrap() == std::fs::read(&raw).unwrap(),
            "{format} {options}"
        );
        if expected == Format::Vhdx {
            let file = File::options()
                .read(true)
                .write(true)
                .open(&theirs)
                .unwrap();
            let mut disk = Disk::open(file, WRITE).unwrap();
            disk.write_all_at(30 << 20, &[5; 2 << 20]).unwrap();
            disk.finish().unwrap();
            qemu_img(&["check", "-f", "vhdx", path]);
            qemu_io("vhdx", &theirs, &["read -P 5 30M 2M"]);
        }
    }
}
