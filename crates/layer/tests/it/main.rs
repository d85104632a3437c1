//! Conversions judged from outside.

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
