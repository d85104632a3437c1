//! The loopback interface, brought up over netlink.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// `RTM_NEWLINK`, as a change of an interface that is there.
const RTM_NEWLINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_AND_ACK: u16 = 1 | 4;
/// `IFF_UP`.
const IFF_UP: u32 = 1;
/// The loopback interface is the first of every network namespace.
const LOOPBACK: i32 = 1;

/// Brings `lo` up.
pub(super) fn up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // Protocol 0 of netlink: NETLINK_ROUTE.
        None,
    )?;
    send(&socket, &message(), SendFlags::empty())?;
    let mut answer = [0; 64];
    let (_, size) = recv(&socket, &mut answer, RecvFlags::empty())?;
    // `nlmsghdr`, then the `nlmsgerr` whose first word is 0 or a negative errno.
    let error = answer.get(..size).and_then(|answer| answer.get(16..20));
    let error = error.and_then(|word| Some(i32::from_ne_bytes(word.try_into().ok()?)));
    match error {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// `nlmsghdr` (16 bytes) and `ifinfomsg` (16 bytes).
fn message() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&32u32.to_ne_bytes());
    bytes.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    bytes.extend_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    bytes.extend_from_slice(&1u32.to_ne_bytes()); // sequence number
    bytes.extend_from_slice(&0u32.to_ne_bytes()); // port
    bytes.extend_from_slice(&[0; 4]); // family, padding, device type
    bytes.extend_from_slice(&LOOPBACK.to_ne_bytes());
    bytes.extend_from_slice(&IFF_UP.to_ne_bytes()); // flags
    bytes.extend_from_slice(&IFF_UP.to_ne_bytes()); // which of them to change
    bytes
}
