//! libFuzzer's way to `entries/tar.rs`.
#![no_main]

#[path = "../entries/tar.rs"]
mod tar;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A sample goes to e2fsck: each input would be slow.
    let sum = bytes
        .iter()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(*byte));
    tar::run(bytes, sum % 128 == 0);
});
