//! Tars: of tools, and forged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use positioned_io::WriteAt;

use crate::forge::{Header, Tar, base256, gnu_sparse_tail};
use crate::{Corpus, SEAL, run};

pub fn make(folder: &Path) {
    let corpus = Corpus::open("tar");
    let source = folder.join("small");
    fs::create_dir_all(source.join("d/e")).expect("a folder");
    fs::write(source.join("d/a"), "content").expect("a file");
    fs::hard_link(source.join("d/a"), source.join("d/e/b")).expect("a link");
    symlink("../a", source.join("d/e/s")).expect("a link");
    fs::write(source.join("d").join("l".repeat(120)), "long").expect("a file");
    let mut sparse = fs::File::create(source.join("d/sparse")).expect("a file");
    sparse.set_len(300_000).expect("a hole");
    sparse.write_all_at(200_000, b"data").expect("data");
    let (tree, out) = (source.to_str().expect("a name"), folder.join("out.tar"));
    let out = out.to_str().expect("a name");
    for (name, program, options) in [
        ("gnu", "tar", "--format=gnu -S -b1"),
        ("oldgnu", "tar", "--format=oldgnu -S -b1"),
        (
            "ustar",
            "tar",
            "--format=ustar -b1 --exclude=sparse --exclude=l*",
        ),
        ("v7", "tar", "--format=v7 -b1 --exclude=sparse --exclude=l*"),
        (
            "pax-0.0",
            "tar",
            "--format=posix -S --sparse-version=0.0 -b1",
        ),
        (
            "pax-0.1",
            "tar",
            "--format=posix -S --sparse-version=0.1 -b1",
        ),
        (
            "pax-1.0",
            "tar",
            "--format=posix -S --sparse-version=1.0 -b1",
        ),
        ("bsdtar", "bsdtar", "--format=pax -b1"),
    ] {
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.extend(["-C", tree, "-cf", out, "d"]);
        run(program, &arguments);
        corpus.put_tar(name, SEAL, &fs::read(out).expect("a tar"));
    }
    forged(&corpus);
}

/// Such as no tool writes.
fn forged(corpus: &Corpus) {
    let all = |kind: u8, value: i128| Header {
        uid: base256(value, 8),
        size: base256(2, 12),
        mtime: base256(-value, 12),
        ..Header::new("b", kind, 2)
    };
    let forged: [(&str, u8, Tar); 14] = [
        (
            "replace",
            SEAL,
            Tar::new()
                .dir("a")
                .file("a/b", "1")
                .file("a", "2")
                .symlink("a", "b")
                .dir("a"),
        ),
        (
            "links",
            SEAL,
            Tar::new()
                .file("a", "1")
                .hardlink("b", "a")
                .symlink("s", "a")
                .hardlink("t", "s")
                .file("a", "2"),
        ),
        (
            "nodes",
            SEAL,
            Tar::new()
                .device("c", b'3', 5, 1)
                .device("d", b'4', 259, 300_000)
                .fifo("p"),
        ),
        (
            "whiteouts",
            SEAL,
            Tar::new()
                .dir("d")
                .file("d/.wh..wh..opq", "")
                .file("d/.wh.a", "")
                .file("d/a", "1"),
        ),
        (
            "whiteouts-kept",
            SEAL | 2,
            Tar::new().file("d/.wh..wh..opq", "").file("d/.wh.a", ""),
        ),
        (
            "backslashes",
            SEAL | 4,
            Tar::new().file("a\\b", "1").hardlink("c\\d", "a\\b"),
        ),
        (
            "inline",
            SEAL | 8,
            Tar::new().file("a", "1").file("b", [7; 150]).dir("d"),
        ),
        (
            "small-blocks",
            SEAL | 0x10,
            Tar::new().file("a", [7; 3000]).symlink("s", "t".repeat(99)),
        ),
        (
            "numbers",
            SEAL,
            Tar::new()
                .header(&all(b'0', 0x7fff_fff1))
                .data("ab")
                .header(&all(b'7', 3))
                .data("ab"),
        ),
        (
            "long",
            SEAL,
            Tar::new()
                .long(b'L', "x/".repeat(70))
                .file("a", "1")
                .long(b'K', "t".repeat(200))
                .symlink("b", "c"),
        ),
        (
            "global",
            SEAL,
            Tar::new()
                .pax(b'g', &[("uid", b"77"), ("comment", b"c")])
                .file("a", "1")
                .pax(b'g', &[("uid", b"")])
                .file("b", "2"),
        ),
        (
            "attributes",
            SEAL,
            Tar::new()
                .pax(
                    b'x',
                    &[
                        ("mtime", b"-3.25"),
                        ("SCHILY.xattr.user.a", b"\0\xff="),
                        (
                            "SCHILY.xattr.security.capability",
                            b"\x01\0\0\x02\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                        ),
                        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                        ("LIBARCHIVE.xattr.user.b", b"YQ=="),
                        (
                            "SCHILY.acl.access",
                            b"user::rw-,user:5:r--,group::r--,mask::r--,other::---",
                        ),
                    ],
                )
                .file("a", "1"),
        ),
        (
            "old-sparse",
            SEAL,
            Tar::new()
                .header(&Header {
                    tail: gnu_sparse_tail(&[(512, 2), (4096, 1)], false, 9000),
                    ..Header::new("s", b'S', 3).gnu()
                })
                .data("abc"),
        ),
        (
            "huge-sparse",
            SEAL,
            Tar::new()
                .pax(
                    b'x',
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.name", b"h"),
                        ("GNU.sparse.realsize", b"214748364800"),
                    ],
                )
                .header(&Header::new("x", b'0', 513))
                .data("1\n107374182400\n1\n")
                .data("z"),
        ),
    ];
    for (name, flags, tar) in forged {
        corpus.put_tar(name, flags, &tar.end());
    }
}
