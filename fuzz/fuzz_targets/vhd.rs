//! libFuzzer's way to `entries/vhd.rs`.
#![no_main]

#[path = "../entries/pieces.rs"]
mod pieces;
#[path = "../entries/vhd.rs"]
mod vhd;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vhd::run(bytes));
