//! Conversions judged from outside.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod copy;
mod corpus;
mod details;
mod disks;
mod folders;
mod forge;
mod judge;
mod listing;
mod publish;
mod round_trip;
mod scratch;
