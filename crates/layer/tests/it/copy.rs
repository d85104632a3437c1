//! Copies of files: what they hold, what they keep, and when they are refused.

use std::fs;
use std::path::Path;

use opengcs_layer::{Control, CopyOptions, ErrorKind, Existing, copy_file, copy_file_with};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn copy_has_content_and_mode_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    fs::write(&src, b"content").unwrap();
    #[cfg(unix)]
    fs::set_permissions(&src, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(copy_file(&src, &dst, false).unwrap(), 7);
    assert_eq!(fs::read(&dst).unwrap(), b"content");
    assert_eq!(
        fs::metadata(&dst).unwrap().permissions(),
        fs::metadata(&src).unwrap().permissions()
    );
    assert_eq!(names(dir.path()), ["dst", "src"]);
}

#[cfg(unix)]
#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    let file = fs::File::create(&src).unwrap();
    file.set_len(3 << 30).unwrap();
    file.write_all_at(&[1; 5000], 1 << 30).unwrap();
    file.write_all_at(&[2; 100], (2 << 30) + 77).unwrap();
    assert_eq!(copy_file(&src, &dst, false).unwrap(), 3 << 30);
    let copy = fs::File::open(&dst).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), 3 << 30);
    assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20);
    let mut bytes = [9; 5001];
    copy.read_exact_at(&mut bytes, 1 << 30).unwrap();
    assert!(bytes[..5000] == [1; 5000] && bytes[5000] == 0);
    copy.read_exact_at(&mut bytes[..100], (2 << 30) + 77)
        .unwrap();
    assert_eq!(bytes[..100], [2; 100]);
}

#[test]
fn existing_file_is_replaced_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    fs::write(&src, b"new").unwrap();
    fs::write(&dst, b"old").unwrap();
    let error = copy_file(&src, &dst, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let line = error.to_string();
    assert!(line.contains(src.to_str().unwrap()) && line.contains(dst.to_str().unwrap()));
    assert_eq!(fs::read(&dst).unwrap(), b"old");
    copy_file(&src, &dst, true).unwrap();
    assert_eq!(fs::read(&dst).unwrap(), b"new");
    assert_eq!(names(dir.path()), ["dst", "src"]);
}

#[test]
fn same_file_is_refused_also_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::write(&src, b"content").unwrap();
    let linked = dir.path().join("linked");
    fs::hard_link(&src, &linked).unwrap();
    let around = dir.path().join(".").join("src");
    #[allow(unused_mut, reason = "symbolic links are tried where they can be made")]
    let mut all = vec![src.clone(), around, linked];
    #[cfg(unix)]
    {
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&src, &link).unwrap();
        all.push(link);
    }
    for dst in all {
        let error = copy_file(&src, &dst, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", dst.display());
    }
    assert_eq!(fs::read(&src).unwrap(), b"content");
}

#[test]
fn missing_and_odd_sources_and_targets_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (src, none) = (dir.path().join("src"), dir.path().join("none"));
    fs::write(&src, b"content").unwrap();
    let kind = |src: &Path, dst: &Path| copy_file(src, dst, true).unwrap_err().kind();
    assert_eq!(kind(&none, &src), ErrorKind::NotFound);
    assert_eq!(kind(dir.path(), &none), ErrorKind::InvalidInput);
    assert_eq!(kind(&src, dir.path()), ErrorKind::InvalidInput);
    assert_eq!(kind(&src, &none.join("x")), ErrorKind::NotFound);
    assert_eq!(names(dir.path()), ["src"]);
}

#[test]
fn copy_tells_its_progress_and_stops_when_asked() {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    fs::write(&src, vec![3; 50 << 20]).unwrap();
    fs::write(&dst, b"old").unwrap();
    let told: Arc<Mutex<Vec<u64>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, flag) = (Arc::clone(&told), Arc::clone(&stop));
    let options = CopyOptions {
        existing: Existing::Replace,
        control: Control::new()
            .cancel_with(Arc::clone(&stop))
            .on_progress(move |now| {
                seen.lock().unwrap().push(now.bytes);
                // After the first call, before anything can be published.
                flag.store(true, Ordering::Relaxed);
            }),
    };
    let error = copy_file_with(&src, &dst, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(fs::read(&dst).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["dst", "src"]);
    let seen = Arc::clone(&told);
    let options = CopyOptions {
        existing: Existing::Replace,
        control: Control::new().on_progress(move |now| seen.lock().unwrap().push(now.bytes)),
    };
    assert_eq!(copy_file_with(&src, &dst, &options).unwrap(), 50 << 20);
    let told = told.lock().unwrap();
    assert_eq!(told.last(), Some(&(50 << 20)));
    assert!(told[1..].is_sorted());
}

/// From one file system to another, where the kernel cannot share and may not copy.
#[cfg(target_os = "linux")]
#[test]
fn copy_crosses_file_systems_with_its_holes() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let src = dir.path().join("src");
    let file = fs::File::create(&src).unwrap();
    file.set_len(100 << 20).unwrap();
    file.write_all_at(&[1; 9000], 7 << 20).unwrap();
    file.write_all_at(&[2; 9000], (60 << 20) + 1).unwrap();
    let (there, back) = (other.path().join("there"), dir.path().join("back"));
    copy_file(&src, &there, false).unwrap();
    copy_file(&there, &back, false).unwrap();
    for copy in [&there, &back] {
        let found = fs::metadata(copy).unwrap();
        assert!(found.blocks() * 512 < 1 << 20, "{}", found.blocks());
        assert!(fs::read(copy).unwrap() == fs::read(&src).unwrap());
    }
}

#[cfg(unix)]
#[test]
fn devices_and_fifos_are_refused_and_setuid_stays_behind() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
    for odd in [fifo.as_path(), Path::new("/dev/null"), dir.path()] {
        let error = copy_file(odd, &dst, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(odd.to_str().unwrap()));
    }
    fs::write(&src, b"x").unwrap();
    let error = copy_file(&src, &fifo, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    fs::set_permissions(&src, fs::Permissions::from_mode(0o4751)).unwrap();
    copy_file(&src, &dst, false).unwrap();
    assert_eq!(
        fs::metadata(&dst).unwrap().permissions().mode() & 0o7777,
        0o751
    );
}
