//! Trees through tar, image and tar again.

use opengcs_layer::{
    DiskToTarOptions, DiskWhiteouts, ErrorKind, FilesystemOptions, TarToExt4Options, ext4_to_tar,
    tar_to_ext4,
};
use proptest::prelude::*;

use crate::forge::{Header, Tar, octal};
use crate::{judge, listing};

fn to_image(tar: &[u8]) -> Vec<u8> {
    to_image_of(tar, 4096, false)
}

fn to_image_of(tar: &[u8], block_size: u32, inline_data: bool) -> Vec<u8> {
    let options = TarToExt4Options {
        filesystem: FilesystemOptions {
            lost_found: false,
            block_size,
            inline_data,
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

/// The `lost+found` that every image gets unasked is not the tar's, and hides nothing of it.
#[test]
fn what_a_tar_says_of_lost_found_comes_back() {
    for (tar, expected) in [
        (
            Tar::new().file(".wh.lost+found", ""),
            &["./", ".wh.lost+found"][..],
        ),
        (
            Tar::new().file("lost+found/.wh..wh..opq", ""),
            &["./", "lost+found/", "lost+found/.wh..wh..opq"],
        ),
        // Its own folder and what it hides: that folder is opaque.
        (
            Tar::new().dir("lost+found").file(".wh.lost+found", ""),
            &["./", "lost+found/", "lost+found/.wh..wh..opq"],
        ),
        (
            Tar::new()
                .file(".wh.lost+found", "")
                .file("lost+found/a", ""),
            &[
                "./",
                "lost+found/",
                "lost+found/.wh..wh..opq",
                "lost+found/a",
            ],
        ),
        (
            Tar::new()
                .file("lost+found/a", "")
                .file(".wh.lost+found", ""),
            &[
                "./",
                "lost+found/",
                "lost+found/.wh..wh..opq",
                "lost+found/a",
            ],
        ),
        (
            Tar::new().file("lost+found", "a file"),
            &["./", "lost+found"],
        ),
    ] {
        let tar = tar.end();
        let file = tempfile::NamedTempFile::new().unwrap();
        for format in [0, 1] {
            let mut options = TarToExt4Options::default();
            options.filesystem.inline_data = format == 1;
            let mut image = Vec::new();
            tar_to_ext4(&tar[..], &mut image, &options).unwrap();
            std::fs::write(file.path(), &image).unwrap();
            judge::fsck(file.path());
            let back = to_tar(image, &DiskToTarOptions::default());
            assert_eq!(names(&back), expected);
        }
    }
}

#[test]
fn folder_named_as_a_whiteout_is_warned_of() {
    let tar = Tar::new().dir(".wh.d").file(".wh.d/a", "").end();
    let options = TarToExt4Options {
        whiteouts: opengcs_layer::TarWhiteouts::Keep,
        ..TarToExt4Options::default()
    };
    let mut image = Vec::new();
    tar_to_ext4(&tar[..], &mut image, &options).unwrap();
    let export = |whiteouts| {
        let options = DiskToTarOptions {
            whiteouts,
            ..DiskToTarOptions::default()
        };
        ext4_to_tar(image.clone(), std::io::sink(), &options).unwrap()
    };
    assert!(export(DiskWhiteouts::Keep).warnings.is_empty());
    let warnings = export(DiskWhiteouts::Oci).warnings;
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("\".wh.d\"") && told[0].contains("folder"));
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
    Sparse(u8, u32),
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
        1 => (any::<u8>(), any::<u32>()).prop_map(|(p, d)| Op::Sparse(p, d)),
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
    let long = "n".repeat(240);
    let names = ["a", "b\\s", "ein längerer\nname", &long];
    let at = |shift: u8| names[usize::from(seed >> shift & 3)];
    match seed >> 6 {
        0 => at(0).to_owned() + "0",
        1 | 2 => format!("{}/{}1", at(0), at(2)),
        _ => format!("{}/{}/{}2", at(0), at(2), at(4)),
    }
}

/// The folder that a path lies in, and its last name.
fn parts(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or((".", path))
}

fn build(ops: &[(Op, u32, i64, u16)]) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut linkable: Vec<String> = Vec::new();
    for (op, owner, time, mode) in ops {
        let (seed, kind) = match op {
            Op::File(seed, _) | Op::Big(seed, _) | Op::Sparse(seed, _) => (seed, b'0'),
            Op::Directory(seed) => (seed, b'5'),
            Op::Symlink(seed, _) => (seed, b'2'),
            Op::HardLink(seed, _) => (seed, b'1'),
            Op::Device(seed, number) => (seed, b'3' + number % 2),
            Op::Fifo(seed) => (seed, b'6'),
            Op::Whiteout(seed) | Op::Opaque(seed) => (seed, b'0'),
        };
        let name = path(*seed);
        let (parent, last) = parts(&name);
        let name = match op {
            // Folders have names of their own, so that nothing stands in a path's way.
            Op::Directory(_) if parent == "." => "a".to_owned(),
            Op::Directory(_) => parent.to_owned(),
            Op::Whiteout(_) => format!("{parent}/.wh.{last}w"),
            Op::Opaque(_) => format!("{parent}/.wh..wh..opq"),
            _ => name,
        };
        let link = match op {
            Op::Symlink(_, target) => path(*target),
            Op::HardLink(_, which) => match linkable.get(which % linkable.len().max(1)) {
                Some(target) if *target != name => target.clone(),
                _ => continue,
            },
            _ => String::new(),
        };
        let mut size = None;
        let data = match op {
            Op::File(_, data) => data.clone(),
            Op::Big(_, size) => (0..*size)
                .map(|at| {
                    if at / 10_000 % 2 == 0 {
                        0
                    } else {
                        (at % 251) as u8
                    }
                })
                .collect(),
            Op::Sparse(_, at) => {
                let (offset, length) = (at % 3_000_000, at % 700 + 1);
                size = Some((offset + length + at % 9000).to_string());
                let mut data = format!("1\n{offset}\n{length}\n").into_bytes();
                data.resize(512, 0);
                data.resize(512 + length as usize, 7);
                data
            }
            _ => Vec::new(),
        };
        let time = format!("{time}.{:09}", owner.wrapping_mul(7919) % 1_000_000_000);
        let (uid, gid) = (owner.to_string(), (owner / 3).to_string());
        let value = vec![owner.to_le_bytes()[0]; *owner as usize % 1500];
        let mut records: Vec<(&str, &[u8])> = Vec::new();
        if let Some(size) = &size {
            records.push(("GNU.sparse.major", b"1"));
            records.push(("GNU.sparse.minor", b"0"));
            records.push(("GNU.sparse.name", name.as_bytes()));
            records.push(("GNU.sparse.realsize", size.as_bytes()));
        } else {
            records.push(("path", name.as_bytes()));
        }
        if !link.is_empty() {
            records.push(("linkpath", link.as_bytes()));
        }
        if !matches!(op, Op::HardLink(..) | Op::Whiteout(_) | Op::Opaque(_)) {
            records.push(("mtime", time.as_bytes()));
            records.push(("uid", uid.as_bytes()));
            records.push(("gid", gid.as_bytes()));
            if owner % 3 == 0 {
                records.push(("SCHILY.xattr.trusted.x", &value));
                records.push(("SCHILY.xattr.trusted.y", b"\0=\n"));
            }
        }
        let number = match op {
            Op::Device(_, number) => u64::from(*number),
            _ => 0,
        };
        let header = Header {
            mode: octal(u64::from(mode & 0o7777), 8),
            major: octal(number + 1, 8),
            minor: octal(number * 7, 8),
            ..Header::new("x", kind, data.len() as u64)
        };
        tar = tar.pax(b'x', &records).header(&header).data(data);
        if !matches!(
            op,
            Op::Directory(_) | Op::HardLink(..) | Op::Whiteout(_) | Op::Opaque(_)
        ) {
            linkable.push(name);
        }
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
        block_size in prop_oneof![Just(1024), Just(2048), Just(4096)],
        inline_data in any::<bool>(),
    ) {
        let tar = build(&ops);
        let image = to_image_of(&tar, block_size, inline_data);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &image).unwrap();
        judge::fsck(file.path());
        let options = DiskToTarOptions { sparse, ..DiskToTarOptions::default() };
        let back = to_tar(image.clone(), &options);
        // Holes are as fine as blocks, so the blocks are the same.
        let again = to_image_of(&back, block_size, inline_data);
        prop_assert_eq!(listing::list(image), listing::list(again.clone()));
        // Bytes may differ from here on in their order alone: a tar does not say when the second name
        // of a node was made.
        let third = to_image_of(&to_tar(again.clone(), &options), block_size, inline_data);
        prop_assert_eq!(listing::list(again), listing::list(third));
    }
}
