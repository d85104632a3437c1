//! Differencing disks are read with their parents, which are found beside them and nowhere else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use opengcs_layer::{
    DiskToTarOptions, ErrorKind, Format, InspectOptions, TarToDiskOptions, disk_to_tar, inspect,
    inspect_with, tar_to_disk,
};
use opengcs_vhd::testing::{Child, MemoryFile};
use opengcs_vhd::{Access, Disk, Guid, Storage};
use positioned_io::ReadAt;

use crate::forge::Tar;

const SIZE: u64 = 24 << 20;

/// A disk with one file of this content, as a disk file and as bytes.
fn image(path: &Path, format: Format, content: &str) -> Vec<u8> {
    let tar = Tar::new()
        .file("state", content)
        .file("large", vec![5; 300_000])
        .end();
    let mut options = TarToDiskOptions {
        format,
        sync: false,
        ..TarToDiskOptions::default()
    };
    options.ext4.filesystem.size = Some(SIZE);
    tar_to_disk(&tar[..], path, &options).unwrap();
    let disk = Disk::open(File::open(path).unwrap(), Access::ReadOnly).unwrap();
    let mut bytes = vec![0; SIZE as usize];
    disk.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

fn id(path: &Path) -> Guid {
    let summary = Disk::describe(File::open(path).unwrap()).unwrap();
    summary.content_id.unwrap()
}

fn save(file: &MemoryFile, path: &Path) {
    let length = usize::try_from(file.length().unwrap()).unwrap();
    fs::write(path, file.bytes(0, length)).unwrap();
}

/// Makes `path` a child of `parent` in which the file `state` says "new".
fn make_child(path: &Path, parent: &Path, format: Format, paths: &[(&str, &str)]) {
    let scratch = tempfile::tempdir().unwrap();
    let old = image(&scratch.path().join("old"), Format::Raw, "old");
    let new = image(&scratch.path().join("new"), Format::Raw, "new");
    let mut child = Child {
        size: SIZE,
        id: Guid::from_u128(0x77),
        parent: id(parent),
        paths,
        block_size: 2 << 20,
        sectors: BTreeMap::new(),
    };
    child.differ(&old, &new);
    assert!(!child.sectors.is_empty() && child.sectors.len() < 200);
    let file = match format {
        Format::Vhdx => child.vhdx(),
        _ => child.vhd(),
    };
    save(&file, path);
}

fn tar_of(path: &Path, parents: &[&Path]) -> opengcs_layer::Result<Vec<u8>> {
    let mut tar = Vec::new();
    let options = DiskToTarOptions {
        parents: parents.iter().map(|path| path.to_path_buf()).collect(),
        ..DiskToTarOptions::default()
    };
    disk_to_tar(path, &mut tar, &options)?;
    Ok(tar)
}

/// The tar of a disk that is the child's content in one file.
fn expected() -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let whole = scratch.path().join("whole");
    image(&whole, Format::Raw, "new");
    tar_of(&whole, &[]).unwrap()
}

fn refusal(path: &Path) -> (ErrorKind, String) {
    let error = tar_of(path, &[]).unwrap_err();
    (error.kind(), error.to_string())
}

const VHDX: [(&str, &str); 1] = [("relative_path", r".\base.vhdx")];
const VHD: [(&str, &str); 1] = [("W2ru", r".\base.vhd")];

#[test]
fn child_is_read_with_its_parent() {
    for (format, name, paths) in [
        (Format::Vhdx, "base.vhdx", &VHDX),
        (Format::FixedVhd, "base.vhd", &VHD),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (base, child) = (folder.path().join(name), folder.path().join("child"));
        image(&base, format, "old");
        make_child(&child, &base, format, paths);
        assert!(tar_of(&child, &[]).unwrap() == expected());
        let found = inspect(&child).unwrap();
        assert_eq!(found.disk.chain, [fs::canonicalize(&base).unwrap()]);
        assert_eq!(found.disk.parent.unwrap().paths, [paths[0].1]);
        assert!(found.filesystem.is_some() && found.problem.is_none());
    }
}

#[test]
fn grandparent_is_found_from_its_childs_folder() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("base");
    fs::create_dir(&below).unwrap();
    let base = below.join("base.vhdx");
    image(&base, Format::Vhdx, "old");
    let (middle, top) = (below.join("mid.vhdx"), folder.path().join("top.vhdx"));
    make_child(
        &middle,
        &base,
        Format::Vhdx,
        &[("relative_path", "base.vhdx")],
    );
    let sectors = BTreeMap::new();
    let child = Child {
        size: SIZE,
        id: Guid::from_u128(5),
        parent: id(&middle),
        paths: &[("relative_path", r".\base\mid.vhdx")],
        block_size: 1 << 20,
        sectors,
    };
    save(&child.vhdx(), &top);
    assert!(tar_of(&top, &[]).unwrap() == expected());
    let real = |path: &PathBuf| fs::canonicalize(path).unwrap();
    assert_eq!(
        inspect(&top).unwrap().disk.chain,
        [real(&middle), real(&base)]
    );
}

/// Chains are moved together: the name is looked for beside the child, wherever the path leads.
#[test]
fn absolute_paths_of_another_machine_stand_for_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.vhdx");
    image(&base, Format::Vhdx, "old");
    for path in [
        r"C:\disks\base.vhdx",
        r"\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\disks\base.vhdx",
        r"\\server\share\base.vhdx",
        "/elsewhere/base.vhdx",
    ] {
        let child = folder.path().join("child.vhdx");
        make_child(
            &child,
            &base,
            Format::Vhdx,
            &[("absolute_win32_path", path)],
        );
        assert!(tar_of(&child, &[]).unwrap() == expected(), "{path}");
    }
}

#[test]
fn parent_elsewhere_is_read_only_when_its_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    fs::create_dir(&own).unwrap();
    fs::create_dir(&other).unwrap();
    let base = other.join("base.vhdx");
    image(&base, Format::Vhdx, "old");
    let child = own.join("child.vhdx");
    let absolute = base.to_str().unwrap();
    for path in [r"..\other\base.vhdx", "../other/base.vhdx", absolute] {
        make_child(&child, &base, Format::Vhdx, &[("relative_path", path)]);
        let (kind, line) = refusal(&child);
        assert_eq!(kind, ErrorKind::InvalidInput, "{line}");
        assert!(
            line.contains("child.vhdx") && line.contains("base.vhdx"),
            "{line}"
        );
        assert!(tar_of(&child, &[&other]).unwrap() == expected());
        assert!(tar_of(&child, &[folder.path()]).unwrap() == expected());
        let problem = inspect(&child).unwrap().problem.unwrap();
        assert!(problem.contains("base.vhdx"), "{problem}");
        let options = InspectOptions {
            parents: vec![other.clone()],
        };
        assert!(inspect_with(&child, &options).unwrap().problem.is_none());
    }
    // A link leads out of the folder as a path does.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&base, own.join("base.vhdx")).unwrap();
        make_child(&child, &base, Format::Vhdx, &VHDX);
        assert_eq!(refusal(&child).0, ErrorKind::InvalidInput);
        assert!(tar_of(&child, &[&other]).unwrap() == expected());
    }
}

#[test]
fn missing_and_changed_parents_are_errors_that_name_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let (base, child) = (
        folder.path().join("base.vhdx"),
        folder.path().join("child.vhdx"),
    );
    image(&base, Format::Vhdx, "old");
    make_child(&child, &base, Format::Vhdx, &VHDX);
    let session = Guid::from_u128(9);
    let file = File::options().read(true).write(true).open(&base).unwrap();
    let mut disk = Disk::open(file, Access::ReadWrite { session }).unwrap();
    positioned_io::WriteAt::write_all_at(&mut disk, SIZE - 512, &[1; 512]).unwrap();
    disk.finish().unwrap();
    let (kind, line) = refusal(&child);
    assert_eq!(kind, ErrorKind::Corrupt, "{line}");
    assert!(
        line.contains("child.vhdx") && line.contains("base.vhdx"),
        "{line}"
    );
    fs::remove_file(&base).unwrap();
    let (kind, line) = refusal(&child);
    assert_eq!(kind, ErrorKind::NotFound, "{line}");
    assert!(
        line.contains("child.vhdx") && line.contains("base.vhdx"),
        "{line}"
    );
    // What the child says of itself is told all the same.
    let found = inspect(&child).unwrap();
    assert_eq!(found.disk.virtual_size, SIZE);
    assert!(found.filesystem.is_none() && found.problem.is_some());
}

#[test]
fn chain_that_comes_back_to_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.vhd");
    let own = Guid::from_u128(3);
    let child = Child {
        size: SIZE,
        id: own,
        parent: own,
        paths: &[("W2ru", "own.vhd")],
        block_size: 2 << 20,
        sectors: BTreeMap::new(),
    };
    save(&child.vhd(), &path);
    let (kind, line) = refusal(&path);
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(line.contains("no end"), "{line}");
}

/// A locator may say anything: no device, fifo or folder is opened, and nothing waits.
#[cfg(unix)]
#[test]
fn hostile_locators_open_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.vhdx");
    image(&base, Format::Vhdx, "old");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        folder.path().join("fifo"),
        rustix::fs::Mode::from_raw_mode(0o666),
    )
    .unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero")).unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    fs::write(folder.path().join("text"), "text").unwrap();
    let child = folder.path().join("child.vhdx");
    for path in [
        "fifo",
        "folder",
        "zero",
        "empty",
        "text",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/fd/0",
        r"\\.\PhysicalDrive0",
        r"\\evil\share\x.vhdx",
        "../../../../../../../../etc/passwd",
        "..",
        ".",
        "",
        "\0",
        "CON",
        "file:///etc/passwd",
    ] {
        make_child(&child, &base, Format::Vhdx, &[("relative_path", path)]);
        let (kind, line) = refusal(&child);
        assert_ne!(kind, ErrorKind::Io, "{path}: {line}");
        assert!(line.contains("child.vhdx"), "{path}: {line}");
    }
}
