//! Paths, names and node types as most tars have them.

use super::*;

pub(super) fn basics() -> Vec<Case> {
    let name255 = "n".repeat(255);
    let link4095 = "t".repeat(4095);
    vec![
        ("end blocks alone", Tar::new().end(), Tree(&[])),
        (
            "no end blocks",
            Tar::new().file("a", "1").0,
            Tree(&["a =1"]),
        ),
        (
            "one end block",
            Tar::new().file("a", "1").raw([0; 512]).0,
            Tree(&["a =1"]),
        ),
        (
            "rubbish behind the end is ignored",
            Tar::new().file("a", "1").raw([0; 1024]).raw(b"rubbish").0,
            Tree(&["a =1"]),
        ),
        (
            "a second tar behind the end is ignored",
            Tar::new()
                .file("a", "1")
                .raw([0; 1024])
                .file("b", "2")
                .end(),
            Tree(&["a =1"]),
        ),
        (
            "every type",
            Tar::new()
                .dir("d/")
                .file("d/f", "hello")
                .file("d/empty", "")
                .symlink("d/l", "f")
                .hardlink("d/h", "d/f")
                .device("d/c", b'3', 1, 3)
                .device("d/b", b'4', 8, 300)
                .fifo("d/p")
                .end(),
            Tree(&[
                "d/",
                "d/b b8:300",
                "d/c c1:3",
                "d/empty",
                "d/f n2 =hello",
                "d/h ==d/f",
                "d/l ->f",
                "d/p p",
            ]),
        ),
        (
            "absolute paths, dots and slashes",
            Tar::new()
                .file("/a", "1")
                .file("./b", "2")
                .file("c//d/./e", "3")
                .file("c/x/../f", "4")
                .dir("./g///")
                .end(),
            Tree(&["a =1", "b =2", "c/", "c/d/", "c/d/e =3", "c/f =4", "g/"]),
        ),
        (
            "climbing above the root",
            Tar::new().file("a/../../etc/passwd", "x").end(),
            Error(
                CORRUPT,
                &["a/../../etc/passwd", "at byte 0", "above the root"],
            ),
        ),
        (
            "hard link that climbs above the root",
            Tar::new().hardlink("a", "../../etc/passwd").end(),
            Error(CORRUPT, &["\"a\"", "../../etc/passwd", "above the root"]),
        ),
        (
            "missing parents",
            Tar::new()
                .header(&Header {
                    mtime: octal(77, 12),
                    ..Header::new("a/b/c", b'0', 0)
                })
                .end(),
            Tree(&["a/ t77", "a/b/ t77", "a/b/c t77"]),
        ),
        (
            "parent's entry after its child",
            Tar::new()
                .file("a/b", "1")
                .header(&Header {
                    mode: octal(0o700, 8),
                    uid: octal(5, 8),
                    ..Header::new("a/", b'5', 0)
                })
                .end(),
            Tree(&["a/ m700 u5:0", "a/b =1"]),
        ),
        (
            "root's own entry",
            Tar::new()
                .header(&Header {
                    mode: octal(0o1777, 8),
                    gid: octal(9, 8),
                    mtime: octal(5, 12),
                    ..Header::new("./", b'5', 0)
                })
                .file("a", "")
                .end(),
            Tree(&["./ m1777 u0:9 t5", "a"]),
        ),
        (
            "root as a file",
            Tar::new().file(".", "x").end(),
            Error(CORRUPT, &["root"]),
        ),
        (
            "non-UTF-8 names",
            Tar::new()
                .file(b"\xff\xfe", "1")
                .symlink(b"l\x80", b"\xc3")
                .end(),
            Tree(&["l\\x80 ->\\xc3", "\\xff\\xfe =1"]),
        ),
        (
            "newlines, quotes and spaces in names",
            Tar::new().file("a\nb \"c\"", "1").end(),
            Tree(&["a\\nb \"c\" =1"]),
        ),
        (
            "255-byte name",
            Tar::new()
                .pax(b'x', &[("path", name255.as_bytes())])
                .file("x", "1")
                .end(),
            Tree(leak(vec![format!("{name255} =1")])),
        ),
        (
            "256-byte name",
            Tar::new()
                .pax(b'x', &[("path", "n".repeat(256).as_bytes())])
                .file("x", "1")
                .end(),
            Error(UNSUPPORTED, &["nnnn", "256 bytes", "255"]),
        ),
        (
            "4,096-byte path",
            Tar::new()
                .pax(b'x', &[("path", "abc/".repeat(1024).as_bytes())])
                .dir("x")
                .end(),
            Tree(leak((1..=1024).map(|depth| "abc/".repeat(depth)).collect())),
        ),
        (
            "endless path",
            Tar::new()
                .pax(b'x', &[("path", "a/".repeat(100_000).as_bytes())])
                .dir("x")
                .end(),
            Error(UNSUPPORTED, &["200000 bytes"]),
        ),
        (
            "longest symbolic link",
            Tar::new()
                .pax(b'x', &[("linkpath", link4095.as_bytes())])
                .symlink("l", "x")
                .end(),
            Tree(leak(vec![format!("l ->{link4095}")])),
        ),
        (
            "symbolic link too long",
            Tar::new()
                .pax(b'x', &[("linkpath", "t".repeat(4096).as_bytes())])
                .symlink("l", "x")
                .end(),
            Error(UNSUPPORTED, &["\"l\""]),
        ),
        (
            "symbolic link without target",
            Tar::new().symlink("l", "").end(),
            Error(CORRUPT, &["\"l\"", "without a target"]),
        ),
        (
            "symbolic links keep targets that lead out",
            Tar::new()
                .symlink("a", "/etc")
                .symlink("b", "../../x")
                .end(),
            Tree(&["a ->/etc", "b ->../../x"]),
        ),
        (
            "zero byte in a path",
            Tar::new()
                .pax(b'x', &[("path", b"a\0b")])
                .file("x", "1")
                .end(),
            Error(CORRUPT, &["zero byte"]),
        ),
        (
            "set-id and sticky bits; type bits in the mode are ignored",
            Tar::new()
                .header(&Header {
                    mode: octal(0o107_755, 8),
                    ..Header::new("a", b'0', 0)
                })
                .end(),
            Tree(&["a m7755"]),
        ),
        (
            "content of whole blocks and one byte more",
            Tar::new()
                .file("a", vec![b'a'; 4096])
                .file("b", vec![b'b'; 4097])
                .file("c", vec![b'c'; 512])
                .end(),
            Tree(&["a =4096#", "b =4097#", "c =512#"]),
        ),
    ]
}
