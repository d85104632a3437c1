//! Bytes of a connection, at both ends: errors are fine, panics are not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opengcs_bridge::frame::Decoder;
use opengcs_bridge::message::Request;
use opengcs_bridge::{guest, host};

fuzz_target!(|bytes: &[u8]| {
    let mut guest = guest::Session::new();
    let mut host = host::Session::new();
    let _ = host.request(&Request::negotiate(), ());
    let mut decoder = Decoder::new();
    let mut input = bytes;
    while let Ok(Some(frame)) = decoder.decode(&mut input) {
        let _ = guest.receive(&frame);
        let _ = host.receive(&frame);
    }
});
