//! Decides what is asked of Windows below the safe interfaces: `computecore.dll`, sockets, processes, files.
#![allow(
    unsafe_code,
    reason = "HCS and Winsock are interfaces of C, and the standard library knows neither"
)]

pub(super) mod file;
pub(super) mod library;
pub(super) mod process;
pub(super) mod socket;
pub(super) mod system;
pub(super) mod wide;
