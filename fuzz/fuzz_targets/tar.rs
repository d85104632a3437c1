//! A tar stream: what the writer takes, the reader must read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opengcs_layer::{DiskToTarOptions, ErrorKind, TarToExt4Options, ext4_to_tar, tar_to_ext4};

fuzz_target!(|bytes: &[u8]| {
    let mut image = vec![0; 8 << 20];
    let options = TarToExt4Options::default();
    if tar_to_ext4(bytes, image.as_mut_slice(), &options).is_ok() {
        let options = DiskToTarOptions::default();
        // Some content is refused for what it says (overlay redirects), none for how it lies there.
        if let Err(error) = ext4_to_tar(image.as_slice(), std::io::sink(), &options) {
            assert_ne!(error.kind(), ErrorKind::Corrupt, "our own image does not read: {error}");
        }
    }
});
