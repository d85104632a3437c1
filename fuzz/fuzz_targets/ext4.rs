//! An ext4 image: opened, journal replayed, and exported whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opengcs_layer::{DiskToTarOptions, ext4_to_tar};

fuzz_target!(|bytes: &[u8]| {
    let _ = ext4_to_tar(bytes, std::io::sink(), &DiskToTarOptions::default());
});
