//! Sparse files of all versions.

use super::*;

pub(super) fn sparse() -> Vec<Case> {
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
            "old GNU with a long name, its end a hole that no run tells of",
            Tar::new()
                .long(b'L', "n".repeat(130))
                .header(&Header {
                    tail: gnu_sparse_tail(&[(4096, 512)], false, 100_000),
                    ..Header::new("s", b'S', 512).gnu()
                })
                .data(block(b'a'))
                .file("z", "1")
                .end(),
            Tree(leak(vec![
                format!("{} =100000#", "n".repeat(130)),
                "z =1".into(),
            ])),
        ),
        (
            "PAX 0.0 with a long name of GNU's form",
            Tar::new()
                .long(b'L', "n".repeat(130))
                .pax(
                    b'x',
                    &[
                        ("GNU.sparse.size", b"100000"),
                        ("GNU.sparse.numblocks", b"1"),
                        ("GNU.sparse.offset", b"4096"),
                        ("GNU.sparse.numbytes", b"3"),
                    ],
                )
                .file("s", "abc")
                .end(),
            Tree(leak(vec![format!("{} =100000#", "n".repeat(130))])),
        ),
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
            "3 TiB, with data in the middle and at the end",
            pax(
                &[
                    ("GNU.sparse.size", b"3298534883328"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.map", b"2199023255552,512,3298534882816,512"),
                ],
                &data,
            ),
            Tree(&["s =3298534883328#", "z =1"]),
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
