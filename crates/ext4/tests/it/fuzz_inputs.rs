//! The inputs that are kept for fuzzing, as ordinary tests.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "these files are the fuzz targets' too"
)]

#[path = "../../../../fuzz/entries/ext4.rs"]
mod ext4;
#[path = "../../../../fuzz/entries/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/entries/journal.rs"]
mod journal;
#[path = "../../../../fuzz/entries/pieces.rs"]
mod pieces;

#[test]
fn images_are_read_or_refused() {
    inputs::each("ext4", 8, ext4::run);
}

#[test]
fn journals_are_replayed_or_refused() {
    inputs::each("journal", 8, journal::run);
}

#[test]
fn sealing_a_good_image_changes_nothing() {
    let opened = std::cell::Cell::new(0);
    inputs::each("ext4", 8, |input| {
        let image = pieces::Pieces::parse(input).unwrap().expand(4 << 20);
        if opengcs_ext4::Reader::open(image.as_slice()).is_ok() {
            let mut sealed = image.clone();
            ext4::seal(&mut sealed);
            let differ = image.iter().zip(&sealed).position(|(a, b)| a != b);
            assert_eq!(differ, None, "a byte differs");
            opened.set(opened.get() + 1);
        }
    });
    assert!(opened.get() >= 8, "only {} open", opened.get());
}
