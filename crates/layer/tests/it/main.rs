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
#[cfg(unix)] // Folders of files with owners, modes, devices and links.
mod folders;
#[cfg(unix)] // Programs of Unix make these tars of such folders.
mod foreign_tars;
mod forge;
mod fuzz_inputs;
mod golden;
mod judge;
mod listing;
#[cfg(target_os = "linux")] // QEMU's locks; `windows` has those of Windows.
mod locks;
mod plan;
mod publication;
mod publish;
mod receipt;
#[cfg(target_os = "linux")] // Holes and loop devices of Linux.
mod reclaim;
mod round_trip;
mod scratch;
mod squash;
#[cfg(unix)]
// The trees are the same on every system; the program's tests have `veritysetup` judge one of Windows.
mod verity;
#[cfg(windows)]
mod windows;
