//! Copies under Windows' own rules: long names, names of devices, files that others have open.

use std::fs::{self, OpenOptions};
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use opengcs_layer::{ErrorKind, copy_file};

/// `FILE_SHARE_READ`: others may read, and neither write nor replace.
const READERS_ONLY: u32 = 1;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn long_paths_are_copied_however_they_are_written() {
    let place = tempfile::tempdir().unwrap();
    let mut deep = place.path().to_owned();
    while deep.as_os_str().len() < 400 {
        deep.push("a folder whose name is long enough");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("src"), b"content").unwrap();
    let text = deep.to_str().unwrap();
    for folder in [
        text.to_owned(),
        text.replace('\\', "/"),
        format!(r"\\?\{text}"),
    ] {
        let folder = PathBuf::from(folder);
        let (src, dst) = (folder.join("src"), folder.join("dst"));
        assert_eq!(copy_file(&src, &dst, false).unwrap(), 7);
        // `CopyFileW`'s rule for a file that is there.
        let error = copy_file(&src, &dst, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        fs::write(&dst, b"old").unwrap();
        assert_eq!(copy_file(&src, &dst, true).unwrap(), 7);
        assert_eq!(fs::read(&dst).unwrap(), b"content");
        fs::remove_file(&dst).unwrap();
    }
    assert_eq!(names(&deep), ["src"]);
}

#[test]
fn devices_and_streams_are_no_targets_of_copies() {
    let place = tempfile::tempdir().unwrap();
    let src = place.path().join("src");
    fs::write(&src, b"content").unwrap();
    for name in ["NUL", "nul.vhd", "COM1", "aux", "x.vhd.", "x.vhd:stream"] {
        for overwrite in [false, true] {
            let error = copy_file(&src, &place.path().join(name), overwrite).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error}");
        }
    }
    for name in ["NUL", "CON"] {
        copy_file(Path::new(name), &place.path().join("dst"), true).unwrap_err();
    }
    assert_eq!(names(place.path()), ["src"]);
}

#[test]
fn what_others_have_open_is_neither_copied_nor_replaced() {
    let place = tempfile::tempdir().unwrap();
    let (src, dst) = (place.path().join("src"), place.path().join("dst"));
    fs::write(&src, b"new").unwrap();
    fs::write(&dst, b"old").unwrap();
    let refused = || {
        let error = copy_file(&src, &dst, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        assert_eq!(names(place.path()), ["dst", "src"]);
        assert_eq!(fs::read(&dst).unwrap(), b"old");
    };
    let writing = OpenOptions::new().write(true).open(&src).unwrap();
    refused();
    drop(writing);
    let mut readers_only = OpenOptions::new();
    readers_only.read(true).share_mode(READERS_ONLY);
    let reading = readers_only.open(&dst).unwrap();
    refused();
    // A copy that may not be written to leaves nothing behind either.
    let usual = fs::metadata(&src).unwrap().permissions();
    let mut read_only = usual.clone();
    read_only.set_readonly(true);
    fs::set_permissions(&src, read_only).unwrap();
    refused();
    drop(reading);
    copy_file(&src, &dst, true).unwrap();
    assert_eq!(fs::read(&dst).unwrap(), b"new");
    assert!(fs::metadata(&dst).unwrap().permissions().readonly());
    for path in [&src, &dst] {
        fs::set_permissions(path, usual.clone()).unwrap();
    }
}
