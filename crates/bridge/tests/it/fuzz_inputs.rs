//! The inputs that are kept for fuzzing, as ordinary tests.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "these files are the fuzz targets' too"
)]

#[path = "../../../../fuzz/entries/bridge.rs"]
mod bridge;
#[path = "../../../../fuzz/entries/inputs.rs"]
mod inputs;

#[test]
fn conversations_are_answered_or_refused() {
    inputs::each("bridge", 3, bridge::run);
}
