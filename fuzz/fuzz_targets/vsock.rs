//! libFuzzer's way to `entries/vsock.rs`.
#![no_main]

#[path = "../entries/vsock.rs"]
mod vsock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vsock::run(bytes));
