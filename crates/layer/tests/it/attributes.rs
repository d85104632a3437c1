//! Attributes, labels and access control lists in tars: what is kept, left out and too much.

#[cfg(target_os = "linux")]
use opengcs_layer::{DiskToTarOptions, ext4_to_tar};
use opengcs_layer::{ErrorKind, tar_to_ext4};

use crate::corpus::{
    Case,
    Expect::{Error, Tree},
    check, options,
};
use crate::forge::{Header, Tar, octal};
#[cfg(target_os = "linux")]
use crate::judge;

fn warnings(tar: &[u8]) -> Vec<String> {
    let converted = tar_to_ext4(tar, Vec::new(), &options()).unwrap();
    converted.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn labels_and_lists_in_text_form_become_xattrs() {
    let acl = b"user::rw-,user:1000:r--,group::r--,mask::r--,other::r--";
    let cases: Vec<Case> = vec![
        (
            "SELinux label as GNU tar tells it",
            Tar::new()
                .pax(b'x', &[("RHT.security.selinux", b"u:r:t:s0")])
                .file("a", "1")
                .end(),
            Tree(&["a =1 {security.selinux=u:r:t:s0\\x00}"]),
        ),
        (
            "access control list of numbers",
            Tar::new()
                .pax(b'x', &[("SCHILY.acl.access", acl)])
                .file("a", "1")
                .end(),
            Tree(&["a =1 {system.posix_acl_access=#44}"]),
        ),
        (
            "default access control list of star",
            Tar::new()
                .pax(
                    b'x',
                    &[(
                        "SCHILY.acl.default",
                        b"user::rwx,user:joe:r-x:1000,group::r-x,mask::r-x,other::r-x",
                    )],
                )
                .dir("d")
                .end(),
            Tree(&["d/ {system.posix_acl_default=#44}"]),
        ),
        (
            "access control list that the mode says already",
            Tar::new()
                .pax(
                    b'x',
                    &[("SCHILY.acl.access", b"user::rw-,group::r--,other::r--")],
                )
                .file("a", "1")
                .end(),
            Tree(&["a =1"]),
        ),
    ];
    check(&cases, &options());
}

#[test]
fn attributes_of_other_systems_are_left_out_with_a_warning() {
    let tar = Tar::new()
        .pax(
            b'x',
            &[
                ("LIBARCHIVE.xattr.com.apple.provenance", b"AQAA"),
                ("SCHILY.xattr.com.apple.provenance", b"\x01\0\0"),
                ("SCHILY.xattr.user.kept", b"1"),
                ("SCHILY.xattr.system.richacl", b"1"),
            ],
        )
        .file("a", "1")
        .end();
    let lines = warnings(&tar);
    assert_eq!(lines.len(), 2);
    for (line, name) in lines.iter().zip(["com.apple.provenance", "system.richacl"]) {
        assert!(line.contains("\"a\"") && line.contains(name), "{line}");
    }
    check(&[("macOS", tar, Tree(&["a =1 {user.kept=1}"]))], &options());
}

#[test]
fn a_mode_follows_the_list_beside_it() {
    let list = b"user::rw-,user:1000:rwx,group::r--,mask::rwx,other::---";
    let header = |name: &str| Header {
        mode: octal(0o4644, 8),
        ..Header::new(name, b'0', 0)
    };
    let tar = Tar::new()
        .pax(b'x', &[("SCHILY.acl.access", list)])
        .header(&header("a"))
        .pax(b'x', &[("SCHILY.acl.default", list)])
        .dir("d")
        .header(&header("plain"))
        .end();
    let tree = Tree(&[
        "a m4670 {system.posix_acl_access=#44}",
        "d/ {system.posix_acl_default=#44}",
        "plain m4644",
    ]);
    check(&[("lists", tar, tree)], &options());
}

#[test]
fn a_list_of_names_is_no_loss_where_the_xattr_tells_it_too() {
    let named = b"user::rw-,user:joe:r--,group::r--,mask::r--,other::r--";
    let lost = Tar::new()
        .pax(b'x', &[("SCHILY.acl.access", named)])
        .file("a", "1")
        .end();
    assert_eq!(warnings(&lost).len(), 1);
    let xattr = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    let kept = Tar::new()
        .pax(
            b'x',
            &[
                ("SCHILY.acl.access", named),
                ("SCHILY.xattr.system.posix_acl_access", xattr),
            ],
        )
        .file("a", "1")
        .end();
    assert_eq!(warnings(&kept), Vec::<String>::new());
}

#[test]
fn lists_of_other_systems_are_left_out_with_a_warning() {
    let tar = Tar::new()
        .header(&Header::new("solaris", b'A', 8))
        .data("1000004\0")
        .file("solaris", "1")
        .pax(b'x', &[("SCHILY.acl.ace", b"owner@:rwx:allow")])
        .file("nfs", "1")
        .end();
    let lines = warnings(&tar);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("\"solaris\"") && lines[0].contains("Solaris"));
    assert!(lines[1].contains("\"nfs\"") && lines[1].contains("NFSv4"));
}

/// What a tar restores, told by packing it again: names and text of the lists, sorted.
#[cfg(target_os = "linux")]
fn restored_by(program: &str, tar: &std::path::Path) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    judge::succeed(
        program,
        &["--acls", "-xpf", tar.to_str().unwrap(), "-C", into],
    );
    let packed = judge::succeed("tar", &["--acls", "--format=posix", "-cC", into, "."]);
    let text = String::from_utf8_lossy(&packed).replace("\nuser", ",user");
    let text = text.replace("\ngroup", ",group").replace("\nmask", ",mask");
    let text = text.replace("\nother", ",other");
    let mut lists: Vec<String> = text
        .lines()
        .filter_map(|line| Some(format!("SCHILY.acl.{}", line.split_once("SCHILY.acl.")?.1)))
        .collect();
    lists.sort();
    lists
}

#[cfg(target_os = "linux")]
#[test]
fn exported_lists_are_what_gnu_tar_and_bsdtar_restore() {
    // Numbers that no machine has a name for.
    let list = "user::rw-,user:70001:rwx,group::r--,group:70002:---,mask::rwx,other::---";
    let records: [(&str, &[u8]); 1] = [("SCHILY.acl.access", list.as_bytes())];
    let tar = Tar::new()
        .pax(b'x', &records)
        .file("a", "1")
        .pax(b'x', &[("SCHILY.acl.default", list.as_bytes())])
        .dir("d")
        .end();
    let mut image = Vec::new();
    tar_to_ext4(&tar[..], &mut image, &options()).unwrap();
    let back = tempfile::NamedTempFile::new().unwrap();
    ext4_to_tar(image, back.as_file(), &DiskToTarOptions::default()).unwrap();
    let expected = [
        format!("SCHILY.acl.access={list}"),
        format!("SCHILY.acl.default={list}"),
    ];
    for program in ["tar", "bsdtar"] {
        // Programs that keep lists tell those that say no more than modes, too.
        let restored = restored_by(program, back.path());
        let there = expected.iter().all(|list| restored.contains(list));
        assert!(there, "{program}: {restored:#?}");
    }
}

/// The memory for them would be a thousand times the tar.
#[test]
fn attributes_of_a_global_header_cannot_multiply_without_end() {
    let value = vec![b'v'; 60_000];
    let names: Vec<String> = (0..100)
        .map(|at| format!("SCHILY.xattr.user.a{at}"))
        .collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &value[..])).collect();
    let mut tar = Tar::new().pax(b'g', &records);
    for at in 0..40 {
        tar = tar.dir(format!("d{at}"));
    }
    check(
        &[(
            "global attributes",
            tar.end(),
            Error(
                ErrorKind::Unsupported,
                &["\"d12\"", "a global header repeats them"],
            ),
        )],
        &options(),
    );
}

#[test]
fn a_tar_without_its_end_mark_is_warned_of() {
    let lines = warnings(&Tar::new().file("a", "1").0);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("byte 1024") && lines[0].contains("cut short"));
    assert!(warnings(&Tar::new().file("a", "1").end()).is_empty());
}
