//! Chains of layers become one image: as a program that knows only OCI's rules applies their tars.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use opengcs_ext4::{Reader, SegmentKind};
use opengcs_layer::{
    Control, ErrorKind, Existing, Format, SquashOptions, TarToDiskOptions, TarWhiteouts,
    create_scratch, squash, tar_to_disk,
};
use opengcs_vhd::{Access, Disk};

use crate::forge::Tar;
use crate::{judge, listing};

mod chains;

use chains::{Chance, odd_chains};

fn options() -> SquashOptions {
    let mut options = SquashOptions {
        format: Format::Raw,
        sync: false,
        ..SquashOptions::default()
    };
    options.filesystem.lost_found = false;
    options
}

fn keeping() -> SquashOptions {
    SquashOptions {
        keep_whiteouts: true,
        ..options()
    }
}

/// The chain that makes a chain of tars into disks, and lists what they are squashed to.
struct Chain {
    folder: tempfile::TempDir,
    tars: Vec<PathBuf>,
    disks: Vec<PathBuf>,
}

impl Chain {
    fn new(tars: &[Vec<u8>]) -> Self {
        Self::of(tars, &TarToDiskOptions::default())
    }

    fn of(tars: &[Vec<u8>], options: &TarToDiskOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut chain = Self {
            folder,
            tars: Vec::new(),
            disks: Vec::new(),
        };
        for (number, tar) in tars.iter().enumerate() {
            let path = chain.path(&format!("{number}.tar"));
            fs::write(&path, tar).unwrap();
            chain.tars.push(path);
            let disk = chain.path(&format!("{number}.vhd"));
            let options = TarToDiskOptions {
                sync: false,
                ..options.clone()
            };
            tar_to_disk(&tar[..], &disk, &options).unwrap();
            chain.disks.push(disk);
        }
        chain
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn squash<P: AsRef<Path>>(&self, layers: &[P], options: &SquashOptions) -> PathBuf {
        let path = self.path("all.img");
        squash(layers, &path, options).unwrap();
        path
    }

    fn list<P: AsRef<Path>>(&self, layers: &[P], options: &SquashOptions) -> Vec<String> {
        let path = self.squash(layers, options);
        judge::fsck(&path);
        let mut lines = listing::list(File::open(&path).unwrap());
        lines.sort();
        lines
    }

    fn refused(&self, options: &SquashOptions) -> opengcs_layer::Error {
        let path = self.path("refused.img");
        let error = squash(&self.disks, &path, options).unwrap_err();
        assert!(!path.exists());
        error
    }
}

/// What the other program makes of each chain.
fn applied(chains: &[&Chain]) -> Vec<Vec<String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/squash/judge.py");
    let mut arguments = vec![script.to_owned()];
    arguments.extend(chains.iter().map(|chain| {
        let paths = chain.tars.iter().map(|path| path.to_str().unwrap());
        paths.collect::<Vec<_>>().join(":")
    }));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = String::from_utf8(judge::succeed("python3", &arguments)).unwrap();
    let mut lists = vec![Vec::new()];
    for line in said.lines() {
        if line == "==" {
            lists.push(Vec::new());
        } else {
            lists.last_mut().unwrap().push(line.to_owned());
        }
    }
    lists.pop();
    for lines in &mut lists {
        lines.sort();
    }
    assert_eq!(lists.len(), chains.len());
    lists
}

fn check(chains: &[(String, Vec<Vec<u8>>)]) {
    let kept = TarToDiskOptions {
        ext4: opengcs_layer::TarToExt4Options {
            whiteouts: TarWhiteouts::Keep,
            ..opengcs_layer::TarToExt4Options::default()
        },
        ..TarToDiskOptions::default()
    };
    let made: Vec<Chain> = chains.iter().map(|(_, tars)| Chain::new(tars)).collect();
    let expected = applied(&made.iter().collect::<Vec<_>>());
    for (((name, tars), chain), expected) in chains.iter().zip(&made).zip(expected) {
        let got = chain.list(&chain.disks, &options());
        assert_eq!(got, expected, "{name}");
        // Layers that keep OCI's names say the same.
        let names = Chain::of(tars, &kept);
        assert_eq!(
            names.list(&names.disks, &options()),
            expected,
            "{name}, kept"
        );
        // So do the tars themselves, and to the byte.
        let of_disks = fs::read(chain.path("all.img")).unwrap();
        let of_tars = fs::read(chain.squash(&chain.tars, &options())).unwrap();
        assert!(of_disks == of_tars, "{name}, tars");
        // The upper layers may be squashed first, as long as they keep what they hide.
        for split in 1..chain.disks.len() {
            let (below, above) = chain.disks.split_at(split);
            let upper = chain.path("upper.vhdx");
            let upper_options = SquashOptions {
                format: Format::Vhdx,
                ..keeping()
            };
            squash(above, &upper, &upper_options).unwrap();
            let parts: Vec<&Path> = below
                .iter()
                .map(PathBuf::as_path)
                .chain([upper.as_path()])
                .collect();
            assert_eq!(
                chain.list(&parts, &options()),
                expected,
                "{name}, from {split}"
            );
        }
    }
}

#[test]
#[cfg_attr(
    windows,
    ignore = "the judge parts paths at colons, which drive letters have"
)]
fn odd_chains_are_squashed_as_oci_applies_their_tars() {
    let chains: Vec<_> = odd_chains()
        .into_iter()
        .map(|(name, tars)| (name.into(), tars))
        .collect();
    check(&chains);
}

#[test]
#[cfg_attr(
    windows,
    ignore = "the judge parts paths at colons, which drive letters have"
)]
fn random_chains_are_squashed_as_oci_applies_their_tars() {
    let mut chance = Chance(0x5EED_0042);
    let chains = (0..30).map(|number| {
        let layers = 2 + chance.below(4);
        let tars = (0..layers).map(|_| chance.layer()).collect();
        (format!("random chain {number}"), tars)
    });
    check(&chains.collect::<Vec<_>>());
}

#[test]
fn holes_large_files_and_large_attributes_stay_as_they_are() {
    let mut noise = Chance(7);
    let bytes: Vec<u8> = (0..1_500_000).map(|_| noise.below(255) as u8 + 1).collect();
    let value = vec![b'v'; 60_000];
    let chain = Chain::new(&[
        Tar::new()
            .pax(
                b'x',
                &[
                    ("GNU.sparse.size", b"900000000"),
                    ("GNU.sparse.name", b"sparse"),
                    ("GNU.sparse.map", b"500000000,1000"),
                ],
            )
            .file("x", &bytes[..1000])
            .file("hidden", vec![3; 5 << 20])
            .end(),
        Tar::new()
            .pax(b'x', &[("SCHILY.xattr.user.large", &value)])
            .file("noise", &bytes)
            .file("hidden", "")
            .end(),
    ]);
    let squashed = squash(&chain.disks, &chain.path("all.img"), &options()).unwrap();
    assert_eq!((squashed.entries, squashed.bytes), (3, 1_500_000 + 4096));
    assert!(squashed.size < 3 << 20, "{}", squashed.size);
    judge::fsck(&chain.path("all.img"));
    let reader = Reader::open(File::open(chain.path("all.img")).unwrap()).unwrap();
    let entries = reader
        .read_dir(&reader.inode(reader.root()).unwrap())
        .unwrap();
    let inode = |name: &[u8]| {
        let entry = entries.iter().find(|entry| entry.name == name).unwrap();
        reader.inode(entry.inode).unwrap()
    };
    let segments: Vec<_> = reader
        .segments(&inode(b"sparse"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let kinds: Vec<_> = segments.iter().map(|segment| segment.kind).collect();
    assert_eq!(
        kinds,
        [SegmentKind::Hole, SegmentKind::Data, SegmentKind::Hole]
    );
    assert_eq!(segments[1].length, 4096);
    let mut back = vec![0; bytes.len()];
    reader.read_at(&inode(b"noise"), 0, &mut back).unwrap();
    assert!(back == bytes);
    let xattrs = reader.xattrs(&inode(b"noise")).unwrap();
    assert_eq!((xattrs.len(), &xattrs[0].value), (1, &value));
}

#[test]
fn disks_of_all_formats_folders_and_sandboxes_are_layers() {
    let chain = Chain::new(&[Tar::new().file("a", "1").file("b", "1").end()]);
    let vhdx = chain.path("1.vhdx");
    let middle = TarToDiskOptions {
        format: Format::Vhdx,
        sync: false,
        ..TarToDiskOptions::default()
    };
    let tar = Tar::new().file("b", "2").end();
    tar_to_disk(&tar[..], &vhdx, &middle).unwrap();
    // What a VM leaves in a sandbox: the changes lie in its `upper`.
    let folder = chain.path("sandbox");
    fs::create_dir(&folder).unwrap();
    let sandbox = folder.join("sandbox.vhdx");
    let tar = Tar::new()
        .dir("upper/")
        .device("upper/a", b'3', 0, 0)
        .file("upper/c", "3")
        .dir("work/")
        .end();
    tar_to_disk(&tar[..], &sandbox, &middle).unwrap();
    let layers = [&chain.disks[0], &vhdx, &folder];
    assert_eq!(chain.list(&layers, &options()), ["b =2", "c =3"]);
    let named = SquashOptions {
        sandbox: true,
        ..options()
    };
    let layers = [&chain.disks[0], &vhdx, &sandbox];
    assert_eq!(chain.list(&layers, &named), ["b =2", "c =3"]);
    let error = squash(&chain.disks, &chain.path("x"), &named).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let empty = chain.path("scratch.vhdx");
    create_scratch(&empty, &opengcs_layer::ScratchOptions::default()).unwrap();
    let layers = [&chain.disks[0], &empty];
    assert_eq!(chain.list(&layers, &options()), ["a =1", "b =1"]);
}

#[test]
fn options_of_the_image_are_those_of_a_conversion() {
    let chain = Chain::new(&[
        Tar::new().file("a", "1").end(),
        Tar::new()
            .dir("lost+found/")
            .file("lost+found/x", "1")
            .end(),
    ]);
    let mut wanted = SquashOptions {
        format: Format::Vhdx,
        verity: true,
        ..options()
    };
    wanted.filesystem.size = Some(16 << 20);
    wanted.filesystem.journal = Some(4 << 20);
    wanted.filesystem.label = "mine".into();
    wanted.filesystem.lost_found = true;
    let path = chain.path("all.vhdx");
    let squashed = squash(&chain.disks, &path, &wanted).unwrap();
    let found = opengcs_layer::inspect(&path).unwrap();
    assert_eq!(found.disk.format, "vhdx");
    assert_eq!(found.verity, squashed.verity);
    let filesystem = found.filesystem.unwrap();
    assert_eq!(filesystem.label, "mine");
    assert_eq!(filesystem.blocks * 4096, 16 << 20);
    assert_eq!(squashed.inodes, filesystem.inodes - filesystem.free_inodes);
    assert_eq!(squashed.virtual_size, found.disk.virtual_size);
    let lines = listing::list(Disk::open(File::open(&path).unwrap(), Access::ReadOnly).unwrap());
    assert_eq!(lines, ["a =1", "lost+found/", "lost+found/x =1"]);
    // The same layers give the same bytes.
    let before = fs::read(&path).unwrap();
    squash(&chain.disks, &path, &wanted).unwrap();
    assert!(fs::read(&path).unwrap() == before);
    // A file of that name takes the writer's own folder's place.
    let file = Chain::new(&[Tar::new().file("lost+found", "1").end()]);
    let path = file.path("all.img");
    wanted.format = Format::Raw;
    wanted.verity = false;
    squash(&file.disks, &path, &wanted).unwrap();
    assert_eq!(listing::list(File::open(&path).unwrap()), ["lost+found =1"]);
}

#[test]
fn what_overlayfs_left_elsewhere_is_refused_by_name() {
    for (attribute, on) in [
        ("trusted.overlay.redirect", "d/"),
        ("trusted.overlay.metacopy", "d/f"),
        ("user.overlay.metacopy", "d/f"),
    ] {
        let record = format!("SCHILY.xattr.{attribute}");
        let records: [(&str, &[u8]); 1] = [(&record, b"x")];
        let mut top = Tar::new().dir("d/");
        if on == "d/" {
            top = Tar::new().pax(b'x', &records).dir("d/");
        } else {
            top = top.pax(b'x', &records).file(on, "");
        }
        let chain = Chain::new(&[Tar::new().dir("d/").file("d/f", "1").end(), top.end()]);
        let error = chain.refused(&options());
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let line = error.to_string();
        for word in [attribute, "1.vhd", on.trim_end_matches('/')] {
            assert!(line.contains(word), "no {word:?} in {line}");
        }
    }
    // What is only a note of overlayfs's goes, and what belongs to an overlay within comes out.
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.trusted.overlay.origin", b"1"),
        ("SCHILY.xattr.trusted.overlay.impure", b"y"),
        ("SCHILY.xattr.trusted.overlay.overlay.opaque", b"y"),
    ];
    let chain = Chain::new(&[
        Tar::new().dir("d/").file("d/f", "1").end(),
        Tar::new().pax(b'x', &records).dir("d/").end(),
    ]);
    let expected = ["d/ {trusted.overlay.opaque=y}", "d/f =1"];
    assert_eq!(chain.list(&chain.disks, &options()), expected);
}

#[test]
fn failures_leave_nothing_and_say_where() {
    let chain = Chain::new(&[
        Tar::new().file("a", "1").end(),
        Tar::new().file("b", vec![7; 3 << 20]).end(),
    ]);
    let none: [&Path; 0] = [];
    let error = squash(&none, &chain.path("x"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let mut small = options();
    small.filesystem.size = Some(1 << 20);
    let error = chain.refused(&small);
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.to_string().contains("refused.img"), "{error}");
    let missing = [chain.disks[0].clone(), chain.path("missing.vhd")];
    let error = squash(&missing, &chain.path("x"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("missing.vhd"), "{error}");
    let torn = chain.path("torn.tar");
    let tar = fs::read(&chain.tars[1]).unwrap();
    fs::write(&torn, &tar[..5000]).unwrap();
    let error = squash(&[&chain.disks[0], &torn], &chain.path("x"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("torn.tar"), "{error}");
    let control = Control::new();
    control.cancel();
    let error = chain.refused(&SquashOptions {
        control,
        ..options()
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let there = chain.path("there");
    fs::write(&there, "mine").unwrap();
    let keep = SquashOptions {
        existing: Existing::Keep,
        ..options()
    };
    let error = squash(&chain.disks, &there, &keep).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&there).unwrap(), b"mine");
    assert!(!chain.path("x").exists());
}

/// A damaged or hostile disk whose directory is its own child must not be walked for ever.
#[test]
fn a_disk_that_leads_in_circles_is_corrupt() {
    let chain = Chain::new(&[]);
    let path = chain.path("circle.img");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let image = path.to_str().unwrap();
    judge::succeed("mke2fs", &["-q", "-t", "ext4", image]);
    for request in ["mkdir outer", "link outer outer/inner"] {
        judge::succeed("debugfs", &["-w", "-R", request, image]);
    }
    let error = squash(&[&path], &chain.path("x"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let line = error.to_string();
    for word in ["circle.img", "outer/inner", "more than once"] {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}
