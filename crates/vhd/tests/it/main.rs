//! Disk files held against foreign tools, crashes and flipped bits.

// What takes long or is judged by QEMU is the same on every system, and is tried on one.
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod chain;
#[cfg(unix)]
mod crash;
mod foreign;
mod fuzz_inputs;
#[cfg(unix)]
mod hostile;
#[cfg(unix)]
mod judge;
#[cfg(unix)]
mod qemu;
#[cfg(unix)]
mod reclaim;
#[cfg(unix)]
mod reorder;
#[cfg_attr(
    not(unix),
    expect(dead_code, reason = "those that need it are not there")
)]
mod script;
mod vhdx;
