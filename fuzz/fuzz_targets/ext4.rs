//! libFuzzer's way to `entries/ext4.rs`.
#![no_main]

#[path = "../entries/ext4.rs"]
mod ext4;
#[path = "../entries/pieces.rs"]
mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ext4::run(bytes));
