//! Conversions judged from outside.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::semicolon_if_nothing_returned,
    unreachable_pub,
    reason = "tests fail by panicking, their numbers are small, and their modules are nobody else's"
)]

mod attributes;
mod chain;
mod copy;
mod corpus;
mod details;
mod determinism;
mod disks;
mod faults;
#[cfg(unix)]
mod folders;
#[cfg(unix)]
mod foreign_tars;
mod forge;
mod fuzz_inputs;
mod golden;
mod judge;
mod listing;
#[cfg(target_os = "linux")]
mod locks;
mod plan;
mod publication;
mod publish;
#[cfg(unix)]
mod receipt;
#[cfg(target_os = "linux")]
mod reclaim;
mod round_trip;
mod scratch;
mod squash;
#[cfg(unix)]
mod verity;
