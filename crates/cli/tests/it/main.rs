//! The command line as its users meet it: what it prints, what it exits with, what it leaves behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod chain;
mod conversions;
mod doctor;
mod events;
mod fixture;
#[cfg(unix)]
mod full_disk;
mod guest;
#[cfg(unix)]
mod guest_stop;
mod help;
mod hints;
mod inspect;
#[cfg(target_os = "linux")]
mod monitor;
mod plan;
#[cfg(windows)]
mod program;
mod receipt;
mod reclaim;
mod run;
mod scratch;
#[cfg(unix)]
mod signals;
#[cfg(target_os = "linux")]
mod silent;
mod snapshots;
mod squash;
#[cfg(unix)]
mod terminal;
#[cfg(windows)]
mod windows;
