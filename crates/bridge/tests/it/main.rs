//! The protocol as a whole: recordings, malformed frames, and any chunking.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod decoder;
mod fuzz_inputs;
mod malformed;
mod recording;
mod sessions;
