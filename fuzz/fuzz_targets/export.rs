//! libFuzzer's way to `entries/export.rs`.
#![no_main]

#[path = "../entries/export.rs"]
mod export;
#[path = "../entries/pieces.rs"]
mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| export::run(bytes));
