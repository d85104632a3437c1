//! The crate from outside: foreign judges and round trips.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking"
)]

mod fast_commit;
mod fuzz_inputs;
mod journal;
mod journal_kernel;
mod judge;
mod read;
mod read_attributes;
mod read_features;
mod read_hostile;
mod read_kernel;
mod read_tools;
mod write;
mod write_kernel;
mod write_large;
mod write_random;
