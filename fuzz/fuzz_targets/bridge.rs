//! libFuzzer's way to `entries/bridge.rs`.
#![no_main]

#[path = "../entries/bridge.rs"]
mod bridge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::run(bytes));
