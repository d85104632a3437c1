//! The inputs that are kept for fuzzing, as ordinary tests.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "these files are the fuzz targets' too"
)]

#[path = "../../../../fuzz/entries/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/entries/pieces.rs"]
mod pieces;
#[path = "../../../../fuzz/entries/vhd.rs"]
mod vhd;
#[path = "../../../../fuzz/entries/vhdx.rs"]
mod vhdx;

#[test]
fn vhds_are_read_or_refused() {
    inputs::each("vhd", 3, vhd::run);
}

#[test]
fn vhdxs_are_read_or_refused() {
    inputs::each("vhdx", 5, vhdx::run);
}
