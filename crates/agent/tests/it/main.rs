//! The agent as an ordinary process, with a host made of Unix sockets.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bridge;
mod consoles;
mod containers;
mod converters;
mod foreign;
mod hostile;
mod processes;
mod support;
