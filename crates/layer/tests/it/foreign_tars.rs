//! What tools really write: each tar must give the tree that GNU tar extracts from it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use opengcs_layer::{DiskToTarOptions, ext4_to_tar, tar_to_ext4};

use crate::corpus::options;
use crate::judge;

/// A tool, and what it is called with; `DIR` and `OUT` stand for the source and the tar. The last
/// word says how much it can tell: `plain` names and nodes, or `all`.
const TOOLS: &[(&str, &str, &str)] = &[
    ("tar", "--format=v7 -C DIR -cf OUT plain", "plain"),
    ("tar", "--format=ustar -C DIR -cf OUT plain", "plain"),
    ("tar", "--format=oldgnu -C DIR -cf OUT .", "all"),
    ("tar", "--format=oldgnu -S -C DIR -cf OUT .", "all"),
    ("tar", "--format=gnu -C DIR -cf OUT ./", "all"),
    ("tar", "--format=gnu -S -b 1 -C DIR -cf OUT .", "all"),
    (
        "tar",
        "--format=gnu --incremental -C DIR -cf OUT .",
        "incremental",
    ),
    ("tar", "--format=posix -C DIR -cf OUT .", "all"),
    ("tar", "--format=posix --xattrs -C DIR -cf OUT .", "all"),
    (
        "tar",
        "--format=posix -S --sparse-version=0.0 -C DIR -cf OUT .",
        "all",
    ),
    (
        "tar",
        "--format=posix -S --sparse-version=0.1 -C DIR -cf OUT .",
        "all",
    ),
    (
        "tar",
        "--format=posix -S --sparse-version=1.0 -C DIR -cf OUT .",
        "all",
    ),
    (
        "tar",
        "--format=posix --pax-option=globexthdr.name=/g/%n,comment=x -C DIR -cf OUT .",
        "all",
    ),
    (
        "tar",
        "--format=posix -P --transform=s,^,/, -C DIR -cf OUT plain",
        "plain",
    ),
    (
        "tar",
        "--sort=name --hard-dereference -h -C DIR/plain -cf OUT d",
        "plain",
    ),
    ("bsdtar", "--format=ustar -C DIR -cf OUT plain", "plain"),
    ("bsdtar", "--format=v7tar -C DIR -cf OUT plain", "plain"),
    (
        "bsdtar",
        "--format=pax --no-read-sparse -C DIR -cf OUT .",
        "all",
    ),
    ("bsdtar", "--format=pax -C DIR -cf OUT .", "all"),
    (
        "bsdtar",
        "--format=pax --options hdrcharset=BINARY -C DIR -cf OUT .",
        "all",
    ),
    ("bsdtar", "--format=gnutar -C DIR -cf OUT .", "all"),
    ("bsdtar", "--format=pax --gzip -C DIR -cf OUT .", "all"),
    ("bsdtar", "--format=pax --zstd -C DIR -cf OUT .", "all"),
    ("bsdtar", "--format=pax --xz -C DIR -cf OUT .", "all"),
    ("busybox", "tar -C DIR -cf OUT plain", "plain"),
    ("busybox", "tar -z -C DIR -cf OUT plain long", "plain"),
    (
        "python3",
        "-c import&tarfile;t=tarfile.open('OUT','w',format=0);t.add('DIR/plain','plain');t.close()",
        "plain",
    ),
    (
        "python3",
        "-c import&tarfile;t=tarfile.open('OUT','w',format=1);t.add('DIR','.');t.close()",
        "all",
    ),
    (
        "python3",
        "-c import&tarfile;t=tarfile.open('OUT','w',format=2);t.add('DIR','.');t.close()",
        "all",
    ),
    (
        "python3",
        "-c import&tarfile;t=tarfile.open('OUT','w:gz');t.add('DIR','./');t.close()",
        "all",
    ),
    (
        "sh",
        "-c cd&'DIR';find&plain|cpio&-o&-H&ustar&--quiet>'OUT'",
        "plain",
    ),
    (
        "sh",
        "-c cd&'DIR';find&plain|cpio&-o&-H&tar&--quiet>'OUT'",
        "plain",
    ),
    ("sh", "-c cd&'DIR';pax&-w&-x&ustar&plain>'OUT'", "plain"),
    ("sh", "-c cd&'DIR';pax&-w&-x&tar&plain>'OUT'", "plain"),
    (
        "sh",
        "-c cd&'DIR'&&&git&init&-q&&&git&add&plain/d&&&git&-c&user.name=a&-c&user.email=a&commit&-qma&&&git&archive&HEAD>'OUT'",
        "git",
    ),
];

/// Makes what is to be packed; odd things only below `odd`, long names only below `long`.
fn source(folder: &Path) {
    let (plain, long, odd) = (
        folder.join("plain"),
        folder.join("long"),
        folder.join("odd"),
    );
    for folder in [&plain.join("d/e"), &long, &odd] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(plain.join("empty"), "").unwrap();
    fs::write(plain.join("d/a"), "content\n").unwrap();
    fs::write(plain.join("d/block"), [7; 512]).unwrap();
    fs::write(plain.join("d/more"), vec![9; 70_001]).unwrap();
    fs::hard_link(plain.join("d/a"), plain.join("d/e/linked")).unwrap();
    symlink("../a", plain.join("d/e/symlink")).unwrap();
    symlink("nowhere", plain.join("dangling")).unwrap();
    fs::write(plain.join("with space"), "s").unwrap();
    for length in [99, 100, 101, 155, 255] {
        fs::write(long.join("n".repeat(length)), "long").unwrap();
    }
    let deep = (0..30).fold(long.clone(), |path, _| path.join("directory"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    symlink("t".repeat(180), long.join("far")).unwrap();
    fs::hard_link(long.join("n".repeat(155)), long.join("h".repeat(120))).unwrap();
    fs::write(odd.join("Ünïcode ☃"), "u").unwrap();
    fs::write(odd.join("line\nbreak"), "l").unwrap();
    fs::write(odd.join("back\\slash"), "b").unwrap();
    judge::succeed("mkfifo", &["-m", "640", odd.join("fifo").to_str().unwrap()]);
    for (name, runs) in [
        ("holes", &[200_000, 900_000][..]),
        ("many", &[]),
        ("end", &[0]),
    ] {
        let file = File::create(odd.join(name)).unwrap();
        file.set_len(1_500_000).unwrap();
        for at in runs {
            file.write_all_at(b"data", *at).unwrap();
        }
        if name == "many" {
            for piece in 0..40 {
                file.write_all_at(&[5; 4096], piece * 36_864).unwrap();
            }
        }
    }
    let _ = Command::new("setfattr")
        .args(["-n", "user.a", "-v", "1"])
        .arg(odd.join("end"))
        .status();
    for (path, mode) in [
        ("plain/d/a", "4751"),
        ("plain/empty", "600"),
        ("odd", "1777"),
    ] {
        judge::succeed("chmod", &[mode, folder.join(path).to_str().unwrap()]);
    }
    for (path, time) in [
        ("plain/d/a", "2001-02-03 04:05:06"),
        ("plain/d/more", "2040-01-01 00:00:00"),
        ("odd/end", "1960-01-01 00:00:00.25"),
        ("long/far", "1999-12-31 23:59:59.999999999"),
        ("plain/d", "2010-01-01 00:00:00"),
    ] {
        let path = folder.join(path);
        judge::succeed("touch", &["-h", "-d", time, path.to_str().unwrap()]);
    }
}

/// A node of a folder, as text.
fn describe(path: &Path, first: &mut BTreeMap<u64, PathBuf>, name: &Path) -> String {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let mut line = format!(
        "{:o} {}:{} {}.{:09}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    if kind.is_symlink() {
        line += &format!(" ->{:?}", fs::read_link(path).unwrap());
    } else if kind.is_file() {
        let content = fs::read(path).unwrap();
        let sum = content.iter().fold(7_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        line += &format!(" {} bytes {sum:x}", content.len());
    }
    if !kind.is_dir() {
        let first = first
            .entry(metadata.ino())
            .or_insert_with(|| name.to_path_buf());
        line += &format!(" n{} {first:?}", metadata.nlink());
    }
    line
}

fn walk(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let mut names: Vec<_> = fs::read_dir(root.join(&folder))
            .unwrap()
            .map(|entry| folder.join(entry.unwrap().file_name()))
            .collect();
        names.sort();
        for name in names {
            let path = root.join(&name);
            if path.is_dir() && !path.is_symlink() {
                open.push(name.clone());
            }
            let line = describe(&path, &mut first, &name);
            found.insert(name, line);
        }
    }
    found
}

/// What GNU tar makes of a tar.
fn extract(tar: &Path, into: &Path) -> BTreeMap<PathBuf, String> {
    fs::create_dir(into).unwrap();
    let (tar, into_text) = (tar.to_str().unwrap(), into.to_str().unwrap());
    judge::succeed(
        "tar",
        &[
            "--numeric-owner",
            "--delay-directory-restore",
            "-xpf",
            tar,
            "-C",
            into_text,
        ],
    );
    let found = walk(into);
    judge::succeed("chmod", &["-R", "u+rwx", into_text]);
    fs::remove_dir_all(into).unwrap();
    found
}

fn pack(program: &str, arguments: &str, source: &Path, out: &Path) {
    let words = arguments.split(' ').map(|word| {
        let word = word
            .replace("&&&", "\0")
            .replace('&', " ")
            .replace('\0', " && ");
        let word = word.replace("DIR", source.to_str().unwrap());
        word.replace("OUT", out.to_str().unwrap())
    });
    let output = Command::new(program)
        .args(words)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed and cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn tree_of_ours(tar: &Path, into: &Path) -> Result<BTreeMap<PathBuf, String>, String> {
    let mut image = Vec::new();
    let input = File::open(tar).unwrap();
    tar_to_ext4(input, &mut image, &options()).map_err(|error| error.to_string())?;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &image).unwrap();
    judge::fsck(file.path());
    let back = tempfile::NamedTempFile::new().unwrap();
    ext4_to_tar(image, back.as_file(), &DiskToTarOptions::default())
        .map_err(|error| error.to_string())?;
    Ok(extract(back.path(), into))
}

#[test]
fn tars_of_real_tools_give_what_gnu_tar_extracts() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    self::source(&source);
    let nodes = walk(&source);
    let mut wrong = Vec::new();
    for (program, arguments, extent) in TOOLS {
        let tar = folder.path().join("tar");
        pack(program, arguments, &source, &tar);
        let right = extract(&tar, &folder.path().join("right"));
        // What tells too little would prove nothing.
        let least = match *extent {
            "all" | "incremental" => nodes.len(),
            "plain" => 4,
            _ => 3,
        };
        assert!(
            right.len() >= least,
            "{program} {arguments}: only {}",
            right.len()
        );
        match tree_of_ours(&tar, &folder.path().join("ours")) {
            Err(error) => wrong.push(format!("{program} {arguments}: {error}")),
            Ok(ours) => {
                for name in right.keys().chain(ours.keys()) {
                    let (right, ours) = (right.get(name), ours.get(name));
                    if right != ours {
                        let line = format!("{program} {arguments}: {name:?}: {right:?} | {ours:?}");
                        wrong.push(line);
                    }
                }
            }
        }
    }
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn names_of_any_bytes_survive_real_tools() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    for byte in (1..=255_u8).filter(|byte| *byte != b'/') {
        fs::write(source.join(OsStr::from_bytes(&[b'x', byte])), [byte]).unwrap();
    }
    for (program, arguments) in [
        ("tar", "--format=gnu -C DIR -cf OUT ."),
        ("tar", "--format=posix -C DIR -cf OUT ."),
        ("bsdtar", "--format=gnutar -C DIR -cf OUT ."),
        (
            "bsdtar",
            "--format=pax --options hdrcharset=BINARY -C DIR -cf OUT .",
        ),
        (
            "python3",
            "-c import&tarfile;t=tarfile.open('OUT','w',format=1);t.add('DIR','.');t.close()",
        ),
        ("busybox", "tar -C DIR -cf OUT ."),
    ] {
        let tar = folder.path().join("tar");
        pack(program, arguments, &source, &tar);
        let right = extract(&tar, &folder.path().join("right"));
        assert_eq!(right.len(), 254, "{program} {arguments}");
        let ours = tree_of_ours(&tar, &folder.path().join("ours"));
        assert_eq!(ours.unwrap(), right, "{program} {arguments}");
    }
}
