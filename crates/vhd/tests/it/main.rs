//! Disk files held against foreign tools, crashes and flipped bits.

#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod chain;
mod crash;
mod foreign;
mod fuzz_inputs;
mod hostile;
mod judge;
mod qemu;
mod reorder;
mod script;
mod vhdx;
