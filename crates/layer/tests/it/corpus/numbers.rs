//! Numbers: octal, base-256, and times of all forms.

use super::*;

pub(super) fn numbers() -> Vec<Case> {
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
