//! The GCS bridge protocol: messages, frames, and sessions of both ends.
