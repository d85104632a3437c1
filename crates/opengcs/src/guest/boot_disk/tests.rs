use std::process::Command;

use super::uki::tests::fake_stub;
use super::*;
use crate::guest::initrd::{Busybox, GuestModule};

fn image() -> Vec<u8> {
    let contents = Contents {
        release: "6.1.0".into(),
        agent: vec![1; 100_000],
        busybox: Some(Busybox {
            program: vec![2; 50_000],
            applets: vec!["sh".into(), "ls".into()],
        }),
        modules: vec![GuestModule {
            name: "ext4".into(),
            path: "kernel/fs/ext4/ext4.ko".into(),
            first: false,
            qemu: true,
            hyperv: true,
            content: vec![3; 9000],
        }],
        files: Vec::new(),
    };
    let kernel = vec![4; 1_000_000];
    let image = Image::new(
        &contents,
        Compression::None,
        &fake_stub(),
        &kernel,
        "more=1",
    )
    .unwrap();
    let mut disk = vec![0; usize::try_from(image.sectors() * SECTOR).unwrap()];
    image.write(&mut disk.as_mut_slice()).unwrap();
    disk
}

/// Runs a judge and gives what it said.
fn judge(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
#[cfg_attr(not(unix), ignore = "its judges are programs of Linux")]
fn sfdisk_fsck_and_mtools_find_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let disk = image();
    fs::write(&path, &disk).unwrap();
    let name = path.to_str().unwrap();
    let said = judge("/sbin/sfdisk", &["--verify", name]);
    assert!(said.contains("No errors detected"), "{said}");
    let said = judge("/sbin/sfdisk", &["--json", name]);
    let table: serde_json::Value = serde_json::from_str(&said).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    assert_eq!(
        partitions[0]["type"],
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    );
    assert_eq!(partitions[1]["name"], "opengcs root");

    let part = |index: usize| {
        let field = |key: &str| partitions[index][key].as_u64().unwrap() * SECTOR;
        let (start, size) = (field("start"), field("size"));
        let (start, end) = (
            start.try_into().unwrap(),
            (start + size).try_into().unwrap(),
        );
        let path = folder.path().join(format!("part{index}"));
        let bytes: &[u8] = disk.get::<std::ops::Range<usize>>(start..end).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    };
    let efi = part(0);
    let efi = efi.to_str().unwrap();
    let said = judge("/sbin/fsck.fat", &["-n", "-v", efi]);
    assert!(said.contains("32 bit entries"), "{said}");
    let out = folder.path().join("program");
    let file = "::/EFI/BOOT/BOOTX64.EFI";
    judge("mcopy", &["-i", efi, file, out.to_str().unwrap()]);
    let program = fs::read(&out).unwrap();
    assert!(program.starts_with(b"MZ"));
    let said = judge("objdump", &["-h", out.to_str().unwrap()]);
    for section in [".cmdline", ".uname", ".initrd", ".linux"] {
        assert!(said.contains(section), "{said}");
    }

    let root = part(1);
    let root = root.to_str().unwrap();
    judge("e2fsck", &["-fn", root]);
    let said = judge("debugfs", &["-R", "stat /bin/busybox", root]);
    assert!(said.contains("Size: 50000"), "{said}");
    let said = judge("debugfs", &["-R", "show_super_stats -h", root]);
    assert!(said.contains(&ROOT_UUID.to_string()), "{said}");
}

#[test]
fn the_same_parts_give_the_same_bytes() {
    assert!(image() == image());
}

#[test]
fn parameters_of_more_than_a_line_are_refused() {
    let contents = Contents::default();
    let made = Image::new(&contents, Compression::None, &fake_stub(), &[0; 10], "a\nb");
    assert!(made.is_err());
}
