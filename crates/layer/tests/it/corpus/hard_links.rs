//! Hard links, and what they may lead to.

use super::*;

pub(super) fn hard_links() -> Vec<Case> {
    vec![
        (
            "a whiteout of overlayfs with two names, as its upper folders have",
            Tar::new().device("a", b'3', 0, 0).hardlink("b", "a").end(),
            Tree(&["a n2 c0:0", "b ==a"]),
        ),
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
            "with its target's content behind it again, as pax -o linkdata has it",
            Tar::new()
                .file("a", vec![b'1'; 600])
                .header(&Header::new("b", b'1', 600).link("a"))
                .data(vec![b'1'; 600])
                .file("c", "2")
                .end(),
            Tree(&["a n2 =600#", "b ==a", "c =2"]),
        ),
        (
            "with a size and without content",
            Tar::new()
                .file("a", "1")
                .header(&Header::new("b", b'1', 600).link("a"))
                .file("c", "2")
                .end(),
            Tree(&["a n2 =1", "b ==a", "c =2"]),
        ),
        (
            "with a size and without content, at the end",
            Tar::new()
                .file("a", "1")
                .header(&Header::new("b", b'1', 600).link("a"))
                .end(),
            Tree(&["a n2 =1", "b ==a"]),
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
        (
            "to a symbolic link that is replaced later",
            Tar::new()
                .symlink("l", "old")
                .hardlink("h", "l")
                .dir("l")
                .file("l/x", "1")
                .end(),
            Tree(&["h ->old", "l/", "l/x =1"]),
        ),
        (
            "to what was replaced by a directory",
            Tar::new().file("a", "1").dir("a").hardlink("b", "a").end(),
            Error(CORRUPT, &["\"b\"", "\"a\"", "a directory"]),
        ),
        (
            "to the root",
            Tar::new().hardlink("b", "/").end(),
            Error(CORRUPT, &["\"b\"", "a directory"]),
        ),
        (
            "to itself before it is there",
            Tar::new().hardlink("a", "a").end(),
            Error(CORRUPT, &["\"a\"", "not in the tar before it"]),
        ),
        (
            "chained, the first name gone",
            Tar::new()
                .file("a", "1")
                .hardlink("b", "a")
                .hardlink("c", "b")
                .fifo("a")
                .end(),
            Tree(&["a p", "b n2 =1", "c ==b"]),
        ),
        (
            "without a target",
            Tar::new().file("a", "1").hardlink("b", "").end(),
            Error(CORRUPT, &["\"b\"", "a directory"]),
        ),
        (
            "to a directory that took the target's place, below which it lies",
            Tar::new()
                .file("a", "1")
                .hardlink("b", "a")
                .file("a/b", "2")
                .end(),
            Error(CORRUPT, &["\"a/b\"", "below \"a\""]),
        ),
        (
            "in place of the root",
            Tar::new().file("a", "1").hardlink("./", "a").end(),
            Error(CORRUPT, &["root"]),
        ),
    ]
}
