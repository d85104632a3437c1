//! The inputs that are kept for fuzzing, as ordinary tests.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "these files are the fuzz targets' too"
)]

#[path = "../../../../fuzz/entries/export.rs"]
mod export;
#[path = "../../../../fuzz/entries/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/entries/pieces.rs"]
mod pieces;
#[path = "../../../../fuzz/entries/tar.rs"]
mod tar;

#[test]
fn tars_come_back_or_are_refused() {
    // The judge is a program of Linux, and started as one there.
    inputs::each("tar", 20, |input| tar::run(input, cfg!(unix)));
}

#[test]
fn images_are_exported_or_refused() {
    inputs::each("ext4", 8, export::run);
}

#[test]
fn what_broke_the_export_does_not_again() {
    inputs::each("export", 0, export::run);
}
