//! The crate from outside: foreign judges and round trips.
