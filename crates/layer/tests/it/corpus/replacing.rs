//! Entries that come again, as the same or as something else.

use super::*;

pub(super) fn replacing() -> Vec<Case> {
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
