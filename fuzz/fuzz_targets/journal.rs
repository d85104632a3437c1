//! libFuzzer's way to `entries/journal.rs`.
#![no_main]

#[path = "../entries/ext4.rs"]
mod ext4;
#[path = "../entries/journal.rs"]
mod journal;
#[path = "../entries/pieces.rs"]
mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| journal::run(bytes));
