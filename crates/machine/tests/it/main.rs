//! Tests of real machines. They need QEMU, and a kernel that `cargo xtask test` provides through
//! `OPENGCS_TEST_KERNEL` (a bzImage) and `OPENGCS_TEST_MODULES` (its module folder).
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking"
)]

mod fuzz_inputs;
mod guest;
mod lifecycle;
mod throughput;
mod vsock;
