//! Trees through tar, image and tar again.

use opengcs_layer::{
    DiskToTarOptions, DiskWhiteouts, ErrorKind, FilesystemOptions, TarToExt4Options, ext4_to_tar,
    tar_to_ext4,
};
use proptest::prelude::*;

use crate::forge::{Header, Tar, octal};
use crate::{judge, listing};

fn to_image(tar: &[u8]) -> Vec<u8> {
    let options = TarToExt4Options {
        filesystem: FilesystemOptions {
            lost_found: false,
            ..FilesystemOptions::default()
        },
        ..TarToExt4Options::default()
    };
    let mut image = Vec::new();
    tar_to_ext4(tar, &mut image, &options).unwrap();
    image
}

fn to_tar(image: Vec<u8>, options: &DiskToTarOptions) -> Vec<u8> {
    let mut tar = Vec::new();
    ext4_to_tar(image, &mut tar, options).unwrap();
    tar
}

/// The names in a tar, as GNU tar sees them.
fn names(tar: &[u8]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    let out = judge::succeed("tar", &["-tf", file.path().to_str().unwrap()]);
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn whiteouts_come_back_as_oci() {
    let tar = Tar::new()
        .file("d/.wh..wh..opq", "")
        .file("d/a", "1")
        .file("e/.wh.gone", "")
        .end();
    let image = to_image(&tar);
    let back = to_tar(image.clone(), &DiskToTarOptions::default());
    assert_eq!(
        names(&back),
        ["./", "d/", "d/.wh..wh..opq", "d/a", "e/", "e/.wh.gone"]
    );
    assert_eq!(listing::list(to_image(&back)), listing::list(image.clone()));
    let keep = DiskToTarOptions {
        whiteouts: DiskWhiteouts::Keep,
        ..DiskToTarOptions::default()
    };
    let kept = to_tar(image.clone(), &keep);
    assert_eq!(names(&kept), ["./", "d/", "d/a", "e/", "e/gone"]);
    assert_eq!(listing::list(to_image(&kept)), listing::list(image));
}

#[test]
fn overlay_xattrs_are_dropped() {
    let tar = Tar::new()
        .pax(
            b'x',
            &[
                ("SCHILY.xattr.trusted.overlay.origin", b"\0\xfb"),
                ("SCHILY.xattr.trusted.overlay.impure", b"y"),
                ("SCHILY.xattr.user.mine", b"1"),
            ],
        )
        .dir("d")
        .end();
    let back = to_tar(to_image(&tar), &DiskToTarOptions::default());
    assert_eq!(listing::list(to_image(&back)), ["d/ {user.mine=1}"]);
}

#[test]
fn content_in_lower_layers_is_refused() {
    for name in [
        "SCHILY.xattr.trusted.overlay.redirect",
        "SCHILY.xattr.trusted.overlay.metacopy",
    ] {
        let tar = Tar::new().pax(b'x', &[(name, b"/old")]).dir("moved").end();
        let error =
            ext4_to_tar(to_image(&tar), Vec::new(), &DiskToTarOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("\"moved\""), "{error}");
    }
}

#[test]
fn sandbox_gives_what_is_in_upper() {
    let tar = Tar::new()
        .dir("upper")
        .file("upper/etc/a", "1")
        .device("upper/etc/gone", b'3', 0, 0)
        .dir("work/work")
        .end();
    let sandbox = DiskToTarOptions {
        sandbox: true,
        ..DiskToTarOptions::default()
    };
    let back = to_tar(to_image(&tar), &sandbox);
    assert_eq!(names(&back), ["./", "etc/", "etc/a", "etc/.wh.gone"]);
    let error = ext4_to_tar(to_image(&Tar::new().end()), Vec::new(), &sandbox).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("upper"), "{error}");
    let error = ext4_to_tar(
        to_image(&Tar::new().file("upper", "").end()),
        Vec::new(),
        &sandbox,
    )
    .unwrap_err();
    assert!(error.to_string().contains("upper"), "{error}");
}

#[test]
fn lost_found_is_left_out_when_empty() {
    let mut image = Vec::new();
    tar_to_ext4(
        &Tar::new().file("a", "1").end()[..],
        &mut image,
        &TarToExt4Options::default(),
    )
    .unwrap();
    assert_eq!(
        names(&to_tar(image, &DiskToTarOptions::default())),
        ["./", "a"]
    );
    let tar = Tar::new().file("lost+found/#12", "x").end();
    assert_eq!(
        names(&to_tar(to_image(&tar), &DiskToTarOptions::default())),
        ["./", "lost+found/", "lost+found/#12"]
    );
}

#[test]
fn image_that_was_never_mounted_gives_the_order_of_its_tar() {
    let tar = Tar::new()
        .dir("z")
        .file("z/late", "1")
        .file("b", "2")
        .dir("a")
        .file("z/early", "3")
        .symlink("a/link", "/")
        .end();
    assert_eq!(
        names(&to_tar(to_image(&tar), &DiskToTarOptions::default())),
        ["./", "z/", "z/late", "b", "a/", "z/early", "a/link"]
    );
    // As a kernel leaves it that mounted it for writing.
    let mut image = to_image(&tar);
    let mounted = 1024 + 0x2c;
    image[mounted..mounted + 4].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
    let sum = crc32c_of_superblock(&image[1024..1024 + 0x3fc]);
    image[1024 + 0x3fc..2048].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(
        names(&to_tar(image, &DiskToTarOptions::default())),
        ["./", "a/", "a/link", "b", "z/", "z/early", "z/late"]
    );
}

/// The kernel's crc32c: neither inverted before nor after.
fn crc32c_of_superblock(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

#[test]
fn gnu_tar_sees_what_went_in() {
    let long = "l".repeat(250);
    let path = format!("dir/{}{long}", "sub/".repeat(40));
    let tar = Tar::new()
        .header(&Header {
            uid: octal(0o777_7777, 8),
            ..Header::new("a", b'0', 0)
        })
        .pax(b'x', &[("uid", b"4000000000"), ("mtime", b"-3.75")])
        .file("b", "content")
        .pax(b'x', &[("path", path.as_bytes())])
        .file("x", "1")
        .pax(b'x', &[("linkpath", path.as_bytes())])
        .symlink("s", "x")
        .pax(b'x', &[("linkpath", path.as_bytes())])
        .hardlink("h", "x")
        .end();
    let back = to_tar(to_image(&tar), &DiskToTarOptions::default());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &back).unwrap();
    let out = judge::succeed(
        "tar",
        &[
            "--numeric-owner",
            "--full-time",
            "-tvf",
            file.path().to_str().unwrap(),
        ],
    );
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(&format!("s -> {path}")), "{text}");
    assert!(text.contains("4000000000/0"), "{text}");
    // GNU tar shows 3.75 seconds before 1970 as the fraction of a truncated second.
    assert!(text.contains("1969-12-31 23:59:57.75"), "{text}");
    assert!(text.contains(&format!("h link to {path}")), "{text}");
}

/// A step in a random tar.
#[derive(Clone, Debug)]
enum Op {
    File(u8, Vec<u8>),
    Big(u8, u32),
    Directory(u8),
    Symlink(u8, u8),
    HardLink(u8, usize),
    Device(u8, u8),
    Fifo(u8),
    Whiteout(u8),
    Opaque(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(p, d)| Op::File(p, d)),
        2 => (any::<u8>(), 0..200_000u32).prop_map(|(p, d)| Op::Big(p, d)),
        3 => any::<u8>().prop_map(Op::Directory),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(p, t)| Op::Symlink(p, t)),
        2 => (any::<u8>(), any::<usize>()).prop_map(|(p, t)| Op::HardLink(p, t)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(p, t)| Op::Device(p, t)),
        1 => any::<u8>().prop_map(Op::Fifo),
        1 => any::<u8>().prop_map(Op::Whiteout),
        1 => any::<u8>().prop_map(Op::Opaque),
    ]
}

/// Few names, so that entries meet; every third level of a path is a folder of its own.
fn path(seed: u8) -> String {
    let names = ["a", "b", "c", "ein längerer name"];
    let at = |shift: u8| names[usize::from(seed >> shift & 3)];
    match seed >> 6 {
        0 => at(0).to_owned() + "0",
        1 | 2 => format!("{}/{}1", at(0), at(2)),
        _ => format!("{}/{}/{}2", at(0), at(2), at(4)),
    }
}

fn build(ops: &[(Op, u32, i64, u16)]) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut files: Vec<String> = Vec::new();
    for (op, owner, time, mode) in ops {
        let time_text = format!("{time}.{:09}", owner.wrapping_mul(7919) % 1_000_000_000);
        let value = owner.to_le_bytes();
        let mut records: Vec<(&str, &[u8])> = vec![("mtime", time_text.as_bytes())];
        let owner_text = owner.to_string();
        records.push(("uid", owner_text.as_bytes()));
        if owner % 3 == 0 {
            records.push(("SCHILY.xattr.trusted.x", &value));
        }
        let header = |name: String, kind, size| Header {
            mode: octal(u64::from(mode & 0o7777), 8),
            ..Header::new(name, kind, size)
        };
        tar = match op {
            Op::File(seed, data) => {
                let name = path(*seed);
                files.push(name.clone());
                tar.pax(b'x', &records)
                    .header(&header(name, b'0', data.len() as u64))
                    .data(data)
            }
            Op::Big(seed, size) => {
                let name = path(*seed);
                files.push(name.clone());
                let data: Vec<u8> = (0..*size)
                    .map(|at| {
                        if at / 10_000 % 2 == 0 {
                            0
                        } else {
                            (at % 251) as u8
                        }
                    })
                    .collect();
                tar.pax(b'x', &records)
                    .header(&header(name, b'0', data.len() as u64))
                    .data(data)
            }
            // Folders have names of their own, so that nothing stands in a path's way.
            Op::Directory(seed) => {
                let name = path(*seed);
                let name = name
                    .rsplit_once('/')
                    .map_or("a", |(parent, _)| parent)
                    .to_owned();
                tar.pax(b'x', &records).header(&header(name, b'5', 0))
            }
            Op::Symlink(seed, target) => tar
                .pax(b'x', &records)
                .header(&header(path(*seed), b'2', 0).link(path(*target))),
            Op::HardLink(seed, which) => {
                let name = path(*seed);
                match files.get(which % files.len().max(1)) {
                    Some(target) if *target != name => tar.hardlink(name, target),
                    _ => tar,
                }
            }
            Op::Device(seed, number) => tar.pax(b'x', &records).header(&Header {
                major: octal(u64::from(*number) + 1, 8),
                minor: octal(u64::from(*number) * 7, 8),
                ..header(path(*seed), b'4', 0)
            }),
            Op::Fifo(seed) => tar
                .pax(b'x', &records)
                .header(&header(path(*seed), b'6', 0)),
            Op::Whiteout(seed) => {
                let name = path(*seed);
                let (parent, name) = name.rsplit_once('/').unwrap_or((".", &name));
                tar.file(format!("{parent}/.wh.{name}w"), "")
            }
            Op::Opaque(seed) => {
                let name = path(*seed);
                let parent = name.rsplit_once('/').map_or(".", |(parent, _)| parent);
                tar.file(format!("{parent}/.wh..wh..opq"), "")
            }
        };
    }
    tar.end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_tars_round_trip(
        ops in prop::collection::vec(
            (op(), any::<u32>(), -2_000_000_000..9_000_000_000i64, any::<u16>()),
            0..60,
        ),
        sparse in any::<bool>(),
    ) {
        let tar = build(&ops);
        let image = to_image(&tar);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &image).unwrap();
        judge::fsck(file.path());
        let options = DiskToTarOptions { sparse, ..DiskToTarOptions::default() };
        let back = to_tar(image.clone(), &options);
        let again = to_image(&back);
        prop_assert_eq!(listing::list(image), listing::list(again.clone()));
        // The second time round nothing is left to put in order.
        prop_assert!(to_tar(again, &options) == back);
    }
}
