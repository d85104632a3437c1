//! The crate from outside: foreign judges and round trips.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking"
)]

#[cfg(unix)]
mod fast_commit;
#[cfg(unix)]
mod free;
mod fuzz_inputs;
#[cfg(unix)]
mod journal;
#[cfg(unix)]
mod journal_kernel;
#[cfg(unix)]
mod judge;
#[cfg(unix)]
mod read;
#[cfg(unix)]
mod read_attributes;
#[cfg(unix)]
mod read_features;
#[cfg(unix)]
mod read_hostile;
#[cfg(unix)]
mod read_kernel;
#[cfg(unix)]
mod read_tools;
#[cfg(unix)]
mod write;
#[cfg(unix)]
mod write_kernel;
#[cfg(unix)]
mod write_large;
#[cfg(unix)]
mod write_random;
