//! libFuzzer's way to `entries/vhdx.rs`.
#![no_main]

#[path = "../entries/pieces.rs"]
mod pieces;
#[path = "../entries/vhd.rs"]
mod vhd;
#[path = "../entries/vhdx.rs"]
mod vhdx;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vhdx::run(bytes));
