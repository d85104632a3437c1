//! Journals.

use crate::Corpus;

/// Programs as `entries/journal.rs` reads them: flags, start, first number, and steps.
pub fn make() {
    let corpus = Corpus::open("journal");
    // Write eight, commit; write some of them again and revoke others; commit; one not committed.
    let steps = [
        &[0x70_u8, 0, 1, 2, 3, 4, 5, 6, 7, 4][..],
        &[0x30, 1, 2, 3, 3, 0x13, 4, 5, 4],
        &[0x10, 4, 9, 0x03, 9, 4],
        &[0x20, 9, 10, 11, 0x00, 9, 5, 0x50, 20, 21, 22, 23, 24, 25],
    ]
    .concat();
    for (name, flags) in [
        ("none", 0),
        ("wide", 4),
        ("v2", 2),
        ("v2-wide", 6),
        ("v3", 3),
        ("v3-wide", 7),
    ] {
        corpus.put(name, &[&[flags, 0, 5], &steps[..]].concat());
        // The same at the end of the circle and of the numbers.
        corpus.put(
            &format!("{name}-round"),
            &[&[flags, 253, 0], &steps[..]].concat(),
        );
    }
    for (name, flags) in [("damaged", 3), ("damaged-plain", 0)] {
        let damage = [0x16, 0x48, 0, 0xff, 0x06, 0x40, 0x01, 8];
        corpus.put(name, &[&[flags, 0, 5], &steps[..], &damage].concat());
    }
    corpus.put(
        "own-blocks",
        &[&[7, 0, 5, 0x37, 1, 2, 3, 4, 4], &steps[..]].concat(),
    );
    corpus.put("empty", &[3, 0, 5]);
}
