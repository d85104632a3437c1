//! The `gcs` binary.

fn main() {}
