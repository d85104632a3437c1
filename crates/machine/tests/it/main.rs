//! Tests of machines: one suite that every backend passes, real ones under QEMU, and Hyper-V's backend on a
//! double of its library. Those with QEMU need a kernel that `cargo xtask test` provides through
//! `OPENGCS_TEST_KERNEL` (a bzImage) and `OPENGCS_TEST_MODULES` (its module folder).
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod conformance;
#[cfg(windows)]
mod double;
mod fake;
#[cfg(target_os = "linux")]
mod fuzz_inputs;
#[cfg(target_os = "linux")]
mod guest;
#[cfg(windows)]
mod hcs;
#[cfg(target_os = "linux")]
mod lifecycle;
#[cfg(target_os = "linux")]
mod qemu;
#[cfg(target_os = "linux")]
mod throughput;
#[cfg(target_os = "linux")]
mod vsock;
