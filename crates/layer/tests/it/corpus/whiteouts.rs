//! Whiteouts and opaque markers, in any order.

use super::*;

pub(super) fn whiteouts() -> Vec<Case> {
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
            "a folder in the place of a whiteout's second name",
            Tar::new()
                .device("w", b'3', 0, 0)
                .hardlink("d", "w")
                .file("w", "1")
                .dir("d")
                .end(),
            Tree(&[OPAQUE, "w =1"]),
        ),
        (
            "below a whiteout's second name",
            Tar::new()
                .device("w", b'3', 0, 0)
                .hardlink("d", "w")
                .file("w", "1")
                .file("d/x", "2")
                .end(),
            Tree(&[OPAQUE, "d/x =2", "w =1"]),
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
        (
            "opaque between siblings, and a whiteout beside it",
            Tar::new()
                .file("d/a", "1")
                .file("d/.wh..wh..opq", "")
                .file("d/b", "2")
                .file("d/.wh.c", "")
                .dir("d/e")
                .end(),
            Tree(&[OPAQUE, "d/a =1", "d/b =2", "d/c c0:0 m0", "d/e/"]),
        ),
        (
            "opaque twice, and kept when the directory comes again",
            Tar::new()
                .file("d/.wh..wh..opq", "")
                .file("d/.wh..wh..opq", "")
                .header(&Header {
                    mode: octal(0o700, 8),
                    ..Header::new("d", b'5', 0)
                })
                .end(),
            Tree(&["d/ m700 {trusted.overlay.opaque=y}"]),
        ),
        (
            "opaque stays with the name of a directory that was a file in between",
            Tar::new()
                .file("d/.wh..wh..opq", "")
                .file("d", "1")
                .dir("d")
                .end(),
            Tree(&["d/ {trusted.overlay.opaque=y}"]),
        ),
        (
            "a whiteout hides what is below a directory also when a file came in between",
            Tar::new()
                .file(".wh.d", "")
                .file("d", "1")
                .dir("d")
                .file("e", "1")
                .file(".wh.e", "")
                .dir("e")
                .end(),
            Tree(&[
                "d/ {trusted.overlay.opaque=y}",
                "e/ {trusted.overlay.opaque=y}",
            ]),
        ),
        (
            "opaque marker as a directory and as a link",
            Tar::new()
                .dir("d/.wh..wh..opq")
                .symlink("e/.wh..wh..opq", "x")
                .end(),
            Tree(&[OPAQUE, "e/ {trusted.overlay.opaque=y}"]),
        ),
        (
            "whiteout below a file",
            Tar::new().file("a", "1").file("a/.wh.b", "").end(),
            Error(CORRUPT, &["a/.wh.b", "below \"a\"", "a file"]),
        ),
        (
            "whiteout of a name of 255 bytes",
            Tar::new()
                .pax(
                    b'x',
                    &[("path", [&b".wh."[..], &[b'n'; 255]].concat().as_slice())],
                )
                .file("x", "")
                .end(),
            Tree(leak(vec![format!("{} c0:0 m0", "n".repeat(255))])),
        ),
    ]
}
