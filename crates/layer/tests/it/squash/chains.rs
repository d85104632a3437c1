//! Chains of layers, as tars: odd ones by hand, and random ones.

use crate::forge::{Header, Tar, octal};

fn owned(name: &str, kind: u8, mode: u64, time: u64) -> Tar {
    Tar::new().header(&Header {
        mode: octal(mode, 8),
        uid: octal(1000, 8),
        gid: octal(100, 8),
        mtime: octal(time, 12),
        ..Header::new(name, kind, 0)
    })
}

fn join(parts: Vec<Tar>) -> Tar {
    Tar(parts.into_iter().flat_map(|part| part.0).collect())
}

/// Chains that a plain union gets wrong.
pub(super) fn odd_chains() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let t = Tar::new;
    vec![
        ("one layer", vec![t().dir("d/").file("d/a", "1").end()]),
        (
            "whiteout, then the name again",
            vec![
                t().file("a", "old").file("b", "kept").end(),
                t().file(".wh.a", "").end(),
                t().file("a", "new").end(),
            ],
        ),
        (
            "whiteout of what never was",
            vec![t().file("a", "1").end(), t().file(".wh.x", "").end()],
        ),
        (
            "opaque directory over a directory, with a child of the same name",
            vec![
                t().dir("d/")
                    .file("d/a", "old")
                    .dir("d/e/")
                    .file("d/e/x", "1")
                    .end(),
                t().dir("d/")
                    .file("d/.wh..wh..opq", "")
                    .dir("d/e/")
                    .file("d/b", "2")
                    .end(),
            ],
        ),
        (
            "opaque in the middle only",
            vec![
                t().dir("d/").file("d/a", "1").end(),
                t().dir("d/")
                    .file("d/.wh..wh..opq", "")
                    .file("d/b", "2")
                    .end(),
                t().dir("d/").file("d/c", "3").end(),
            ],
        ),
        (
            "directory to symbolic link and back",
            vec![
                t().dir("d/")
                    .file("d/a", "1")
                    .dir("e/")
                    .file("e/x", "")
                    .end(),
                t().symlink("d", "e").end(),
                t().dir("d/").file("d/b", "2").end(),
            ],
        ),
        (
            "file to directory to file",
            vec![
                t().file("a", "1").end(),
                t().dir("a/").file("a/b", "2").end(),
                t().file("a", "3").end(),
            ],
        ),
        (
            "whiteout of a directory that a later layer makes again",
            vec![
                t().dir("d/").file("d/a", "1").end(),
                t().file(".wh.d", "").end(),
                t().dir("d/").file("d/b", "2").end(),
            ],
        ),
        (
            "whiteout of one of two hard links",
            vec![
                t().file("a", "1")
                    .hardlink("b", "a")
                    .hardlink("c", "a")
                    .end(),
                t().file(".wh.a", "").end(),
            ],
        ),
        (
            "one of two hard links replaced, and links of its own above",
            vec![
                t().dir("d/").file("d/a", "1").hardlink("b", "d/a").end(),
                t().file("b", "2").hardlink("e", "b").end(),
            ],
        ),
        (
            "all hard links hidden but one",
            vec![
                t().file("a", "1").hardlink("b", "a").end(),
                t().file(".wh.a", "").file("z", "").end(),
            ],
        ),
        (
            "metadata of the uppermost directory",
            vec![
                join(vec![owned("d/", b'5', 0o700, 5), t().file("d/a", "1")]).end(),
                join(vec![
                    owned("d/", b'5', 0o1777, 9),
                    owned("d/b", b'0', 0o4755, 7),
                ])
                .end(),
            ],
        ),
        (
            "attributes, fifos and symbolic links",
            vec![
                t().pax(b'x', &[("SCHILY.xattr.user.a", b"old")])
                    .file("a", "1")
                    .fifo("p")
                    .symlink(
                        "l",
                        "somewhere/else/that/is/longer/than/sixty/bytes/and/so/has/a/block",
                    )
                    .end(),
                t().pax(
                    b'x',
                    &[
                        ("SCHILY.xattr.user.a", b"new"),
                        ("SCHILY.xattr.trusted.b", b"2"),
                    ],
                )
                .file("a", "1")
                .pax(b'x', &[("SCHILY.xattr.user.d", b"dir")])
                .dir("d/")
                .end(),
            ],
        ),
        (
            "whiteout below a directory that only the layer below has whole",
            vec![
                t().dir("d/")
                    .dir("d/e/")
                    .file("d/e/a", "1")
                    .file("d/e/b", "2")
                    .end(),
                t().dir("d/").dir("d/e/").file("d/e/.wh.a", "").end(),
            ],
        ),
    ]
}

/// A random tree of a layer: names are few, so that layers meet.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub(super) fn layer(&mut self) -> Vec<u8> {
        let mut files = Vec::new();
        self.folder(Tar::new(), "", 0, &mut files).end()
    }

    fn folder(&mut self, mut tar: Tar, path: &str, depth: u64, files: &mut Vec<String>) -> Tar {
        for name in ["a", "b", "c", "d"] {
            let path = format!("{path}{name}");
            let time = self.below(1000);
            match self.below(10) {
                0 | 1 => {
                    let content = format!("content {}", self.below(1000));
                    tar = tar
                        .header(&Header {
                            mtime: octal(time, 12),
                            ..Header::new(&path, b'0', content.len() as u64)
                        })
                        .data(content);
                    files.push(path);
                }
                2..=5 if depth < 4 => {
                    tar = tar.header(&Header {
                        mtime: octal(time, 12),
                        ..Header::new(format!("{path}/"), b'5', 0)
                    });
                    if self.below(5) == 0 {
                        tar = tar.file(format!("{path}/.wh..wh..opq"), "");
                    }
                    tar = self.folder(tar, &format!("{path}/"), depth + 1, files);
                }
                6 => tar = tar.symlink(&path, format!("target{time}")),
                7 => {
                    let folder = &path[..path.len() - 1];
                    tar = tar.file(format!("{folder}.wh.{name}"), "");
                }
                8 if !files.is_empty() => {
                    let target = &files[self.below(files.len() as u64) as usize];
                    tar = tar.hardlink(&path, target);
                }
                _ => {}
            }
        }
        tar
    }
}
