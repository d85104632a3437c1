//! Tars that are cut, flipped or no tars.

use super::*;

pub(super) fn damaged() -> Vec<Case> {
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
            "far more directories than entries",
            (0..10u32)
                .fold(Tar::new(), |tar, number| {
                    let path = format!("{number}{}/x", "/a".repeat(2000));
                    tar.pax(b'x', &[("path", path.as_bytes())]).file("x", "")
                })
                .end(),
            Error(UNSUPPORTED, &["directories", "entries"]),
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
