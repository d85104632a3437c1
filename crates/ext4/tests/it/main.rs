//! The crate from outside: foreign judges and round trips.

mod read;
mod read_tools;
