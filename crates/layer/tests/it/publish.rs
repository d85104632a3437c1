//! New files: whole under their name, or nowhere.

use std::fs;
use std::io::Write as _;

use opengcs_layer::{ErrorKind, Existing, NewFile};

#[test]
fn file_appears_when_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    let new = NewFile::create(&path, Existing::Keep).unwrap();
    new.file().write_all(b"whole").unwrap();
    assert!(!path.exists());
    new.publish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn dropped_file_leaves_nothing_also_by_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    drop(NewFile::create(&path, Existing::Replace).unwrap());
    let panicked = std::panic::catch_unwind(|| {
        let new = NewFile::create(&path, Existing::Replace).unwrap();
        new.file().write_all(b"half").unwrap();
        panic!("in the middle");
    });
    assert!(panicked.is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn replaced_file_is_old_until_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    fs::write(&path, b"old").unwrap();
    let new = NewFile::create(&path, Existing::Replace).unwrap();
    new.file().write_all(b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    new.publish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn file_that_appeared_meanwhile_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    let new = NewFile::create(&path, Existing::Keep).unwrap();
    fs::write(&path, b"theirs").unwrap();
    let error = new.publish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("x.vhd"));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    let error = NewFile::create(&path, Existing::Keep).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn link_is_followed_and_devices_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("x.vhd"), dir.path().join("link"));
    fs::write(&path, b"old").unwrap();
    std::os::unix::fs::symlink("x.vhd", &link).unwrap();
    let new = NewFile::create(&link, Existing::Replace).unwrap();
    new.file().write_all(b"new").unwrap();
    new.publish().unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(&path).unwrap(), b"new");
    let error = NewFile::create("/dev/null".as_ref(), Existing::Replace).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
