//! The `opengcs` command line.

fn main() {}
