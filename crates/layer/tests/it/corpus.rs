//! Odd tars, each with the tree or the error it must give.

use opengcs_layer::{ErrorKind, FilesystemOptions, TarToExt4Options, TarWhiteouts, tar_to_ext4};

use crate::forge::{Header, Tar, base256, gnu_sparse_tail, octal, pax_records};
use crate::{judge, listing};

pub enum Expect {
    /// The lines of the listing.
    Tree(&'static [&'static str]),
    /// An error of this kind, whose line has all of these in it.
    Error(ErrorKind, &'static [&'static str]),
}

use Expect::{Error, Tree};

const CORRUPT: ErrorKind = ErrorKind::Corrupt;
const UNSUPPORTED: ErrorKind = ErrorKind::Unsupported;

pub type Case = (&'static str, Vec<u8>, Expect);

fn basics() -> Vec<Case> {
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

fn leak(lines: Vec<String>) -> &'static [&'static str] {
    let lines: Vec<&'static str> = lines
        .into_iter()
        .map(|line| &*Box::leak(line.into_boxed_str()))
        .collect();
    Box::leak(lines.into_boxed_slice())
}

fn replacing() -> Vec<Case> {
    vec![
        (
            "file by file",
            Tar::new()
                .file("a", "old and longer")
                .file("a", "new")
                .end(),
            Tree(&["a =new"]),
        ),
        (
            "directory with a tree in it by file",
            Tar::new()
                .file("a/b/c", "1")
                .file("a/d", "2")
                .file("a", "3")
                .end(),
            Tree(&["a =3"]),
        ),
        (
            "file by directory",
            Tar::new().file("a", "1").dir("a/").file("a/b", "2").end(),
            Tree(&["a/", "a/b =2"]),
        ),
        (
            "directory by symbolic link",
            Tar::new().file("a/b", "1").symlink("a", "b").end(),
            Tree(&["a ->b"]),
        ),
        (
            "symbolic link by directory",
            Tar::new()
                .symlink("a", "/etc")
                .dir("a")
                .file("a/passwd", "x")
                .end(),
            Tree(&["a/", "a/passwd =x"]),
        ),
        (
            "symbolic link by file is not written through",
            Tar::new()
                .file("t", "target")
                .symlink("a", "t")
                .file("a", "x")
                .end(),
            Tree(&["a =x", "t =target"]),
        ),
        (
            "directory by directory keeps children",
            Tar::new()
                .dir("a")
                .file("a/b", "1")
                .header(&Header {
                    mode: octal(0o711, 8),
                    ..Header::new("a", b'5', 0)
                })
                .end(),
            Tree(&["a/ m711", "a/b =1"]),
        ),
        (
            "device by fifo by file",
            Tar::new()
                .device("a", b'3', 5, 1)
                .fifo("a")
                .file("a", "1")
                .end(),
            Tree(&["a =1"]),
        ),
        (
            "below a symbolic link",
            Tar::new().symlink("a", "/etc").file("a/passwd", "x").end(),
            Error(
                CORRUPT,
                &["\"a/passwd\" at byte 512", "below \"a\"", "symbolic link"],
            ),
        ),
        (
            "below a symbolic link to a directory of the tar",
            Tar::new().dir("d").symlink("a", "d").file("a/f", "x").end(),
            Error(
                CORRUPT,
                &["\"a/f\" at byte 1024", "below \"a\"", "symbolic link"],
            ),
        ),
        (
            "below a file",
            Tar::new().file("x/a", "1").file("x/a/b/c", "x").end(),
            Error(CORRUPT, &["x/a/b/c", "below \"x/a\"", "a file"]),
        ),
        (
            "children again after their directory was replaced",
            Tar::new()
                .file("a/b", "1")
                .file("a", "2")
                .dir("a")
                .file("a/b", "3")
                .end(),
            Tree(&["a/", "a/b =3"]),
        ),
    ]
}

fn hard_links() -> Vec<Case> {
    vec![
        (
            "to a symbolic link",
            Tar::new().symlink("l", "nowhere").hardlink("h", "l").end(),
            Tree(&["h n2 ->nowhere", "l ==h"]),
        ),
        (
            "to a device and a fifo",
            Tar::new()
                .device("c", b'3', 1, 3)
                .fifo("p")
                .hardlink("c2", "c")
                .hardlink("p2", "/p")
                .end(),
            Tree(&["c n2 c1:3", "c2 ==c", "p n2 p", "p2 ==p"]),
        ),
        (
            "target replaced later",
            Tar::new()
                .file("a", "old")
                .hardlink("b", "a")
                .file("a", "new")
                .end(),
            Tree(&["a =new", "b =old"]),
        ),
        (
            "to itself",
            Tar::new().file("a", "1").hardlink("a", "./a").end(),
            Tree(&["a =1"]),
        ),
        (
            "again to what it is already",
            Tar::new()
                .file("a", "1")
                .hardlink("b", "a")
                .hardlink("b", "a")
                .end(),
            Tree(&["a n2 =1", "b ==a"]),
        ),
        (
            "replacing a directory",
            Tar::new()
                .file("a", "1")
                .file("d/x", "2")
                .hardlink("d", "a")
                .end(),
            Tree(&["a n2 =1", "d ==a"]),
        ),
        (
            "replacing the directory of its target",
            Tar::new().file("d/x", "2").hardlink("d", "d/x").end(),
            Error(CORRUPT, &["\"d\"", "\"d/x\"", "would replace"]),
        ),
        (
            "into a missing directory",
            Tar::new().file("a", "1").hardlink("x/y/b", "a").end(),
            Tree(&["a n2 =1", "x/", "x/y/", "x/y/b ==a"]),
        ),
        (
            "missing target",
            Tar::new().hardlink("b", "a").file("a", "1").end(),
            Error(CORRUPT, &["\"b\"", "\"a\"", "not in the tar before it"]),
        ),
        (
            "target through a symbolic link",
            Tar::new()
                .file("d/a", "1")
                .symlink("s", "d")
                .hardlink("b", "s/a")
                .end(),
            Error(CORRUPT, &["\"b\"", "\"s/a\"", "not in the tar"]),
        ),
        (
            "to a directory",
            Tar::new().dir("d").hardlink("b", "d").end(),
            Error(CORRUPT, &["\"b\"", "\"d\"", "a directory"]),
        ),
        (
            "with a size, which counts for nothing",
            Tar::new()
                .file("a", "1")
                .header(&Header::new("b", b'1', 1000).link("a"))
                .file("c", "3")
                .end(),
            Tree(&["a n2 =1", "b ==a", "c =3"]),
        ),
        (
            "long names both",
            Tar::new()
                .long(b'L', "x/".repeat(60) + "target")
                .file("short", "1")
                .long(b'K', "x/".repeat(60) + "target")
                .long(b'L', "y".repeat(120))
                .hardlink("short", "short")
                .end(),
            Tree(leak({
                let mut lines: Vec<String> = (1..=60).map(|depth| "x/".repeat(depth)).collect();
                lines.push("x/".repeat(60) + "target n2 =1");
                lines.push("y".repeat(120) + " ==" + &"x/".repeat(60) + "target");
                lines
            })),
        ),
    ]
}

fn whiteouts() -> Vec<Case> {
    const OPAQUE: &str = "d/ {trusted.overlay.opaque=y}";
    vec![
        (
            "whiteout",
            Tar::new().file("d/.wh.gone", "").end(),
            Tree(&["d/", "d/gone c0:0 m0"]),
        ),
        (
            "whiteout of a hidden name",
            Tar::new().file(".wh..gone", "").end(),
            Tree(&[".gone c0:0 m0"]),
        ),
        (
            "opaque before and after the directory's entry",
            Tar::new()
                .file("d/.wh..wh..opq", "")
                .dir("d")
                .file("d/a", "1")
                .end(),
            Tree(&[OPAQUE, "d/a =1"]),
        ),
        (
            "opaque last",
            Tar::new()
                .dir("d")
                .file("d/a", "1")
                .file("d/.wh..wh..opq", "")
                .end(),
            Tree(&[OPAQUE, "d/a =1"]),
        ),
        (
            "whiteout before the file of the same name",
            Tar::new().file(".wh.a", "").file("a", "1").end(),
            Tree(&["a =1"]),
        ),
        (
            "whiteout after the file of the same name",
            Tar::new().file("a", "1").file(".wh.a", "").end(),
            Tree(&["a =1"]),
        ),
        (
            "whiteout before the directory of the same name",
            Tar::new().file(".wh.d", "").dir("d").file("d/a", "1").end(),
            Tree(&[OPAQUE, "d/a =1"]),
        ),
        (
            "whiteout after the directory of the same name",
            Tar::new().dir("d").file("d/a", "1").file(".wh.d", "").end(),
            Tree(&[OPAQUE, "d/a =1"]),
        ),
        (
            "whiteout, then a child without its parent's entry",
            Tar::new().file(".wh.d", "").file("d/a", "1").end(),
            Tree(&[OPAQUE, "d/a =1"]),
        ),
        (
            "whiteout twice",
            Tar::new().file(".wh.a", "").file(".wh.a", "").end(),
            Tree(&["a c0:0 m0"]),
        ),
        (
            "whiteout with content",
            Tar::new().file(".wh.a", "content").file("b", "2").end(),
            Tree(&["a c0:0 m0", "b =2"]),
        ),
        (
            "whiteout by hard link, as AUFS made them",
            Tar::new().file("x", "").hardlink(".wh.a", "x").end(),
            Tree(&["a c0:0 m0", "x"]),
        ),
        (
            "aufs's bookkeeping is ignored",
            Tar::new()
                .dir(".wh..wh.plnk")
                .file(".wh..wh.plnk/12.34", "x")
                .file(".wh..wh.aufs", "")
                .file("d/.wh..wh.orph", "")
                .file("a", "1")
                .end(),
            Tree(&["a =1"]),
        ),
        (
            "opaque root",
            Tar::new().file(".wh..wh..opq", "").end(),
            Tree(&["./ {trusted.overlay.opaque=y}"]),
        ),
        (
            "below a whiteout",
            Tar::new().file(".wh.a/b", "1").end(),
            Error(CORRUPT, &[".wh.a/b", "below a whiteout"]),
        ),
        (
            "hard link to what is hidden",
            Tar::new().file(".wh.a", "").hardlink("b", "a").end(),
            Error(CORRUPT, &["\"b\"", "\"a\"", "not in the tar"]),
        ),
        (
            "bare prefix is a name",
            Tar::new().file(".wh.", "1").end(),
            Tree(&[".wh. =1"]),
        ),
        (
            "whiteout in overlayfs's own form",
            Tar::new().device("a", b'3', 0, 0).end(),
            Tree(&["a c0:0"]),
        ),
    ]
}

fn numbers() -> Vec<Case> {
    vec![
        (
            "base-256 owners and size",
            Tar::new()
                .header(&Header {
                    uid: base256(4_000_000_000, 8),
                    gid: base256(3_000_000_000, 8),
                    size: base256(2, 12),
                    ..Header::new("a", b'0', 0).gnu()
                })
                .data("hi")
                .end(),
            Tree(&["a =hi u4000000000:3000000000"]),
        ),
        (
            "PAX owners",
            Tar::new()
                .pax(b'x', &[("uid", b"4294967294"), ("gid", b"2147483649")])
                .file("a", "")
                .end(),
            Tree(&["a u4294967294:2147483649"]),
        ),
        (
            "owner beyond 32 bits",
            Tar::new()
                .pax(b'x', &[("uid", b"4294967296")])
                .file("a", "")
                .end(),
            Error(UNSUPPORTED, &["\"a\" at byte 0", "uid", "32 bits"]),
        ),
        (
            "negative owner",
            Tar::new()
                .header(&Header {
                    uid: vec![0xff; 8],
                    ..Header::new("a", b'0', 0)
                })
                .end(),
            Error(UNSUPPORTED, &["uid"]),
        ),
        (
            "negative size",
            Tar::new()
                .header(&Header {
                    size: vec![0xff; 12],
                    ..Header::new("a", b'0', 0)
                })
                .end(),
            Error(CORRUPT, &["size is not a number"]),
        ),
        (
            "size that is no number",
            Tar::new()
                .header(&Header {
                    size: b"12345678x".to_vec(),
                    ..Header::new("a", b'0', 0)
                })
                .end(),
            Error(CORRUPT, &["size is not a number"]),
        ),
        (
            "numbers without zeros or terminators",
            Tar::new()
                .header(&Header {
                    mode: b"   600 ".to_vec(),
                    uid: b"00000017".to_vec(),
                    gid: Vec::new(),
                    size: b"          2 ".to_vec(),
                    mtime: b"00000000012".to_vec(),
                    ..Header::new("a", b'0', 0)
                })
                .data("hi")
                .end(),
            Tree(&["a =hi m600 u15:0 t10"]),
        ),
        (
            "time before 1970 in base-256",
            Tar::new()
                .header(&Header {
                    mtime: base256(-5, 12),
                    ..Header::new("a", b'0', 0)
                })
                .end(),
            Tree(&["a t-5"]),
        ),
        (
            "PAX times",
            Tar::new()
                .pax(b'x', &[("mtime", b"1700000000.123456789")])
                .file("a", "")
                .pax(b'x', &[("mtime", b"-1.5")])
                .file("b", "")
                .pax(b'x', &[("mtime", b"4400000000")])
                .file("c", "")
                .pax(
                    b'x',
                    &[("mtime", b"0.5"), ("atime", b"7"), ("ctime", b"8.25")],
                )
                .file("d", "")
                .end(),
            Tree(&[
                "a t1700000000+123456789",
                "b t-2+500000000",
                "c t4400000000",
                "d t0+500000000",
            ]),
        ),
        (
            "PAX time that is none",
            Tar::new()
                .pax(b'x', &[("mtime", b"yesterday")])
                .file("a", "")
                .end(),
            Error(CORRUPT, &["\"a\"", "mtime"]),
        ),
        (
            "device numbers at their limits",
            Tar::new().device("a", b'4', 4095, 1_048_575).end(),
            Tree(&["a b4095:1048575"]),
        ),
        (
            "device number too large",
            Tar::new().device("a", b'3', 4096, 0).end(),
            Error(UNSUPPORTED, &["4096:0"]),
        ),
        (
            "signed checksum",
            Tar::new()
                .header(&{
                    let header = Header::new(b"\xe4", b'0', 0);
                    let sum: i32 = header
                        .bytes()
                        .iter()
                        .enumerate()
                        .map(|(at, byte)| match at {
                            148..156 => 32,
                            _ => i32::from(byte.cast_signed()),
                        })
                        .sum();
                    Header {
                        checksum: Some(format!("{sum:06o}\0 ").into_bytes()),
                        ..header
                    }
                })
                .end(),
            Tree(&["\\xe4"]),
        ),
    ]
}

fn extensions() -> Vec<Case> {
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
            "unknown type",
            Tar::new().file("x", "1").header(&Header::new("a", b'Z', 0)).end(),
            Error(UNSUPPORTED, &["\"a\" at byte 1024", "'Z'"]),
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
    ]
}

fn damaged() -> Vec<Case> {
    let whole = Tar::new()
        .file("first", "1")
        .file("second", vec![b'x'; 5000])
        .end();
    vec![
        (
            "no tar at all",
            b"hello, this is no tar".repeat(100),
            Error(CORRUPT, &["no tar stream"]),
        ),
        (
            "a few bytes",
            b"hello".to_vec(),
            Error(CORRUPT, &["no tar stream", "5 bytes"]),
        ),
        ("empty input", Vec::new(), Error(CORRUPT, &["empty"])),
        (
            "nothing, compressed",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0".to_vec(),
            Error(CORRUPT, &["empty"]),
        ),
        (
            "cut within content",
            whole[..3000].to_vec(),
            Error(
                CORRUPT,
                &["\"second\" at byte 1024", "byte 3000", "1464 of 5000 bytes"],
            ),
        ),
        (
            "cut within the padding",
            whole[..1024 + 512 + 5100].to_vec(),
            Error(CORRUPT, &["\"second\" at byte 1024", "byte 6636"]),
        ),
        (
            "cut within a header",
            whole[..1300].to_vec(),
            Error(CORRUPT, &["at byte 1024", "within a header"]),
        ),
        (
            "header's checksum",
            {
                let mut tar = whole.clone();
                tar[1024] ^= 1;
                tar
            },
            Error(CORRUPT, &["at byte 1024", "checksum"]),
        ),
        (
            "content taken for a header",
            {
                let mut tar = whole;
                tar.drain(512..1024);
                tar
            },
            Error(CORRUPT, &["at byte 1024", "checksum"]),
        ),
        (
            "lone block of zeros",
            Tar::new().file("a", "1").raw([0; 512]).file("b", "2").end(),
            Error(CORRUPT, &["at byte 1024", "zeros"]),
        ),
        (
            "size of 8 EiB",
            Tar::new()
                .header(&Header {
                    size: base256(i128::from(i64::MAX), 12),
                    ..Header::new("a", b'0', 0)
                })
                .data("x")
                .end(),
            Error(CORRUPT, &["\"a\" at byte 0"]),
        ),
        (
            "cut within an extension header",
            Tar::new().pax(b'x', &[("comment", &[b'c'; 2000])]).0[..1000].to_vec(),
            Error(CORRUPT, &["at byte 0", "extension header"]),
        ),
    ]
}

fn sparse() -> Vec<Case> {
    const EXPECTED: Expect = Tree(&["s =1048576#", "z =1"]);
    let block = |letter: u8| vec![letter; 512];
    let gnu = Tar::new()
        .header(&Header {
            size: octal(1024, 12),
            tail: gnu_sparse_tail(
                &[(4096, 512), (65536, 512), (1_048_576, 0)],
                false,
                1_048_576,
            ),
            ..Header::new("s", b'S', 0).gnu()
        })
        .data(block(b'a'))
        .data(block(b'b'))
        .file("z", "1")
        .end();
    let extended_runs: Vec<(u64, u64)> = (0..30).map(|at| (at * 8192, 512)).collect();
    let mut extension = [0; 1024];
    for (slot, (offset, length)) in extended_runs[4..].iter().enumerate() {
        let at = slot / 21 * 512 + slot % 21 * 24;
        extension[at..at + 12].copy_from_slice(&octal(*offset, 12));
        extension[at + 12..at + 24].copy_from_slice(&octal(*length, 12));
    }
    extension[504] = 1;
    let gnu_extended = Tar::new()
        .header(&Header {
            size: octal(30 * 512, 12),
            tail: gnu_sparse_tail(&extended_runs[..4], true, 300_000),
            ..Header::new("s", b'S', 0).gnu()
        })
        .raw(extension)
        .data(vec![b'e'; 30 * 512])
        .file("z", "1")
        .end();
    let pax = |records: &[(&str, &[u8])], data: &[u8]| {
        Tar::new()
            .pax_raw(b'x', &pax_records(records))
            .file("GNUSparseFile.0/s", data)
            .file("z", "1")
            .end()
    };
    let data = [block(b'a'), block(b'b')].concat();
    let mut with_map = b"3\n4096\n512\n65536\n512\n1048576\n0\n".to_vec();
    with_map.resize(512, 0);
    with_map.extend(&data);
    let version = |minor: &'static [u8]| {
        [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", minor),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"1048576"),
        ]
    };
    vec![
        ("old GNU", gnu, EXPECTED),
        (
            "old GNU with extension blocks",
            gnu_extended,
            Tree(&["s =300000#", "z =1"]),
        ),
        (
            "PAX 0.0",
            pax(
                &[
                    ("path", b"s"),
                    ("GNU.sparse.size", b"1048576"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"4096"),
                    ("GNU.sparse.numbytes", b"512"),
                    ("GNU.sparse.offset", b"65536"),
                    ("GNU.sparse.numbytes", b"512"),
                ],
                &data,
            ),
            EXPECTED,
        ),
        (
            "PAX 0.1",
            pax(
                &[
                    ("GNU.sparse.size", b"1048576"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"4096,512,65536,512"),
                ],
                &data,
            ),
            EXPECTED,
        ),
        ("PAX 1.0", pax(&version(b"0"), &with_map), EXPECTED),
        (
            "PAX 1.0 with a size record, which includes the map",
            {
                let mut records = version(b"0").to_vec();
                records.push(("size", b"1536"));
                pax(&records, &with_map)
            },
            EXPECTED,
        ),
        (
            "all hole",
            pax(
                &[
                    ("GNU.sparse.size", b"1048576"),
                    ("GNU.sparse.numblocks", b"0"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b""),
                ],
                b"",
            ),
            EXPECTED,
        ),
        (
            "200 GiB of hole",
            pax(
                &[
                    ("GNU.sparse.size", b"214748364800"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"107374182400,1024"),
                ],
                &data,
            ),
            Tree(&["s =214748364800#", "z =1"]),
        ),
        (
            "version 1.1",
            pax(&version(b"1"), &with_map),
            Error(UNSUPPORTED, &["1.1"]),
        ),
        (
            "map beyond the file's end",
            pax(
                &[
                    ("GNU.sparse.size", b"1000"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"4096,1024"),
                ],
                &data,
            ),
            Error(CORRUPT, &["\"s\"", "beyond its end"]),
        ),
        (
            "runs out of order",
            pax(
                &[
                    ("GNU.sparse.size", b"100000"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"4096,512,0,512"),
                ],
                &data,
            ),
            Error(CORRUPT, &["out of order"]),
        ),
        (
            "runs that do not make up the stored bytes",
            pax(
                &[
                    ("GNU.sparse.size", b"100000"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"0,512"),
                ],
                &data,
            ),
            Error(CORRUPT, &["512 bytes", "1024 are stored"]),
        ),
        (
            "odd map",
            pax(
                &[
                    ("GNU.sparse.size", b"100000"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"0,512,1024"),
                ],
                &data,
            ),
            Error(CORRUPT, &["GNU.sparse.map"]),
        ),
        (
            "overflowing run",
            pax(
                &[
                    ("GNU.sparse.size", b"18446744073709551615"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"18446744073709551615,1024"),
                ],
                &data,
            ),
            Error(CORRUPT, &["beyond its end"]),
        ),
        (
            "map in the content that never ends",
            pax(&version(b"0"), &[b'1'; 2048]),
            Error(CORRUPT, &["map of the sparse file"]),
        ),
        (
            "map of a billion runs",
            pax(&version(b"0"), &[&b"1000000000\n"[..], &[0; 1000]].concat()),
            Error(UNSUPPORTED, &["data runs"]),
        ),
        (
            "real size missing",
            pax(&[("GNU.sparse.map", b"0,1024")], &data),
            Error(CORRUPT, &["real size is missing"]),
        ),
    ]
}

pub fn options() -> TarToExt4Options {
    TarToExt4Options {
        filesystem: FilesystemOptions {
            lost_found: false,
            ..FilesystemOptions::default()
        },
        ..TarToExt4Options::default()
    }
}

/// Gives its bytes in pieces of odd sizes.
struct Pieces<'a>(&'a [u8], usize);

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 * 5 % 1021 + 1;
        let end = buffer.len().min(self.1);
        self.0.read(&mut buffer[..end])
    }
}

fn matches(got: &str, want: &str) -> bool {
    got == want || want.ends_with('#') && got.starts_with(want)
}

/// What is wrong with a case, if anything.
fn judge(case: &Case, options: &TarToExt4Options) -> Option<String> {
    let (_, tar, expect) = case;
    let mut image = Vec::new();
    let result = tar_to_ext4(&tar[..], &mut image, options);
    let mut again = Vec::new();
    let second = tar_to_ext4(Pieces(tar, 7), &mut again, options);
    if result.is_ok() != second.is_ok() || (result.is_ok() && image != again) {
        return Some("differs when the tar comes in pieces".into());
    }
    match (result, expect) {
        (Ok(converted), Tree(lines)) => {
            if converted.size != image.len() as u64 {
                return Some(format!("{} of {} bytes", image.len(), converted.size));
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &image).unwrap();
            judge::fsck(file.path());
            let got = listing::list(image);
            let same = got.len() == lines.len()
                && got.iter().zip(*lines).all(|(got, want)| matches(got, want));
            (!same).then(|| format!("gave {got:#?}"))
        }
        (Err(error), Error(kind, parts)) => {
            let line = error.to_string();
            let said = error.kind() == *kind && parts.iter().all(|part| line.contains(part));
            let one_line = !line.contains('\n');
            (!said || !one_line).then(|| format!("said {:?}: {line}", error.kind()))
        }
        (Ok(_), Error(..)) => Some("was taken".into()),
        (Err(error), Tree(_)) => Some(format!("was refused: {error} ({error:?})")),
    }
}

pub fn check(cases: &[Case], options: &TarToExt4Options) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| judge(case, options).map(|what| format!("{}: {what}", case.0)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ordinary_tars_give_their_trees() {
    check(&basics(), &options());
}

#[test]
fn later_entries_replace_earlier_ones() {
    check(&replacing(), &options());
}

#[test]
fn hard_links_join_or_are_refused() {
    check(&hard_links(), &options());
}

#[test]
fn whiteouts_become_overlayfs_ones() {
    check(&whiteouts(), &options());
}

#[test]
fn numbers_of_all_forms_are_read() {
    check(&numbers(), &options());
}

#[test]
fn extension_headers_count() {
    check(&extensions(), &options());
}

#[test]
fn damage_is_told() {
    check(&damaged(), &options());
}

#[test]
fn sparse_files_of_all_versions_are_read() {
    check(&sparse(), &options());
}

#[test]
fn whiteouts_are_files_when_kept() {
    let keep = TarToExt4Options {
        whiteouts: TarWhiteouts::Keep,
        ..options()
    };
    let cases = [
        (
            "markers",
            Tar::new()
                .file("d/.wh..wh..opq", "")
                .file(".wh.a", "x")
                .file(".wh..wh.aufs", "")
                .file(".wh.b/c", "1")
                .end(),
            Tree(&[
                ".wh..wh.aufs",
                ".wh.a =x",
                ".wh.b/",
                ".wh.b/c =1",
                "d/",
                "d/.wh..wh..opq",
            ]),
        ),
        (
            "name that would fit without its prefix",
            {
                let name = format!(".wh.{}", "n".repeat(255));
                Tar::new()
                    .pax(b'x', &[("path", name.as_bytes())])
                    .file("x", "")
                    .end()
            },
            Error(UNSUPPORTED, &[".wh.nnn"]),
        ),
    ];
    check(&cases, &keep);
}

#[test]
fn backslashes_separate_when_asked() {
    let windows = TarToExt4Options {
        backslash_paths: true,
        ..options()
    };
    let tar = || Tar::new().file("a\\b", "1").hardlink("c\\d", "a\\b").end();
    check(
        &[(
            "separate",
            tar(),
            Tree(&["a/", "a/b n2 =1", "c/", "c/d ==a/b"]),
        )],
        &windows,
    );
    check(
        &[(
            "are letters otherwise",
            tar(),
            Tree(&["a\\\\b n2 =1", "c\\\\d ==a\\\\b"]),
        )],
        &options(),
    );
}

#[test]
fn small_blocks_and_inline_data_give_the_same_trees() {
    for (block_size, inline_data) in [(1024, false), (2048, false), (4096, true), (1024, true)] {
        let mut other = options();
        other.filesystem.block_size = block_size;
        other.filesystem.inline_data = inline_data;
        let cases: Vec<Case> = [basics(), replacing(), hard_links(), whiteouts(), sparse()]
            .into_iter()
            .flatten()
            // What does not fit into the smaller blocks has its own limits.
            .filter(|case| block_size == 4096 || !case.0.contains("symbolic link"))
            .collect();
        check(&cases, &other);
    }
}

#[test]
fn warnings_name_what_was_left_out() {
    let tar = Tar::new()
        .pax(b'x', &[("SCHILY.acl.access", b"user::rw-")])
        .file("a", "1")
        .raw([0; 1024])
        .raw("more")
        .0;
    let converted = tar_to_ext4(&tar[..], Vec::new(), &options()).unwrap();
    let lines: Vec<String> = converted.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(converted.warnings.total(), 2);
    assert!(lines[0].contains("end of the tar") || lines[1].contains("end of the tar"));
    assert!(
        lines
            .iter()
            .any(|line| line.contains("\"a\"") && line.contains("access control"))
    );
}
