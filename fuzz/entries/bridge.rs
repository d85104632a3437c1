//! Bytes of a connection, at both ends.

use opengcs_bridge::frame::Decoder;
use opengcs_bridge::message::Request;
use opengcs_bridge::{guest, host};

/// Lets both ends hear the bytes. Errors are fine, panics are not.
pub fn run(bytes: &[u8]) {
    let mut guest = guest::Session::new();
    let mut host = host::Session::new();
    let _ = host.request(&Request::negotiate(), ());
    let mut decoder = Decoder::new();
    let mut input = bytes;
    while let Ok(Some(frame)) = decoder.decode(&mut input) {
        let _ = guest.receive(&frame);
        let _ = host.receive(&frame);
    }
}
