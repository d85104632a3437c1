//! The protocol as a whole: recordings, malformed frames, and any chunking.

mod decoder;
mod malformed;
mod recording;
mod sessions;
