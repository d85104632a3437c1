//! PAX and GNU extension headers.

use super::*;

pub(super) fn extensions() -> Vec<Case> {
    let long = "d/".repeat(80) + "file";
    let long_tree = || {
        let mut lines: Vec<String> = (1..=80).map(|depth| "d/".repeat(depth)).collect();
        lines.push(long.clone() + " =1");
        leak(lines)
    };
    vec![
        (
            "GNU long name",
            Tar::new().long(b'L', &long).file("cut", "1").end(),
            Tree(long_tree()),
        ),
        (
            "GNU long name twice: the last counts",
            Tar::new().long(b'L', "x").long(b'L', "y").file("cut", "1").end(),
            Tree(&["y =1"]),
        ),
        (
            "PAX path",
            Tar::new().pax(b'x', &[("path", long.as_bytes())]).file("cut", "1").end(),
            Tree(long_tree()),
        ),
        (
            "ustar prefix",
            Tar::new()
                .header(&Header {
                    tail: b"some/folder".to_vec(),
                    ..Header::new("file", b'0', 0)
                })
                .end(),
            Tree(&["some/", "some/folder/", "some/folder/file"]),
        ),
        (
            "GNU has no prefix",
            Tar::new()
                .header(&Header {
                    tail: octal(3, 12),
                    ..Header::new("file", b'0', 0).gnu()
                })
                .end(),
            Tree(&["file"]),
        ),
        (
            "V7 header, with a slash for directories",
            Tar::new()
                .header(&Header::new("d/", 0, 0).v7())
                .header(&Header::new("d/f", 0, 1).v7())
                .data("1")
                .end(),
            Tree(&["d/ m644", "d/f =1"]),
        ),
        (
            "contiguous file",
            Tar::new().header(&Header::new("a", b'7', 1)).data("1").end(),
            Tree(&["a =1"]),
        ),
        (
            "global records hold until taken back, local ones come first",
            Tar::new()
                .pax(b'g', &[("uid", b"7"), ("gid", b"8"), ("comment", b"hello")])
                .file("a", "")
                .pax(b'x', &[("uid", b"9")])
                .file("b", "")
                .pax(b'g', &[("gid", b"")])
                .file("c", "")
                .end(),
            Tree(&["a u7:8", "b u9:8", "c u7:0"]),
        ),
        (
            "an entry's own attribute in another form than the one for all",
            Tar::new()
                .pax(
                    b'g',
                    &[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"1")],
                )
                .pax(b'x', &[("LIBARCHIVE.xattr.user.a", b"Mg")])
                .file("a", "")
                .file("b", "")
                .end(),
            Tree(&["a {user.a=2} {user.b=1}", "b {user.a=1} {user.b=1}"]),
        ),
        (
            "global header that makes all files sparse",
            Tar::new()
                .pax(
                    b'g',
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.realsize", b"10"),
                    ],
                )
                .file("a", "1\n0\n3\n")
                .end(),
            Error(UNSUPPORTED, &["at byte 0", "sparse"]),
        ),
        (
            "global header alone, as git archive writes it",
            Tar::new().pax(b'g', &[("comment", b"0123")]).end(),
            Tree(&[]),
        ),
        (
            "records of several PAX headers add up",
            Tar::new()
                .pax(b'x', &[("uid", b"1")])
                .pax(b'x', &[("gid", b"2")])
                .file("a", "")
                .end(),
            Tree(&["a u1:2"]),
        ),
        (
            "Solaris's kind of PAX header",
            Tar::new().pax(b'X', &[("uid", b"1")]).file("a", "").end(),
            Tree(&["a u1:0"]),
        ),
        (
            "PAX size over the header's",
            Tar::new()
                .pax(b'x', &[("size", b"3")])
                .header(&Header::new("a", b'0', 0))
                .data("abc")
                .file("b", "2")
                .end(),
            Tree(&["a =abc", "b =2"]),
        ),
        (
            "xattrs in both forms",
            Tar::new()
                .pax(
                    b'x',
                    &[
                        ("SCHILY.xattr.user.a", b"1\0\n="),
                        ("SCHILY.xattr.user.empty", b""),
                        ("SCHILY.xattr.user.e%3Dq%25", b"x"),
                        ("LIBARCHIVE.xattr.user.b%20c", b"aGVsbG8="),
                        ("LIBARCHIVE.xattr.user.a", b"eHg="),
                        ("SCHILY.xattr.trusted.t", b"2"),
                        ("SCHILY.xattr.security.selinux", b"s0\0"),
                    ],
                )
                .file("a", "")
                .end(),
            Tree(&[
                "a {security.selinux=s0\\x00} {trusted.t=2} {user.a=1\\x00\\n=} {user.b c=hello} {user.e=q%=x} {user.empty=}",
            ]),
        ),
        (
            "xattrs on every type",
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.user.a", b"1")])
                .dir("d")
                .pax(b'x', &[("SCHILY.xattr.trusted.a", b"2")])
                .symlink("l", "d")
                .pax(b'x', &[("SCHILY.xattr.trusted.a", b"3")])
                .fifo("p")
                .pax(
                    b'x',
                    &[(
                        "SCHILY.xattr.security.capability",
                        b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                    )],
                )
                .file("ping", "")
                .end(),
            Tree(&[
                "d/ {user.a=1}",
                "l ->d {trusted.a=2}",
                "p p {trusted.a=3}",
                "ping {security.capability=\\x01\\x00\\x00\\x02\\x00 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00}",
            ]),
        ),
        (
            "xattr value of 3 KiB",
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.user.big", &[b'v'; 3000])])
                .file("a", "")
                .end(),
            Tree(&["a {user.big=#3000}"]),
        ),
        (
            "xattr value past a block",
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.user.big", &[b'v'; 20_000])])
                .file("a", "1")
                .end(),
            Tree(&["a =1 {user.big=#20000}"]),
        ),
        (
            "broken base64",
            Tar::new()
                .pax(b'x', &[("LIBARCHIVE.xattr.user.a", b"*")])
                .file("a", "")
                .end(),
            Error(CORRUPT, &["LIBARCHIVE.xattr.user.a"]),
        ),
        (
            "PAX record without a length",
            Tar::new().pax_raw(b'x', b"path=a\n").file("a", "").end(),
            Error(CORRUPT, &["PAX record"]),
        ),
        (
            "PAX record that is longer than its header",
            Tar::new().pax_raw(b'x', b"99 path=a\n").file("a", "").end(),
            Error(CORRUPT, &["PAX record"]),
        ),
        (
            "PAX header of 100 MB",
            Tar::new()
                .header(&Header::new("pax", b'x', 100_000_000))
                .data("12 path=a\n")
                .end(),
            Error(UNSUPPORTED, &["extension headers", "at byte 0"]),
        ),
        (
            "extension headers without end",
            Tar::new()
                .raw(Tar::new().pax(b'x', &[("uid", b"1")]).0.repeat(40_000))
                .file("a", "")
                .end(),
            Error(UNSUPPORTED, &["extension headers"]),
        ),
        (
            "end after an extension header",
            Tar::new().file("a", "").pax(b'x', &[("path", b"b")]).end(),
            Error(CORRUPT, &["at byte 512", "extension header"]),
        ),
        (
            "volume label",
            Tar::new().header(&Header::new("LABEL", b'V', 0).gnu()).file("a", "1").end(),
            Tree(&["a =1"]),
        ),
        (
            "GNU incremental's directory, with its list",
            Tar::new()
                .header(&Header::new("d", b'D', 4).gnu())
                .data("Ya\0\0")
                .file("d/a", "1")
                .end(),
            Tree(&["d/ m644", "d/a =1"]),
        ),
        (
            "multi-volume continuation",
            Tar::new().header(&Header::new("a", b'M', 4).gnu()).data("abcd").end(),
            Error(UNSUPPORTED, &["\"a\" at byte 0", "multi-volume"]),
        ),
        (
            "multi-volume continuation in PAX form",
            Tar::new()
                .pax(
                    b'g',
                    &[
                        ("GNU.volume.filename", b"a"),
                        ("GNU.volume.size", b"9"),
                        ("GNU.volume.offset", b"5"),
                    ],
                )
                .file("GNUFileParts/a.2", "rest")
                .end(),
            Error(UNSUPPORTED, &["\"GNUFileParts/a.2\"", "multi-volume"]),
        ),
        (
            "Solaris's access control list, in a header of its own",
            Tar::new()
                .header(&Header::new("a", b'A', 54))
                .data("1000004\0user::rw-,user:joe:r--,group::r--,mask:r--,other:---")
                .pax(b'X', &[("uid", b"5")])
                .file("a", "1")
                .end(),
            Tree(&["a =1 u5:0"]),
        ),
        (
            "Solaris's access control list without its entry",
            Tar::new()
                .file("a", "1")
                .header(&Header::new("b", b'A', 8))
                .data("1000004\0")
                .end(),
            Error(CORRUPT, &["at byte 1024", "extension header"]),
        ),
        (
            "headers of all kinds between a long name and its entry",
            Tar::new()
                .long(b'L', &long)
                .pax(b'g', &[("gid", b"8")])
                .pax(b'x', &[("uid", b"7")])
                .long(b'K', "unused")
                .file("cut", "1")
                .file("b", "2")
                .end(),
            Tree(leak({
                let mut lines: Vec<String> = (1..=80).map(|depth| "d/".repeat(depth)).collect();
                lines.insert(0, "b =2 u0:8".into());
                lines.push(long.clone() + " =1 u7:8");
                lines
            })),
        ),
        (
            "link target with a zero byte",
            Tar::new()
                .pax(b'x', &[("linkpath", b"a\0b")])
                .symlink("l", "x")
                .end(),
            Error(CORRUPT, &["\"l\" at byte 0", "zero byte"]),
        ),
        (
            "xattr that is ext4's own place for inline data",
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.system.data", b"1")])
                .file("a", "1")
                .end(),
            Tree(&["a =1"]),
        ),
        (
            "xattr whose name has a zero byte",
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.user.a\0b", b"1")])
                .file("a", "1")
                .end(),
            Error(CORRUPT, &["\"a\"", "not a name"]),
        ),
        (
            "xattr that should be an access control list and is none",
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.system.posix_acl_access", b"rubbish")])
                .file("a", "1")
                .end(),
            Error(CORRUPT, &["\"a\"", "not an ACL"]),
        ),
        (
            "access control list of NFSv4's kind",
            Tar::new()
                .pax(b'x', &[("SCHILY.acl.ace", b"owner@:rwx:allow")])
                .file("a", "1")
                .end(),
            Tree(&["a =1"]),
        ),
        (
            "unknown type",
            Tar::new().header(&Header::new("a", b'Z', 3)).data("abc").file("x", "1").end(),
            Tree(&["a =abc", "x =1"]),
        ),
        (
            "access control lists as text are left out",
            Tar::new()
                .pax(b'x', &[("SCHILY.acl.access", b"user::rw-,group::r--,other::r--")])
                .file("a", "1")
                .end(),
            Tree(&["a =1"]),
        ),
        (
            "access control list as an xattr",
            Tar::new()
                .pax(
                    b'x',
                    &[(
                        "SCHILY.xattr.system.posix_acl_access",
                        b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff",
                    )],
                )
                .file("a", "1")
                .end(),
            Tree(&["a =1 {system.posix_acl_access=#44}"]),
        ),
        (
            "star's header, with times behind a shorter prefix",
            Tar::new()
                .header(&Header {
                    tail: {
                        let mut tail = b"some/folder".to_vec();
                        tail.resize(131, 0);
                        tail.extend(octal(1, 12));
                        tail.extend(octal(2, 12));
                        tail.resize(163, 0);
                        tail.extend(b"tar\0");
                        tail
                    },
                    ..Header::new("file", b'0', 0)
                })
                .end(),
            Tree(&["some/", "some/folder/", "some/folder/file"]),
        ),
        (
            "star's large device numbers",
            Tar::new()
                .pax(b'x', &[("SCHILY.devmajor", b"4000"), ("SCHILY.devminor", b"1000000")])
                .device("a", b'4', 0, 0)
                .end(),
            Tree(&["a b4000:1000000"]),
        ),
        (
            "GNU incremental's directory in PAX form",
            Tar::new()
                .pax(b'x', &[("GNU.dumpdir", b"Ya\0Nb\0\0")])
                .dir("d/")
                .file("d/a", "1")
                .end(),
            Tree(&["d/", "d/a =1"]),
        ),
        (
            "records of other tools mean nothing",
            Tar::new()
                .pax(
                    b'x',
                    &[
                        ("SCHILY.dev", b"66306"),
                        ("SCHILY.ino", b"1234"),
                        ("SCHILY.nlink", b"1"),
                        ("SCHILY.fflags", b"nodump"),
                        ("LIBARCHIVE.creationtime", b"1.5"),
                        ("hdrcharset", b"BINARY"),
                        ("comment", b"hello"),
                        ("uname", b"joe"),
                    ],
                )
                .file("a", "1")
                .end(),
            Tree(&["a =1"]),
        ),
        (
            "V7 tar with a link and a name of 100 bytes",
            Tar::new()
                .header(&Header::new("n".repeat(100), 0, 2).v7())
                .data("hi")
                .header(&Header::new("h", b'1', 0).link("n".repeat(100)).v7())
                .header(&Header::new("s", b'2', 0).link("h").v7())
                .end(),
            Tree(leak(vec![
                "h n2 =hi".into(),
                format!("{} ==h", "n".repeat(100)),
                "s ->h".into(),
            ])),
        ),
        (
            "file capability with a root user's number (version 3)",
            Tar::new()
                .pax(
                    b'x',
                    &[(
                        "SCHILY.xattr.security.capability",
                        b"\x01\0\0\x03\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xe8\x03\0\0",
                    )],
                )
                .file("a", "")
                .end(),
            Tree(&[
                "a {security.capability=\\x01\\x00\\x00\\x03\\x00 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xe8\\x03\\x00\\x00}",
            ]),
        ),
        (
            "xattr value past 64 KiB, which Linux could not give out",
            Tar::new()
                .pax(b'x', &[("SCHILY.xattr.user.big", &[b'v'; 65_537])])
                .file("a", "1")
                .end(),
            Error(UNSUPPORTED, &["\"a\"", "user.big"]),
        ),
        (
            "more xattrs than an inode and its block hold",
            Tar::new()
                .pax(
                    b'x',
                    &[
                        ("SCHILY.xattr.user.a", &[b'a'; 3000]),
                        ("SCHILY.xattr.user.b", &[b'b'; 3000]),
                        ("SCHILY.xattr.user.c", &[b'c'; 3000]),
                    ],
                )
                .file("a", "1")
                .end(),
            Tree(&["a =1 {user.a=#3000} {user.b=#3000} {user.c=#3000}"]),
        ),
    ]
}
