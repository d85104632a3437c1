//! The crate from outside: foreign judges and round trips.

mod judge;
mod read;
mod read_tools;
mod write;
