//! The façade as its users meet it: the examples, run as programs.
//!
//! Those that start a VM are run by `vmtest`.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by a panic"
)]

mod examples;
mod names;
mod outside;
#[cfg(windows)]
mod sys;
#[cfg(windows)]
mod windows;
