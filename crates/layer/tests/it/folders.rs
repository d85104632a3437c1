//! Live folders as tars, held against what GNU tar and the folder itself say.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use opengcs_layer::{
    Compression, DiskToTarOptions, DiskWhiteouts, ErrorKind, FilesystemOptions, TarToExt4Options,
    folder_to_tar, tar_to_ext4,
};

use crate::{judge, listing};

fn options() -> TarToExt4Options {
    TarToExt4Options {
        filesystem: FilesystemOptions {
            lost_found: false,
            ..FilesystemOptions::default()
        },
        ..TarToExt4Options::default()
    }
}

fn tar(folder: &Path, options: &DiskToTarOptions) -> Vec<u8> {
    let mut tar = Vec::new();
    folder_to_tar(folder, &mut tar, options).unwrap();
    tar
}

/// The listing of the image that a tar makes.
fn lines(tar: &[u8]) -> Vec<String> {
    let mut image = Vec::new();
    tar_to_ext4(tar, &mut image, &options()).unwrap();
    listing::list(image)
}

fn set_times(path: &Path, folder: &Path) {
    judge::succeed("touch", &["-h", "-d", "@5.25", path.to_str().unwrap()]);
    judge::succeed("touch", &["-d", "@7", folder.to_str().unwrap()]);
}

#[test]
fn folder_comes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/file"), "hello").unwrap();
    fs::set_permissions(root.join("d/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("d/file"), root.join("d/other")).unwrap();
    symlink("/etc/passwd", root.join("d/link")).unwrap();
    judge::succeed("mkfifo", &[root.join("d/pipe").to_str().unwrap()]);
    let _socket = std::os::unix::net::UnixListener::bind(root.join("d/socket")).unwrap();
    for name in ["d/file", "d/link", "d/pipe", "d"] {
        set_times(&root.join(name), root);
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("d/pipe"), fs::Permissions::from_mode(0o644)).unwrap();
    let metadata = fs::metadata(root).unwrap();
    let owner = match (metadata.uid(), metadata.gid()) {
        (0, 0) => String::new(),
        (uid, gid) => format!(" u{uid}:{gid}"),
    };
    let mut out = Vec::new();
    let exported = folder_to_tar(root, &mut out, &DiskToTarOptions::default()).unwrap();
    let warnings: Vec<String> = exported.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["\"d/socket\": left out: tar cannot hold a socket"]
    );
    assert_eq!(
        lines(&out),
        [
            format!("./{owner} t7"),
            format!("d/{owner} t5+250000000"),
            format!("d/file n2 =hello m4751{owner} t5+250000000"),
            format!("d/link ->/etc/passwd m777{owner} t5+250000000"),
            "d/other ==d/file".to_owned(),
            format!("d/pipe p{owner} t5+250000000"),
        ]
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &out).unwrap();
    let listed = judge::succeed("tar", &["-tf", file.path().to_str().unwrap()]);
    assert_eq!(
        String::from_utf8(listed).unwrap(),
        "./\nd/\nd/file\nd/link\nd/other\nd/pipe\n"
    );
    judge::succeed(
        "tar",
        &[
            "--compare",
            "-f",
            file.path().to_str().unwrap(),
            "-C",
            root.to_str().unwrap(),
        ],
    );
    assert!(out == tar(root, &DiskToTarOptions::default()));
}

#[test]
fn holes_are_left_out_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(b"middle", 5 << 20).unwrap();
    file.set_len(20 << 20).unwrap();
    let plain = tar(folder.path(), &DiskToTarOptions::default());
    let sparse = tar(
        folder.path(),
        &DiskToTarOptions {
            sparse: true,
            ..DiskToTarOptions::default()
        },
    );
    assert!(plain.len() > 20 << 20);
    assert!(sparse.len() < 1 << 20, "{}", sparse.len());
    assert_eq!(lines(&plain), lines(&sparse));
    let out = tempfile::tempdir().unwrap();
    let tar = out.path().join("tar");
    fs::write(&tar, &sparse).unwrap();
    judge::succeed(
        "tar",
        &[
            "-xf",
            tar.to_str().unwrap(),
            "-C",
            out.path().to_str().unwrap(),
        ],
    );
    assert!(fs::read(out.path().join("sparse")).unwrap() == fs::read(&path).unwrap());
}

#[test]
fn links_in_the_folder_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    symlink("/", folder.path().join("root")).unwrap();
    symlink("missing", folder.path().join("dangling")).unwrap();
    let listed: Vec<String> = lines(&tar(folder.path(), &DiskToTarOptions::default()))
        .iter()
        .map(|line| line.split(" m777").next().unwrap().to_owned())
        .collect();
    assert_eq!(listed[1..], ["dangling ->missing", "root ->/"]);
}

#[test]
fn very_deep_folders_come_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut path = folder.path().to_path_buf();
    for _ in 0..600 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("f"), "bottom").unwrap();
    let listed = lines(&tar(folder.path(), &DiskToTarOptions::default()));
    assert_eq!(listed.len(), 602);
    assert!(listed[601].contains("=bottom"));
}

#[test]
fn overlay_whiteouts_become_oci_ones() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("upper/d")).unwrap();
    // Linux lets everyone make this one device.
    judge::succeed(
        "mknod",
        &[root.join("upper/d/gone").to_str().unwrap(), "c", "0", "0"],
    );
    fs::write(root.join("upper/d/new"), "1").unwrap();
    let sandbox = DiskToTarOptions {
        sandbox: true,
        ..DiskToTarOptions::default()
    };
    let listed: Vec<String> = lines(&tar(root, &sandbox));
    assert!(
        listed.iter().any(|line| line.starts_with("d/gone c0:0")),
        "{listed:?}"
    );
    let out = tar(root, &sandbox);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &out).unwrap();
    let names = judge::succeed("tar", &["-tf", file.path().to_str().unwrap()]);
    assert_eq!(
        String::from_utf8(names).unwrap(),
        "./\nd/\nd/.wh.gone\nd/new\n"
    );
    let keep = DiskToTarOptions {
        whiteouts: DiskWhiteouts::Keep,
        ..sandbox
    };
    let listed = lines(&tar(root, &keep));
    assert!(listed.iter().any(|line| line.starts_with("d/gone c0:0")));
}

#[test]
fn xattrs_come_along() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("f");
    fs::write(&path, "1").unwrap();
    let value = vec![b'v'; 1000];
    rustix::fs::setxattr(&path, "user.long", &value, rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&path, "user.a=b", b"\0\n", rustix::fs::XattrFlags::empty()).unwrap();
    let dir = folder.path().join("d");
    fs::create_dir(&dir).unwrap();
    rustix::fs::setxattr(
        &dir,
        "user.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let listed = lines(&tar(folder.path(), &DiskToTarOptions::default()));
    assert!(
        listed[1].starts_with("d/") && listed[1].ends_with("{trusted.overlay.opaque=y}"),
        "{listed:?}"
    );
    assert!(
        listed[2].ends_with(" {user.a=b=\\x00\\n} {user.long=#1000}"),
        "{listed:?}"
    );
}

#[test]
fn missing_folder_is_named() {
    let error = folder_to_tar(
        Path::new("/nonexistent"),
        Vec::new(),
        &DiskToTarOptions::default(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let sandbox = DiskToTarOptions {
        sandbox: true,
        compression: Compression::Gzip,
        whiteouts: DiskWhiteouts::Oci,
        ..DiskToTarOptions::default()
    };
    let error = folder_to_tar(folder.path(), Vec::new(), &sandbox).unwrap_err();
    assert!(error.to_string().contains("upper"), "{error}");
}
